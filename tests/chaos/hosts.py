"""Hosts of their own on one machine: network namespaces that can be cut off and healed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from gateways.sandbox.server import HOST

ROOT = Path(__file__).resolve().parents[2]


def why_not() -> str | None:
    """Why this machine cannot have network namespaces; ``None`` when it can."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if shutil.which("ip") is None:
        return "there is no `ip` command"
    tried = subprocess.run(
        ["ip", "netns", "add", f"duecourse-try-{os.getpid()}"],  # noqa: S607 - wherever it is
        check=False,
        capture_output=True,
        text=True,
    )
    if tried.returncode:
        return f"no network namespace may be made here: {tried.stderr.strip()}"
    _ip("netns", "del", f"duecourse-try-{os.getpid()}")
    return None


class Host:
    """A namespace with a network of its own, on whose 127.0.0.1 the given servers answer.

    ``servers`` are URLs on this machine's 127.0.0.1; they are the same on the host's.
    """

    def __init__(self, name: str, servers: Mapping[str, str], directory: Path) -> None:
        self._name = f"duecourse-{name}-{os.getpid()}"
        self._servers = servers
        self._directory = directory
        self._ends = ExitStack()

    def __enter__(self) -> Self:
        _ip("netns", "add", self._name)
        self._ends.callback(_ip, "netns", "del", self._name)
        self.heal()
        for name, url in self._servers.items():
            port = urlsplit(url).port
            socket = str(self._directory / f"{self._name}-{name}.sock")
            bridge = (sys.executable, "-m", "tests.chaos.bridge")
            self._spawn([*bridge, socket, f"{HOST}:{port}"])
            self._spawn([*self._inside, *bridge, f"{HOST}:{port}", socket])
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._ends.close()

    def start(self, *arguments: str, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start one of Duecourse's processes on the host: a module and its arguments."""
        return self._spawn([*self._inside, sys.executable, "-m", *arguments], environment)

    def cut_off(self) -> None:
        """Take the host's network down: what it sends vanishes, and nothing reaches it."""
        _ip("-n", self._name, "link", "set", "lo", "down")

    def heal(self) -> None:
        """Bring its network up."""
        _ip("-n", self._name, "link", "set", "lo", "up")

    @property
    def _inside(self) -> list[str]:
        return ["ip", "netns", "exec", self._name]

    def _spawn(
        self, command: list[str], environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        with (self._directory / f"{self._name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._ends.callback(process.wait)
        self._ends.callback(process.kill)
        return process


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)  # noqa: S607 - wherever it is
