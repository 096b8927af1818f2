"""Firing schedules: recorded, once per time, in one transaction with the job."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from models import Schedule, ScheduleFire
from scheduler.schedules import CronLine
from tasks.enqueueing import enqueue


def write_schedules(session: Session, lines: Sequence[CronLine], *, now: datetime) -> None:
    """Write the table of schedules to rows, for everyone to read.

    A line whose times are unchanged keeps its next fire, so that downtime is made up for.
    """
    session.execute(delete(Schedule).where(Schedule.name.not_in([line.name for line in lines])))
    for line in lines:
        row = insert(Schedule).values(
            name=line.name,
            cron=line.cron,
            time_zone=line.time_zone,
            kind=line.kind.name,
            description=line.description,
            next_fire_at=line.next_after(now),
        )
        same_times = (Schedule.cron == row.excluded.cron) & (
            Schedule.time_zone == row.excluded.time_zone
        )
        written = {name: row.excluded[name] for name in ("kind", "description")}
        session.execute(
            row.on_conflict_do_update(index_elements=["name"], set_=written, where=same_times)
        )
        times = {name: row.excluded[name] for name in ("cron", "time_zone", "next_fire_at")}
        session.execute(
            row.on_conflict_do_update(
                index_elements=["name"], set_=written | times, where=~same_times
            )
        )


def fire_due(session: Session, lines: Mapping[str, CronLine], *, now: datetime) -> int:
    """Fire every schedule whose time has come; how many.

    The row's lock and the fire's key make any number of schedulers safe. Times that passed while
    no scheduler ran are counted and stood for by the latest: what a job finds due does not
    depend on how often it was asked.
    """
    due = session.scalars(
        select(Schedule)
        .where(
            Schedule.next_fire_at <= now,
            Schedule.paused_at.is_(None),
            Schedule.name.in_(lines),
        )
        .with_for_update(skip_locked=True)
    ).all()
    return sum(_fire(session, row, lines[row.name], now) for row in due)


def _fire(session: Session, row: Schedule, line: CronLine, now: datetime) -> bool:
    fire_at, missed = row.next_fire_at, 0
    for following in line.times_after(fire_at):
        if following > now:
            row.next_fire_at = following
            break
        fire_at, missed = following, missed + 1
    if session.get(ScheduleFire, (line.name, fire_at)) is not None:
        # The clock was set back since; whatever that time was for has been asked for.
        return False
    job = enqueue(
        session,
        line.kind,
        account_id=None,
        requested_by=f"schedule:{line.name}",
        # What goes by the time it runs, and not by its fire's, needs no second job beside a first.
        unique_key=f"schedule:{line.name}"
        + (f":{fire_at.isoformat()}" if line.takes_fire_at else ""),
        **line.arguments(fire_at),
    )
    session.add(ScheduleFire(schedule=line.name, fire_at=fire_at, job_id=job.id, missed=missed))
    return True
