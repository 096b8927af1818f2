"""Schedules: what happens by itself and when, and doing it now."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select

from api.auth import Operator
from api.fields import NoOptions
from api.idempotency import Commanded, OnceOnly
from api.operations import commands, posts, reads
from api.paging import NAME, Paging, by_name
from api.shapes import JobReport, Page
from api.transactions import Transaction
from models import Schedule
from tasks.operating import pause_schedule, resume_schedule, run_schedule

router = APIRouter(tags=["schedules"])

ScheduleName = Annotated[str, Path(pattern=NAME, max_length=255)]


class ScheduleReport(BaseModel):
    """A schedule, as the scheduler last wrote it down."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "bill-due-periods",
                    "cron": "* * * * *",
                    "time_zone": "UTC",
                    "kind": "start_due_runs",
                    "description": "Bill every client whose period has ended",
                    "next_fire_at": "2026-06-01T12:01:00Z",
                    "paused": False,
                    "paused_at": None,
                    "paused_by": None,
                }
            ]
        }
    )

    name: str
    cron: str
    time_zone: str
    kind: str
    description: str
    next_fire_at: datetime
    paused: bool
    paused_at: datetime | None
    paused_by: str | None

    @classmethod
    def of(cls, schedule: Schedule) -> "ScheduleReport":
        """The schedule as it is shown."""
        same = cls.model_fields.keys() - {"paused"}
        return cls(
            **{name: getattr(schedule, name) for name in same},
            paused=schedule.paused_at is not None,
        )


@router.get("/v1/schedules", summary="List schedules", responses=reads())
def list_schedules(
    paging: Annotated[Paging, Query()], _caller: Operator, session: Transaction
) -> Page[ScheduleReport]:
    """By name. There is none before the first scheduler has started."""
    return by_name(session.scalars(select(Schedule)), paging).page(ScheduleReport.of)


@router.post(
    "/v1/schedules/{schedule_name}/run",
    summary="Run a schedule now",
    status_code=202,
    response_model=JobReport,
    responses=commands("schedule_not_found"),
)
def run(
    schedule_name: ScheduleName,
    caller: Operator,
    session: Transaction,
    command: Commanded,
    _options: NoOptions | None = None,
) -> Response:
    """Once, now, even if it is paused; its own next time stays."""
    return command.accepted(run_schedule(session, schedule_name, caller.requested_by).id)


@router.post(
    "/v1/schedules/{schedule_name}/pause",
    summary="Pause a schedule",
    response_model=ScheduleReport,
    responses=posts("schedule_not_found"),
)
def pause(
    schedule_name: ScheduleName,
    caller: Operator,
    session: Transaction,
    once: OnceOnly,
    _options: NoOptions | None = None,
) -> Response:
    """It fires no more by itself."""
    schedule = pause_schedule(session, schedule_name, caller.requested_by)
    return once.done(ScheduleReport.of(schedule))


@router.post(
    "/v1/schedules/{schedule_name}/resume",
    summary="Resume a schedule",
    response_model=ScheduleReport,
    responses=posts("schedule_not_found"),
)
def resume(
    schedule_name: ScheduleName,
    _caller: Operator,
    session: Transaction,
    once: OnceOnly,
    _options: NoOptions | None = None,
) -> Response:
    """It fires again; one fire stands for all that it missed."""
    return once.done(ScheduleReport.of(resume_schedule(session, schedule_name)))
