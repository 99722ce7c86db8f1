"""Installs the peer that is written for NestJS, where there are node and npm. Nothing is installed by hand.

Its lock file is renewed in ``peers/nestjs`` by ``npm update --package-lock-only
--omit-lockfile-registry-resolved``, so that it names versions and hashes, and no registry.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import msgspec

SOURCE = Path(__file__).parent / "peers" / "nestjs"
_TOLD = ("@nestjs/core", "@nestjs/cqrs", "fastify", "ioredis")
_FILES = ("package.json", "package-lock.json", "tsconfig.json", "src/main.ts")


class Installed(NamedTuple):
    """The program that runs it, and what it runs."""

    node: str
    main: Path


def install() -> Installed | None:
    """What is to be run; without node or npm, or if npm fails, it says so and returns None.

    It goes into the virtual environment, which git ignores and ``make clean`` removes; a second time there is
    nothing to do unless the files here have changed.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        print("NestJS is left out: there is no node, or no npm.", flush=True)
        return None
    folder = _folder()
    stamp, wanted = folder / "installed", _fingerprint()
    if not stamp.exists() or stamp.read_text() != wanted:
        try:
            _install_into(folder, npm)
        except subprocess.CalledProcessError as error:
            print(f"NestJS is left out: npm could not install it.\n{error.stdout[-2000:]}", flush=True)
            return None
        stamp.write_text(wanted)
    return Installed(node, folder / "dist" / "main.js")


def versions() -> dict[str, str]:
    """Of node and the packages, by what they are told under; empty if nothing is installed."""
    modules = _folder() / "node_modules"
    if not modules.exists():
        return {}
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    told = {name: msgspec.json.decode((modules / name / "package.json").read_bytes()) for name in _TOLD}
    return {"Node": ", ".join([f"node {node}", *(f"{name} {one['version']}" for name, one in told.items())])}


def _folder() -> Path:
    return Path(sys.prefix) / "nestjs"


def _fingerprint() -> str:
    return hashlib.sha256(b"\0".join((SOURCE / name).read_bytes() for name in _FILES)).hexdigest()


def _install_into(folder: Path, npm: str) -> None:
    print("Installing NestJS, the first time …", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    for name in _FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(SOURCE / name, folder / name)
    for command in ("ci", "run build"):
        subprocess.run(
            [npm, *command.split(), "--no-audit", "--no-fund"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
        )
