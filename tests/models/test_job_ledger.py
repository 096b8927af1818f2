import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, delete, func, insert, select
from sqlalchemy.orm import Session

from billing.job_states import FINAL, JobState
from models import Account, Job, JobAttempt, job_ledger
from models.job_ledger import Claim, Ending, Enqueued
from tests.jobs import (
    LEASE,
    a_job,
    change_job,
    claim,
    dispatch,
    job_of,
    let_lease_expire,
    new_job,
    pause,
    rescue,
    resume,
    runs_of,
    started,
    states,
    wait_until_blocked,
)
from tests.worlds import together

HOUR = timedelta(hours=1)
FAR_AWAY = datetime(2100, 1, 1, tzinfo=UTC)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


SUCCEEDED = Ending(state=JobState.SUCCEEDED, outcome="succeeded")


def enqueue(engine: Engine, **fields: Any) -> Enqueued:
    with engine.begin() as connection:
        return job_ledger.enqueue(connection, new_job(**fields))


def end(engine: Engine, claimed: Claim, state: JobState, **fields: Any) -> bool:
    """Finish a run."""
    more = {} if state in FINAL else {"after": timedelta(0)}
    ending = Ending(**{"state": state, "outcome": state.value, **more, **fields})
    with engine.begin() as connection:
        return job_ledger.finish(connection, claimed, ending)


def succeed(engine: Engine, job_id: UUID) -> None:
    assert end(engine, started(engine, job_id), JobState.SUCCEEDED)


def retry(engine: Engine, job_id: UUID) -> bool:
    with engine.begin() as connection:
        return job_ledger.retry(connection, job_id)


def cancel(engine: Engine, job_id: UUID) -> bool:
    with engine.begin() as connection:
        return job_ledger.cancel(connection, job_id)


def park(engine: Engine, job_id: UUID) -> None:
    with engine.begin() as connection:
        job_ledger.park(connection, job_id, reason="unknown_kind", message="no such kind")


def lost(engine: Engine) -> list[UUID]:
    """Send again what was dispatched and never started; which jobs."""
    with engine.begin() as connection:
        return [bell.job_id for bell in job_ledger.redispatch_lost(connection)]


def promote(engine: Engine) -> int:
    with engine.begin() as connection:
        return job_ledger.promote_due(connection)


def dispatched_ago(engine: Engine, job_id: UUID, seconds: float) -> None:
    change_job(engine, job_id, dispatched_at=func.now() - timedelta(seconds=seconds))


def accounts(engine: Engine, count: int) -> list[UUID]:
    with engine.begin() as connection:
        new = insert(Account).returning(Account.id)
        return [
            connection.execute(new.values(name=f"Account {n}")).scalar_one() for n in range(count)
        ]


def into(engine: Engine, job_id: UUID, state: str) -> None:
    """Bring a ready job into a state, on the way that jobs take."""
    if state == "scheduled":
        change_job(engine, job_id, state="scheduled", run_at=FAR_AWAY)
    elif state in ("dispatched", "running"):
        dispatch(engine)
        assert state == "dispatched" or claim(engine, job_id)
    elif state == "cancelled":
        assert cancel(engine, job_id)
    elif state != "ready":
        assert end(engine, started(engine, job_id), JobState(state))


# Enqueueing


def test_a_job_exists_only_if_its_transaction_commits(engine: Engine) -> None:
    with engine.connect() as connection:
        job_ledger.enqueue(connection, new_job())
        connection.rollback()
    assert states(engine) == []

    enqueue(engine)
    assert states(engine) == ["ready"]


@pytest.mark.parametrize(
    ("run_at", "state"), [(None, "ready"), (LONG_AGO, "ready"), (FAR_AWAY, "scheduled")]
)
def test_only_a_job_for_later_is_scheduled(
    engine: Engine, run_at: datetime | None, state: str
) -> None:
    job = job_of(engine, a_job(engine, run_at=run_at))
    assert job.state == state
    assert run_at in (None, job.run_at)


@pytest.mark.parametrize("state", ["scheduled", "ready", "dispatched", "failed"])
def test_the_same_key_again_joins_a_job_that_waits(engine: Engine, state: str) -> None:
    first = enqueue(engine, unique_key="work")
    into(engine, first.id, state)

    second = enqueue(engine, unique_key="work")

    assert (first.created, second) == (True, Enqueued(first.id, created=False))
    assert len(states(engine)) == 1
    assert not job_of(engine, first.id).rerun


def test_joining_brings_a_scheduled_job_forward_and_never_back(engine: Engine) -> None:
    job_id = a_job(engine, unique_key="work", run_at=FAR_AWAY)
    a_job(engine, unique_key="work", run_at=FAR_AWAY + HOUR)
    assert job_of(engine, job_id).run_at == FAR_AWAY

    a_job(engine, unique_key="work")
    assert promote(engine) == 1
    assert job_of(engine, job_id).state == "ready"


def test_joining_a_failed_job_shortens_no_backoff(engine: Engine) -> None:
    job_id = a_job(engine, unique_key="work")
    end(engine, started(engine, job_id), JobState.FAILED, after=HOUR)

    a_job(engine, unique_key="work")

    assert promote(engine) == 0


def test_joining_a_parent_does_not_wake_it_before_its_children_end(engine: Engine) -> None:
    parent = a_job(engine, unique_key="work")
    end(engine, started(engine, parent), JobState.SCHEDULED, after=HOUR, children=1)

    a_job(engine, unique_key="work")

    assert promote(engine) == 0


@pytest.mark.parametrize("state", sorted(FINAL))
def test_a_key_is_free_again_once_its_job_has_ended(engine: Engine, state: str) -> None:
    first = a_job(engine, unique_key="work")
    into(engine, first, state)

    second = enqueue(engine, unique_key="work")

    assert second.created
    assert second.id != first


def test_a_running_job_that_is_asked_for_again_runs_again(engine: Engine) -> None:
    job_id = a_job(engine, unique_key="work")
    running = started(engine, job_id)

    assert enqueue(engine, unique_key="work") == Enqueued(job_id, created=False)
    assert end(engine, running, JobState.SUCCEEDED)

    job = job_of(engine, job_id)
    assert (job.state, job.attempt, job.rerun, job.finished_at) == ("ready", 0, False, None)
    succeed(engine, job_id)
    assert job_of(engine, job_id).state == "succeeded"
    assert runs_of(engine, job_id) == [(1, "succeeded"), (1, "succeeded")]


def test_a_job_asked_for_again_while_it_fails_for_good_runs_again(engine: Engine) -> None:
    job_id = a_job(engine, unique_key="work")
    running = started(engine, job_id)
    a_job(engine, unique_key="work")

    assert end(engine, running, JobState.DEAD, reason="attempts_exhausted")

    assert (job_of(engine, job_id).state, job_of(engine, job_id).attempt) == ("ready", 0)


def test_a_failing_job_that_was_asked_for_again_can_end_its_run(engine: Engine) -> None:
    job_id = a_job(engine, unique_key="work")
    running = started(engine, job_id)
    a_job(engine, unique_key="work")

    assert end(engine, running, JobState.FAILED)

    assert states(engine) == ["failed"]


def test_a_claim_waits_for_the_enqueuer_that_joined_and_sees_its_work(engine: Engine) -> None:
    job_id = a_job(engine, unique_key="work")
    dispatch(engine)
    with ThreadPoolExecutor(1) as thread, engine.connect() as enqueuer:
        enqueuer.execute(insert(Account).values(name="Ada"))
        job_ledger.enqueue(enqueuer, new_job(unique_key="work"))
        claiming = thread.submit(claim, engine, job_id)
        wait_until_blocked(engine)
        enqueuer.commit()
        claimed = claiming.result(10)

    assert claimed is not None
    with engine.connect() as run:
        assert run.scalar(select(Account.name)) == "Ada"
        assert claimed.started_at >= run.execute(select(Account.created_at)).scalar_one()
    assert not job_of(engine, job_id).rerun


def test_a_finish_waits_for_the_enqueuer_that_joined_and_the_job_runs_again(engine: Engine) -> None:
    job_id = a_job(engine, unique_key="work")
    running = started(engine, job_id)
    with ThreadPoolExecutor(1) as thread, engine.connect() as enqueuer:
        job_ledger.enqueue(enqueuer, new_job(unique_key="work"))
        finishing = thread.submit(end, engine, running, JobState.SUCCEEDED)
        wait_until_blocked(engine)
        enqueuer.commit()
        assert finishing.result(10)

    assert job_of(engine, job_id).state == "ready"


def test_an_enqueuer_that_met_a_job_s_end_makes_a_new_one(engine: Engine) -> None:
    job_id = a_job(engine, unique_key="work")
    running = started(engine, job_id)
    with ThreadPoolExecutor(1) as thread, engine.connect() as finisher:
        job_ledger.finish(finisher, running, SUCCEEDED)
        enqueueing = thread.submit(enqueue, engine, unique_key="work")
        wait_until_blocked(engine)
        finisher.commit()
        enqueued = enqueueing.result(10)

    assert enqueued.created
    assert states(engine) == ["succeeded", "ready"]


def test_of_two_that_ask_for_the_same_at_once_one_makes_the_job(engine: Engine) -> None:
    for n in range(10):

        def ask(key: str = f"work {n}") -> Enqueued:
            return enqueue(engine, unique_key=key)

        first, second = together(ask, ask)
        assert first.id == second.id
        assert {first.created, second.created} == {True, False}


def enqueue_many(engine: Engine, *keys: str | None) -> None:
    with engine.begin() as connection:
        job_ledger.enqueue_many(connection, [new_job(unique_key=key) for key in keys])


def keys_and_states(engine: Engine) -> list[tuple[str | None, str]]:
    with Session(engine) as session:
        rows = session.execute(select(Job.unique_key, Job.state).order_by(Job.unique_key, Job.id))
        return [(row.unique_key, row.state) for row in rows]


def test_of_many_at_once_those_with_a_known_key_join_and_the_others_are_made(
    engine: Engine,
) -> None:
    waiting, later = a_job(engine, unique_key="a"), a_job(engine, unique_key="b", run_at=FAR_AWAY)

    enqueue_many(engine, "c", None, "b", "a", None)

    assert keys_and_states(engine) == [
        ("a", "ready"),
        ("b", "scheduled"),
        ("c", "ready"),
        (None, "ready"),
        (None, "ready"),
    ]
    assert job_of(engine, waiting).state == "ready"
    # Brought forward to now.
    assert promote(engine) == 1
    assert job_of(engine, later).state == "ready"


def test_of_many_at_once_one_that_runs_is_run_again_and_one_that_ended_made_anew(
    engine: Engine,
) -> None:
    ended = a_job(engine, unique_key="a")
    succeed(engine, ended)
    job_id = a_job(engine, unique_key="b")
    running = started(engine, job_id)

    enqueue_many(engine, "a", "b")

    assert keys_and_states(engine) == [("a", "succeeded"), ("a", "ready"), ("b", "running")]
    assert end(engine, running, JobState.SUCCEEDED)
    assert job_of(engine, job_id).state == "ready"


def test_many_asked_for_by_two_at_once_in_any_order_are_made_once(engine: Engine) -> None:
    for n in range(10):
        keys = [f"work {n} {letter}" for letter in "abcdefgh"]
        # In the other order, one that locks as it is told would wait for the other in a ring.
        assert together(
            partial(enqueue_many, engine, *keys), partial(enqueue_many, engine, *reversed(keys))
        ) == [None, None]

    assert Counter(key for key, _ in keys_and_states(engine)).most_common(1)[0][1] == 1
    assert len(states(engine)) == 80


def test_many_exist_only_if_their_transaction_commits(engine: Engine) -> None:
    with engine.connect() as connection:
        job_ledger.enqueue_many(connection, [new_job(unique_key="a"), new_job()])
        connection.rollback()

    assert states(engine) == []


def test_an_adopted_message_is_written_down_once(engine: Engine) -> None:
    message = new_job(id=uuid4())
    with engine.begin() as connection:
        assert job_ledger.adopt(connection, message)
        assert not job_ledger.adopt(connection, message)
    assert states(engine) == ["ready"]


# Time


def test_jobs_become_ready_when_their_time_has_come(engine: Engine) -> None:
    due = a_job(engine, run_at=FAR_AWAY)
    change_job(engine, due, run_at=LONG_AGO)
    later = a_job(engine, run_at=FAR_AWAY)

    assert promote(engine) == 1

    assert job_of(engine, due).state == "ready"
    assert job_of(engine, later).state == "scheduled"


def test_the_next_attempt_waits_from_the_end_of_the_last(engine: Engine) -> None:
    job_id = a_job(engine)
    running = started(engine, job_id)
    long_run = replace(running, started_at=running.started_at - HOUR)
    change_job(engine, job_id, started_at=long_run.started_at)

    assert end(engine, long_run, JobState.FAILED, after=timedelta(seconds=30))

    assert promote(engine) == 0
    change_job(engine, job_id, run_at=Job.run_at - timedelta(seconds=31))
    assert promote(engine) == 1


# Dispatching


def test_dispatching_follows_priority_then_age(engine: Engine) -> None:
    late, early = a_job(engine, run_at=LONG_AGO + HOUR), a_job(engine, run_at=LONG_AGO)
    urgent = a_job(engine, priority=0)

    assert dispatch(engine) == [urgent, early, late]


def test_every_account_s_first_job_goes_before_any_account_s_second(engine: Engine) -> None:
    ada, bell = accounts(engine, 2)
    ada_s = [a_job(engine, account_id=ada, run_at=LONG_AGO) for _ in range(3)]
    bell_s = [a_job(engine, account_id=bell) for _ in range(2)]
    system_s = [a_job(engine)]

    assert dispatch(engine, window=5) == [
        *(ada_s[0], bell_s[0], system_s[0]),
        *(ada_s[1], bell_s[1]),
    ]


def test_a_long_backlog_does_not_take_all_the_room_that_comes_one_by_one(engine: Engine) -> None:
    ada, bell = accounts(engine, 2)
    backlog = [a_job(engine, account_id=ada, run_at=LONG_AGO) for _ in range(6)]
    assert dispatch(engine, window=3) == backlog[:3]
    newcomer = a_job(engine, account_id=bell)

    assert claim(engine, backlog[0])

    assert dispatch(engine, window=3) == [newcomer]


def test_a_priority_goes_before_fairness(engine: Engine) -> None:
    ada, bell = accounts(engine, 2)
    urgent = [a_job(engine, account_id=ada, priority=1) for _ in range(2)]
    a_job(engine, account_id=bell, run_at=LONG_AGO)

    assert dispatch(engine, window=2) == urgent


@pytest.mark.parametrize("seed", range(12))
def test_the_order_is_the_same_however_many_lanes_there_are(engine: Engine, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - a test's own worlds
    window = chance.choice([3, 8, 20])
    lanes = accounts(engine, chance.choice([1, 2, 5, 12]))

    def enqueue_some(count: int) -> None:
        for _ in range(count):
            a_job(
                engine,
                account_id=chance.choice([None, lanes[0], *lanes]),
                priority=chance.choice([1, 2, 2]),
                run_at=LONG_AGO + chance.randrange(3) * HOUR,
            )

    enqueue_some(chance.randrange(6))
    dispatch(engine, window=window // 2)
    enqueue_some(chance.randrange(40))
    with Session(engine) as session:
        outstanding = session.scalars(select(Job.lane).where(Job.state == "dispatched")).all()
        ready = session.scalars(
            select(Job).where(Job.state == "ready").order_by(Job.run_at, Job.id)
        ).all()
    turns: Counter[tuple[int, UUID]] = Counter()
    taken = Counter(outstanding)
    expected = []
    for job in ready:
        turns[job.priority, job.lane] += 1
        turn = turns[job.priority, job.lane] + taken[job.lane]
        expected.append((job.priority, turn, job.run_at, job.id))

    dispatched = dispatch(engine, window=window)

    assert dispatched == [key[-1] for key in sorted(expected)][: window - len(outstanding)]


def test_the_window_bounds_what_is_outstanding_and_tells_when_it_is_full(engine: Engine) -> None:
    jobs = [a_job(engine) for _ in range(3)]
    assert dispatch(engine, window=2) == jobs[:2]

    with engine.begin() as connection:
        assert job_ledger.dispatch(connection, "ops", 2) is None
        assert job_ledger.dispatch(connection, "billing", 2) == []
    assert claim(engine, jobs[0])

    assert dispatch(engine, window=2) == jobs[2:]


def test_two_dispatchers_at_once_never_exceed_the_window(engine: Engine) -> None:
    for _ in range(60):
        a_job(engine)

    for _ in range(25):
        together(*[lambda: dispatch(engine, window=4)] * 3)
        assert Counter(states(engine))["dispatched"] == 4
        change = "UPDATE jobs SET state = 'ready' WHERE state = 'dispatched'"
        with engine.begin() as connection:
            connection.exec_driver_sql(change)


def test_a_dispatcher_leaves_a_queue_to_the_one_that_has_it(engine: Engine) -> None:
    a_job(engine)
    with engine.connect() as first:
        assert job_ledger.dispatch(first, "ops", 64)
        assert dispatch(engine) == []


def test_dispatching_waits_for_no_locked_job(engine: Engine) -> None:
    locked, free = a_job(engine), a_job(engine)
    with engine.connect() as canceller:
        job_ledger.cancel(canceller, locked)
        assert dispatch(engine) == [free]


def test_a_paused_queue_dispatches_nothing_until_it_is_resumed(engine: Engine) -> None:
    job_id = a_job(engine)
    pause(engine)
    assert dispatch(engine) == []

    resume(engine)
    assert dispatch(engine) == [job_id]


def test_a_pause_under_way_already_stops_the_dispatcher(engine: Engine) -> None:
    a_job(engine)
    with engine.connect() as pausing:
        pausing.exec_driver_sql("UPDATE queues SET paused_at = now() WHERE name = 'ops'")
        assert dispatch(engine) == []
        pausing.commit()
    assert dispatch(engine) == []


def test_withdrawn_jobs_are_ready_again_unless_they_started(engine: Engine) -> None:
    waiting, running = a_job(engine), a_job(engine)
    with engine.begin() as connection:
        bells = job_ledger.dispatch(connection, "ops", 64) or []
    assert claim(engine, running)

    with engine.begin() as connection:
        job_ledger.withdraw(connection, bells)

    assert job_of(engine, waiting).state == "ready"
    assert job_of(engine, running).state == "running"


def test_what_nobody_started_is_sent_again_ever_more_rarely(engine: Engine) -> None:
    job_id = a_job(engine)
    dispatch(engine)
    for wait in (5, 10, 20, 40, 60, 60):
        dispatched_ago(engine, job_id, wait - 1)
        assert lost(engine) == []
        dispatched_ago(engine, job_id, wait + 1)
        assert lost(engine) == [job_id]


def test_only_what_may_start_is_sent_again(engine: Engine) -> None:
    running, paused, ready = a_job(engine), a_job(engine), a_job(engine, queue="billing")
    dispatch(engine)
    claim(engine, running)
    pause(engine)
    for job_id in (running, paused, ready):
        dispatched_ago(engine, job_id, 600)

    assert lost(engine) == []

    resume(engine)
    assert lost(engine) == [paused]


# Claiming


def test_of_many_claims_of_one_job_one_is_granted(engine: Engine) -> None:
    for _ in range(15):
        job_id = a_job(engine)
        dispatch(engine)
        claims = together(*[lambda job_id=job_id: claim(engine, job_id)] * 3)
        assert sum(granted is not None for granted in claims) == 1
        assert job_of(engine, job_id).attempt == 1


@pytest.mark.parametrize(
    "state", [state for state in JobState if state not in (JobState.DISPATCHED, JobState.RUNNING)]
)
def test_only_a_dispatched_job_can_be_claimed(engine: Engine, state: str) -> None:
    job_id = a_job(engine)
    into(engine, job_id, state)

    assert claim(engine, job_id) is None
    assert job_of(engine, job_id).state == state


def test_a_claim_holds_all_that_the_run_needs(engine: Engine, account: Account) -> None:
    parent = a_job(engine)
    job_id = a_job(
        engine,
        account_id=account.id,
        args={"id": "7"},
        max_attempts=3,
        requested_by="api:abc",
        parent_id=parent,
    )
    claimed = started(engine, job_id)

    assert (claimed.job_id, claimed.kind, claimed.account_id) == (job_id, "prune", account.id)
    assert (claimed.args, claimed.attempt, claimed.max_attempts) == ({"id": "7"}, 1, 3)
    assert (claimed.requested_by, claimed.parent_id) == ("api:abc", parent)
    assert claimed.started_at == job_of(engine, job_id).started_at
    assert job_of(engine, job_id).worker == "test"


def test_what_was_dispatched_before_a_pause_goes_back_to_wait(engine: Engine) -> None:
    job_id = a_job(engine)
    dispatch(engine)
    pause(engine)

    assert claim(engine, job_id) is None

    job = job_of(engine, job_id)
    assert (job.state, job.attempt, job.started_at, job.worker) == ("ready", 0, None, None)
    resume(engine)
    assert started(engine, job_id).attempt == 1


# Leases


def extend(engine: Engine, *claims: Claim, run_limit: timedelta = HOUR) -> None:
    with engine.begin() as connection:
        job_ledger.extend_leases(connection, claims, lease=HOUR, run_limit=run_limit)


def lease_left(engine: Engine, job_id: UUID) -> timedelta:
    ends_at = job_of(engine, job_id).lease_expires_at
    assert ends_at is not None
    return ends_at - datetime.now(UTC)


def test_a_claim_comes_with_a_lease_that_can_be_extended(engine: Engine) -> None:
    first, second = a_job(engine), a_job(engine)
    claimed = started(engine, first)
    started(engine, second)
    assert LEASE - timedelta(seconds=5) < lease_left(engine, first) <= LEASE

    extend(engine, claimed)

    assert lease_left(engine, first) > LEASE
    assert lease_left(engine, second) <= LEASE


def test_a_run_past_its_limit_gets_no_more_lease(engine: Engine) -> None:
    job_id = a_job(engine)
    claimed = started(engine, job_id)
    change_job(engine, job_id, started_at=func.now() - timedelta(minutes=11))

    extend(engine, claimed, run_limit=timedelta(minutes=10))

    assert lease_left(engine, job_id) <= LEASE


def test_extending_skips_a_locked_job_and_waits_for_nobody(engine: Engine) -> None:
    finishing, running = a_job(engine), a_job(engine)
    claims = [started(engine, finishing), started(engine, running)]
    with engine.connect() as finisher:
        job_ledger.finish(finisher, claims[0], SUCCEEDED)
        extend(engine, *claims)
        finisher.rollback()

    assert lease_left(engine, finishing) <= LEASE
    assert lease_left(engine, running) > LEASE


def test_a_job_whose_lease_ran_out_is_ready_again(engine: Engine) -> None:
    dying, living = a_job(engine), a_job(engine)
    started(engine, dying)
    started(engine, living)
    let_lease_expire(engine, dying)

    assert rescue(engine) == 1

    job = job_of(engine, dying)
    assert (job.state, job.rescues, job.lease_token) == ("ready", 1, None)
    assert job_of(engine, living).state == "running"
    assert runs_of(engine, dying) == [(1, "rescued")]


def test_two_rescuers_at_once_rescue_once(engine: Engine) -> None:
    for _ in range(10):
        job_id = a_job(engine)
        started(engine, job_id)
        let_lease_expire(engine, job_id)
        together(*[lambda: rescue(engine)] * 2)
        assert job_of(engine, job_id).rescues == 1
        assert runs_of(engine, job_id) == [(1, "rescued")]


def test_a_rescue_leaves_alone_what_is_finishing_just_then(engine: Engine) -> None:
    job_id = a_job(engine)
    running = started(engine, job_id)
    let_lease_expire(engine, job_id)
    with engine.connect() as finisher:
        job_ledger.finish(finisher, running, SUCCEEDED)
        assert rescue(engine) == 0
        finisher.commit()

    assert job_of(engine, job_id).state == "succeeded"


def test_a_job_rescued_three_times_is_poison(engine: Engine) -> None:
    job_id = a_job(engine)
    for rescues in (1, 2, 3):
        assert job_of(engine, job_id).state == "ready"
        started(engine, job_id)
        let_lease_expire(engine, job_id)
        rescue(engine)
        assert job_of(engine, job_id).rescues == rescues

    assert (job_of(engine, job_id).state, job_of(engine, job_id).reason) == ("dead", "poison")
    assert job_of(engine, job_id).finished_at is not None
    assert retry(engine, job_id)
    assert (job_of(engine, job_id).rescues, job_of(engine, job_id).reason) == (0, None)


def test_a_run_whose_job_was_rescued_ends_nothing(engine: Engine) -> None:
    job_id = a_job(engine)
    stalled = started(engine, job_id)
    let_lease_expire(engine, job_id)
    rescue(engine)
    assert not end(engine, stalled, JobState.SUCCEEDED)

    current = started(engine, job_id)
    assert not end(engine, stalled, JobState.SUCCEEDED)
    extend(engine, stalled)
    assert lease_left(engine, job_id) <= LEASE
    assert end(engine, current, JobState.SUCCEEDED)


def holds(engine: Engine, claimed: Claim) -> bool:
    with engine.begin() as connection:
        return job_ledger.holds(connection, claimed)


def test_a_lease_holds_until_its_run_ends(engine: Engine) -> None:
    claimed = started(engine, a_job(engine))
    assert holds(engine, claimed)
    # Nobody has taken it, so it may still end its run.
    let_lease_expire(engine, claimed.job_id)
    assert holds(engine, claimed)

    assert end(engine, claimed, JobState.SUCCEEDED)
    assert not holds(engine, claimed)


def test_a_lease_that_another_run_has_taken_does_not_hold(engine: Engine) -> None:
    claimed = started(engine, a_job(engine))
    let_lease_expire(engine, claimed.job_id)
    rescue(engine)
    assert not holds(engine, claimed)

    second = started(engine, claimed.job_id)

    assert not holds(engine, claimed)
    assert holds(engine, second)


def test_a_job_whose_lease_was_looked_at_is_not_rescued_before_the_commit(engine: Engine) -> None:
    claimed = started(engine, a_job(engine))
    let_lease_expire(engine, claimed.job_id)
    with engine.connect() as runner:
        assert job_ledger.holds(runner, claimed)
        assert rescue(engine) == 0
        runner.commit()

    assert rescue(engine) == 1


def test_the_fence_holds_also_when_a_snooze_gave_the_attempt_back(engine: Engine) -> None:
    job_id = a_job(engine)
    stalled = started(engine, job_id)
    let_lease_expire(engine, job_id)
    rescue(engine)
    snoozing = started(engine, job_id)
    end(engine, snoozing, JobState.SCHEDULED, gives_attempt_back=True)
    promote(engine)
    current = started(engine, job_id)
    change_job(engine, job_id, attempt=stalled.attempt)

    assert not end(engine, stalled, JobState.SUCCEEDED)
    assert not end(engine, snoozing, JobState.SUCCEEDED)
    assert end(engine, current, JobState.SUCCEEDED)


# Finishing


@pytest.mark.parametrize("state", ["succeeded", "skipped", "dead"])
def test_an_end_is_written_down_with_what_came_of_it(engine: Engine, state: str) -> None:
    job_id = a_job(engine)
    says: dict[str, Any] = {"result": {"n": 1}, "reason": "why", "error": {"type": "Oops"}}

    assert end(engine, started(engine, job_id), JobState(state), **says)

    job = job_of(engine, job_id)
    assert (job.state, job.result, job.reason, job.error) == (state, *says.values())
    assert job.finished_at is not None
    assert job.started_at is not None
    assert job.finished_at >= job.started_at
    assert (job.lease_token, job.lease_expires_at) == (None, None)
    assert runs_of(engine, job_id) == [(1, state)]


def test_a_finish_that_is_rolled_back_leaves_the_job_running(engine: Engine) -> None:
    job_id = a_job(engine)
    running = started(engine, job_id)
    with engine.connect() as connection:
        job_ledger.finish(connection, running, SUCCEEDED)
        connection.rollback()

    assert job_of(engine, job_id).state == "running"
    assert runs_of(engine, job_id) == []


def test_a_snooze_gives_the_attempt_back(engine: Engine) -> None:
    job_id = a_job(engine)
    snoozing = started(engine, job_id)
    end(engine, snoozing, JobState.SCHEDULED, outcome="snoozed", gives_attempt_back=True)
    promote(engine)

    assert started(engine, job_id).attempt == 1
    assert runs_of(engine, job_id) == [(1, "snoozed")]


# What people do


@pytest.mark.parametrize("state", ["scheduled", "ready", "dispatched", "failed"])
def test_a_job_that_waits_can_be_cancelled_and_never_starts(engine: Engine, state: str) -> None:
    job_id = a_job(engine)
    into(engine, job_id, state)

    assert cancel(engine, job_id)

    change_job(engine, job_id, run_at=LONG_AGO)
    promote(engine)
    assert dispatch(engine) == []
    assert claim(engine, job_id) is None
    assert job_of(engine, job_id).state == "cancelled"


@pytest.mark.parametrize("state", ["running", "succeeded", "skipped", "dead", "cancelled"])
def test_a_job_that_has_started_or_ended_cannot_be_cancelled(engine: Engine, state: str) -> None:
    job_id = a_job(engine)
    into(engine, job_id, state)

    assert not cancel(engine, job_id)
    assert job_of(engine, job_id).state == state


def test_a_parent_that_awaits_its_children_cannot_be_cancelled(engine: Engine) -> None:
    parent = a_job(engine)
    end(engine, started(engine, parent), JobState.SCHEDULED, children=1)

    assert not cancel(engine, parent)


@pytest.mark.parametrize("state", ["dead", "failed", "cancelled"])
def test_a_retried_job_starts_afresh(engine: Engine, state: str) -> None:
    job_id = a_job(engine)
    into(engine, job_id, state)
    change_job(engine, job_id, rescues=2, attempt=8, reason="why", error={"type": "Oops"})

    assert retry(engine, job_id)

    job = job_of(engine, job_id)
    assert (job.state, job.attempt, job.rescues) == ("ready", 0, 0)
    assert (job.reason, job.error, job.finished_at) == (None, None, None)
    succeed(engine, job_id)


@pytest.mark.parametrize(
    "state", ["scheduled", "ready", "dispatched", "running", "succeeded", "skipped"]
)
def test_a_job_that_is_on_its_way_or_done_is_not_retried(engine: Engine, state: str) -> None:
    job_id = a_job(engine)
    into(engine, job_id, state)

    assert not retry(engine, job_id)
    assert job_of(engine, job_id).state == state


def test_a_job_is_not_retried_while_another_stands_for_its_work(engine: Engine) -> None:
    dead = a_job(engine, unique_key="work")
    into(engine, dead, "dead")
    twin = a_job(engine, unique_key="work")

    assert not retry(engine, dead)

    succeed(engine, twin)
    assert retry(engine, dead)


def test_a_retry_that_meets_such_a_job_being_enqueued_leaves_the_work_to_it(engine: Engine) -> None:
    dead = a_job(engine, unique_key="work")
    into(engine, dead, "dead")
    with ThreadPoolExecutor(1) as thread, engine.connect() as enqueuer:
        job_ledger.enqueue(enqueuer, new_job(unique_key="work"))
        retrying = thread.submit(retry, engine, dead)
        wait_until_blocked(engine)
        enqueuer.commit()
        assert retrying.result(10) is False

    assert states(engine) == ["dead", "ready"]


def test_a_job_that_cannot_be_run_is_parked_dead_and_can_be_retried(engine: Engine) -> None:
    job_id = a_job(engine)
    dispatch(engine)

    park(engine, job_id)

    job = job_of(engine, job_id)
    assert (job.state, job.reason) == ("dead", "unknown_kind")
    assert job.error == {"type": "NotRunnable", "message": "no such kind"}
    assert retry(engine, job_id)


def test_a_job_that_somebody_runs_is_not_parked(engine: Engine) -> None:
    job_id = a_job(engine)
    started(engine, job_id)

    park(engine, job_id)

    assert job_of(engine, job_id).state == "running"


def test_a_message_that_cannot_be_run_is_adopted_dead_and_once(engine: Engine) -> None:
    message = new_job(id=uuid4())
    error = {"type": "DataError", "message": "NUL"}
    with engine.begin() as connection:
        assert job_ledger.adopt_dead(connection, message, reason="unreadable", error=error)
        assert not job_ledger.adopt_dead(connection, message, reason="again", error=error)

    assert message.id is not None
    job = job_of(engine, message.id)
    assert (job.state, job.reason, job.error) == ("dead", "unreadable", error)
    assert job.finished_at is not None


def test_pruning_forgets_what_ended_well_long_ago_and_nothing_else(engine: Engine) -> None:
    kept = [a_job(engine) for _ in range(4)]
    for job_id, state in zip(kept, ("failed", "running", "dead", "succeeded"), strict=True):
        into(engine, job_id, state)
    gone = [a_job(engine) for _ in range(3)]
    for job_id, state in zip(gone, ("succeeded", "skipped", "cancelled"), strict=True):
        into(engine, job_id, state)
    for job_id in (kept[2], *gone):
        change_job(engine, job_id, finished_at=LONG_AGO)

    with engine.begin() as connection:
        assert job_ledger.prune(connection, keep=HOUR, limit=2) == 2
        assert job_ledger.prune(connection, keep=HOUR, limit=2) == 1

    with Session(engine) as session:
        assert set(session.scalars(select(Job.id))) == set(kept)
        assert set(session.scalars(select(JobAttempt.job_id))) == {kept[0], kept[2], kept[3]}


# Children


def family(engine: Engine, children: int) -> tuple[UUID, list[UUID]]:
    """A parent that awaits its children, and those, running."""
    parent = a_job(engine)
    running = started(engine, parent)
    young = [a_job(engine, parent_id=parent) for _ in range(children)]
    await_them = {"after": HOUR, "gives_attempt_back": True, "children": children}
    end(engine, running, JobState.SCHEDULED, **await_them)
    return parent, young


def ended_dead(engine: Engine, child: UUID) -> None:
    assert end(engine, started(engine, child), JobState.DEAD)


def ended_skipped(engine: Engine, child: UUID) -> None:
    assert end(engine, started(engine, child), JobState.SKIPPED)


def ended_cancelled(engine: Engine, child: UUID) -> None:
    assert cancel(engine, child)


def ended_parked(engine: Engine, child: UUID) -> None:
    dispatch(engine)
    park(engine, child)


def ended_as_poison(engine: Engine, child: UUID) -> None:
    started(engine, child)
    change_job(engine, child, rescues=2)
    let_lease_expire(engine, child)
    assert rescue(engine) == 1


@pytest.mark.parametrize(
    "ending",
    [succeed, ended_skipped, ended_dead, ended_cancelled, ended_parked, ended_as_poison],
)
def test_a_parent_wakes_when_its_last_child_has_ended_however_it_did(
    engine: Engine, ending: Callable[[Engine, UUID], None]
) -> None:
    parent, (first, last) = family(engine, 2)

    succeed(engine, first)
    assert (job_of(engine, parent).state, promote(engine)) == ("scheduled", 0)
    ending(engine, last)

    woken = job_of(engine, parent)
    assert (woken.state, woken.children_pending) == ("ready", 0)
    assert started(engine, parent).attempt == 1


def test_a_child_that_will_run_again_has_not_ended(engine: Engine) -> None:
    parent = a_job(engine)
    running = started(engine, parent)
    child = a_job(engine, parent_id=parent, unique_key="work")
    end(engine, running, JobState.SCHEDULED, after=HOUR, children=1)

    end(engine, started(engine, child), JobState.FAILED)
    promote(engine)
    attempt = started(engine, child)
    a_job(engine, unique_key="work")
    end(engine, attempt, JobState.SUCCEEDED)
    assert job_of(engine, parent).state == "scheduled"

    succeed(engine, child)
    assert job_of(engine, parent).state == "ready"


def test_two_last_children_that_end_at_once_wake_the_parent_once(engine: Engine) -> None:
    for _ in range(15):
        parent, children = family(engine, 2)
        claims = [started(engine, child) for child in children]

        def finish(claimed: Claim) -> bool:
            return end(engine, claimed, JobState.SUCCEEDED)

        assert together(*[lambda c=c: finish(c) for c in claims]) == [True, True]
        assert dispatch(engine) == [parent]
        assert end(engine, _claimed(engine, parent), JobState.SUCCEEDED)


def test_the_second_of_two_last_children_counts_what_the_first_has_not_committed(
    engine: Engine,
) -> None:
    parent, children = family(engine, 2)
    first, second = (started(engine, child) for child in children)
    with ThreadPoolExecutor(1) as thread, engine.connect() as finisher:
        job_ledger.finish(finisher, first, SUCCEEDED)
        finishing = thread.submit(end, engine, second, JobState.SUCCEEDED)
        wait_until_blocked(engine)
        finisher.commit()
        assert finishing.result(10)

    assert job_of(engine, parent).state == "ready"


def test_a_dead_child_that_is_retried_is_waited_for_again(engine: Engine) -> None:
    parent, (first, second) = family(engine, 2)
    ended_dead(engine, first)
    assert retry(engine, first)

    succeed(engine, second)
    assert job_of(engine, parent).state == "scheduled"
    succeed(engine, first)
    assert job_of(engine, parent).state == "ready"


def test_a_child_retried_while_its_parent_runs_is_not_taken_for_one_of_the_next_round(
    engine: Engine,
) -> None:
    parent, (retried,) = family(engine, 1)
    ended_dead(engine, retried)
    next_round = started(engine, parent)
    assert retry(engine, retried)
    child = a_job(engine, parent_id=parent)
    end(engine, next_round, JobState.SCHEDULED, after=HOUR, children=1)

    succeed(engine, retried)
    assert job_of(engine, parent).state == "scheduled"
    succeed(engine, child)
    assert job_of(engine, parent).state == "ready"


def test_children_outlive_a_parent_that_was_pruned(engine: Engine) -> None:
    parent, (child,) = family(engine, 1)
    with engine.begin() as connection:
        connection.execute(delete(Job).where(Job.id == parent))

    succeed(engine, child)
    assert job_of(engine, child).parent_id is None


def _claimed(engine: Engine, job_id: UUID) -> Claim:
    claimed = claim(engine, job_id)
    assert claimed is not None
    return claimed
