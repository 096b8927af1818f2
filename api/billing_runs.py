"""Billing runs: everything that is due up to a time, billed by jobs."""

from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from api.auth import Reader, Writer
from api.fields import FORBID_UNKNOWN, AsOf
from api.idempotency import Commanded
from api.operations import commands, reads
from api.shapes import JobReport
from api.transactions import Transaction
from billing.errors import NotFound
from billing.job_states import JobState
from models import BillingRun, Job
from models.database import database_now
from tasks.billing_runs import bill_due_periods, request_run
from tasks.run_reports import progress_of

router = APIRouter(tags=["billing runs"])


class RunState(StrEnum):
    """Where a run stands."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"


class RunCreation(BaseModel):
    """Which boundaries to bill: all up to now, or up to `as_of`; one client's, or everyone's."""

    model_config = FORBID_UNKNOWN | ConfigDict(
        json_schema_extra={"examples": [{"as_of": "2026-06-01", "dry_run": True}]}
    )

    as_of: AsOf | None = Field(
        default=None,
        description="An instant, or a date: the midnight that begins it in each client's zone. "
        "In the future only with dry_run.",
    )
    client: UUID | None = None
    dry_run: Annotated[bool, Field(strict=True)] = False


class FailureReport(BaseModel):
    """A period that could not be billed, and why; the next run tries it again."""

    client: UUID
    period_start: date
    error: str


class InvoicedReport(BaseModel):
    """How many invoices in one currency, and their total in its minor unit."""

    invoices: int
    total: int


class ProgressReport(BaseModel):
    """The run's periods still due and by state, and by currency what it invoiced.

    `drafted` are those of its invoices that are still reviewed.
    """

    due: int
    periods: dict[str, int]
    failures: list[FailureReport]
    invoiced: dict[str, InvoicedReport]
    drafted: dict[str, InvoicedReport]


class RunReport(BaseModel):
    """A billing run. `preview` is what a dry run found, once it is finished."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "019ae8a3-5c00-7000-8000-000000000005",
                    "state": "finished",
                    "as_of": "2026-06-01",
                    "client": None,
                    "dry_run": False,
                    "created_at": "2026-06-01T12:00:00Z",
                    "finished_at": "2026-06-01T12:00:03.120000Z",
                    "progress": {
                        "due": 0,
                        "periods": {"billed": 180, "empty": 19, "held": 1},
                        "failures": [],
                        "invoiced": {"usd": {"invoices": 180, "total": 4210000}},
                        "drafted": {},
                    },
                    "preview": None,
                    "links": {
                        "self": "/v1/billing-runs/019ae8a3-5c00-7000-8000-000000000005",
                        "job": "/v1/jobs/019ae8a3-5c00-7000-8000-00000000000a",
                    },
                }
            ]
        }
    )

    id: UUID
    state: RunState
    as_of: str
    client: UUID | None
    dry_run: bool
    created_at: datetime
    finished_at: datetime | None
    progress: ProgressReport
    preview: dict[str, Any] | None
    links: dict[str, str]


@router.post(
    "/v1/billing-runs",
    summary="Bill what is due",
    status_code=202,
    response_model=JobReport,
    responses=commands("client_not_found"),
)
def create_run(
    new: RunCreation, caller: Writer, session: Transaction, command: Commanded
) -> Response:
    """The job's subject is the run."""
    requested = request_run(
        session,
        caller.account_id,
        now=database_now(session),
        requested_by=caller.requested_by,
        as_of=new.as_of,
        client_id=new.client,
        dry_run=new.dry_run,
    )
    return command.accepted(requested.job_id)


@router.get(
    "/v1/billing-runs/{billing_run_id}",
    summary="Show a billing run",
    responses=reads("billing_run_not_found"),
)
def show_run(billing_run_id: UUID, caller: Reader, session: Transaction) -> RunReport:
    """How far it is, and what it has invoiced."""
    run = session.get(BillingRun, billing_run_id)
    if run is None or run.account_id != caller.account_id:
        raise NotFound("billing_run", str(billing_run_id))
    job = _job_of(session, run)
    links = {"self": f"/v1/billing-runs/{run.id}"}
    if job is not None:
        links["job"] = f"/v1/jobs/{job.id}"
    return RunReport(
        id=run.id,
        state=_state(run, job),
        as_of=_as_of(run),
        client=run.client_id,
        dry_run=run.dry_run,
        created_at=run.created_at,
        finished_at=run.finished_at,
        progress=ProgressReport(**progress_of(session, run).as_json()),
        preview=run.preview,
        links=links,
    )


def _job_of(session: Session, run: BillingRun) -> Job | None:
    """The job that carries the run out; none once it is forgotten."""
    return session.scalar(
        select(Job)
        .where(Job.subject_id == run.id, Job.kind == bill_due_periods.name)
        .order_by(Job.id.desc())
        .limit(1)
    )


def _state(run: BillingRun, job: Job | None) -> RunState:
    if job is not None and job.state in (JobState.DEAD, JobState.CANCELLED):
        return RunState.FAILED
    if run.finished_at is not None:
        return RunState.FINISHED
    return RunState.FAILED if job is None else RunState.RUNNING


def _as_of(run: BillingRun) -> str:
    if run.as_of_at is not None:
        return run.as_of_at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return "" if run.as_of_on is None else run.as_of_on.isoformat()
