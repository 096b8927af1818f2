import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
import redis
from sqlalchemy import Engine, insert, text

from billing.job_states import JobState
from gateways.sandbox.redis import EmbeddedRedis
from models import Job, job_ledger
from models.job_ledger import Ending
from tests.jobs import (
    a_job,
    change_job,
    claim,
    database_away,
    job_of,
    let_lease_expire,
    pause,
    resume,
    started,
    states,
)
from tests.processes import Stack
from tests.waiting import wait_for
from tests.worlds import together
from workers.broker import DoorbellBroker, build_broker
from workers.dispatcher import FULL_WINDOW_PAUSE_SECONDS, Dispatcher


@pytest.fixture
def broker(redis_url: str) -> Iterator[DoorbellBroker]:
    broker = build_broker(redis_url)
    yield broker
    broker.client.close()


def a_dispatcher(engine: Engine, broker: DoorbellBroker, *, window: int = 64) -> Dispatcher:
    return Dispatcher(engine, broker, window=window, poll_seconds=0.25)


def rung(broker: DoorbellBroker, queue: str = "ops") -> list[UUID]:
    """The jobs that messages in Redis ring for, in order; they are taken out."""
    messages = iter(broker.consume(queue, prefetch=1_000, timeout=10))
    jobs = []
    while (message := next(messages)) is not None:
        jobs.append(UUID(message.kwargs["job_id"]))
    return jobs


# One step


def test_a_step_rings_for_every_ready_job_of_every_queue(
    engine: Engine, broker: DoorbellBroker
) -> None:
    ops, billing = a_job(engine), a_job(engine, queue="billing")

    assert a_dispatcher(engine, broker).step() == 0

    assert rung(broker, "ops") == [ops]
    assert rung(broker, "billing") == [billing]
    assert states(engine) == ["dispatched", "dispatched"]


def test_messages_come_in_the_order_of_priority(engine: Engine, broker: DoorbellBroker) -> None:
    jobs = [a_job(engine, priority=priority) for priority in (3, 1, 2)]

    a_dispatcher(engine, broker).step()

    assert rung(broker) == [jobs[1], jobs[2], jobs[0]]


def test_what_has_come_due_is_dispatched_in_the_same_step(
    engine: Engine, broker: DoorbellBroker
) -> None:
    job_id = a_job(engine)
    change_job(engine, job_id, state="scheduled")

    a_dispatcher(engine, broker).step()

    assert rung(broker) == [job_id]


def test_an_idle_dispatcher_waits_a_poll(engine: Engine, broker: DoorbellBroker) -> None:
    assert a_dispatcher(engine, broker).step() == 0.25


def test_a_full_window_is_looked_at_soon_and_ever_more_rarely_while_nothing_moves(
    engine: Engine, broker: DoorbellBroker
) -> None:
    jobs = [a_job(engine) for _ in range(4)]
    dispatcher = a_dispatcher(engine, broker, window=2)
    dispatcher.step()

    soon = FULL_WINDOW_PAUSE_SECONDS
    waits = [dispatcher.step() for _ in range(7)]
    assert waits == [soon, 2 * soon, 4 * soon, 8 * soon, 16 * soon, 0.25, 0.25]

    claim(engine, jobs[0])
    assert dispatcher.step() == 0
    assert dispatcher.step() == soon


def test_a_nearly_full_window_is_added_to_by_its_eighth(
    engine: Engine, broker: DoorbellBroker
) -> None:
    jobs = [a_job(engine) for _ in range(20)]
    dispatcher = a_dispatcher(engine, broker, window=16)
    dispatcher.step()
    assert len(rung(broker)) == 16

    claim(engine, jobs[0])
    assert dispatcher.step() == FULL_WINDOW_PAUSE_SECONDS
    assert rung(broker) == []

    claim(engine, jobs[1])
    assert dispatcher.step() == 0
    assert rung(broker) == jobs[16:18]


def test_a_paused_queue_rings_nothing(engine: Engine, broker: DoorbellBroker) -> None:
    a_job(engine)
    pause(engine)
    dispatcher = a_dispatcher(engine, broker)
    dispatcher.step()
    assert rung(broker) == []

    resume(engine)
    dispatcher.step()
    assert len(rung(broker)) == 1


def test_jobs_of_a_dead_worker_are_rung_for_again(engine: Engine, broker: DoorbellBroker) -> None:
    job_id = a_job(engine)
    started(engine, job_id)
    let_lease_expire(engine, job_id)

    a_dispatcher(engine, broker).step()

    assert rung(broker) == [job_id]
    assert job_of(engine, job_id).rescues == 1


def test_what_a_flushed_redis_forgot_is_rung_for_again(
    engine: Engine, broker: DoorbellBroker
) -> None:
    job_id = a_job(engine)
    a_dispatcher(engine, broker).step()
    broker.client.flushall()
    assert rung(broker) == []
    change_job(engine, job_id, dispatched_at=Job.dispatched_at - timedelta(seconds=6))

    a_dispatcher(engine, broker).step()

    assert rung(broker) == [job_id]


def test_ringing_again_for_the_same_wait_keeps_one_message(
    engine: Engine, broker: DoorbellBroker
) -> None:
    job_id = a_job(engine)
    dispatcher = a_dispatcher(engine, broker)
    dispatcher.step()
    for _ in range(3):
        change_job(engine, job_id, dispatched_at=Job.dispatched_at - timedelta(minutes=2))
        dispatcher._sweep()

    assert job_of(engine, job_id).dispatches == 4
    assert broker.client.hlen("duecourse:ops.msgs") == 1
    assert broker.client.llen("duecourse:ops") == 1


def test_acknowledging_one_run_does_not_take_the_next_one_s_message_away(
    engine: Engine, broker: DoorbellBroker
) -> None:
    job_id = a_job(engine)
    dispatcher = a_dispatcher(engine, broker)
    dispatcher.step()
    consumer = broker.consume("ops", timeout=10)
    message = next(iter(consumer))
    claimed = claim(engine, job_id)
    assert message is not None
    assert claimed is not None
    with engine.begin() as connection:
        ending = Ending(state=JobState.SCHEDULED, outcome="snoozed", after=timedelta(0))
        job_ledger.finish(connection, claimed, ending)

    # The worker is slow: the next run is rung for before it says that the last one is over.
    dispatcher.step()
    consumer.ack(message)

    assert rung(broker) == [job_id]


def test_what_could_not_be_rung_for_is_ready_again(engine: Engine, directory: Path) -> None:
    job_id = a_job(engine)
    server = EmbeddedRedis(directory / "away", append_only=False)
    with server:
        broker = build_broker(server.url)
    dispatcher = a_dispatcher(engine, broker)
    with pytest.raises(redis.RedisError):
        dispatcher.step()
    assert job_of(engine, job_id).state == "ready"

    with server:
        dispatcher.step()
        assert rung(broker) == [job_id]
        broker.client.close()


def test_a_full_redis_is_a_redis_that_is_away(engine: Engine, broker: DoorbellBroker) -> None:
    job_id = a_job(engine)
    broker.client.config_set("maxmemory", "1")
    try:
        with pytest.raises(redis.RedisError):
            a_dispatcher(engine, broker).step()
    finally:
        broker.client.config_set("maxmemory", "0")

    assert job_of(engine, job_id).state == "ready"


# Several at once


def test_two_dispatchers_ring_once_for_each_job_and_keep_the_window(
    engine: Engine, broker: DoorbellBroker
) -> None:
    jobs = [a_job(engine) for _ in range(40)]
    dispatchers = [a_dispatcher(engine, broker, window=5) for _ in range(2)]
    heard: list[UUID] = []
    while len(heard) < len(jobs):
        together(*[dispatcher.step for dispatcher in dispatchers])
        assert Counter(states(engine))["dispatched"] <= 5
        now_heard = rung(broker)
        for job_id in now_heard:
            assert claim(engine, job_id) is not None
        heard += now_heard

    assert sorted(heard) == jobs


# The loop


@contextmanager
def running(dispatcher: Dispatcher) -> Iterator[None]:
    stopping = threading.Event()
    thread = threading.Thread(target=dispatcher.run, args=(stopping,))
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture
def run(engine: Engine, broker: DoorbellBroker) -> Callable[[float], AbstractContextManager[None]]:
    return lambda poll_seconds: running(
        Dispatcher(engine, broker, window=64, poll_seconds=poll_seconds)
    )


def listening(engine: Engine) -> bool:
    listeners = text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND query LIKE 'LISTEN%' AND state = 'idle'"
    )
    with engine.connect() as connection:
        return bool(connection.execute(listeners).scalar_one())


Run = Callable[[float], AbstractContextManager[None]]


def test_a_job_enqueued_while_all_is_idle_is_dispatched_at_once(engine: Engine, run: Run) -> None:
    # The poll alone would take far longer than the test waits.
    with run(3):
        wait_for(lambda: listening(engine))
        job_id = a_job(engine)
        wait_for(lambda: job_of(engine, job_id).state == "dispatched", limit=2)


def test_a_full_window_of_one_queue_keeps_no_other_waiting(
    engine: Engine, broker: DoorbellBroker
) -> None:
    a_job(engine), a_job(engine)
    dispatcher = Dispatcher(engine, broker, window=1, poll_seconds=60)
    # Until a look at the full window waits for longer than this test.
    wait_for(lambda: dispatcher.step() > 20)

    with running(dispatcher):
        wait_for(lambda: listening(engine))
        other = a_job(engine, queue="billing")
        wait_for(lambda: job_of(engine, other).state == "dispatched", limit=5)


def test_polling_finds_what_nobody_was_notified_of(engine: Engine, run: Run) -> None:
    with run(0.1):
        wait_for(lambda: listening(engine))
        silently = insert(Job).values(
            kind="prune", queue="ops", state="ready", max_attempts=8, requested_by="test"
        )
        with engine.begin() as connection:
            connection.execute(silently)
        wait_for(lambda: states(engine) == ["dispatched"], limit=5)


def test_a_dispatcher_outlives_an_outage_of_the_database(
    engine: Engine, server: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.dispatcher.AFTER_ERROR_PAUSE_SECONDS", 0.05)
    with run(0.1):
        wait_for(lambda: listening(engine))
        with database_away(engine, server):
            pass
        job_id = a_job(engine)
        wait_for(lambda: job_of(engine, job_id).state == "dispatched")


# Real processes


def test_jobs_enqueued_while_redis_is_away_run_when_it_returns(
    engine: Engine, stack: Stack
) -> None:
    stack.start("dispatcher")
    stack.start("worker")
    first = a_job(engine)
    wait_for(lambda: job_of(engine, first).state == "succeeded")
    stack.redis.kill()
    for _ in range(20):
        a_job(engine)
    wait_for(lambda: "dispatching interrupted" in stack.logs())

    stack.redis.start()

    wait_for(lambda: states(engine) == ["succeeded"] * 21)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT max(attempt) FROM jobs")).scalar_one() == 1
