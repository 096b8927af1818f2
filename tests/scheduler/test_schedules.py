from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.schedules import SCHEDULES, CronLine
from tasks.catalogue import KINDS
from tasks.due_collections import collect_due
from tasks.pruning import prune
from tasks.top_ups import top_up_due
from tests.worlds import NOW

BERLIN = "Europe/Berlin"  # Skips 02:00 to 03:00 on 29 March 2026, repeats it on 25 October.


def a_line(cron: str, time_zone: str = "UTC") -> CronLine:
    return CronLine(name="line", cron=cron, kind=prune, description="", time_zone=time_zone)


def fires(line: CronLine, after: datetime, until: datetime) -> list[datetime]:
    """Every fire time of a line in (after, until]."""
    times = []
    while (after := line.next_after(after)) <= until:
        times.append(after)
    return times


def utc(month: int, day: int, hour: int, minute: int = 0) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=UTC)


@pytest.mark.parametrize("line", SCHEDULES, ids=lambda line: line.name)
def test_every_line_enqueues_a_known_kind_with_arguments_that_fit(line: CronLine) -> None:
    assert KINDS[line.kind.name] is line.kind
    assert line.kind.load(line.kind.dump(line.arguments(NOW))) == line.arguments(NOW)
    assert line.next_after(NOW) > NOW
    assert line.description


def test_names_of_schedules_are_their_own() -> None:
    assert len({line.name for line in SCHEDULES}) == len(SCHEDULES)


def test_the_due_are_billed_every_minute() -> None:
    [line] = [line for line in SCHEDULES if line.name == "bill-due-periods"]
    assert line.next_after(NOW) == NOW + timedelta(minutes=1)
    assert line.arguments(NOW) == {"fire_at": NOW}


def test_cards_that_are_due_and_charges_without_an_answer_are_looked_for_every_minute() -> None:
    [line] = [line for line in SCHEDULES if line.kind is collect_due]
    assert line.next_after(NOW) == NOW + timedelta(minutes=1)
    # Whatever minute it was fired for, what is due is what is due by the time it runs.
    assert line.arguments(NOW) == {}


def test_credit_that_is_too_low_is_looked_for_every_five_minutes() -> None:
    [line] = [line for line in SCHEDULES if line.kind is top_up_due]
    assert line.next_after(NOW) == NOW + timedelta(minutes=5)
    assert line.arguments(NOW) == {}


@pytest.mark.parametrize(
    ("after", "next_one"),
    [
        (utc(6, 1, 3, 29), utc(6, 1, 3, 30)),
        (utc(6, 1, 3, 30), utc(6, 2, 3, 30)),
        (utc(6, 1, 3, 30) - timedelta(microseconds=1), utc(6, 1, 3, 30)),
        (utc(6, 1, 3, 30) + timedelta(microseconds=1), utc(6, 2, 3, 30)),
        (utc(12, 31, 12), datetime(2027, 1, 1, 3, 30, tzinfo=UTC)),
    ],
)
def test_the_next_time_is_the_first_one_after(after: datetime, next_one: datetime) -> None:
    assert a_line("30 3 * * *").next_after(after) == next_one


def test_times_are_those_of_the_line_s_zone() -> None:
    line = a_line("30 3 * * *", BERLIN)
    assert line.next_after(utc(1, 10, 12)) == utc(1, 11, 2, 30)
    assert line.next_after(utc(6, 10, 12)) == utc(6, 11, 1, 30)


def test_a_local_time_that_the_clock_repeats_fires_once() -> None:
    line = a_line("30 2 * * *", BERLIN)
    assert fires(line, utc(10, 23, 12), utc(10, 26, 12)) == [
        *(utc(10, 24, 0, 30), utc(10, 25, 0, 30)),
        utc(10, 26, 1, 30),
    ]


@pytest.mark.parametrize("minute", [0, 15, 30, 45, 59])
def test_it_fires_no_second_time_for_one_who_asks_during_the_repetition(minute: int) -> None:
    second_pass = utc(10, 25, 1, minute)
    assert second_pass.astimezone(ZoneInfo(BERLIN)).hour == 2
    assert a_line("30 2 * * *", BERLIN).next_after(second_pass) == utc(10, 26, 1, 30)


def test_a_local_time_that_the_clock_skips_fires_as_soon_as_it_is_over() -> None:
    line = a_line("30 2 * * *", BERLIN)
    assert fires(line, utc(3, 28, 12), utc(3, 30, 12)) == [utc(3, 29, 1), utc(3, 30, 0, 30)]


def test_an_hourly_schedule_fires_in_every_hour_that_passes() -> None:
    hourly = a_line("0 * * * *", BERLIN)
    day = fires(hourly, utc(10, 24, 22) - timedelta(seconds=1), utc(10, 25, 22))
    assert len(day) == 25
    assert {later - earlier for earlier, later in pairwise(day)} == {timedelta(hours=1)}


@given(
    st.integers(0, 366 * 24 * 60).map(lambda minute: utc(1, 1, 0) + timedelta(minutes=minute)),
    st.sampled_from(["* * * * *", "30 2 * * *", "*/20 1-3 * * *", "0 0 1 * *", "15,45 2 * * 0"]),
    st.sampled_from(["UTC", BERLIN, "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"]),
)
def test_the_next_time_is_always_later(instant: datetime, cron: str, time_zone: str) -> None:
    line = a_line(cron, time_zone)
    assert line.next_after(instant) > instant
    assert line.next_after(instant.astimezone(ZoneInfo(time_zone))) == line.next_after(instant)
