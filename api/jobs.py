"""Jobs: what was asked for, what became of it, and trying it again."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict
from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from api.auth import Caller, Operator, Reader
from api.fields import FORBID_UNKNOWN, Instant, NoOptions, ShortText
from api.idempotency import OnceOnly
from api.operations import posts, reads
from api.paging import Paging, newest_first
from api.shapes import JOB_EXAMPLE, JobError, JobReport, Page
from api.transactions import Transaction
from billing.errors import NotFound
from billing.job_states import JobState
from models import Job, Scope
from models.job_ledger import DeadJobs
from tasks.job_reports import full_job_report, job_report
from tasks.operating import cancel_job, replay_dead_jobs, retry_job

router = APIRouter(tags=["jobs"])


class AttemptReport(BaseModel):
    """One run of a job that has ended."""

    attempt: int
    outcome: str
    worker: str | None
    error: JobError | None
    started_at: datetime | None
    ended_at: datetime


class FullJobReport(JobReport):
    """A job with its ended runs and the jobs that it made, oldest first."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    **JOB_EXAMPLE,
                    "attempts": [
                        {
                            "attempt": 1,
                            "outcome": "succeeded",
                            "worker": "worker-1:4242",
                            "error": None,
                            "started_at": "2026-06-01T12:00:00.010000Z",
                            "ended_at": "2026-06-01T12:00:00.025000Z",
                        }
                    ],
                    "children": [],
                }
            ]
        }
    )

    attempts: list[AttemptReport]
    children: list[JobReport]


class DeadJobFilter(BaseModel):
    """Which dead jobs: all that are as every given value says. `since` is when they died."""

    model_config = FORBID_UNKNOWN

    kind: ShortText | None = None
    queue: ShortText | None = None
    reason: ShortText | None = None
    since: Instant | None = None


class Replay(BaseModel):
    """Which dead jobs to replay, or only to count."""

    model_config = FORBID_UNKNOWN | ConfigDict(
        json_schema_extra={"examples": [{"filter": {"reason": "unknown_kind"}, "dry_run": True}]}
    )

    filter: DeadJobFilter = DeadJobFilter()
    dry_run: bool = False


class ReplayReport(BaseModel):
    """How many jobs were replayed; would be, with `dry_run`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"jobs": 12, "dry_run": True}]})

    jobs: int
    dry_run: bool


class JobFilters(Paging):
    """Which jobs to list. `subject` is the id of what they work on."""

    state: JobState | None = None
    kind: ShortText | None = None
    queue: ShortText | None = None
    subject: UUID | None = None
    since: Instant | None = None


@router.get("/v1/jobs", summary="List jobs", responses=reads())
def list_jobs(
    filters: Annotated[JobFilters, Query()], caller: Reader, session: Transaction
) -> Page[JobReport]:
    """Newest first. The system's own jobs are listed for keys with the scope ops."""
    jobs = select(Job).where(_visible_to(caller))
    if filters.state is not None:
        jobs = jobs.where(Job.state == filters.state)
    if filters.kind is not None:
        jobs = jobs.where(Job.kind == filters.kind)
    if filters.queue is not None:
        jobs = jobs.where(Job.queue == filters.queue)
    if filters.subject is not None:
        jobs = jobs.where(Job.subject_id == filters.subject)
    if filters.since is not None:
        jobs = jobs.where(Job.created_at >= filters.since)
    found = newest_first(session, jobs, Job.id, filters, read=UUID)
    return found.page(lambda job: JobReport.model_validate(job_report(job)))


@router.get("/v1/jobs/{job_id}", summary="Show a job", responses=reads("job_not_found"))
def show_job(job_id: UUID, caller: Reader, session: Transaction) -> FullJobReport:
    """One job with its attempts and children."""
    job = _visible_job(session, caller, job_id)
    return FullJobReport.model_validate(full_job_report(session, job))


@router.post(
    "/v1/jobs/replay",
    summary="Replay dead jobs",
    response_model=ReplayReport,
    responses=posts(),
)
def replay(wanted: Replay, caller: Operator, session: Transaction, once: OnceOnly) -> Response:
    """All dead jobs that the filter fits are ready again, with fresh attempts, each once.

    With `dry_run` they are only counted. Of several that stand for the same work the newest is
    meant, and none whose work an unfinished job has taken over.
    """
    dead = DeadJobs(account_id=caller.account_id, of_the_system=True, **wanted.filter.model_dump())
    jobs = replay_dead_jobs(session, dead, dry_run=wanted.dry_run)
    return once.done(ReplayReport(jobs=jobs, dry_run=wanted.dry_run))


@router.post(
    "/v1/jobs/{job_id}/retry",
    summary="Retry a job",
    response_model=JobReport,
    responses=posts("job_not_found", "job_not_retryable"),
)
def retry(
    job_id: UUID,
    caller: Operator,
    session: Transaction,
    once: OnceOnly,
    _options: NoOptions | None = None,
) -> Response:
    """A dead, failed or cancelled job is ready again, with fresh attempts."""
    _visible_job(session, caller, job_id)
    return once.done(JobReport.model_validate(job_report(retry_job(session, job_id))))


@router.post(
    "/v1/jobs/{job_id}/cancel",
    summary="Cancel a job",
    response_model=JobReport,
    responses=posts("job_not_found", "job_not_cancellable"),
)
def cancel(
    job_id: UUID,
    caller: Operator,
    session: Transaction,
    once: OnceOnly,
    _options: NoOptions | None = None,
) -> Response:
    """A job that has not started will not."""
    _visible_job(session, caller, job_id)
    return once.done(JobReport.model_validate(job_report(cancel_job(session, job_id))))


def _visible_to(caller: Caller) -> ColumnElement[bool]:
    own = Job.account_id == caller.account_id
    return or_(own, Job.account_id.is_(None)) if Scope.OPS in caller.scopes else own


def _visible_job(session: Session, caller: Caller, job_id: UUID) -> Job:
    job = session.scalar(select(Job).where(Job.id == job_id, _visible_to(caller)))
    if job is None:
        raise NotFound("job", str(job_id))
    return job
