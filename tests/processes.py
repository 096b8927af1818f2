"""Duecourse's own processes, started for real by a test."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from gateways.sandbox.redis import EmbeddedRedis

ROOT = Path(__file__).resolve().parent.parent

SECRET_KEY = "of-the-tests-and-of-nobodys-links"

COMMANDS = {
    "dispatcher": ["-m", "workers.dispatcher"],
    "worker": ["-m", "workers.main", "--queues", "billing,ops", "--threads", "4"],
    "payments": ["-m", "workers.main", "--queues", "payments", "--threads", "4"],
    "mail": ["-m", "workers.main", "--queues", "mail", "--threads", "4"],
    # One for every queue starts in a third of the time of three.
    "everything": ["-m", "workers.main", "--queues", "billing,ops,payments,mail", "--threads", "8"],
    "scheduler": ["-m", "scheduler.main"],
    "web": ["-m", "api.main"],
}


def without_vendors(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without anybody's settings of Stripe and SendGrid: tests call no real one."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(("STRIPE_", "SENDGRID_"))
    }


class Stack:
    """Starts, kills and stops real processes; stops all that are left when the test ends.

    Leases are short (2 s), so that a killed worker's job starts again within a test's patience.
    ``environment`` is what all of them get besides; vendors are never this machine's own.
    """

    def __init__(
        self,
        database_url: str,
        redis_server: EmbeddedRedis,
        *,
        logs: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.redis = redis_server
        self._logs = logs
        self._running: list[subprocess.Popen[bytes]] = []
        self._environment = {
            **without_vendors(os.environ),
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_server.url,
            "SECRET_KEY": SECRET_KEY,
            "DUECOURSE_LEASE_SECONDS": "2",
            "PYTHONWARNINGS": "error",
            **(environment or {}),
        }

    def know(self, environment: Mapping[str, str]) -> None:
        """Let all that start from now on have these settings besides."""
        self._environment |= environment

    def start(self, name: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start one more process of a kind."""
        log = (self._logs / f"{name}-{len(self._running)}.log").open("wb")
        with log:
            process = subprocess.Popen(
                [sys.executable, *COMMANDS[name]],
                cwd=ROOT,
                env={**self._environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._running.append(process)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """End a process as a crash would, with no chance to clean up."""
        process.kill()
        process.wait()

    def stop(self, process: subprocess.Popen[bytes], *, limit: float = 30.0) -> int:
        """Ask a process to end, as a deploy does; its exit code."""
        process.send_signal(signal.SIGTERM)
        return process.wait(limit)

    def logs(self) -> str:
        """Everything that the processes have written."""
        return "".join(path.read_text() for path in sorted(self._logs.glob("*.log")))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        for process in self._running:
            if process.poll() is None:
                process.kill()
        for process in self._running:
            process.wait()
