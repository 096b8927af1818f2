from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session

from models import Job, Schedule, ScheduleFire
from scheduler.firing import fire_due, write_schedules
from scheduler.schedules import CronLine
from tasks.billing_runs import start_due_runs
from tasks.pruning import prune
from tests.worlds import NOW, together, work

HOUR = timedelta(hours=1)
HOURLY = CronLine(name="hourly", cron="0 * * * *", kind=prune, description="Forget")
DAILY = CronLine(
    name="daily", cron="0 6 * * *", kind=start_due_runs, description="Bill", takes_fire_at=True
)
LINES = (HOURLY, DAILY)


def write(engine: Engine, lines: Sequence[CronLine] = LINES, *, now: datetime = NOW) -> None:
    with Session(engine) as session, session.begin():
        write_schedules(session, lines, now=now)


def fire(engine: Engine, now: datetime, lines: Sequence[CronLine] = LINES) -> int:
    with Session(engine) as session, session.begin():
        return fire_due(session, {line.name: line for line in lines}, now=now)


def rows(engine: Engine) -> dict[str, Schedule]:
    with Session(engine) as session:
        return {row.name: row for row in session.scalars(select(Schedule))}


def fired(engine: Engine) -> list[tuple[str, datetime, int]]:
    """Name, time and missed times of each fire, in order."""
    with Session(engine) as session:
        fires = select(ScheduleFire.schedule, ScheduleFire.fire_at, ScheduleFire.missed)
        ordered = fires.order_by(ScheduleFire.fire_at, ScheduleFire.schedule)
        return [(name, at, missed) for name, at, missed in session.execute(ordered)]


def jobs(engine: Engine) -> list[Job]:
    with Session(engine) as session:
        return list(session.scalars(select(Job).order_by(Job.id)))


def pause(engine: Engine, name: str, paused_at: datetime | None = NOW) -> None:
    with engine.begin() as connection:
        connection.execute(
            update(Schedule).where(Schedule.name == name).values(paused_at=paused_at)
        )


# Writing the table down


def test_each_line_is_a_row_that_says_when_it_fires_next(engine: Engine) -> None:
    write(engine)

    assert {name: row.next_fire_at for name, row in rows(engine).items()} == {
        "hourly": NOW + HOUR,
        "daily": NOW + 18 * HOUR,
    }
    row = rows(engine)["daily"]
    assert (row.cron, row.time_zone, row.kind) == ("0 6 * * *", "UTC", "start_due_runs")
    assert (row.description, row.paused_at) == ("Bill", None)


def test_an_unchanged_line_keeps_its_next_fire_and_its_pause(engine: Engine) -> None:
    write(engine)
    pause(engine, "hourly")

    write(engine, now=NOW + 5 * HOUR)

    row = rows(engine)["hourly"]
    assert (row.next_fire_at, row.paused_at) == (NOW + HOUR, NOW)


def test_a_line_with_other_words_or_work_keeps_its_next_fire(engine: Engine) -> None:
    write(engine)

    write(engine, [replace(HOURLY, description="New", kind=start_due_runs)], now=NOW + 5 * HOUR)

    row = rows(engine)["hourly"]
    assert (row.description, row.kind) == ("New", "start_due_runs")
    assert row.next_fire_at == NOW + HOUR


def test_a_line_with_another_time_fires_by_that(engine: Engine) -> None:
    write(engine)

    write(engine, [replace(HOURLY, cron="30 * * * *"), replace(DAILY, time_zone="Asia/Tokyo")])

    assert rows(engine)["hourly"].next_fire_at == NOW + HOUR / 2
    assert rows(engine)["hourly"].cron == "30 * * * *"
    assert rows(engine)["daily"].next_fire_at == NOW + 9 * HOUR
    assert rows(engine)["daily"].time_zone == "Asia/Tokyo"


def test_a_line_that_is_gone_takes_its_row_along(engine: Engine) -> None:
    write(engine)
    fire(engine, NOW + HOUR)

    write(engine, [DAILY])

    assert set(rows(engine)) == {"daily"}
    assert fired(engine) == []
    assert fire(engine, NOW + HOUR * 2) == 0


def test_two_schedulers_may_write_at_once(engine: Engine) -> None:
    for n in range(5):
        lines = [replace(line, name=f"{line.name} {n}") for line in LINES]
        assert together(*[lambda lines=lines: write(engine, lines)] * 3) == [None] * 3
        assert set(rows(engine)) == {line.name for line in lines}


# Firing


def test_a_schedule_fires_when_its_time_has_come_and_once(engine: Engine) -> None:
    write(engine)
    assert fire(engine, NOW + HOUR - timedelta(seconds=1)) == 0
    assert fire(engine, NOW + HOUR) == 1
    assert fire(engine, NOW + HOUR) == 0

    assert fired(engine) == [("hourly", NOW + HOUR, 0)]
    [job] = jobs(engine)
    assert (job.kind, job.state, job.requested_by) == ("prune", "ready", "schedule:hourly")
    assert rows(engine)["hourly"].next_fire_at == NOW + 2 * HOUR


def test_the_job_is_told_the_time_it_was_fired_for(engine: Engine) -> None:
    write(engine, [DAILY])
    due = NOW + 18 * HOUR

    assert fire(engine, due + timedelta(minutes=7)) == 1

    [job] = jobs(engine)
    assert datetime.fromisoformat(job.args["fire_at"]) == due


def test_times_that_passed_unnoticed_are_one_fire_that_counts_them(engine: Engine) -> None:
    write(engine)

    assert fire(engine, NOW + 4.5 * HOUR) == 1

    assert fired(engine) == [("hourly", NOW + 4 * HOUR, 3)]
    assert len(jobs(engine)) == 1
    assert rows(engine)["hourly"].next_fire_at == NOW + 5 * HOUR


def test_every_due_schedule_fires_at_its_own_latest_time(engine: Engine) -> None:
    write(engine)

    assert fire(engine, NOW + 20 * HOUR) == 2

    assert fired(engine) == [("daily", NOW + 18 * HOUR, 0), ("hourly", NOW + 20 * HOUR, 19)]


def test_a_paused_schedule_does_not_fire_and_holds_up_no_other(engine: Engine) -> None:
    write(engine)
    pause(engine, "hourly")

    assert fire(engine, NOW + 20 * HOUR) == 1
    assert [name for name, _at, _missed in fired(engine)] == ["daily"]

    pause(engine, "hourly", None)
    assert fire(engine, NOW + 20 * HOUR) == 1
    assert fired(engine)[-1] == ("hourly", NOW + 20 * HOUR, 19)


def test_a_row_of_another_release_is_left_to_that_release(engine: Engine) -> None:
    write(engine)

    assert fire(engine, NOW + 20 * HOUR, [DAILY]) == 1

    assert [name for name, _at, _missed in fired(engine)] == ["daily"]


def test_two_schedulers_fire_once(engine: Engine) -> None:
    write(engine)
    for hours in range(1, 11):
        now = NOW + hours * HOUR
        counts = together(*[lambda now=now: fire(engine, now, [HOURLY])] * 3)
        assert sum(counts) == 1
    assert fired(engine) == [("hourly", NOW + hours * HOUR, 0) for hours in range(1, 11)]


def test_two_schedulers_make_one_job_for_each_time_that_a_job_is_told(engine: Engine) -> None:
    write(engine)
    for days in range(1, 6):
        now = NOW + timedelta(days=days)
        counts = together(*[lambda now=now: fire(engine, now, [DAILY])] * 3)
        assert sum(counts) == 1
    assert len(jobs(engine)) == 5


def test_a_job_that_goes_by_the_time_it_runs_gets_no_second_one_beside_it(engine: Engine) -> None:
    write(engine)
    for hours in range(1, 11):
        assert fire(engine, NOW + hours * HOUR, [HOURLY]) == 1

    [job] = jobs(engine)
    with Session(engine) as session:
        asked = set(session.scalars(select(ScheduleFire.job_id)))
    assert asked == {job.id}

    work(engine, now=NOW)
    assert fire(engine, NOW + 11 * HOUR, [HOURLY]) == 1
    assert [job.state for job in jobs(engine)] == ["succeeded", "ready"]


def test_jobs_that_are_told_their_time_each_keep_their_own(engine: Engine) -> None:
    write(engine)
    for days in range(1, 4):
        assert fire(engine, NOW + timedelta(days=days), [DAILY]) == 1

    told = [datetime.fromisoformat(job.args["fire_at"]) for job in jobs(engine)]
    assert told == [NOW + 18 * HOUR + timedelta(days=days) for days in range(3)]


def test_a_scheduler_does_not_wait_for_another_one_that_is_firing(engine: Engine) -> None:
    write(engine)
    with Session(engine) as first:
        assert fire_due(first, {"hourly": HOURLY}, now=NOW + HOUR) == 1
        assert fire(engine, NOW + HOUR) == 0
        first.commit()
    assert fire(engine, NOW + HOUR) == 0


def test_a_fire_that_is_rolled_back_never_was_and_comes_again(engine: Engine) -> None:
    write(engine)
    with Session(engine) as session:
        assert fire_due(session, {"hourly": HOURLY}, now=NOW + HOUR) == 1
        session.rollback()
    assert (jobs(engine), fired(engine)) == ([], [])

    assert fire(engine, NOW + HOUR) == 1
    assert len(jobs(engine)) == 1


def test_a_time_that_comes_again_because_the_clock_was_set_back_fires_no_second_job(
    engine: Engine,
) -> None:
    write(engine, [HOURLY])
    fire(engine, NOW + HOUR)
    with engine.begin() as connection:
        connection.execute(update(Schedule).values(next_fire_at=NOW + HOUR))

    assert fire(engine, NOW + HOUR) == 0

    assert len(jobs(engine)) == 1
    assert rows(engine)["hourly"].next_fire_at == NOW + 2 * HOUR
    assert fire(engine, NOW + 2 * HOUR) == 1
