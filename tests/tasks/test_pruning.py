from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, func, select, text
from sqlalchemy.orm import Session

import tasks.pruning
from models import (
    Account,
    BillingRun,
    IdempotencyKey,
    Job,
    Process,
    Schedule,
    ScheduleFire,
    WebhookEvent,
)
from models.database import database_now
from tasks.enqueueing import enqueue
from tasks.outcomes import Done
from tasks.pruning import (
    KEEP_DEAD_PROCESSES,
    KEEP_HANDLED_EVENTS,
    KEEP_IDEMPOTENCY_KEYS,
    KEEP_JOBS,
    prune,
)
from tests.worlds import perform, work

A_MINUTE = timedelta(minutes=1)


def a_job(session: Session, state: str, age: timedelta | None, **fields: Any) -> UUID:
    """A job that ended ``age`` ago, by the database's clock."""
    job = Job(
        kind="prune",
        queue="ops",
        state=state,
        max_attempts=8,
        requested_by="test",
        finished_at=None if age is None else database_now(session) - age,
        created_at=database_now(session) - timedelta(days=400),
        **fields,
    )
    session.add(job)
    session.flush()
    return job.id


def test_only_jobs_that_ended_well_and_long_ago_are_forgotten(
    engine: Engine, session: Session
) -> None:
    old, young = KEEP_JOBS + A_MINUTE, KEEP_JOBS - A_MINUTE
    gone = {a_job(session, state, old) for state in ("succeeded", "skipped", "cancelled")}
    kept = {a_job(session, state, young) for state in ("succeeded", "skipped", "cancelled")}
    kept |= {a_job(session, "dead", old)}
    kept |= {
        a_job(session, state, None) for state in ("ready", "scheduled", "failed", "dispatched")
    }
    session.commit()

    assert perform(engine, prune, None) == Done({})

    left = set(session.scalars(select(Job.id)))
    assert left == kept
    assert left.isdisjoint(gone)


def test_pruning_goes_on_in_batches_until_all_is_forgotten(
    engine: Engine, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.pruning, "BATCH", 2)
    now = database_now(session)
    for _ in range(7):
        a_job(session, "succeeded", KEEP_JOBS + A_MINUTE)
        session.add(Process(kind="worker", host="h", pid=1, heartbeat_at=now - KEEP_JOBS))
    pruning = enqueue(session, prune, account_id=None, requested_by="test").id
    session.commit()

    assert work(engine) == 4

    assert session.scalars(select(Job.id)).all() == [pruning]
    assert session.scalars(select(Process.id)).all() == []


def test_old_dry_runs_are_forgotten_and_no_real_run_is(
    engine: Engine, session: Session, account: Account
) -> None:
    now = database_now(session)
    old, young = now - KEEP_JOBS - A_MINUTE, now - KEEP_JOBS + A_MINUTE

    def a_run(finished_at: datetime | None, *, dry_run: bool) -> BillingRun:
        run = BillingRun(
            account_id=account.id, as_of_at=now, dry_run=dry_run, finished_at=finished_at
        )
        session.add(run)
        return run

    gone = a_run(old, dry_run=True)
    kept = [a_run(old, dry_run=False), a_run(young, dry_run=True), a_run(None, dry_run=True)]
    session.commit()

    perform(engine, prune, None, now=now)

    left = set(session.scalars(select(BillingRun.id)))
    assert left == {run.id for run in kept}
    assert gone.id not in left


def test_a_kept_child_of_a_forgotten_job_stays(engine: Engine, session: Session) -> None:
    parent = a_job(session, "succeeded", KEEP_JOBS + A_MINUTE)
    a_job(session, "dead", KEEP_JOBS + A_MINUTE, parent_id=parent)
    session.commit()

    perform(engine, prune, None)

    assert session.scalars(select(Job.parent_id)).all() == [None]


@pytest.mark.parametrize(("age", "kept"), [(A_MINUTE, 0), (-A_MINUTE, 3)])
def test_keys_fires_and_dead_processes_are_forgotten_in_time(
    engine: Engine, session: Session, account: Account, age: timedelta, kept: int
) -> None:
    now = database_now(session)
    session.add_all(
        [
            IdempotencyKey(
                account_id=account.id,
                key="k",
                request_sha256="0",
                created_at=now - KEEP_IDEMPOTENCY_KEYS - age,
            ),
            Schedule(
                name="nightly",
                cron="0 3 * * *",
                time_zone="UTC",
                kind="prune",
                description="",
                next_fire_at=now,
            ),
            Process(kind="worker", host="h", pid=1, heartbeat_at=now - KEEP_DEAD_PROCESSES - age),
        ]
    )
    session.flush()
    session.add(ScheduleFire(schedule="nightly", fire_at=now - KEEP_JOBS - age, job_id=uuid4()))
    session.commit()

    perform(engine, prune, None, now=now)

    tables = (IdempotencyKey, ScheduleFire, Process)
    left = [session.scalar(select(func.count()).select_from(table)) or 0 for table in tables]
    assert sum(left) == kept
    assert session.execute(text("SELECT count(*) FROM schedules")).scalar_one() == 1


def test_events_are_forgotten_long_after_they_were_handled_and_never_before(
    engine: Engine, session: Session
) -> None:
    now = database_now(session)

    def an_event(name: str, handled_at: datetime | None) -> None:
        received_at = now - timedelta(days=400)
        event = WebhookEvent(
            provider="stripe",
            event_id=name,
            type="payment_intent.succeeded",
            payload={},
            received_at=received_at,
            handled_at=handled_at,
        )
        session.add(event)

    an_event("old", now - KEEP_HANDLED_EVENTS - A_MINUTE)
    an_event("young", now - KEEP_HANDLED_EVENTS + A_MINUTE)
    an_event("unhandled", None)
    session.commit()

    perform(engine, prune, None, now=now)

    assert set(session.scalars(select(WebhookEvent.event_id))) == {"young", "unhandled"}
