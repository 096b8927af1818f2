"""Handing a job over to another kind, which its queue's workers can do; its end is this one's."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from billing.job_states import FINAL, JobState
from models import Job
from tasks.enqueueing import enqueue
from tasks.kinds import JobKind, Run
from tasks.outcomes import AwaitChildren, Done, Fail, Outcome, Skip


class HandedOverUnfinished(Exception):  # noqa: N818 - named as the fact it states
    """The job that was to do it died or was cancelled, so nobody knows what came of it."""


def hand_over(session: Session, run: Run, kind: JobKind, **arguments: Any) -> Outcome:
    """Have a job of ``kind`` do what this one was asked for; run again, this ends as that did."""
    other = session.scalar(
        select(Job).where(Job.parent_id == run.job_id, Job.kind == kind.name).limit(1)
    )
    if other is None:
        enqueue(
            session,
            kind,
            account_id=run.account_id,
            requested_by=run.requested_by,
            parent_id=run.job_id,
            **arguments,
        )
        return AwaitChildren(1)
    if other.state not in FINAL:
        return AwaitChildren(0)
    result = other.result or {}
    match other.state:
        case JobState.SUCCEEDED:
            return Done(result)
        case JobState.SKIPPED:
            return Skip(str(other.reason), str(result.get("message")))
        case _:
            return Fail(
                HandedOverUnfinished(f"job {other.id} was not finished: retry that job first"),
                "handed_over_unfinished",
            )
