from calendar import monthrange
from datetime import date, timedelta
from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.cycles import BillingCycle, Cadence, Period
from billing.errors import InvalidInput
from tests.billing.chains import CADENCES, SEMIMONTHLY, chain_from, monthly, weekly

DAYS = st.dates(date(1970, 1, 1), date(2150, 1, 1))


def is_boundary(day: date, cadence: Cadence) -> bool:
    """Whether a period begins on that day, told from the day alone."""
    match cadence.cycle:
        case BillingCycle.WEEKLY:
            return day.isoweekday() == cadence.anchor_day
        case BillingCycle.SEMIMONTHLY:
            return day.day in {1, 15}
        case _:
            last_day = monthrange(day.year, day.month)[1]
            return day.day == cadence.anchor_day or day.day == last_day < cadence.anchor_day


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
    periods = islice(chain_from(date.fromisoformat(start), monthly(anchor_day)), len(boundaries))

    assert [period.end.isoformat() for period in periods] == boundaries


@pytest.mark.parametrize(
    ("anchor_day", "start", "boundaries"),
    [
        (1, "2026-11-22", ["2026-11-23", "2026-11-30", "2026-12-07"]),  # from a Sunday: one day
        (1, "2026-11-23", ["2026-11-30", "2026-12-07"]),  # from a Monday: a whole week
        (7, "2026-11-23", ["2026-11-29", "2026-12-06"]),
        (4, "2026-12-28", ["2026-12-31", "2027-01-07"]),  # over the year's end
        (2, "2028-02-23", ["2028-02-29", "2028-03-07"]),  # over a leap day
    ],
)
def test_weeks_begin_on_their_day(anchor_day: int, start: str, boundaries: list[str]) -> None:
    periods = islice(chain_from(date.fromisoformat(start), weekly(anchor_day)), len(boundaries))

    assert [period.end.isoformat() for period in periods] == boundaries


@pytest.mark.parametrize(
    ("start", "boundaries"),
    [
        ("2026-11-22", ["2026-12-01", "2026-12-15", "2027-01-01", "2027-01-15"]),
        ("2026-12-01", ["2026-12-15", "2027-01-01"]),
        ("2026-12-14", ["2026-12-15", "2027-01-01"]),
        ("2026-12-15", ["2027-01-01", "2027-01-15"]),
        ("2028-02-15", ["2028-03-01", "2028-03-15"]),  # a leap year
    ],
)
def test_half_months_begin_on_the_first_and_the_fifteenth(
    start: str, boundaries: list[str]
) -> None:
    periods = islice(chain_from(date.fromisoformat(start), SEMIMONTHLY), len(boundaries))

    assert [period.end.isoformat() for period in periods] == boundaries


@given(DAYS, st.integers(1, 31))
def test_half_months_know_no_anchor(day: date, anchor_day: int) -> None:
    cadence = Cadence(BillingCycle.SEMIMONTHLY, anchor_day)

    assert cadence.boundary_after(day) == SEMIMONTHLY.boundary_after(day)


@given(DAYS, CADENCES)
def test_the_boundary_is_the_first_one_after_the_day(day: date, cadence: Cadence) -> None:
    following = day + timedelta(days=1)
    while not is_boundary(following, cadence):
        following += timedelta(days=1)

    assert cadence.boundary_after(day) == following


@given(DAYS, CADENCES)
def test_periods_tile_the_calendar(start: date, cadence: Cadence) -> None:
    periods = list(islice(chain_from(start, cadence), 50))

    assert periods[0].start == start
    assert all(period.start < period.end for period in periods)
    assert all(one.end == next_one.start for one, next_one in pairwise(periods))


@given(DAYS, st.integers(1, 31))
def test_a_monthly_cycle_has_one_boundary_a_month(start: date, anchor_day: int) -> None:
    periods = islice(chain_from(start, monthly(anchor_day)), 50)

    months = [period.end.year * 12 + period.end.month for period in periods]
    assert months == list(range(months[0], months[0] + 50))


@given(DAYS, CADENCES, st.integers(1, 30))
def test_a_boundary_does_not_depend_on_where_the_chain_began(
    start: date, cadence: Cadence, later: int
) -> None:
    chain = list(islice(chain_from(start, cadence), later + 1))

    assert cadence.period_from(chain[later].start) == chain[later]
    assert is_boundary(chain[later].start, cadence)


@pytest.mark.parametrize(
    ("cycle", "anchor_day"),
    [
        *((BillingCycle.MONTHLY, day) for day in (0, 32, -1)),
        *((BillingCycle.WEEKLY, day) for day in (0, 8, 15)),
    ],
)
def test_an_anchor_is_a_day_of_the_month_or_the_week(cycle: BillingCycle, anchor_day: int) -> None:
    with pytest.raises(InvalidInput) as refused:
        Cadence(cycle, anchor_day)

    assert refused.value.field == "anchor_day"


def test_a_manual_cycle_has_no_boundaries() -> None:
    with pytest.raises(ValueError, match="manual"):
        Cadence(BillingCycle.MANUAL)


@pytest.mark.parametrize("end", [date(2026, 1, 1), date(2025, 12, 31)])
def test_a_period_has_at_least_a_day(end: date) -> None:
    with pytest.raises(ValueError, match="cannot end"):
        Period(date(2026, 1, 1), end)
