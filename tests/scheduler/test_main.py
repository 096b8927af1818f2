from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from models import Job, Schedule, ScheduleFire
from scheduler.firing import write_schedules
from scheduler.main import main
from scheduler.schedules import SCHEDULES
from tests.jobs import database_away
from tests.processes import Stack
from tests.waiting import wait_for

NAMES = {line.name for line in SCHEDULES}


def was_down_for(engine: Engine, downtime: timedelta) -> None:
    with Session(engine) as session, session.begin():
        write_schedules(session, SCHEDULES, now=datetime.now(UTC) - downtime)


def fired(engine: Engine) -> list[ScheduleFire]:
    with Session(engine) as session:
        return list(session.scalars(select(ScheduleFire)))


def test_two_schedulers_make_up_for_downtime_once(engine: Engine, stack: Stack) -> None:
    was_down_for(engine, timedelta(days=2))
    schedulers = [stack.start("scheduler") for _ in range(2)]
    wait_for(lambda: stack.logs().count("scheduler started") == 2)
    wait_for(lambda: {fire.schedule for fire in fired(engine)} == NAMES)

    assert [stack.stop(scheduler) for scheduler in schedulers] == [0, 0]

    with Session(engine) as session:
        jobs = set(session.scalars(select(Job.id)))
    assert jobs == {fire.job_id for fire in fired(engine)}
    # The first fire stands for those of two days; a new minute may have brought one more.
    first = min(
        (fire for fire in fired(engine) if fire.schedule == "bill-due-periods"),
        key=lambda fire: fire.fire_at,
    )
    assert first.missed > 2_800
    told = {line.name for line in SCHEDULES if line.takes_fire_at}
    own = [fire.job_id for fire in fired(engine) if fire.schedule in told]
    assert len(own) == len(set(own))
    others = {fire.schedule for fire in fired(engine)} - told
    assert len(jobs) == len(own) + len(others)


def test_a_scheduler_writes_its_table_down_and_outlives_an_outage(
    engine: Engine, server: str, stack: Stack
) -> None:
    with database_away(engine, server):
        scheduler = stack.start("scheduler")
        wait_for(lambda: "tick failed" in stack.logs())

    def written() -> set[str]:
        with Session(engine) as session:
            return set(session.scalars(select(Schedule.name)))

    wait_for(lambda: written() == NAMES)
    assert scheduler.poll() is None
    assert stack.stop(scheduler) == 0


def test_missing_settings_are_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("DATABASE_URL", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error == "duecourse: settings: DATABASE_URL: is not set; REDIS_URL: is not set\n"
