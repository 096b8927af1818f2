"""Jobs as the outside reads them: the same JSON over HTTP and on the command line."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from models import Job, JobAttempt

MAX_CHILDREN_LISTED = 200

_SUBJECT_PATHS = {
    "billing_run": "/v1/billing-runs",
    "client": "/v1/clients",
    "invoice": "/v1/invoices",
    "payment": "/v1/payments",
}


def job_report(job: Job) -> dict[str, Any]:
    """One job as JSON values; instants are RFC 3339 in UTC."""
    links = {"self": f"/v1/jobs/{job.id}"}
    if job.subject_type in _SUBJECT_PATHS:
        links["subject"] = f"{_SUBJECT_PATHS[job.subject_type]}/{job.subject_id}"
    return {
        "id": str(job.id),
        "kind": job.kind,
        "state": job.state,
        "queue": job.queue,
        "subject": None
        if job.subject_type is None
        else {"type": job.subject_type, "id": str(job.subject_id)},
        "attempt": job.attempt,
        "created_at": _instant(job.created_at),
        "started_at": _instant(job.started_at),
        "finished_at": _instant(job.finished_at),
        "result": job.result,
        "reason": job.reason,
        "error": job.error,
        "links": links,
    }


def full_job_report(session: Session, job: Job) -> dict[str, Any]:
    """The same with ``attempts``, the runs that have ended, and ``children``, both oldest first.

    At most ``MAX_CHILDREN_LISTED`` children are listed.
    """
    attempts = session.scalars(
        select(JobAttempt).where(JobAttempt.job_id == job.id).order_by(JobAttempt.id)
    )
    children = session.scalars(
        select(Job).where(Job.parent_id == job.id).order_by(Job.id).limit(MAX_CHILDREN_LISTED)
    )
    return {
        **job_report(job),
        "attempts": [
            {
                "attempt": attempt.attempt,
                "outcome": attempt.outcome,
                "worker": attempt.worker,
                "error": attempt.error,
                "started_at": _instant(attempt.started_at),
                "ended_at": _instant(attempt.ended_at),
            }
            for attempt in attempts
        ],
        "children": [job_report(child) for child in children],
    }


def _instant(instant: datetime | None) -> str | None:
    if instant is None:
        return None
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")
