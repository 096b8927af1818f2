"""Forgetting what nobody asks for any more; never unfinished work."""

from datetime import timedelta

from sqlalchemy import delete
from sqlalchemy.orm import Session

from models import IdempotencyKey, Process, ScheduleFire, job_ledger
from tasks.kinds import Run, job
from tasks.outcomes import Done, Outcome

KEEP_JOBS = timedelta(days=30)
# Longer than any client keeps retrying one request.
KEEP_IDEMPOTENCY_KEYS = timedelta(days=3)
KEEP_DEAD_PROCESSES = timedelta(days=1)


@job(queue="ops")
def prune(run: Run, session: Session) -> Outcome:
    """Delete finished jobs, answered keys, old fires and the rows of processes long gone."""
    jobs = job_ledger.prune(session.connection(), keep=KEEP_JOBS)
    old = [
        delete(IdempotencyKey).where(IdempotencyKey.created_at < run.now - KEEP_IDEMPOTENCY_KEYS),
        delete(ScheduleFire).where(ScheduleFire.fire_at < run.now - KEEP_JOBS),
        delete(Process).where(Process.heartbeat_at < run.now - KEEP_DEAD_PROCESSES),
    ]
    for statement in old:
        session.execute(statement.execution_options(synchronize_session=False))
    return Done({"jobs": jobs})
