import struct
from datetime import UTC, date, datetime, timedelta
from io import BytesIO
from itertools import accumulate
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from billing.dunning import (
    DEFAULT_RETRY_DAYS,
    MAX_TRIES_IN_30_DAYS,
    next_try,
    tries_from,
)
from billing.errors import InvalidInput

ALL_ZONES = sorted(available_timezones() - {"localtime", "Factory"})
CHICAGO = ZoneInfo("America/Chicago")
NOON = datetime(2026, 11, 22, 18, tzinfo=UTC)  # In Chicago.


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def ten_o_clock(day: date, zone: ZoneInfo) -> datetime:
    """Look at every minute from well before: the first whose clock shows ten that day or later."""
    wanted = datetime(day.year, day.month, day.day, 10)  # noqa: DTZ001 -- a clock on a wall
    instant = wanted.replace(tzinfo=UTC) - timedelta(hours=40)
    while instant.astimezone(zone).replace(tzinfo=None) < wanted:
        instant += timedelta(minutes=1)
    return instant


@pytest.mark.parametrize(
    ("zone", "failed_at", "failures", "tried_at"),
    [
        # Plain: 3, 5, 7 and 7 days on, at ten.
        ("UTC", "2026-11-01 00:00", 1, "2026-11-04 10:00"),
        ("UTC", "2026-11-04 10:00", 2, "2026-11-09 10:00"),
        ("UTC", "2026-11-09 10:00", 3, "2026-11-16 10:00"),
        ("UTC", "2026-11-16 10:00", 4, "2026-11-23 10:00"),
        # The day is the client's: 04:59 in UTC is the evening before in Chicago.
        ("America/Chicago", "2026-12-02 05:59", 1, "2026-12-04 16:00"),
        ("America/Chicago", "2026-12-02 06:00", 1, "2026-12-05 16:00"),
        ("Pacific/Auckland", "2026-12-01 10:59", 1, "2026-12-03 21:00"),
        ("Pacific/Auckland", "2026-12-01 11:00", 1, "2026-12-04 21:00"),
        # How late in the day it failed does not matter.
        ("UTC", "2026-11-01 23:59:59.999999", 1, "2026-11-04 10:00"),
        # Chicago's clock goes forward on 8 March and back on 1 November: ten stays ten.
        ("America/Chicago", "2026-03-06 16:00", 1, "2026-03-09 15:00"),
        ("America/Chicago", "2026-10-30 15:00", 1, "2026-11-02 16:00"),
        # On the very day of a change.
        ("America/Chicago", "2026-03-05 16:00", 1, "2026-03-08 15:00"),
        ("America/Chicago", "2026-10-29 15:00", 1, "2026-11-01 16:00"),
        # Auckland's goes back on 5 April and forward on 27 September.
        ("Pacific/Auckland", "2026-04-02 21:00", 1, "2026-04-05 22:00"),
        ("Pacific/Auckland", "2026-09-24 22:00", 1, "2026-09-27 21:00"),
        # Lord Howe's moves by half an hour, on the same days but 4 October.
        ("Australia/Lord_Howe", "2026-04-01 23:00", 1, "2026-04-04 23:30"),
        ("Australia/Lord_Howe", "2026-09-30 23:30", 1, "2026-10-03 23:00"),
        # Over a leap day and a year's end.
        ("UTC", "2028-02-27 12:00", 1, "2028-03-01 10:00"),
        ("UTC", "2026-12-31 12:00", 4, "2027-01-07 10:00"),
        # A ten o'clock that never was: Apia went from the 29th to the 31st.
        ("Pacific/Apia", "2011-12-27 20:00", 1, "2011-12-30 10:00"),
        # McMurdo's first clock began at noon.
        ("Antarctica/McMurdo", "1955-12-29 00:00", 1, "1956-01-01 00:00"),
        # A ten o'clock lived twice: Kwajalein went from the end of a day back to its start.
        ("Pacific/Kwajalein", "1969-09-27 00:00", 1, "1969-09-29 23:00"),
    ],
)
def test_a_card_is_tried_again_at_ten_in_the_morning_of_the_client(
    zone: str, failed_at: str, failures: int, tried_at: str
) -> None:
    at = next_try(utc(failed_at), failures, ZoneInfo(zone))

    assert at == utc(tried_at)
    assert at is not None
    assert at.tzinfo is UTC


def zone_by_rule(rule: str) -> ZoneInfo:
    """A zone that no place has, from a POSIX TZ rule, as a minimal file of RFC 9636."""
    block = struct.pack(">4sc15x6l", b"TZif", b"2", 0, 0, 0, 0, 1, 4) + bytes(6) + b"STD\0"
    return ZoneInfo.from_file(BytesIO(block * 2 + f"\n{rule}\n".encode()), key="Nowhere")


@pytest.mark.parametrize(
    ("gap", "day", "tried_at"),
    [
        # 09:30 becomes 10:30, 10:00 becomes 11:00, 09:01 becomes 10:01.
        ("9:30", "2026-03-01", "2026-03-01 09:30"),
        ("10", "2026-03-01", "2026-03-01 10:00"),
        ("9:01", "2026-03-01", "2026-03-01 09:01"),
        # 09:00 becomes 10:00: that is the very end of the gap.
        ("9", "2026-03-01", "2026-03-01 09:00"),
        # 10:30 becomes 09:30: ten comes twice.
        ("9:30", "2026-10-27", "2026-10-27 09:00"),
    ],
)
def test_a_skipped_ten_o_clock_is_the_end_of_its_gap_and_a_repeated_one_the_first(
    gap: str, day: str, tried_at: str
) -> None:
    zone = zone_by_rule(f"STD0DST-1,J60/{gap},J300/10:30")
    failed_at = utc(day) - timedelta(days=3)

    at = next_try(failed_at, 1, zone)

    assert at == utc(tried_at) == ten_o_clock(date.fromisoformat(day), zone)


@given(
    st.sampled_from(ALL_ZONES),
    st.datetimes(datetime(1980, 1, 1), datetime(2037, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 -- made aware beside it
    st.integers(1, 30),
)
@example("Pacific/Apia", utc("2011-12-27 20:00"), 3)
@example("Pacific/Kiritimati", utc("1994-12-29 23:00"), 1)
def test_a_try_is_at_the_first_ten_o_clock_so_many_days_on_and_always_later(
    name: str, failed_at: datetime, days: int
) -> None:
    zone = ZoneInfo(name)
    at = next_try(failed_at, 1, zone, [days])

    assert at == ten_o_clock(failed_at.astimezone(zone).date() + timedelta(days=days), zone)
    assert at > failed_at


def test_each_try_is_counted_from_the_one_before_until_none_is_left() -> None:
    tries = [NOON]
    while (at := next_try(tries[-1], len(tries), CHICAGO)) is not None:
        tries.append(at)

    assert [at.astimezone(CHICAGO).date() - NOON.date() for at in tries] == [
        timedelta(days=days) for days in accumulate(DEFAULT_RETRY_DAYS, initial=0)
    ]
    assert next_try(NOON, 99, CHICAGO) is None


def test_an_account_may_have_a_schedule_of_its_own_or_none() -> None:
    assert next_try(NOON, 1, CHICAGO, [1]) == utc("2026-11-23 16:00")
    assert next_try(NOON, 2, CHICAGO, [1]) is None
    assert next_try(NOON, 1, CHICAGO, []) is None


def test_the_default_schedule_keeps_what_the_card_networks_allow() -> None:
    assert 1 + len(DEFAULT_RETRY_DAYS) <= MAX_TRIES_IN_30_DAYS == 15


@pytest.mark.parametrize("days", [[0], [3, -1], [3, 5, 0]])
def test_a_try_on_the_same_day_is_no_schedule(days: list[int]) -> None:
    with pytest.raises(InvalidInput) as refused:
        next_try(NOON, 1, CHICAGO, days)

    assert refused.value.field == "retry_days"


def test_failures_are_counted_from_one_and_instants_have_a_zone() -> None:
    with pytest.raises(ValueError, match="counted from 1"):
        next_try(NOON, 0, CHICAGO)
    with pytest.raises(ValueError, match="needs a time zone"):
        next_try(NOON.replace(tzinfo=None), 1, CHICAGO)


def test_the_schedule_is_all_tries_that_follow_one_another() -> None:
    assert [at.astimezone(CHICAGO).date() for at in tries_from(NOON, 0, CHICAGO)] == [
        NOON.date() + timedelta(days=days) for days in accumulate(DEFAULT_RETRY_DAYS, initial=0)
    ]
    first = next_try(NOON, 1, CHICAGO)
    assert first is not None
    assert tries_from(first, 1, CHICAGO) == tries_from(NOON, 0, CHICAGO)[1:]
    last = len(DEFAULT_RETRY_DAYS)
    assert tries_from(NOON, last, CHICAGO) == tries_from(NOON, 0, CHICAGO, []) == [NOON]
