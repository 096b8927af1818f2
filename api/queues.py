"""Queues: how full they are, and whether their jobs may start."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict
from sqlalchemy.orm import Session

from api.auth import Operator
from api.fields import NoOptions
from api.idempotency import OnceOnly
from api.operations import posts, reads
from api.paging import NAME, Paging, by_name
from api.shapes import Page
from api.transactions import Transaction
from billing.job_states import JobState
from tasks.operating import pause_queue, resume_queue
from tasks.queue_reports import queue_reports

router = APIRouter(tags=["queues"])

QueueName = Annotated[str, Path(pattern=NAME, max_length=255)]


class QueueReport(BaseModel):
    """A queue: its jobs by state, of all accounts, and how long the oldest ready one has waited."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "billing",
                    "paused": False,
                    "paused_at": None,
                    "paused_by": None,
                    "jobs": {
                        "scheduled": 0,
                        "ready": 12,
                        "dispatched": 4,
                        "running": 8,
                        "failed": 0,
                        "dead": 1,
                    },
                    "oldest_ready_age_seconds": 0.8,
                }
            ]
        }
    )

    name: str
    paused: bool
    paused_at: datetime | None
    paused_by: str | None
    jobs: dict[JobState, int]
    oldest_ready_age_seconds: float


@router.get("/v1/queues", summary="List queues", responses=reads())
def list_queues(
    paging: Annotated[Paging, Query()], _caller: Operator, session: Transaction
) -> Page[QueueReport]:
    """By name."""
    found = by_name(_reports(session), paging)
    return Page(data=list(found.rows), next_cursor=found.next_cursor)


@router.post(
    "/v1/queues/{queue_name}/pause",
    summary="Pause a queue",
    response_model=QueueReport,
    responses=posts("queue_not_found"),
)
def pause(
    queue_name: QueueName,
    caller: Operator,
    session: Transaction,
    once: OnceOnly,
    _options: NoOptions | None = None,
) -> Response:
    """None of its jobs starts any more; those that run end as usual."""
    pause_queue(session, queue_name, caller.requested_by)
    return once.done(_report(session, queue_name))


@router.post(
    "/v1/queues/{queue_name}/resume",
    summary="Resume a queue",
    response_model=QueueReport,
    responses=posts("queue_not_found"),
)
def resume(
    queue_name: QueueName,
    _caller: Operator,
    session: Transaction,
    once: OnceOnly,
    _options: NoOptions | None = None,
) -> Response:
    """Its jobs start again."""
    resume_queue(session, queue_name)
    return once.done(_report(session, queue_name))


def _report(session: Session, name: str) -> QueueReport:
    return next(report for report in _reports(session) if report.name == name)


def _reports(session: Session) -> list[QueueReport]:
    return [
        QueueReport(
            name=queue.name,
            paused=queue.paused_at is not None,
            paused_at=queue.paused_at,
            paused_by=queue.paused_by,
            jobs=queue.jobs,
            oldest_ready_age_seconds=queue.oldest_ready_age_seconds,
        )
        for queue in queue_reports(session)
    ]
