"""Forgetting what nobody asks for any more; never unfinished work."""

from datetime import timedelta

from sqlalchemy import ColumnElement, delete, inspect, select, tuple_
from sqlalchemy.orm import Session

from models import BillingRun, IdempotencyKey, Process, ScheduleFire, WebhookEvent, job_ledger
from models.base import Base
from tasks.kinds import Run, job
from tasks.outcomes import Done, Outcome, Snooze

KEEP_JOBS = timedelta(days=30)
# Longer than any client keeps retrying one request.
KEEP_IDEMPOTENCY_KEYS = timedelta(days=3)
KEEP_DEAD_PROCESSES = timedelta(days=1)
# Longer than a vendor can send one again (Stripe's are kept for 30 days), and than the questions of
# a quarter's end take. What they told stands in payments, attempts and mails for good.
KEEP_HANDLED_EVENTS = timedelta(days=90)

# A transaction deletes no more than this of each, and the next run goes on.
BATCH = 1_000


@job(queue="ops")
def prune(run: Run, session: Session) -> Outcome:
    """Delete finished jobs, dry runs, answered keys, handled events, old fires and dead processes.

    Comes back at once for as long as a batch was full.
    """
    long_ago = run.now - KEEP_JOBS
    deleted = [
        job_ledger.prune(session.connection(), keep=KEEP_JOBS, limit=BATCH),
        # Nothing but their own job refers to dry runs.
        _forget(session, BillingRun, BillingRun.dry_run & (BillingRun.finished_at < long_ago)),
        _forget(
            session, IdempotencyKey, IdempotencyKey.created_at < run.now - KEEP_IDEMPOTENCY_KEYS
        ),
        _forget(session, ScheduleFire, ScheduleFire.fire_at < long_ago),
        _forget(session, WebhookEvent, WebhookEvent.handled_at < run.now - KEEP_HANDLED_EVENTS),
        _forget(session, Process, Process.heartbeat_at < run.now - KEEP_DEAD_PROCESSES),
    ]
    return Snooze(timedelta(0)) if BATCH in deleted else Done({})


def _forget(session: Session, model: type[Base], condition: ColumnElement[bool]) -> int:
    """Delete a batch of rows, but none that somebody holds; how many."""
    key = inspect(model).primary_key
    batch = select(*key).where(condition).limit(BATCH).with_for_update(skip_locked=True)
    return session.connection().execute(delete(model).where(tuple_(*key).in_(batch))).rowcount
