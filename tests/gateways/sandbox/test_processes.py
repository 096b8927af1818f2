import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import redis

from gateways.sandbox import processes
from gateways.sandbox.postgres import EmbeddedPostgres
from gateways.sandbox.processes import LocalServerError, hold
from gateways.sandbox.redis import EmbeddedRedis

ROOT = Path(processes.__file__).parents[2]

OWNER = """
import sys
from pathlib import Path
from gateways.sandbox.postgres import EmbeddedPostgres
from gateways.sandbox.redis import EmbeddedRedis

with (
    EmbeddedPostgres(Path(sys.argv[1], "postgres"), durable=False) as postgres,
    EmbeddedRedis(Path(sys.argv[1], "redis")) as redis,
):
    print(postgres.url, redis.url, flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_owner(directory: Path) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """Another process that runs both servers, and their addresses."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(directory)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as owner:
        assert owner.stdout is not None
        postgres_url, redis_url = owner.stdout.readline().split()
        yield owner, postgres_url, redis_url


def is_free(path: Path) -> bool:
    """Whether no process holds the lock: zombies, which a pid would still name, do not."""
    lock = hold(path)
    if lock is None:
        return False
    os.close(lock)
    return True


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's help is Linux's")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_servers_of_a_killed_owner_go_with_it_and_their_data_stays(
    directory: Path, how: signal.Signals, eventually: Callable[..., None]
) -> None:
    with another_owner(directory) as (owner, postgres_url, redis_url):
        with psycopg.connect(postgres_url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        with redis.Redis.from_url(redis_url) as client:
            client.set("answer", "42")
        assert not is_free(directory / "postgres" / "server.lock")
        assert not is_free(directory / "redis" / "server.lock")
        owner.send_signal(how)

    eventually(lambda: is_free(directory / "postgres" / "server.lock"))
    eventually(lambda: is_free(directory / "redis" / "server.lock"))

    with (
        EmbeddedPostgres(directory / "postgres", durable=False) as postgres,
        psycopg.connect(postgres.url) as connection,
    ):
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
    with EmbeddedRedis(directory / "redis") as again, redis.Redis.from_url(again.url) as client:
        assert client.get("answer") == b"42"


def test_a_new_owner_need_not_wait_for_the_servers_of_a_killed_one(directory: Path) -> None:
    with another_owner(directory) as (owner, postgres_url, _):
        with psycopg.connect(postgres_url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        owner.kill()
    with EmbeddedPostgres(directory / "postgres", durable=False) as postgres:
        assert postgres.url.endswith("/duecourse")


def test_a_thread_may_not_start_a_server_that_would_die_with_it(directory: Path) -> None:
    refusals: list[Exception] = []

    def start() -> None:
        try:
            EmbeddedRedis(directory).start()
        except LocalServerError as error:
            refusals.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "from the main thread" in str(refusals[0])


def test_threads_that_already_run_do_not_matter(directory: Path) -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        with EmbeddedRedis(directory) as server:
            assert server.pid
    finally:
        done.set()
        thread.join()


def test_a_server_that_outlived_its_owner_keeps_others_out(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateways.sandbox.server.PREDECESSOR_SECONDS", 0.05)
    survivor = hold(directory / "server.lock")
    assert survivor is not None
    with pytest.raises(LocalServerError, match="an earlier Redis still runs in"):
        EmbeddedRedis(directory).start()
    os.close(survivor)
    with EmbeddedRedis(directory) as server:
        assert server.pid


def test_a_command_that_does_not_exist_is_named(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = EmbeddedRedis(directory)
    missing = directory / "no such program"

    def command(_: int) -> list[Path]:
        return [missing]

    monkeypatch.setattr(server, "_command", command)
    with pytest.raises(LocalServerError, match=r"cannot run .*no such program: No such file"):
        server.start()
