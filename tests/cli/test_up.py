import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import psycopg
import pytest
from rich.console import Console

from cli import up
from cli.context import read_settings_file
from cli.stack import PARTS, SECRET_KEY, SENDGRID, STRIPE, Stack, is_running
from gateways.mail import Accepted, Mail, Mailbox
from gateways.sandbox.processes import hold
from gateways.sandbox.sendgrid.client import SendGridControl
from gateways.sandbox.server import free_port
from gateways.sandbox.stripe.control import StripeSandboxControl
from gateways.sendgrid_mail import SendGridMail
from tests.cli.conftest import Command
from tests.processes import ROOT, without_vendors
from tests.waiting import wait_for

LIMIT_SECONDS = 60.0
SERVERS = ("postgres", "redis", "stripe", "sendgrid")
LOCKS = ("up.lock", "processes.lock", *(f"{server}/server.lock" for server in SERVERS))
SETTINGS = ("DATABASE_URL", "REDIS_URL", "PORT", "PUBLIC_URL", "DUECOURSE_API_KEY")
ENVIRONMENT = {
    name: value for name, value in without_vendors(os.environ).items() if name not in SETTINGS
}


NO_VENDORS = dict.fromkeys((*STRIPE, *SENDGRID), "")
A_MAIL = Mail(
    sender=Mailbox("a@a.example"), to=(Mailbox("b@b.example"),), subject="Hello", text="There"
)


class Up:
    """``duecourse up`` as a process, ready."""

    def __init__(self, directory: Path, **given: str) -> None:
        self.directory = directory
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "up", "--dir", str(directory), "--json"],
            cwd=ROOT,
            env={**ENVIRONMENT, **given},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for(self._is_ready, limit=LIMIT_SECONDS, what="up")
        self.settings = read_settings_file(directory / "duecourse.env")

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, self.process.communicate()
        return (self.directory / "duecourse.env").exists()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def stop(self) -> dict[str, Any]:
        """Ask it to stop as a service manager does; what it printed."""
        self.process.send_signal(signal.SIGTERM)
        stdout, stderr = self.process.communicate(timeout=LIMIT_SECONDS)
        assert self.process.returncode == 0, stderr
        return dict(json.loads(stdout))

    def pid_of(self, kind: str) -> int:
        """The process of this kind whose heart beat last."""
        newest = "SELECT pid FROM processes WHERE kind = %s ORDER BY heartbeat_at DESC LIMIT 1"
        with psycopg.connect(self.settings["DATABASE_URL"]) as connection:
            (pid,) = connection.execute(newest, [kind]).fetchone() or (0,)
        return int(pid)

    def get(self, path: str) -> tuple[int, bytes]:
        """Ask its API, with its key."""
        connection = http.client.HTTPConnection(urlsplit(self.settings["PUBLIC_URL"]).netloc)
        key = self.settings["DUECOURSE_API_KEY"]
        connection.request("GET", path, headers={"Authorization": f"Bearer {key}"})
        response = connection.getresponse()
        answer = response.status, response.read()
        connection.close()
        return answer


def run(*arguments: str | Path, **given: str) -> "subprocess.CompletedProcess[str]":
    """Another command, as its own process."""
    return run_for(LIMIT_SECONDS, *arguments, **given)


def run_for(
    limit: float, *arguments: str | Path, **given: str
) -> "subprocess.CompletedProcess[str]":
    """The same for a command that may take so many seconds."""
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *map(str, arguments)],
        cwd=ROOT,
        env={**ENVIRONMENT, **given},
        capture_output=True,
        text=True,
        check=False,
        timeout=limit,
    )


def pid_at(url: str) -> int | None:
    """The process that serves a local vendor, if one does."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=1)
    with closing(connection), suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/_sandbox/health")
        return int(json.loads(connection.getresponse().read())["pid"])
    return None


def is_left(directory: Path) -> bool:
    """Whether any process still holds a lock of the stack; zombies, which a pid names, do not."""
    with ExitStack() as held:
        for path in (directory / name for name in LOCKS if (directory / name).exists()):
            lock = hold(path)
            if lock is None:
                return True
            held.callback(os.close, lock)
    return False


@pytest.fixture
def home(directory: Path) -> Iterator[Path]:
    """An empty folder that PostgreSQL's own user may pass."""
    with tempfile.TemporaryDirectory(dir=directory, ignore_cleanup_errors=True) as path:
        yield Path(path)


def test_a_stack_serves_is_alone_in_its_directory_and_leaves_nothing_behind(home: Path) -> None:
    stack = home / "a stack"
    with Up(stack) as up:
        assert (stack / "duecourse.env").stat().st_mode & 0o777 == 0o600
        assert up.get("/readyz")[0] == 200
        assert up.get("/v1/clients")[0] == 200
        healthy = run("doctor", "--dir", stack)
        assert healthy.returncode == 0, healthy.stdout
        second = run("up", "--dir", stack)
        assert second.returncode == 1
        assert f"a stack runs in {stack} already (process {up.process.pid})" in second.stderr
        assert len(second.stderr.splitlines()) <= 2
        run("account", "create", "Kept", "--dir", stack)
        told = up.stop()
    servers = {"postgresql", "redis", "stripe", "sendgrid"}
    assert set(told["pids"]) == servers | {part.name for part in PARTS}
    shown = {name: value for name, value in up.settings.items() if name != SECRET_KEY}
    assert {name: told[name] for name in shown} == shown
    assert SECRET_KEY not in told
    assert not is_left(stack)
    assert not is_running(stack)
    assert not (stack / "duecourse.env").exists()
    assert {path.stem for path in (stack / "logs").iterdir()} == {part.name for part in PARTS}

    port = str(free_port())
    with Up(stack, PORT=port, PUBLIC_URL="https://bills.example") as again:
        assert again.settings["PORT"] == port
        assert again.settings["PUBLIC_URL"] == "https://bills.example"
        assert again.settings["DUECOURSE_API_KEY"] == up.settings["DUECOURSE_API_KEY"]
        listed = run("audit", "--account", "Kept", "--dir", stack)
        assert listed.returncode == 0, listed.stderr
        told_again = again.stop()
    assert told_again["url"] == f"http://127.0.0.1:{port}"
    assert told_again["pids"]["worker"] != told["pids"]["worker"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's help is Linux's")
def test_a_killed_stack_leaves_nothing_behind_while_another_mends_itself(
    home: Path, database_url: str, redis_url: str
) -> None:
    given = {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
    with Up(home / "one") as one, Up(home / "two", **given) as two:
        assert one.settings["PORT"] != two.settings["PORT"]
        one.process.kill()
        one.process.wait()
        wait_for(lambda: not is_left(home / "one"), what="an end of every process")
        stale = run("audit", "--dir", home / "one")
        assert stale.returncode == 2
        assert "no stack runs in" in stale.stderr
        assert not is_running(home / "one")
        assert is_running(home / "two")

        dispatcher = two.pid_of("dispatcher")
        os.kill(dispatcher, signal.SIGKILL)
        wait_for(
            lambda: two.pid_of("dispatcher") != dispatcher,
            limit=LIMIT_SECONDS,
            what="another dispatcher",
        )
        assert two.get("/readyz")[0] == 200
        two.process.send_signal(signal.SIGINT)
        started, told = two.process.communicate(timeout=LIMIT_SECONDS)
        assert two.process.returncode == 0
        ours = {part.name for part in PARTS} | {"stripe", "sendgrid"}
        assert set(json.loads(started)["pids"]) == ours
        assert "dispatcher ended with status -9; starting it again in 1 s" in told
        assert not is_left(home / "two")


def test_local_vendors_are_checked_brought_back_and_remembered(
    home: Path, database_url: str, redis_url: str
) -> None:
    given = {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
    with Up(home / "stack", **given) as up:
        before = up.settings
        assert before["STRIPE_SECRET_KEY"].startswith("sk_test_")
        assert before["SENDGRID_API_KEY"].startswith("SG.")
        doctor = run("doctor", "--json", **before)
        checks = {check["name"]: check for check in json.loads(doctor.stdout)["checks"]}
        for name in ("stripe", "stripe events", "sendgrid", "sendgrid events"):
            assert (checks[name]["ok"], checks[name]["missed"]) == (True, False)

        stripe = StripeSandboxControl(before["STRIPE_API_BASE"])
        events_go_to = f"http://127.0.0.1:{before['PORT']}/webhooks/stripe"
        assert stripe.settings()["webhook_url"] == events_go_to
        assert stripe.settings()["webhook_secret"] == before["STRIPE_WEBHOOK_SECRET"]
        assert "payment_intent.succeeded" in stripe.settings()["webhook_events"].split(",")
        stripe.emit("customer.created", {"id": "cus_1", "object": "customer"})
        with SendGridMail(before["SENDGRID_API_KEY"], host=before["SENDGRID_API_BASE"]) as mail:
            assert isinstance(mail.send(A_MAIL), Accepted)
        with closing(SendGridControl(before["SENDGRID_API_BASE"])) as sendgrid:
            wait_for(lambda: any(one.attempts for one in sendgrid.deliveries()))

        addresses = [before["STRIPE_API_BASE"], before["SENDGRID_API_BASE"]]
        ended = [pid for pid in map(pid_at, addresses) if pid is not None]
        assert len(ended) == 2
        for pid in ended:
            os.kill(pid, signal.SIGKILL)
        wait_for(
            lambda: {None, *ended}.isdisjoint(map(pid_at, addresses)),
            limit=LIMIT_SECONDS,
            what="others at the same addresses",
        )
        assert stripe.settings()["webhook_url"] == events_go_to
        assert [event["type"] for event in stripe.events()] == ["customer.created"]
        up.process.send_signal(signal.SIGTERM)
        _, told = up.process.communicate(timeout=LIMIT_SECONDS)
        assert "Stripe ended; starting it again" in told
        assert "SendGrid ended; starting it again" in told
    assert not is_left(home / "stack")

    with Up(home / "stack", **given) as again:
        after = again.settings
        kept = ("STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET", "SENDGRID_API_KEY", SENDGRID[1])
        assert [after[name] for name in kept] == [before[name] for name in kept]
        stripe = StripeSandboxControl(after["STRIPE_API_BASE"])
        assert [event["type"] for event in stripe.events()] == ["customer.created"]
        assert (
            stripe.settings()["webhook_url"] == f"http://127.0.0.1:{after['PORT']}/webhooks/stripe"
        )
        with closing(SendGridControl(after["SENDGRID_API_BASE"])) as sendgrid:
            assert [one.subject for one in sendgrid.mails()] == ["Hello"]
        again.stop()


def test_vendors_that_are_given_are_used_and_their_secrets_not_printed(
    home: Path, database_url: str, redis_url: str, vendor_settings: dict[str, str]
) -> None:
    given = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, **vendor_settings}
    del given["STRIPE_WEBHOOK_SECRET"]
    with Up(home / "stack", **given) as up:
        assert {name: up.settings.get(name) for name in vendor_settings} == {
            **vendor_settings,
            "STRIPE_WEBHOOK_SECRET": None,
        }
        up.process.send_signal(signal.SIGTERM)
        printed, told = up.process.communicate(timeout=LIMIT_SECONDS)
    assert set(json.loads(printed)["pids"]) == {part.name for part in PARTS}
    assert json.loads(printed)["STRIPE_API_BASE"] == vendor_settings["STRIPE_API_BASE"]
    for name in ("STRIPE_SECRET_KEY", "SENDGRID_API_KEY"):
        assert vendor_settings[name] not in printed + told
    assert "STRIPE_WEBHOOK_SECRET is not set: what Stripe reports is not taken" in told
    assert "SENDGRID_WEBHOOK_KEY is not set" not in told


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads what only Linux shows")
def test_a_port_taken_meanwhile_gives_every_process_another_public_address(
    home: Path,
    database_url: str,
    redis_url: str,
    vendor_settings: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, **vendor_settings}
    stack = Stack(
        home / "stack",
        port=None,
        environment={**ENVIRONMENT, **given},
        stopping=threading.Event(),
        say=lambda _text: None,
    )
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = free_port()
        ports = [taken.getsockname()[1], port]
        monkeypatch.setattr("cli.stack.free_port", lambda: ports.pop(0))
        stack.start()
        try:
            assert stack.settings["PUBLIC_URL"] == f"http://127.0.0.1:{port}"
            assert set(stack.pids) == {part.name for part in PARTS}
            for pid in stack.pids.values():
                environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                assert f"PUBLIC_URL=http://127.0.0.1:{port}".encode() in environment
        finally:
            stack.stop()
    assert not is_left(home / "stack")


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"STRIPE_API_BASE": "http://h"}, "STRIPE_API_BASE without STRIPE_SECRET_KEY: set it too"),
        (
            {"STRIPE_API_BASE": "http://h", "STRIPE_WEBHOOK_SECRET": "whsec_SECRET"},
            "STRIPE_WEBHOOK_SECRET and STRIPE_API_BASE without STRIPE_SECRET_KEY: set it too",
        ),
        ({SENDGRID[1]: "SECRET"}, "SENDGRID_WEBHOOK_KEY without SENDGRID_API_KEY: set it too"),
        (
            {"STRIPE_SECRET_KEY": "sk_live_SECRET", "STRIPE_API_BASE": "http://h"},
            "STRIPE_API_BASE: must be https at stripe.com, or not set",
        ),
    ],
)
def test_half_a_vendor_is_refused_in_one_line_before_anything_starts(
    command: Command, tmp_path: Path, given: dict[str, str], complaint: str
) -> None:
    answer = command("up", "--dir", tmp_path / "s", **{**NO_VENDORS, "DATABASE_URL": "", **given})
    assert answer.code == 2
    assert answer.stderr.startswith(f"duecourse: settings from the environment: {complaint}")
    assert "SECRET_" not in answer.stderr.replace("STRIPE_SECRET_KEY", "")
    assert "whsec" not in answer.stderr
    assert "sk_live" not in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_is_taken_is_refused_in_one_line(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        answer = run("up", "--dir", home / "stack", "--port", str(port))
    assert answer.returncode == 1
    assert f"port {port} is in use: choose another with --port" in answer.stderr
    assert not is_running(home / "stack")


@pytest.mark.parametrize(
    ("name", "value", "must"),
    [
        ("DATABASE_URL", "mysql://u:SECRET@h/db", "must look like postgresql://"),
        ("REDIS_URL", "SECRET", "must look like redis://"),
        ("PORT", "SECRET", "must be a whole number"),
        ("DUECOURSE_LEASE_SECONDS", "SECRET", "must be a number"),
    ],
)
def test_a_wrong_setting_is_told_in_one_line_before_anything_starts(
    command: Command, tmp_path: Path, name: str, value: str, must: str
) -> None:
    answer = command("up", "--dir", tmp_path / "stack", **{name: value})
    assert answer.code == 2
    assert answer.stderr.startswith(f"duecourse: settings from the environment: {name}: {must}")
    assert "SECRET" not in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_redis_that_is_not_there_is_told_instead_of_waited_for(
    home: Path, database_url: str
) -> None:
    given = {"DATABASE_URL": database_url, "REDIS_URL": "redis://127.0.0.1:1/0"}
    answer = run("up", "--dir", home / "stack", **given)
    assert answer.returncode == 1
    assert answer.stderr.startswith("duecourse: REDIS_URL: Redis does not answer: ")
    assert len(answer.stderr.splitlines()) == 1
    assert not is_left(home / "stack")


def test_people_are_told_the_local_address_beside_the_public_one(tmp_path: Path) -> None:
    given = {
        "DATABASE_URL": "postgresql://h/d",
        "REDIS_URL": "redis://h/0",
        "DUECOURSE_API_KEY": "key",
        "PUBLIC_URL": "https://bills.example",
    }
    stack = Stack(
        tmp_path, port=8123, environment=given, stopping=threading.Event(), say=lambda _text: None
    )
    console = Console(width=200)
    with console.capture() as shown:
        console.print(up._addresses(stack))
    assert "http://127.0.0.1:8123 " in shown.get()
    assert "https://bills.example" in shown.get()


def test_people_are_told_where_vendors_are_and_no_secret_of_theirs(tmp_path: Path) -> None:
    given = {
        "DATABASE_URL": "postgresql://h/d",
        "REDIS_URL": "redis://h/0",
        "DUECOURSE_API_KEY": "key",
        "PUBLIC_URL": "https://bills.example",
        "STRIPE_SECRET_KEY": "sk_live_hush",
        "STRIPE_WEBHOOK_SECRET": "whsec_hush",
        "SENDGRID_API_KEY": "SG.hush",
        "SENDGRID_API_BASE": "https://api.eu.sendgrid.com",
    }
    stack = Stack(
        tmp_path, port=8123, environment=given, stopping=threading.Event(), say=lambda _text: None
    )
    console = Console(width=200)
    with console.capture() as shown:
        console.print(up._addresses(stack))
    assert "Stripe      the real one" in shown.get()
    assert "SendGrid    https://api.eu.sendgrid.com" in shown.get()
    assert "hush" not in shown.get()
    assert "hush" not in str(stack.printable_settings)


def test_the_procfile_runs_what_up_runs() -> None:
    lines = dict(
        line.split(": ", maxsplit=1) for line in (ROOT / "Procfile").read_text().splitlines()
    )
    assert lines.pop("release") == "duecourse migrate"

    def without_threads(command: str) -> str:
        return command.partition(" --threads ")[0]

    assert {name: without_threads(line) for name, line in lines.items()} == {
        part.name: without_threads(" ".join(("python", *part.arguments))) for part in PARTS
    }
