from datetime import UTC, date, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from billing.cycles import boundary_instant, local_date, time_zone
from billing.errors import InvalidInput
from tests.billing.chains import chain_from, monthly

ODD_ZONES = [
    "America/Asuncion",
    "America/Chicago",
    "America/Havana",
    "America/Juneau",
    "America/Sao_Paulo",
    "America/St_Johns",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Auckland",
    "Pacific/Kiritimati",
]
ALL_ZONES = sorted(available_timezones() - {"localtime", "Factory"})
# Since 1980 every zone changes its clock at a whole minute, which the minute by minute look
# below relies on.
DAYS = st.dates(date(1980, 1, 1), date(2037, 12, 31))


def first_minute_of(day: date, zone: ZoneInfo) -> datetime:
    """Look at every minute from well before the day: the first one dated that day or later."""
    instant = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(hours=40)
    while instant.astimezone(zone).date() < day:
        instant += timedelta(minutes=1)
    return instant


@pytest.mark.parametrize(
    ("zone", "day", "instant"),
    [
        ("UTC", "2026-11-01", "2026-11-01 00:00"),
        ("America/Chicago", "2026-07-01", "2026-07-01 05:00"),
        ("America/Chicago", "2026-12-01", "2026-12-01 06:00"),
        ("Pacific/Auckland", "2026-12-01", "2026-11-30 11:00"),
        ("Pacific/Kiritimati", "2026-12-01", "2026-11-30 10:00"),
        # The clock goes from 24:00 to 01:00: the day begins at one.
        ("America/Sao_Paulo", "2018-11-04", "2018-11-04 03:00"),
        ("America/Asuncion", "2023-10-01", "2023-10-01 04:00"),
        ("America/Havana", "2026-03-08", "2026-03-08 05:00"),
        # One o'clock becomes midnight again: the first of the two.
        ("America/Havana", "2026-11-01", "2026-11-01 04:00"),
        # Midnight becomes 23:00 of the day before: a day's end is repeated, not its start.
        ("America/Asuncion", "2024-03-24", "2024-03-24 04:00"),
        # One minute past midnight becomes 23:01: the new day begins twice.
        ("America/St_Johns", "2010-11-07", "2010-11-07 02:30"),
        # 23:30 becomes 00:30: the gap begins before midnight.
        ("America/Toronto", "1919-03-31", "1919-03-31 04:30"),
        # Days that never were: what came instead.
        ("Pacific/Apia", "2011-12-30", "2011-12-30 10:00"),
        ("Pacific/Apia", "2011-12-31", "2011-12-30 10:00"),
        ("Pacific/Kwajalein", "1993-08-21", "1993-08-21 12:00"),
        # A day that was lived twice, Alaska's change of owner and of date.
        ("America/Juneau", "1867-10-19", "1867-10-18 08:57:41"),
    ],
)
def test_a_local_day_begins_at_its_first_instant(zone: str, day: str, instant: str) -> None:
    expected = datetime.fromisoformat(instant).replace(tzinfo=UTC)
    begins = boundary_instant(date.fromisoformat(day), ZoneInfo(zone))

    assert begins == expected
    assert begins.tzinfo is UTC


@given(st.sampled_from(ODD_ZONES) | st.sampled_from(ALL_ZONES), DAYS)
@example("Pacific/Apia", date(2011, 12, 30))
@example("America/St_Johns", date(2010, 11, 7))
@example("America/Havana", date(2026, 11, 1))
def test_no_minute_before_the_first_instant_belongs_to_the_day(name: str, day: date) -> None:
    zone = ZoneInfo(name)

    assert boundary_instant(day, zone) == first_minute_of(day, zone)


@pytest.mark.parametrize("name", ODD_ZONES)
def test_days_begin_in_order_and_never_before_their_date(name: str) -> None:
    zone = ZoneInfo(name)
    previous = datetime.min.replace(tzinfo=UTC)
    for number in range(date(1900, 1, 1).toordinal(), date(2040, 1, 1).toordinal(), 3):
        day = date.fromordinal(number)
        begins = boundary_instant(day, zone)
        assert begins > previous
        assert local_date(begins, zone) >= day
        assert local_date(begins - timedelta(microseconds=1), zone) < day
        previous = begins


def test_monthly_boundaries_strictly_increase_in_every_zone() -> None:
    for number, name in enumerate(ALL_ZONES):
        zone = ZoneInfo(name)
        anchor_day = number % 31 + 1
        periods = islice(chain_from(date(1990, 1, 1), monthly(anchor_day)), 12 * 35)
        instants = [boundary_instant(period.end, zone) for period in periods]
        assert all(one < other for one, other in pairwise(instants)), name


def test_a_local_date_is_the_zones_not_utcs() -> None:
    instant = datetime(2026, 12, 1, 4, 59, tzinfo=UTC)

    assert local_date(instant, ZoneInfo("America/Chicago")) == date(2026, 11, 30)
    assert local_date(instant, ZoneInfo("UTC")) == date(2026, 12, 1)
    assert local_date(instant, ZoneInfo("Pacific/Auckland")) == date(2026, 12, 1)


def test_a_time_without_a_zone_is_no_instant() -> None:
    with pytest.raises(ValueError, match="needs a time zone"):
        local_date(datetime(2026, 12, 1), ZoneInfo("UTC"))  # noqa: DTZ001 -- what is refused


@pytest.mark.parametrize("name", ["UTC", "America/Chicago", "Etc/GMT+5", "Asia/Kolkata"])
def test_iana_names_are_known(name: str) -> None:
    assert time_zone(name).key == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "localtime",
        "Factory",
        "posixrules",
        "posix/UTC",
        "right/UTC",
        "america/chicago",
        "America",
        "America/Chicago ",
        "America/../UTC",
        "/usr/share/zoneinfo/UTC",
        "../zoneinfo/UTC",
        "UTC\0",
        "+02:00",
        "EST5EDT,M3.2.0,M11.1.0",
    ],
)
def test_anything_but_an_iana_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        time_zone(name, "client.time_zone")

    assert refused.value.field == "client.time_zone"
