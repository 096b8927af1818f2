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
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import psycopg
import pytest
from rich.console import Console

from cli import up
from cli.context import read_settings_file
from cli.stack import PARTS, Stack, is_running
from gateways.sandbox.processes import hold
from gateways.sandbox.server import free_port
from tests.cli.conftest import Command
from tests.processes import ROOT
from tests.waiting import wait_for

LIMIT_SECONDS = 60.0
LOCKS = ("up.lock", "processes.lock", "postgres/server.lock", "redis/server.lock")
SERVERS = ("DATABASE_URL", "REDIS_URL", "PORT", "PUBLIC_URL", "DUECOURSE_API_KEY")
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in SERVERS}


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
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *map(str, arguments)],
        cwd=ROOT,
        env={**ENVIRONMENT, **given},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_SECONDS,
    )


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
    assert set(told["pids"]) == {"postgresql", "redis", *(part.name for part in PARTS)}
    assert {name: told[name] for name in up.settings} == up.settings
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
        assert set(json.loads(started)["pids"]) == {part.name for part in PARTS}
        assert "dispatcher ended with status -9; starting it again in 1 s" in told
        assert not is_left(home / "two")


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


def test_the_procfile_runs_what_up_runs() -> None:
    lines = dict(
        line.split(": ", maxsplit=1) for line in (ROOT / "Procfile").read_text().splitlines()
    )
    assert lines.pop("release") == "duecourse migrate"
    assert lines == {part.name: " ".join(("python", *part.arguments)) for part in PARTS}
