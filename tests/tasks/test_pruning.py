from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, func, select, text
from sqlalchemy.orm import Session

from models import Account, IdempotencyKey, Job, Process, Schedule, ScheduleFire
from models.database import database_now
from tasks.outcomes import Done
from tasks.pruning import (
    KEEP_DEAD_PROCESSES,
    KEEP_IDEMPOTENCY_KEYS,
    KEEP_JOBS,
    prune,
)
from tests.worlds import perform

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

    assert perform(engine, prune, None) == Done({"jobs": len(gone)})

    assert set(session.scalars(select(Job.id))) == kept


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
