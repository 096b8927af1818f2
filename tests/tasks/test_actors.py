import json
from collections.abc import Iterator, MutableMapping
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import dramatiq
import pytest
from dramatiq.brokers.redis import RedisBroker
from dramatiq.worker import Worker
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

import tasks.actors
from models import Account, Job, job_ledger
from models.job_ledger import Bell
from tasks.actors import ForeignMessages, declare_actors
from tasks.catalogue import KINDS
from tasks.kinds import Run, job
from tasks.leases import LeaseKeeper
from tasks.outcomes import Done, Outcome
from tasks.running import Runner
from tests.jobs import (
    LEASE,
    a_job,
    change_job,
    database_away,
    job_of,
    kinds_of_its_own,
    runs_of,
    states,
)
from tests.waiting import wait_for
from tests.worlds import NOW, a_charge, a_client
from workers.broker import NAMESPACE, build_broker
from workers.dispatcher import Dispatcher


@pytest.fixture(autouse=True)
def _adopts_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks.actors, "ADOPT_AGAIN_AFTER_SECONDS", 0.05)


@pytest.fixture
def runner(engine: Engine) -> Runner:
    leases = LeaseKeeper(engine, lease=LEASE, run_limit=timedelta(minutes=10))
    return Runner(engine, leases, worker="test", lease=LEASE)


@pytest.fixture
def dispatcher(engine: Engine, redis_url: str, runner: Runner) -> Iterator[Dispatcher]:
    """A dispatcher, and a dramatiq worker with the actors that a worker process declares."""
    broker = build_broker(redis_url, ForeignMessages(engine))
    declare_actors(broker, runner, engine)
    worker = Worker(broker, worker_timeout=10, worker_threads=2)
    worker.start()
    yield Dispatcher(engine, broker, window=8, poll_seconds=0.1)
    worker.stop(timeout=10_000)
    broker.client.close()


class OtherSystem:
    """Another system's dramatiq, as it comes: its own broker, actors known by name."""

    def __init__(self, redis_url: str) -> None:
        self._broker: RedisBroker = RedisBroker(url=redis_url, namespace=NAMESPACE)

    def actor(self, name: str, queue: str) -> dramatiq.Actor[..., None]:
        def elsewhere(*_arguments: Any, **_named: Any) -> None:
            raise AssertionError("runs elsewhere")

        declare = dramatiq.actor(actor_name=name, queue_name=queue, broker=self._broker)
        return declare(elsewhere)

    def send_again(self, message: dramatiq.Message[Any]) -> None:
        self._broker.enqueue(message)

    def close(self) -> None:
        self._broker.client.close()


@pytest.fixture
def other(redis_url: str) -> Iterator[OtherSystem]:
    system = OtherSystem(redis_url)
    yield system
    system.close()


def wait_until(engine: Engine, dispatcher: Dispatcher, job_id: UUID | str, state: str) -> Job:
    """The job, once it is in that state; the dispatcher works meanwhile."""

    def there() -> Job | None:
        dispatcher.step()
        with Session(engine) as session:
            job = session.get(Job, UUID(str(job_id)))
        return job if job is not None and job.state == state else None

    job = wait_for(there, what=f"the job is {state}")
    assert job is not None
    return job


def test_every_kind_is_a_dramatiq_actor_of_the_same_name_and_queue(
    dispatcher: Dispatcher,
) -> None:
    actors = dispatcher._broker.actors.values()
    assert {(actor.actor_name, actor.queue_name) for actor in actors} == {
        (kind.name, kind.queue) for kind in KINDS.values()
    }


def test_a_job_goes_from_the_ledger_over_redis_to_its_end(
    engine: Engine, dispatcher: Dispatcher
) -> None:
    job_id = a_job(engine)

    done = wait_until(engine, dispatcher, job_id, "succeeded")

    assert done.result == {}
    assert runs_of(engine, job_id) == [(1, "succeeded")]


@pytest.mark.parametrize(
    ("arguments", "named"), [((NOW.isoformat(),), {}), ((), {"fire_at": NOW.isoformat()})]
)
def test_a_plain_message_becomes_a_job_under_its_own_id(
    engine: Engine,
    dispatcher: Dispatcher,
    other: OtherSystem,
    arguments: tuple[Any, ...],
    named: dict[str, Any],
) -> None:
    message = other.actor("start_due_runs", "billing").send(*arguments, **named)

    done = wait_until(engine, dispatcher, message.message_id, "succeeded")

    assert (done.kind, done.requested_by) == ("start_due_runs", "message")
    assert done.args == {"fire_at": NOW.isoformat()}
    assert done.result == {"runs": 0}


def test_a_plain_message_that_comes_twice_is_one_job_that_runs_once(
    engine: Engine, dispatcher: Dispatcher, other: OtherSystem
) -> None:
    prune = other.actor("prune", "ops")
    message = prune.send()
    other.send_again(message)
    wait_until(engine, dispatcher, message.message_id, "succeeded")
    other.send_again(message)

    last = prune.send()
    wait_until(engine, dispatcher, last.message_id, "succeeded")

    assert states(engine) == ["succeeded", "succeeded"]
    assert runs_of(engine, UUID(message.message_id)) == [(1, "succeeded")]


def test_a_plain_message_s_job_belongs_to_its_subject_s_account(
    engine: Engine, dispatcher: Dispatcher, other: OtherSystem, account: Account
) -> None:
    client = a_client(engine, account)
    charge = a_charge(engine, client, NOW.date())

    # By name, and the subject not first.
    message = other.actor("draft_invoice", "billing").send(
        charge_ids=[str(charge)], client_id=str(client.id)
    )

    done = wait_until(engine, dispatcher, message.message_id, "succeeded")
    assert (done.account_id, done.subject_type) == (account.id, "client")
    assert done.subject_id == client.id


def test_a_message_whose_id_is_no_uuid_is_adopted_once_all_the_same(
    engine: Engine, dispatcher: Dispatcher, other: OtherSystem
) -> None:
    message = other.actor("prune", "ops").message().copy(message_id="order 66")
    for _ in range(2):
        other.send_again(message)

    def ended() -> bool:
        dispatcher.step()
        return states(engine) == ["succeeded"]

    wait_for(ended)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("soon",), {}),
        ((NOW.isoformat(), "surplus"), {}),
        ((NOW.isoformat(),), {"fire_at": NOW.isoformat()}),
        ((), {"colour": "red"}),
        ((), {}),
    ],
)
def test_arguments_that_do_not_fit_end_dead_with_the_reason(
    engine: Engine,
    dispatcher: Dispatcher,
    other: OtherSystem,
    arguments: tuple[Any, ...],
    named: dict[str, Any],
) -> None:
    message = other.actor("start_due_runs", "billing").send(*arguments, **named)

    dead = wait_until(engine, dispatcher, message.message_id, "dead")

    assert dead.reason == "invalid_arguments"
    assert dead.error is not None
    assert dead.error["type"] == "ValidationError"
    assert set(named) <= set(dead.args)
    assert set(arguments) <= set(dead.args.values())


def test_a_message_for_an_unknown_actor_is_kept_as_a_dead_job(
    engine: Engine, dispatcher: Dispatcher, other: OtherSystem
) -> None:
    message = other.actor("paint", "ops").send("red", coats=2)

    dead = wait_until(engine, dispatcher, message.message_id, "dead")

    assert (dead.kind, dead.reason) == ("paint", "unknown_kind")
    assert dead.error is not None
    assert "paint" in dead.error["message"]
    assert dead.args == {"positional": ["red"], "coats": 2}


def test_such_a_job_runs_when_it_is_retried_by_code_that_knows_its_kind(
    engine: Engine, dispatcher: Dispatcher, other: OtherSystem, runner: Runner
) -> None:
    message = other.actor("paint", "ops").send("red", coats=2)
    job_id = wait_until(engine, dispatcher, message.message_id, "dead").id

    with kinds_of_its_own():

        @job(queue="ops")
        def paint(_run: Run, _session: Session, colour: str, coats: int) -> Outcome:
            return Done({"painted": f"{colour} x {coats}"})

        with engine.begin() as connection:
            assert job_ledger.retry(connection, job_id)
            job_ledger.dispatch(connection, "ops", 8)
        runner.run(paint, job_id)

    assert job_of(engine, job_id).result == {"painted": "red x 2"}


def test_a_job_of_another_release_s_kind_is_parked_and_can_be_retried(
    engine: Engine, dispatcher: Dispatcher
) -> None:
    job_id = a_job(engine, kind="from_tomorrow")

    parked = wait_until(engine, dispatcher, job_id, "dead")
    assert (parked.reason, parked.attempt) == ("unknown_kind", 0)

    with engine.begin() as connection:
        assert job_ledger.retry(connection, job_id)
    wait_until(engine, dispatcher, job_id, "dead")


def test_a_plain_message_waits_for_a_database_that_is_away(
    engine: Engine,
    server: str,
    dispatcher: Dispatcher,
    other: OtherSystem,
    logs: list[MutableMapping[str, Any]],
) -> None:
    with database_away(engine, server):
        known = other.actor("prune", "ops").send()
        unknown = other.actor("paint", "ops").send()
        wait_for(
            lambda: (
                {entry["job"] for entry in logs if entry["event"] == "message not adopted yet"}
                == {known.message_id, unknown.message_id}
            )
        )

    wait_until(engine, dispatcher, known.message_id, "succeeded")
    wait_until(engine, dispatcher, unknown.message_id, "dead")


def test_a_job_whose_claim_found_no_database_is_sent_again(
    engine: Engine, server: str, dispatcher: Dispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = a_job(engine)
    with engine.begin() as connection:
        bells = job_ledger.dispatch(connection, "ops", 8) or []
    with database_away(engine, server):
        dispatcher._ring(bells)
        wait_for(lambda: "Failed to process message" in caplog.text)
    change_job(engine, job_id, dispatched_at=Job.dispatched_at - timedelta(seconds=6))

    wait_until(engine, dispatcher, job_id, "succeeded")
    assert runs_of(engine, job_id) == [(1, "succeeded")]


def test_a_message_that_rings_for_nothing_harms_nobody(
    engine: Engine, dispatcher: Dispatcher, other: OtherSystem
) -> None:
    nothing = Bell(uuid4(), "prune", "ops", None)
    dispatcher._ring([nothing])
    message = other.actor("prune", "ops").send()

    wait_until(engine, dispatcher, message.message_id, "succeeded")
    with Session(engine) as session:
        assert [str(job_id) for job_id in session.scalars(select(Job.id))] == [message.message_id]


@pytest.mark.parametrize("argument", ["no uuid", "01890a5d-ac96-774b-bcce-b302099a8057", 7, None])
def test_an_argument_called_job_id_is_another_system_s_own(
    engine: Engine, dispatcher: Dispatcher, other: OtherSystem, argument: str | int | None
) -> None:
    for actor, reason in (("prune", "invalid_arguments"), ("paint", "unknown_kind")):
        message = other.actor(actor, "ops").send(job_id=argument)

        dead = wait_until(engine, dispatcher, message.message_id, "dead")

        assert dead.reason == reason
        assert dead.args == {"job_id": argument}


@pytest.mark.parametrize("argument", ["a\0b", "\ud800", float("nan")])
def test_a_message_that_no_column_takes_is_kept_as_escaped_text(
    engine: Engine, dispatcher: Dispatcher, other: OtherSystem, argument: str | float
) -> None:
    for actor, queue in (("draft_invoice", "billing"), ("paint", "ops"), ("pa\0int", "ops")):
        message = other.actor(actor, queue).send(client_id=argument)

        dead = wait_until(engine, dispatcher, message.message_id, "dead")

        assert (dead.reason, dead.queue) == ("unreadable_message", queue)
        assert dead.kind == actor.replace("\0", "\\x00")
        assert dead.args == {"unreadable": json.dumps({"client_id": argument})}
        assert dead.error is not None
        assert dead.error["message"]


def test_what_is_kept_as_text_waits_for_a_database_that_is_away(
    engine: Engine,
    server: str,
    dispatcher: Dispatcher,
    other: OtherSystem,
    logs: list[MutableMapping[str, Any]],
) -> None:
    with database_away(engine, server):
        message = other.actor("prune", "ops").send("a\0b")
        wait_for(lambda: "message not adopted yet" in [entry["event"] for entry in logs])

    dead = wait_until(engine, dispatcher, message.message_id, "dead")
    assert dead.reason == "unreadable_message"


def test_a_message_whose_id_is_no_text_that_a_column_takes_is_kept(
    engine: Engine, dispatcher: Dispatcher, other: OtherSystem
) -> None:
    other.send_again(other.actor("prune", "ops").message().copy(message_id="\ud800\0"))

    def ended() -> bool:
        dispatcher.step()
        return states(engine) == ["succeeded"]

    wait_for(ended)
