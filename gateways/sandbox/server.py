"""The life of a local server: one owner, one directory, one child process, one free port."""

import os
import secrets
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, ClassVar, Self

from gateways.sandbox.processes import LocalServerError, SystemUser, end, exited, hold, spawn

HOST = "127.0.0.1"
# Below the range kernels give to outgoing connections: a client that keeps calling a stopped
# server can otherwise be given the server's own port, talk to itself and keep the port.
FIRST_PORT, PORTS = 20_000, 12_000
PORT_TRIES = 20

START_SECONDS = 60.0
STOP_SECONDS = 30.0
PREDECESSOR_SECONDS = 15.0
POLL_SECONDS = 0.01
LOG_TAIL_LINES = 12


class LocalServer(ABC):
    """A server on a free port of the loopback interface, with its data in ``directory``.

    Use it as a context manager, or call ``start`` and ``stop``. ``start`` after ``stop``, or after
    the server died, gives the same data, and the same port unless another took it meanwhile.
    """

    name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]
    death_signal: ClassVar[signal.Signals]
    user: SystemUser | None = None

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self.log = self.directory / f"{self.name.lower()}.log"
        self._port: int | None = None
        self._owner_lock: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def is_running(self) -> bool:
        """Whether the server was started and lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The server's process id.

        Raises:
            LocalServerError: It was not started, or was stopped.
        """
        if self._process is None:
            raise LocalServerError(f"{self.name} is not running")
        return self._process.pid

    @property
    def url(self) -> str:
        """Where clients connect, with the password.

        Raises:
            LocalServerError: It was never started.
        """
        if self._port is None:
            raise LocalServerError(f"{self.name} is not running")
        return self._url(self._port)

    def start(self) -> str:
        """Start the server, wait until it answers, and return its URL.

        Raises:
            LocalServerError: Another process owns the directory; no free port was found; the
                server is not installed, stopped at once, or did not answer within a minute.
        """
        if self.is_running:
            return self.url
        try:
            self._own()
            self._serve()
        except OSError as error:
            self.stop()
            raise LocalServerError(f"{self.name} cannot use {self.directory}: {error}") from error
        except BaseException:
            self.stop()
            raise
        return self.url

    def stop(self) -> None:
        """Stop the server and give its directory free. Stopping twice is harmless.

        Raises:
            LocalServerError: It did not stop when asked, and was killed.
        """
        process, self._process = self._process, None
        try:
            if process is not None and not end(process, ask=self.stop_signal, limit=STOP_SECONDS):
                raise LocalServerError(
                    f"{self.name} did not stop within {STOP_SECONDS:.0f} s and was killed"
                    + self._log_tail()
                )
        finally:
            if self._owner_lock is not None:
                os.close(self._owner_lock)
                self._owner_lock = None

    def kill(self) -> None:
        """End the server as a crash would. Its directory stays ours, ready for ``start``."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @abstractmethod
    def _prepare(self, output: BinaryIO, lock: int) -> None:
        """Make the directory ready for a start; commands write to ``output`` and keep ``lock``."""

    @abstractmethod
    def _command(self, port: int) -> Sequence[str | Path]:
        """The command that serves on ``port``."""

    @abstractmethod
    def _answers(self, port: int) -> bool:
        """Whether it is our server that answers on ``port``."""

    @abstractmethod
    def _url(self, port: int) -> str:
        """Where clients connect."""

    def _own(self) -> None:
        if self._owner_lock is not None:
            return
        # Passable, for a server that runs as another user; what is secret in it is mode 0600.
        self.directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        path = self.directory / "owner.lock"
        lock = hold(path)
        if lock is None:
            raise LocalServerError(
                f"{self.directory} is in use by process {path.read_text() or '?'}: "
                "stop that one first, or choose another directory"
            )
        self._owner_lock = lock
        os.truncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())

    def _serve(self) -> None:
        """Start on a free port.

        The server's lock is its own, apart from ours: it tells that the server of a killed
        owner, down to its last child, is gone.
        """
        lock = hold(self.directory / "server.lock", limit=PREDECESSOR_SECONDS)
        if lock is None:
            raise LocalServerError(
                f"an earlier {self.name} still runs in {self.directory}: stop it first"
            )
        try:
            if self.log.exists():
                self.log.replace(self.log.with_suffix(".previous.log"))
            self.log.touch(mode=0o600)
            with self.log.open("ab") as output:
                self._prepare(output, lock)
                for _ in range(PORT_TRIES):
                    port = self._port or free_port()
                    if self._serves(port, output, lock):
                        self._port = port
                        return
                    self._port = None
        finally:
            os.close(lock)
        raise LocalServerError(f"{self.name} found no free port" + self._log_tail())

    def _serves(self, port: int, output: BinaryIO, lock: int) -> bool:
        """Whether the server now runs on ``port``; false when another took it first."""
        logged_before = self.log.stat().st_size
        self._process = process = self._spawn(self._command(port), output, lock)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers(port):
            if exited(process, within=POLL_SECONDS):
                self._process = None
                if b"Address already in use" in self.log.read_bytes()[logged_before:]:
                    return False
                raise LocalServerError(
                    f"{self.name} ended with status {process.returncode} before it was ready"
                    + self._log_tail()
                )
            if time.monotonic() >= deadline:
                raise LocalServerError(
                    f"{self.name} did not answer within {START_SECONDS:.0f} s" + self._log_tail()
                )
        return True

    def _run(self, command: Sequence[str | Path], output: BinaryIO, lock: int) -> None:
        """Run a command that prepares the server, to its end."""
        process = self._spawn(command, output, lock, death_signal=signal.SIGKILL)
        try:
            ended = exited(process, within=START_SECONDS)
        finally:
            process.kill()
            process.wait()
        if not ended or process.returncode != 0:
            outcome = f"failed with status {process.returncode}" if ended else "did not end"
            raise LocalServerError(f"{Path(command[0]).name} {outcome}" + self._log_tail())

    def _spawn(
        self,
        command: Sequence[str | Path],
        output: BinaryIO,
        lock: int,
        *,
        death_signal: signal.Signals | None = None,
    ) -> subprocess.Popen[bytes]:
        return spawn(
            command,
            cwd=self.directory,
            output=output,
            lock=lock,
            death_signal=death_signal or self.death_signal,
            user=self.user,
        )

    def _log_tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return "".join(f"\n  {line}" for line in lines) + f"\n  (from {self.log})"


def free_port() -> int:
    """A port that nobody listened on just now; whoever binds it first has it."""
    for _ in range(PORT_TRIES):
        port = FIRST_PORT + secrets.randbelow(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return port
    raise LocalServerError(f"no free port between {FIRST_PORT} and {FIRST_PORT + PORTS} on {HOST}")
