"""How full each queue is, and how long its work has waited."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select, union_all
from sqlalchemy.orm import Session

from billing.job_states import FINAL, JobState
from models import Job, Queue

COUNTED = tuple(state for state in JobState if state not in FINAL or state is JobState.DEAD)
"""The states whose jobs are counted: what is not over, and what waits for a person."""


@dataclass(frozen=True, slots=True)
class QueueReport:
    """A queue's jobs by state (each of ``COUNTED``), and the age of the oldest ready one."""

    name: str
    paused_at: datetime | None
    paused_by: str | None
    jobs: dict[JobState, int]
    oldest_ready_age_seconds: float


def queue_reports(session: Session) -> list[QueueReport]:
    """Every queue, by name."""
    # One branch a state, so that each reads its own partial index.
    branches = [
        select(Job.queue, Job.state, func.count(), func.min(Job.run_at))
        .where(Job.state == state)
        .group_by(Job.queue, Job.state)
        for state in COUNTED
    ]
    jobs: dict[str, dict[JobState, int]] = defaultdict(lambda: dict.fromkeys(COUNTED, 0))
    oldest: dict[str, datetime] = {}
    for queue, state, count, earliest in session.execute(union_all(*branches)):
        jobs[queue][JobState(state)] = count
        if state == JobState.READY:
            oldest[queue] = earliest
    now = session.execute(select(func.clock_timestamp())).scalar_one()
    return [
        QueueReport(
            queue.name,
            queue.paused_at,
            queue.paused_by,
            jobs[queue.name],
            max(0.0, (now - oldest.get(queue.name, now)).total_seconds()),
        )
        for queue in session.scalars(select(Queue).order_by(Queue.name))
    ]
