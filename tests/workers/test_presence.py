from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, delete, select
from sqlalchemy.orm import Session

import workers.presence
from models import Process
from tests.jobs import database_away
from tests.processes import Stack
from tests.waiting import wait_for
from workers.presence import Presence


@pytest.fixture(autouse=True)
def _beats_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.presence, "BEAT_EVERY_SECONDS", 0.05)


def processes(engine: Engine) -> list[Process]:
    with Session(engine) as session:
        return list(session.scalars(select(Process).order_by(Process.kind)))


@pytest.fixture
def presence(engine: Engine) -> Iterator[Presence]:
    busy = iter(range(1_000_000))
    presence = Presence(
        engine, "worker", queues=["ops"], threads=8, busy_threads=lambda: next(busy)
    )
    presence.start()
    yield presence
    presence.stop()


@pytest.mark.usefixtures("presence")
def test_a_process_is_listed_with_what_it_is(engine: Engine) -> None:
    [row] = wait_for(lambda: processes(engine))

    assert (row.kind, row.queues, row.threads) == ("worker", ["ops"], 8)
    assert row.pid > 0
    assert row.host


@pytest.mark.usefixtures("presence")
def test_a_living_process_says_so_again_and_how_busy_it_is(engine: Engine) -> None:
    [first] = wait_for(lambda: processes(engine))

    def later() -> bool:
        [row] = processes(engine)
        return row.heartbeat_at > first.heartbeat_at and row.busy_threads > first.busy_threads

    wait_for(later)
    [row] = processes(engine)
    assert (row.id, row.started_at) == (first.id, first.started_at)


def test_a_process_that_ends_well_leaves_the_list(engine: Engine, presence: Presence) -> None:
    wait_for(lambda: processes(engine))

    presence.stop()
    presence.join(10)

    assert processes(engine) == []


@pytest.mark.usefixtures("presence")
def test_a_process_that_was_taken_for_dead_comes_back(engine: Engine) -> None:
    [first] = wait_for(lambda: processes(engine))
    with engine.begin() as connection:
        connection.execute(delete(Process))

    [again] = wait_for(lambda: processes(engine))
    assert again.id != first.id


def test_an_outage_of_the_database_is_outlived(
    engine: Engine, server: str, presence: Presence
) -> None:
    [first] = wait_for(lambda: processes(engine))
    with database_away(engine, server):
        presence._beat()

    wait_for(lambda: processes(engine)[0].heartbeat_at > first.heartbeat_at)


def test_real_processes_come_and_go_and_a_killed_one_stays_until_it_is_pruned(
    engine: Engine, stack: Stack
) -> None:
    started = {name: stack.start(name) for name in ("dispatcher", "scheduler", "worker")}
    wait_for(lambda: len(processes(engine)) == 3)
    assert [(row.kind, row.pid) for row in processes(engine)] == [
        (name, process.pid) for name, process in started.items()
    ]
    assert [row.queues for row in processes(engine)] == [[], [], ["billing", "ops"]]

    stack.kill(started["worker"])
    assert stack.stop(started["dispatcher"]) == 0
    assert stack.stop(started["scheduler"]) == 0

    assert [row.kind for row in processes(engine)] == ["worker"]
