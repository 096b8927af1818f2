"""The whole stack on this machine: servers and processes, all ours, none outliving us."""

import fcntl
import http.client
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

import cli
from cli.failures import SettingsProblem
from cli.liveness import alive_processes
from gateways.sandbox.postgres import EmbeddedPostgres
from gateways.sandbox.processes import LocalServerError, hold, spawn
from gateways.sandbox.redis import EmbeddedRedis
from gateways.sandbox.sendgrid.events import EventKind
from gateways.sandbox.sendgrid.sandbox import SendGridSandbox
from gateways.sandbox.server import HOST, LocalServer, free_port
from gateways.sandbox.stripe.server import StripeSandbox
from gateways.stripe_events import REPORTING
from models import Account, ApiKey, Scope
from models.api_key import key_with_prefix, split_key
from models.database import connect
from models.schema import migrate
from settings import Settings, problems_of
from tasks.accounts import create_account
from workers.broker import connect_redis

DEFAULT_DIRECTORY = Path("var")
DEMO_ACCOUNT = "Demo"
API_KEY = "DUECOURSE_API_KEY"
SECRET_KEY = "SECRET_KEY"  # noqa: S105 - the setting's name
CODE = Path(cli.__file__).resolve().parents[1]
"""Where processes start: `python -m` looks in the working directory first."""

STRIPE = ("STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET", "STRIPE_API_BASE")
SENDGRID = ("SENDGRID_API_KEY", "SENDGRID_WEBHOOK_KEY", "SENDGRID_API_BASE")
VENDORS = (STRIPE, SENDGRID)
"""The settings of each vendor: our key, what verifies its events, where it is.

Without a key of the environment's a local server takes the vendor's place, and they are its.
"""

# The local servers take any key of this form; what they sign has a secret of its own.
LOCAL_STRIPE_KEY = "sk_test_local"
LOCAL_SENDGRID_KEY = "SG.local"

# In place of what is known only once it runs, so that all other settings can be checked before.
_TO_COME = {
    "DATABASE_URL": "postgresql://localhost/duecourse",
    "REDIS_URL": "redis://localhost/0",
    "PORT": "8000",
}

START_SECONDS = 60.0
PREDECESSOR_SECONDS = 15.0
# A probe of the lock, by another command, may be holding it right now.
OWNER_SECONDS = 0.5
POLL_SECONDS = 0.05
PORT_TRIES = 5
ANSWER_SECONDS = 1.0

RESTART_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
# One that ran this long had no trouble starting: its next restart waits the least again.
STEADY_AFTER_SECONDS = 60.0
# On top of the time that a worker takes to finish its jobs.
STOP_MARGIN_SECONDS = 5.0
LOG_TAIL_LINES = 5


@dataclass(frozen=True, slots=True)
class Part:
    """One process of the stack: its line in the Procfile, and the command after ``python``."""

    name: str
    arguments: tuple[str, ...]


PARTS = (
    Part("web", ("-m", "api.main")),
    Part("scheduler", ("-m", "scheduler.main")),
    Part("dispatcher", ("-m", "workers.dispatcher")),
    Part("worker", ("-m", "workers.main", "--queues", "billing,ops", "--threads", "8")),
    # Fewer threads than the Procfile's: all share one PostgreSQL of 200 connections.
    Part("payments", ("-m", "workers.main", "--queues", "payments", "--threads", "8")),
    Part("mail", ("-m", "workers.main", "--queues", "mail", "--threads", "4")),
)


@dataclass
class _Child:
    """A process of ours, and how often it had to be started again."""

    part: Part
    log: Path
    process: subprocess.Popen[bytes]
    started_at: float = field(default_factory=time.monotonic)
    failures: int = 0
    restart_at: float | None = None


def settings_file(directory: Path) -> Path:
    """Where a running stack leaves its settings for other commands."""
    return directory / "duecourse.env"


def owner_lock(directory: Path) -> Path:
    """What the process that runs a stack in ``directory`` holds, and rewrites when it starts."""
    return directory / "up.lock"


def is_running(directory: Path) -> bool:
    """Whether a stack runs in ``directory``: its owner holds the lock, however the last one ended."""
    try:
        descriptor = os.open(owner_lock(directory), os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def settings_from(values: Mapping[str, str], origin: str) -> Settings:
    """The settings, of which ``values`` come before the environment's.

    Raises:
        SettingsProblem: Some are wrong or missing; ``origin`` says where they were looked for.
    """
    try:
        return Settings.model_validate(values)
    except ValidationError as invalid:
        raise SettingsProblem(f"settings from {origin}: {problems_of(invalid)}") from None


def check_environment(environment: Mapping[str, str]) -> Settings:
    """The settings of a stack to be started, with made-up addresses for its own servers.

    Raises:
        SettingsProblem: Some are wrong, or are for a vendor whose key is not set.
    """
    given = {name: environment.get(name) or stand_in for name, stand_in in _TO_COME.items()}
    for key, *others in VENDORS:
        given |= {name: environment.get(name, "") for name in (key, *others)}
        without_key = [name for name in others if given[name] and not given[key]]
        if without_key:
            raise SettingsProblem(
                f"settings from the environment: {' and '.join(without_key)} without {key}: set "
                "it too, or none of them for a local server in the vendor's place"
            )
    return settings_from(given, "the environment")


class Stack:
    """The servers and every process, in ``directory``; what is given is not started.

    The servers are PostgreSQL, Redis, and a local Stripe and SendGrid, which tell the HTTP API
    what they do as the real ones would.

    Start it from the main thread, call ``tend`` often, and stop it. All of it also ends when we
    are killed.

    Args:
        directory: Holds the servers' data, the logs and, while all is ready, ``duecourse.env``.
        port: Of the HTTP API; when ``None``, ``PORT`` of the environment, else any free one.
        environment: What processes get; ``DATABASE_URL``, ``REDIS_URL``, ``STRIPE_SECRET_KEY``
            and ``SENDGRID_API_KEY`` in it are used instead of servers of our own.
        stopping: Ends a start that is under way.
        say: Hears, in one line each, what is worth telling while the stack runs.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int | None,
        environment: Mapping[str, str],
        stopping: threading.Event,
        say: Callable[[str], None],
    ) -> None:
        self.directory = directory.absolute()
        self.logs = self.directory / "logs"
        self.mails = self.directory / "sendgrid" / "mails"
        self.api_key = ""
        self._port: int | None = None
        self._given = frozenset(name for name, value in environment.items() if value)
        self._environment = dict(environment)
        if port is not None:
            self._environment["PORT"] = str(port)
        self._stopping = stopping
        self._say = say
        self._servers: list[LocalServer] = []
        self._stripe: StripeSandbox | None = None
        self._sendgrid: SendGridSandbox | None = None
        self._children: list[_Child] = []
        self._lock = -1
        self._ends = ExitStack()

    def start(self) -> None:
        """Start everything, and wait until all of it is ready.

        Raises:
            SettingsProblem: The environment has wrong settings; nothing was started.
            LocalServerError: Something cannot start, or we were told to stop meanwhile. Nothing
                is left running.
        """
        with ExitStack() as ends:
            self._start(ends)
            self._ends = ends.pop_all()

    def stop(self) -> None:
        """Let processes finish what they have in hand, then stop the servers.

        Raises:
            LocalServerError: A server did not stop when asked, and was killed.
        """
        self._ends.close()

    @property
    def settings(self) -> dict[str, str]:
        """What another command needs to talk to this stack; a vendor's key may be a real one."""
        ours = ("DATABASE_URL", "REDIS_URL", "PUBLIC_URL", "PORT", SECRET_KEY, API_KEY)
        vendors = (name for names in VENDORS for name in names)
        return {name: value for name in (*ours, *vendors) if (value := self._environment.get(name))}

    @property
    def printable_settings(self) -> dict[str, str]:
        """The settings without what signs, and the vendors' secrets that we were given: not ours to show."""
        hidden = {SECRET_KEY} | self._given & {STRIPE[0], STRIPE[1], SENDGRID[0]}
        return {name: value for name, value in self.settings.items() if name not in hidden}

    @property
    def url(self) -> str:
        """Where the HTTP API listens on this machine, whatever its public address."""
        return f"http://{HOST}:{self._environment['PORT']}"

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by name, of the servers that are ours and of every process."""
        servers = {server.name.lower(): server.pid for server in self._servers}
        return servers | {child.part.name: child.process.pid for child in self._children}

    def tend(self) -> None:
        """Start again what has ended by itself: servers at once, processes after a while.

        Raises:
            LocalServerError: A server cannot be started again.
        """
        for server in self._servers:
            if not server.is_running:
                self._restart(server)
        for child in self._children:
            self._tend(child)

    def _restart(self, server: LocalServer) -> None:
        self._say(f"{server.name} ended; starting it again (log: {server.log})")
        before = server.url
        if server.start() != before:
            raise LocalServerError(
                f"{server.name} is back on another port, where nobody looks for it: start anew"
            )

    def _tend(self, child: _Child) -> None:
        now = time.monotonic()
        status = child.process.poll()
        if status is None:
            return
        if child.restart_at is None:
            if now - child.started_at > STEADY_AFTER_SECONDS:
                child.failures = 0
            pause = RESTART_SECONDS[min(child.failures, len(RESTART_SECONDS) - 1)]
            child.failures += 1
            child.restart_at = now + pause
            self._say(
                f"{child.part.name} ended with status {status}; starting it again in "
                f"{pause:.0f} s (log: {child.log})"
            )
        elif now >= child.restart_at:
            child.process = self._spawn(child.part, child.log)
            child.started_at, child.restart_at = now, None

    def _start(self, ends: ExitStack) -> None:
        settings = check_environment(self._environment)
        if self._environment.get("PORT"):
            self._port = settings.port
        self._own(ends)
        if self._port is not None and not _is_free(self._port):
            raise LocalServerError(f"port {self._port} is in use: choose another with --port")
        if SECRET_KEY not in self._given:
            self._environment[SECRET_KEY] = _kept_secret(self.directory / "secret.key")
        self._start_servers(ends)
        settings = check_environment(self._environment)
        # The processes would start without it, and wait for it for ever.
        with closing(connect_redis(settings.redis_url)) as client:
            client.ping()
        engine = connect(settings.database_url, process="up", connections=1)
        ends.callback(engine.dispose)
        with engine.begin() as connection:
            migrate(connection)
        self._environment[API_KEY] = self.api_key = self._key(engine)
        limit = settings.drain_seconds + STOP_MARGIN_SECONDS
        ends.callback(self._stop_children, limit)
        self._start_processes(limit)
        self._expect_events()
        self._wait_for_heartbeats(engine)
        self._write_settings(ends)

    def _own(self, ends: ExitStack) -> None:
        """Make the directory ours, once the processes of a killed owner are gone from it."""
        # Passable, for a PostgreSQL that runs as another user; what is secret in it is mode 0600.
        self.directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        path = owner_lock(self.directory)
        owner = hold(path, limit=OWNER_SECONDS)
        if owner is None:
            raise LocalServerError(
                f"a stack runs in {self.directory} already (process {path.read_text() or '?'}): "
                "stop that one, or choose another directory with --dir"
            )
        ends.callback(os.close, owner)
        os.truncate(owner, 0)
        os.write(owner, str(os.getpid()).encode())
        settings_file(self.directory).unlink(missing_ok=True)
        lock = hold(self.directory / "processes.lock", limit=PREDECESSOR_SECONDS)
        if lock is None:
            raise LocalServerError(f"processes of an earlier stack still run in {self.directory}")
        ends.callback(os.close, lock)
        self._lock = lock

    def _start_servers(self, ends: ExitStack) -> None:
        if "DATABASE_URL" not in self._given:
            postgres = EmbeddedPostgres(self.directory / "postgres")
            self._environment["DATABASE_URL"] = self._start_server(postgres, ends)
        if "REDIS_URL" not in self._given:
            redis = EmbeddedRedis(self.directory / "redis")
            self._environment["REDIS_URL"] = self._start_server(redis, ends)
        if "STRIPE_SECRET_KEY" not in self._given:
            self._stripe = StripeSandbox(self.directory / "stripe")
            base = self._start_server(self._stripe, ends)
            # Kept with its data: what it signed before a restart is still to be trusted after.
            secret = self._stripe.control.settings()["webhook_secret"]
            secret = secret or f"whsec_{secrets.token_urlsafe(24)}"
            self._stripe.control.set(webhook_secret=secret)
            self._environment |= zip(STRIPE, (LOCAL_STRIPE_KEY, secret, base), strict=True)
        if "SENDGRID_API_KEY" not in self._given:
            self._sendgrid = SendGridSandbox(self.directory / "sendgrid")
            base = self._start_server(self._sendgrid, ends)
            with closing(self._sendgrid.control()) as control:
                values = (LOCAL_SENDGRID_KEY, control.public_key(), base)
            self._environment |= zip(SENDGRID, values, strict=True)

    def _start_server(self, server: LocalServer, ends: ExitStack) -> str:
        if self._stopping.is_set():
            raise LocalServerError("stopped before it was ready")
        self._servers.append(server)
        ends.callback(server.stop)
        return server.start()

    def _expect_events(self) -> None:
        """Have the local vendors tell the API what they do; they keep trying until it listens."""
        if self._stripe is not None:
            # As in the settings of an endpoint at Stripe: no more than is of use.
            self._stripe.control.set(webhook_events=",".join(sorted(REPORTING)))
            self._stripe.control.set_webhook(
                f"{self.url}/webhooks/stripe", self._environment["STRIPE_WEBHOOK_SECRET"]
            )
        elif "STRIPE_WEBHOOK_SECRET" not in self._given:
            self._say("STRIPE_WEBHOOK_SECRET is not set: what Stripe reports is not taken")
        if self._sendgrid is not None:
            with closing(self._sendgrid.control()) as control:
                control.set_webhook(
                    f"{self.url}/webhooks/sendgrid",
                    automatic=(EventKind.DELIVERED,),
                )
        elif "SENDGRID_WEBHOOK_KEY" not in self._given:
            self._say("SENDGRID_WEBHOOK_KEY is not set: what SendGrid reports is not taken")

    def _key(self, engine: Engine) -> str:
        """A key of the first account; the same one at every start, so that callers can keep it."""
        path = self.directory / "api-key"
        with Session(engine) as session, session.begin():
            with suppress(FileNotFoundError):
                text = path.read_text().strip()
                parts = split_key(text)
                kept = session.scalar(key_with_prefix(parts[0])) if parts else None
                if parts is not None and kept is not None and kept.admits(parts[1]):
                    return text
            account = session.scalar(select(Account).order_by(Account.created_at).limit(1))
            account = account or create_account(session, DEMO_ACCOUNT)
            key, text = ApiKey.issue(account.id, set(Scope))
            session.add(key)
        _write_secret(path, text + "\n")
        return text

    def _child(self, part: Part) -> _Child:
        self.logs.mkdir(exist_ok=True)
        log = self.logs / f"{part.name}.log"
        if log.exists():
            log.replace(log.with_suffix(".previous.log"))
        return _Child(part, log, self._spawn(part, log))

    def _spawn(self, part: Part, log: Path) -> subprocess.Popen[bytes]:
        log.touch(mode=0o600)
        with log.open("ab") as output:
            return spawn(
                [sys.executable, *part.arguments],
                cwd=CODE,
                output=output,
                lock=self._lock,
                # What it had in hand is a job with a lease; another process takes it over.
                death_signal=signal.SIGKILL,
                environment={**self._environment, "PYTHONUNBUFFERED": "1"},
            )

    def _start_processes(self, limit: float) -> None:
        """Start all, and wait for the API; on another port when somebody took ours meanwhile.

        Every process knows the public address, which has the port in it: with the port they are
        all started anew.

        Args:
            limit: How many seconds they may take to stop for that.
        """
        given_url = self._environment.get("PUBLIC_URL")
        for _ in range(PORT_TRIES):
            port = self._port or free_port()
            self._environment["PORT"] = str(port)
            self._environment["PUBLIC_URL"] = given_url or f"http://{HOST}:{port}"
            for part in PARTS:
                self._children.append(self._child(part))
            web = self._children[0]
            for _ in self._patiently("the API"):
                if web.process.poll() is not None or _answers(port):
                    break
            if web.process.poll() is None:
                return
            if self._port is not None or _is_free(port):
                raise _ended_early(web)
            self._stop_children(limit)
            self._children.clear()
        raise LocalServerError("the API found no free port")

    def _wait_for_heartbeats(self, engine: Engine) -> None:
        host = socket.gethostname()
        for _ in self._patiently("a heartbeat of every process"):
            for child in self._children:
                if child.process.poll() is not None:
                    raise _ended_early(child)
            with Session(engine) as session:
                beating = {one.pid for one in alive_processes(session) if one.host == host}
            if beating >= {child.process.pid for child in self._children}:
                return

    def _patiently(self, what: str) -> Iterator[None]:
        """Rounds of waiting for ``what``, until it takes too long or we are told to stop."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            yield
            if self._stopping.wait(POLL_SECONDS):
                raise LocalServerError("stopped before it was ready")
        raise LocalServerError(f"no sign of {what} after {START_SECONDS:.0f} s, see {self.logs}")

    def _write_settings(self, ends: ExitStack) -> None:
        path = settings_file(self.directory)
        ends.callback(path.unlink, missing_ok=True)
        lines = (f"{name}={shlex.quote(value)}\n" for name, value in self.settings.items())
        _write_secret(path, "".join(lines))

    def _stop_children(self, limit: float) -> None:
        """Ask all at once, so that together they take no longer than the slowest."""
        for child in self._children:
            child.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + limit
        for child in self._children:
            with suppress(subprocess.TimeoutExpired):
                child.process.wait(max(0.0, deadline - time.monotonic()))
                continue
            self._say(f"{child.part.name} did not stop within {limit:.0f} s and is killed")
            child.process.kill()
            child.process.wait()


def _kept_secret(path: Path) -> str:
    """The directory's own secret: links that were sent stay good after a restart."""
    if not path.exists():
        _write_secret(path, secrets.token_urlsafe(32))
    return path.read_text()


def _write_secret(path: Path, text: str) -> None:
    """Write a file for our eyes only, so that it is there whole or not at all."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    unfinished.touch(mode=0o600)
    unfinished.write_text(text)
    unfinished.replace(path)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _answers(port: int) -> bool:
    """Whether the API says that it is ready."""
    connection = http.client.HTTPConnection(HOST, port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _ended_early(child: _Child) -> LocalServerError:
    lines = child.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
    tail = "".join(f"\n  {line}" for line in lines)
    return LocalServerError(
        f"{child.part.name} ended with status {child.process.returncode} before it was ready"
        f"{tail}\n  (from {child.log})"
    )


@contextmanager
def deaf_to_signals() -> Iterator[None]:
    """No Ctrl-C and no SIGTERM while the block cleans up."""
    before = {one: signal.signal(one, signal.SIG_IGN) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
