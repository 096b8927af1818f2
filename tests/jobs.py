"""Jobs made, started and looked at by tests of the job machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql
from sqlalchemy import Engine, select, text, update
from sqlalchemy.orm import Session

from models import Job, JobAttempt, Queue, job_ledger
from models.job_ledger import Claim, NewJob
from tasks.kinds import KINDS
from tests.waiting import wait_for

LEASE = timedelta(seconds=15)


def a_job(engine: Engine, **fields: Any) -> UUID:
    """A committed job, ready unless ``fields`` say otherwise."""
    with engine.begin() as connection:
        return job_ledger.enqueue(connection, new_job(**fields)).id


def new_job(**fields: Any) -> NewJob:
    """A job to be written down, of a kind that the ledger need not know."""
    basics = {"kind": "prune", "queue": "ops", "args": {}, "max_attempts": 8}
    return NewJob(**{"requested_by": "test", **basics, **fields})


def job_of(engine: Engine, job_id: UUID) -> Job:
    """A job as it stands now."""
    with Session(engine) as session:
        return session.get_one(Job, job_id)


def states(engine: Engine) -> list[str]:
    """The states of all jobs, oldest job first."""
    with Session(engine) as session:
        return list(session.scalars(select(Job.state).order_by(Job.id)))


def runs_of(engine: Engine, job_id: UUID) -> list[tuple[int, str]]:
    """Attempt and outcome of each run of a job that has ended, in order."""
    with Session(engine) as session:
        ended = select(JobAttempt.attempt, JobAttempt.outcome).where(JobAttempt.job_id == job_id)
        return [(attempt, what) for attempt, what in session.execute(ended.order_by(JobAttempt.id))]


def dispatch(engine: Engine, queue: str = "ops", *, window: int = 64) -> list[UUID]:
    """Dispatch what is ready; the jobs to ring for, in order."""
    with engine.begin() as connection:
        return [bell.job_id for bell in job_ledger.dispatch(connection, queue, window) or []]


def claim(engine: Engine, job_id: UUID, *, worker: str = "test") -> Claim | None:
    """Claim a dispatched job in a transaction of its own."""
    with engine.begin() as connection:
        return job_ledger.claim(connection, job_id, worker=worker, lease=LEASE)


def started(engine: Engine, job_id: UUID) -> Claim:
    """The claim of a ready job, dispatched and started by now."""
    dispatch(engine)
    claimed = claim(engine, job_id)
    assert claimed is not None
    return claimed


def change_job(engine: Engine, job_id: UUID, **columns: Any) -> None:
    """Change a job's row behind the machine's back, as time or a fault would."""
    with engine.begin() as connection:
        connection.execute(update(Job).where(Job.id == job_id).values(**columns))


def let_lease_expire(engine: Engine, job_id: UUID) -> None:
    """Let the lease of a running job have ended a second ago."""
    change_job(engine, job_id, lease_expires_at=text("now() - interval '1 second'"))


def rescue(engine: Engine) -> int:
    """Rescue what has an expired lease; how many jobs."""
    with engine.begin() as connection:
        return job_ledger.rescue_expired(connection)


def pause(engine: Engine, queue: str = "ops") -> None:
    """Pause a queue."""
    _set_pause(engine, queue, text("now()"))


def resume(engine: Engine, queue: str = "ops") -> None:
    """Let a queue's jobs start again."""
    _set_pause(engine, queue, None)


def _set_pause(engine: Engine, queue: str, paused_at: Any) -> None:  # noqa: ANN401 - SQL or nothing
    with engine.begin() as connection:
        connection.execute(update(Queue).where(Queue.name == queue).values(paused_at=paused_at))


def wait_until_blocked(engine: Engine, *, connections: int = 1) -> None:
    """Wait until so many connections to this database wait for a lock."""
    blocked = text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )

    def so_many() -> bool:
        # What others do is looked at once a transaction, so each look is one.
        with engine.connect() as connection:
            return bool(connection.execute(blocked).scalar_one() == connections)

    wait_for(so_many, what=f"{connections} connections are blocked")


@contextmanager
def kinds_of_its_own() -> Iterator[None]:
    """Whatever kinds are registered inside are forgotten afterwards."""
    before = dict(KINDS)
    try:
        yield
    finally:
        KINDS.clear()
        KINDS.update(before)


@contextmanager
def database_away(engine: Engine, server: str) -> Iterator[None]:
    """An outage: the test's database ends every connection and takes no new one."""
    name = engine.url.database or ""
    allow = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
    with psycopg.connect(server.rpartition("/")[0] + "/postgres", autocommit=True) as admin:
        admin.execute(allow.format(sql.Identifier(name), sql.SQL("false")))
        admin.execute(end, [name])
        try:
            yield
        finally:
            admin.execute(allow.format(sql.Identifier(name), sql.SQL("true")))
