"""What operators do by hand: to queues, to schedules, and to single jobs."""

from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from billing.errors import NotFound, RuleViolation
from models import Job, Queue, Schedule, job_ledger
from models.database import database_now
from models.job_ledger import DeadJobs, Enqueued
from models.queue import PAUSED_FOR_OUTAGE
from tasks.catalogue import KINDS
from tasks.enqueueing import enqueue


def pause_queue(session: Session, name: str, by: str) -> Queue:
    """Start no more jobs of a queue; those that run end as usual. Pausing twice changes nothing.

    What was paused for an outage is paused by a person from then on, and does not end by itself.

    Raises:
        NotFound: There is no such queue.
    """
    queue = _queue(session, name)
    if queue.paused_at is None or queue.paused_by == PAUSED_FOR_OUTAGE:
        queue.paused_at, queue.paused_by = database_now(session), by
    session.flush()
    return queue


def resume_queue(session: Session, name: str) -> Queue:
    """Start jobs of a queue again.

    Raises:
        NotFound: There is no such queue.
    """
    queue = _queue(session, name)
    queue.paused_at = queue.paused_by = None
    session.flush()
    return queue


def run_schedule(session: Session, name: str, by: str) -> Enqueued:
    """Enqueue a schedule's job now, paused or not; its own next time stays.

    Raises:
        NotFound: There is no such schedule.
    """
    schedule = _schedule(session, name)
    kind = KINDS[schedule.kind]
    arguments: dict[str, Any] = {}
    if "fire_at" in kind.arguments.model_fields:
        arguments["fire_at"] = database_now(session)
    return enqueue(session, kind, account_id=None, requested_by=by, **arguments)


def pause_schedule(session: Session, name: str, by: str) -> Schedule:
    """Let a schedule fire no more by itself. Pausing twice changes nothing.

    Raises:
        NotFound: There is no such schedule.
    """
    schedule = _schedule(session, name)
    if schedule.paused_at is None:
        schedule.paused_at, schedule.paused_by = database_now(session), by
    session.flush()
    return schedule


def resume_schedule(session: Session, name: str) -> Schedule:
    """Let a schedule fire again; the times it missed are stood for by one fire.

    Raises:
        NotFound: There is no such schedule.
    """
    schedule = _schedule(session, name)
    schedule.paused_at = schedule.paused_by = None
    session.flush()
    return schedule


def retry_job(session: Session, job_id: UUID) -> Job:
    """Make a dead, failed or cancelled job ready again, with fresh attempts.

    Raises:
        NotFound: There is no such job.
        RuleViolation: It is in another state, or another job does its work (``job_not_retryable``).
    """
    retried = job_ledger.retry(session.connection(), job_id)
    job = _job(session, job_id)
    if not retried:
        raise RuleViolation(
            "job_not_retryable",
            f"the job is {job.state}: a dead, failed or cancelled one can be retried, "
            "unless another job stands for the same work",
        )
    return job


def replay_dead_jobs(session: Session, wanted: DeadJobs, *, dry_run: bool) -> int:
    """Make every dead job that is meant ready again, each once; or only count them.

    Of several that stand for the same work the newest is meant, and none whose work an
    unfinished job has taken over.
    """
    if dry_run:
        return len(job_ledger.replayable(session.connection(), wanted))
    return job_ledger.replay(session.connection(), wanted)


def cancel_job(session: Session, job_id: UUID) -> Job:
    """Stop a job that has not started.

    Raises:
        NotFound: There is no such job.
        RuleViolation: It runs, has ended, or waits for its children (``job_not_cancellable``).
    """
    cancelled = job_ledger.cancel(session.connection(), job_id)
    job = _job(session, job_id)
    if not cancelled:
        raise RuleViolation(
            "job_not_cancellable",
            f"the job is {job.state}: one that runs, has ended or waits for other jobs "
            "cannot be cancelled",
        )
    return job


def _queue(session: Session, name: str) -> Queue:
    queue = session.get(Queue, name, with_for_update=True)
    if queue is None:
        raise NotFound("queue", name)
    return queue


def _schedule(session: Session, name: str) -> Schedule:
    schedule = session.get(Schedule, name, with_for_update=True)
    if schedule is None:
        raise NotFound("schedule", name)
    return schedule


def _job(session: Session, job_id: UUID) -> Job:
    job = session.get(Job, job_id, populate_existing=True)
    if job is None:
        raise NotFound("job", str(job_id))
    return job
