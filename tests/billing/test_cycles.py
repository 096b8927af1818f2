from calendar import monthrange
from datetime import date, timedelta
from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.cycles import Period, boundary_after, period_from, periods_from
from billing.errors import InvalidInput

DAYS = st.dates(date(1970, 1, 1), date(2150, 1, 1))
ANCHORS = st.integers(1, 31)


def is_boundary(day: date, anchor_day: int) -> bool:
    """The anchor day itself, or the last day of a month that has no such day."""
    return day.day == anchor_day or (
        day.day < anchor_day and day.day == monthrange(day.year, day.month)[1]
    )


@pytest.mark.parametrize(
    ("anchor_day", "start", "boundaries"),
    [
        (1, "2026-11-22", ["2026-12-01", "2027-01-01", "2027-02-01"]),
        (31, "2026-01-31", ["2026-02-28", "2026-03-31", "2026-04-30", "2026-05-31"]),
        (30, "2026-01-30", ["2026-02-28", "2026-03-30", "2026-04-30"]),
        (29, "2026-01-29", ["2026-02-28", "2026-03-29"]),
        (31, "2028-01-31", ["2028-02-29", "2028-03-31"]),  # a leap year
        (29, "2028-01-29", ["2028-02-29", "2028-03-29"]),
        (31, "2100-01-31", ["2100-02-28", "2100-03-31"]),  # none, by the century's rule
        (31, "2000-01-31", ["2000-02-29", "2000-03-31"]),  # one again, by the four centuries'
        (31, "2026-02-27", ["2026-02-28", "2026-03-31"]),  # a first period of one day
        (15, "2025-12-15", ["2026-01-15", "2026-02-15"]),  # the start is itself a boundary
        (15, "2025-12-16", ["2026-01-15", "2026-02-15"]),
        (28, "2027-12-31", ["2028-01-28", "2028-02-28", "2028-03-28"]),
    ],
)
def test_boundaries_clamp_to_the_months_end_and_come_back(
    anchor_day: int, start: str, boundaries: list[str]
) -> None:
    periods = islice(periods_from(date.fromisoformat(start), anchor_day), len(boundaries))

    assert [period.end.isoformat() for period in periods] == boundaries


@given(DAYS, ANCHORS)
def test_the_boundary_is_the_first_one_after_the_day(day: date, anchor_day: int) -> None:
    following = day + timedelta(days=1)
    while not is_boundary(following, anchor_day):
        following += timedelta(days=1)

    assert boundary_after(day, anchor_day) == following


@given(DAYS, ANCHORS)
def test_periods_tile_the_calendar_with_one_boundary_a_month(start: date, anchor_day: int) -> None:
    periods = list(islice(periods_from(start, anchor_day), 50))

    assert periods[0].start == start
    assert all(period.start < period.end for period in periods)
    assert all(one.end == next_one.start for one, next_one in pairwise(periods))
    months = [period.end.year * 12 + period.end.month for period in periods]
    assert months == list(range(months[0], months[0] + 50))


@given(DAYS, ANCHORS, st.integers(1, 30))
def test_a_boundary_does_not_depend_on_where_the_chain_began(
    start: date, anchor_day: int, later: int
) -> None:
    chain = list(islice(periods_from(start, anchor_day), later + 1))

    assert period_from(chain[later].start, anchor_day) == chain[later]
    assert is_boundary(chain[later].start, anchor_day)


@pytest.mark.parametrize("anchor_day", [0, 32, -1])
def test_an_anchor_is_a_day_of_the_month(anchor_day: int) -> None:
    with pytest.raises(InvalidInput) as refused:
        boundary_after(date(2026, 1, 1), anchor_day)

    assert refused.value.field == "anchor_day"


@pytest.mark.parametrize("end", [date(2026, 1, 1), date(2025, 12, 31)])
def test_a_period_has_at_least_a_day(end: date) -> None:
    with pytest.raises(ValueError, match="cannot end"):
        Period(date(2026, 1, 1), end)
