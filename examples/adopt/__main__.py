"""Serves the shop on servers of its own: `python -m examples.adopt before`, or `after`."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.servers import PostgresServer, RedisServer, valkey_binary

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def lay_out(state: str, directory: Path) -> Path:
    """Copies the shop into ``directory``, as it was "before" or with the patch, "after"; returns where it is."""
    if state not in ("before", "after"):
        raise ValueError(f"{state!r} is neither before nor after")
    shop = directory / "shop"
    shutil.copytree(HERE / "before", shop, ignore=shutil.ignore_patterns("__pycache__", ".*", "ruff.toml"))
    if state == "after":
        command = ["patch", "--strip=1", "--silent", f"--input={HERE / 'adopt.patch'}"]
        subprocess.run(command, cwd=shop, check=True)
    return shop


def environment(database_url: str, redis_url: str | None) -> dict[str, str]:
    """Returns the environment of the shop: its own setting, and those of diptych, which "before" does not read."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DIPTYCH_")}
    return {
        **kept,
        "SHOP_DATABASE": database_url.replace("postgresql://", "postgresql+asyncpg://"),
        "DIPTYCH_CREATE_TABLES": "false",
        **({} if redis_url is None else {"DIPTYCH_REDIS_URL": redis_url}),
    }


def main(state: str) -> None:
    """Serves the shop until Ctrl+C or SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with ExitStack() as exits:
        shop = lay_out(state, Path(exits.enter_context(TemporaryDirectory())))
        postgres = exits.enter_context(PostgresServer())
        binary = valkey_binary()
        valkey = None if binary is None else exits.enter_context(RedisServer(binary))
        settings = environment(postgres.url, None if valkey is None else valkey.url)
        run = [sys.executable, "-m"]
        subprocess.run([*run, "alembic", "upgrade", "head"], cwd=shop, env=settings, check=True)
        serve = [*run, "uvicorn", "shop.main:app", "--port", os.environ.get("PORT", "8000")]
        server = exits.enter_context(subprocess.Popen(serve, cwd=shop, env=settings))
        exits.callback(server.terminate)
        with suppress(KeyboardInterrupt):
            server.wait()


if __name__ == "__main__":
    if sys.argv[1:] not in (["before"], ["after"]):
        sys.exit("usage: python -m examples.adopt before|after")
    main(sys.argv[1])
