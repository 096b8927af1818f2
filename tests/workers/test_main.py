import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from uuid import UUID

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker
from dramatiq.worker import ConsumerThread, Worker, WorkerThread
from sqlalchemy import Engine, insert, select, text, update
from sqlalchemy.orm import Session

import workers.main
from models import Account, IdempotencyKey, Job
from tasks.catalogue import KINDS
from tasks.leases import LeaseKeeper
from tests.jobs import LEASE, a_job, job_of, runs_of
from tests.processes import ROOT, Stack
from tests.waiting import wait_for
from workers.broker import build_broker
from workers.main import _watch

A_MINUTE = LEASE * 4

Told = Callable[..., str]


def run_is(engine: Engine, job_id: UUID, state: str) -> bool:
    return job_of(engine, job_id).state == state


@contextmanager
def prune_held_up(engine: Engine, account: Account) -> Iterator[Session]:
    """While this lasts, every run of ``prune`` stops in the middle: it waits for a table's lock."""
    with Session(engine) as holding:
        holding.execute(
            insert(IdempotencyKey).values(
                account_id=account.id,
                key="old",
                request_sha256="0",
                created_at="2020-01-01T00:00:00Z",
            )
        )
        holding.commit()
        # Whole, because it would pass over a row that is locked.
        holding.execute(text("LOCK TABLE idempotency_keys IN SHARE MODE"))
        yield holding


def jobs_of_kind(engine: Engine, kind: str) -> list[tuple[UUID, str]]:
    with Session(engine) as session:
        found = session.execute(select(Job.id, Job.queue).where(Job.kind == kind))
        return [(job_id, queue) for job_id, queue in found]


def keys_left(engine: Engine) -> int:
    with Session(engine) as session:
        return len(session.scalars(select(IdempotencyKey.key)).all())


def test_a_worker_told_to_stop_finishes_what_is_under_way(
    engine: Engine, stack: Stack, account: Account
) -> None:
    stack.start("dispatcher")
    worker = stack.start("worker")
    with prune_held_up(engine, account):
        job_id = a_job(engine)
        wait_for(lambda: run_is(engine, job_id, "running"))
        worker.send_signal(signal.SIGTERM)
        wait_for(lambda: "Shutting down" in stack.logs())
        assert worker.poll() is None

    assert worker.wait(20) == 0
    assert run_is(engine, job_id, "succeeded")
    assert runs_of(engine, job_id) == [(1, "succeeded")]
    assert '"unfinished": 0' in stack.logs()


def test_a_worker_that_may_wait_no_longer_leaves_its_job_to_others(
    engine: Engine, stack: Stack, account: Account
) -> None:
    stack.start("dispatcher")
    worker = stack.start("worker", DUECOURSE_DRAIN_SECONDS="0.2")
    with prune_held_up(engine, account):
        job_id = a_job(engine)
        wait_for(lambda: run_is(engine, job_id, "running"))
        assert stack.stop(worker) == 0
        # It has ended in no way of its own: its lease ran out, maybe before the process was gone.
        wait_for(lambda: runs_of(engine, job_id) == [(1, "rescued")])

    stack.start("worker")
    wait_for(lambda: run_is(engine, job_id, "succeeded"))
    assert runs_of(engine, job_id) == [(1, "rescued"), (2, "succeeded")]


def test_a_worker_killed_in_the_middle_has_its_job_run_again_by_another(
    engine: Engine, stack: Stack, account: Account
) -> None:
    stack.start("dispatcher")
    first = stack.start("worker")
    with prune_held_up(engine, account):
        job_id = a_job(engine)
        wait_for(lambda: run_is(engine, job_id, "running"))
        stack.start("worker")
        stack.kill(first)
        # A lease of 2 s, a sweep every second, and some room for a busy machine.
        wait_for(lambda: job_of(engine, job_id).attempt == 2, limit=8)

    wait_for(lambda: run_is(engine, job_id, "succeeded"))
    assert runs_of(engine, job_id) == [(1, "rescued"), (2, "succeeded")]
    # Whether the key is gone is another matter: the dead worker's connection may hold its row a
    # moment longer, and `prune` leaves to its next run what somebody holds.


def test_a_worker_frozen_past_its_lease_commits_nothing_when_it_thaws(
    engine: Engine, stack: Stack, account: Account
) -> None:
    stack.start("dispatcher")
    frozen = stack.start("worker")
    with prune_held_up(engine, account) as holding:
        job_id = a_job(engine)
        wait_for(lambda: run_is(engine, job_id, "running"))
        frozen.send_signal(signal.SIGSTOP)
        wait_for(lambda: runs_of(engine, job_id) == [(1, "rescued")])
        # Nobody may start it yet, so that what the frozen run does can be told apart.
        holding.execute(update(Job).values(state="scheduled", run_at="2100-01-01T00:00:00Z"))
        holding.commit()

    frozen.send_signal(signal.SIGCONT)
    wait_for(lambda: "lease lost, nothing kept" in stack.logs())
    assert keys_left(engine) == 1

    with Session(engine) as session, session.begin():
        session.execute(update(Job).values(run_at="2020-01-01T00:00:00Z"))
    wait_for(lambda: run_is(engine, job_id, "succeeded"))
    assert keys_left(engine) == 0
    assert runs_of(engine, job_id) == [(1, "rescued"), (2, "succeeded")]


def test_a_foreign_message_that_names_another_queue_is_kept_and_the_worker_lives(
    engine: Engine, stack: Stack
) -> None:
    worker = stack.start("worker")
    wait_for(lambda: "worker started" in stack.logs())
    message_id = "01890a5d-ac96-774b-bcce-b302099a8057"
    misdirected: dramatiq.Message[None] = dramatiq.Message(
        queue_name="nowhere",
        actor_name="reindex",
        args=(),
        kwargs={},
        options={"redis_message_id": "1"},
        message_id=message_id,
    )
    broker = build_broker(stack.redis.url)
    broker.client.hset("duecourse:ops.msgs", "1", misdirected.encode())
    broker.client.rpush("duecourse:ops", "1")

    wait_for(lambda: jobs_of_kind(engine, "reindex") == [(UUID(message_id), "ops")])
    wait_for(lambda: broker.client.hlen("duecourse:ops.msgs") == 0)
    broker.client.close()
    assert stack.stop(worker) == 0


@pytest.fixture
def watched(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Worker, LeaseKeeper]]:
    """The threads of a worker process."""
    monkeypatch.setattr(workers.main, "WATCH_EVERY_SECONDS", 0.01)
    broker = StubBroker(middleware=[])
    broker.declare_queue("ops")
    worker = Worker(broker, worker_timeout=10, worker_threads=2)
    leases = LeaseKeeper(engine, lease=LEASE, run_limit=A_MINUTE)
    leases.start()
    worker.start()
    yield worker, leases
    leases.stop()
    worker.stop()


def test_a_worker_is_healthy_until_it_is_told_to_stop(watched: tuple[Worker, LeaseKeeper]) -> None:
    stopping = threading.Event()
    threading.Timer(0.2, stopping.set).start()
    worker, leases = watched
    assert _watch(worker, [leases], stopping)


@pytest.mark.parametrize("which", ["worker", "consumer", "leases"])
def test_the_end_of_any_one_thread_is_noticed(
    watched: tuple[Worker, LeaseKeeper], which: str
) -> None:
    worker, leases = watched
    ending = {
        "worker": worker.workers[1],
        "consumer": worker.consumers["ops"],
        "leases": leases,
    }
    thread = ending[which]
    assert isinstance(thread, WorkerThread | ConsumerThread | LeaseKeeper)
    thread.stop()
    thread.join(10)

    assert not _watch(worker, [leases], threading.Event())


def test_missing_settings_are_named_in_one_line() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "workers.main", "--queues", "ops"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        "duecourse: settings: DATABASE_URL: is not set; REDIS_URL: is not set\n"
    )


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Told:
    """Starts a worker that cannot start: what it says before it exits with 2."""

    def start(*arguments: str, **environment: str) -> str:
        monkeypatch.setattr(sys, "argv", ["workers.main", *arguments])
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            workers.main.main()
        assert ended.value.code == 2
        return capsys.readouterr().err

    return start


def test_wrong_settings_are_named_without_what_they_hold(told: Told) -> None:
    error = told(
        "--queues",
        "ops",
        DATABASE_URL="mysql://root:hush-hush@db/duecourse",
        REDIS_URL="memcached://:hush-hush@cache",
        DUECOURSE_LEASE_SECONDS="0",
    )

    assert len(error.splitlines()) == 1
    for name in ("DATABASE_URL", "REDIS_URL", "DUECOURSE_LEASE_SECONDS"):
        assert name in error
    assert "hush" not in error


def test_a_worker_that_could_never_work_does_not_start(told: Told) -> None:
    assert "no kind of job is in opps" in told("--queues", "ops,opps")
    assert "must be at least 1" in told("--queues", "ops", "--threads", "0")


@pytest.mark.parametrize("queue", ["payments", "mail"])
def test_a_worker_whose_vendor_key_is_not_set_does_not_start(
    told: Told, monkeypatch: pytest.MonkeyPatch, queue: str
) -> None:
    kinds = {**KINDS, "of_that_queue": replace(next(iter(KINDS.values())), queue=queue)}
    monkeypatch.setattr(workers.main, "KINDS", kinds)
    error = told(
        *("--queues", f"ops,{queue}"),
        DATABASE_URL="postgresql://127.0.0.1:1/nowhere",
        REDIS_URL="redis://127.0.0.1:1",
        STRIPE_SECRET_KEY="",
        SENDGRID_API_KEY="",
    )
    assert len(error.splitlines()) == 1
    assert f"is not set, and a worker of {queue} needs it" in error


def test_every_line_of_every_process_is_json_and_tells_no_secret(
    engine: Engine, database_url: str, stack: Stack
) -> None:
    processes = [
        stack.start(name, DUECOURSE_LOG_LEVEL="DEBUG") for name in ("worker", "dispatcher")
    ]
    job_id = a_job(engine)
    wait_for(lambda: run_is(engine, job_id, "succeeded"))
    a_job(engine, kind="unknown")
    a_job(engine, kind="start_due_runs", queue="billing")
    wait_for(lambda: "job is dead" in stack.logs())
    stack.redis.kill()
    a_job(engine)
    wait_for(lambda: "dispatching interrupted" in stack.logs())
    wait_for(lambda: "Consumer encountered a connection error" in stack.logs())
    for process in processes:
        stack.stop(process)

    lines = stack.logs().splitlines()
    parsed = [json.loads(line) for line in lines]
    assert {"event", "level", "timestamp", "process", "pid"} <= set.intersection(
        *[set(line) for line in parsed]
    )
    assert {line["process"] for line in parsed} == {"worker", "dispatcher"}
    for url in (database_url, stack.redis.url):
        password = url.split(":")[2].split("@")[0]
        assert len(password) > 10
        assert password not in stack.logs()
