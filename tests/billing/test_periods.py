from datetime import UTC, date, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.cycles import Cadence, Period, boundary_instant
from billing.periods import (
    MAX_WAITING_WRITTEN,
    PeriodReason,
    first_periods,
    following_period,
    moved_to_zone,
    periods_between,
)
from tests.billing.chains import CADENCES, chain_from, monthly

CHICAGO = ZoneInfo("America/Chicago")
ZONES = st.sampled_from(
    [CHICAGO, *(ZoneInfo(name) for name in ("Pacific/Apia", "America/Havana", "Asia/Kolkata"))]
)
STARTS = st.dates(date(1997, 1, 1), date(2027, 6, 1))
ACTIVATIONS = st.integers(0, 7 * 365 * 24 * 60).map(
    lambda minutes: datetime(2020, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
)


def test_a_client_put_on_the_cycle_today_has_one_period_open() -> None:
    [planned] = first_periods(
        date(2026, 11, 22),
        cadence=monthly(),
        zone=CHICAGO,
        activated_at=datetime(2026, 11, 22, 18, tzinfo=UTC),
    )

    assert planned.period == Period(date(2026, 11, 22), date(2026, 12, 1))
    assert planned.starts_at == datetime(2026, 11, 22, 6, tzinfo=UTC)
    assert planned.ends_at == datetime(2026, 12, 1, 6, tzinfo=UTC)
    assert planned.reason is None


@pytest.mark.parametrize(
    ("activated_at", "waiting"),
    [
        (datetime(2026, 11, 1, 4, 59, 59, tzinfo=UTC), 1),
        # The second boundary's own instant: that period ended before the activation.
        (datetime(2026, 11, 1, 5, tzinfo=UTC), 2),
        (datetime(2026, 11, 1, 5, 0, 1, tzinfo=UTC), 2),
    ],
)
def test_periods_that_ended_before_the_activation_wait(
    activated_at: datetime, waiting: int
) -> None:
    planned = first_periods(
        date(2026, 9, 15), cadence=monthly(), zone=CHICAGO, activated_at=activated_at
    )

    reasons = [one.reason for one in planned]
    assert reasons == [PeriodReason.BEFORE_ACTIVATION] * waiting + [None]


def test_a_start_in_the_future_has_one_period_and_no_reason_to_wait() -> None:
    [planned] = first_periods(
        date(2027, 3, 10),
        cadence=monthly(31),
        zone=CHICAGO,
        activated_at=datetime(2026, 11, 22, tzinfo=UTC),
    )

    assert planned.period == Period(date(2027, 3, 10), date(2027, 3, 31))
    assert planned.reason is None


def test_a_long_past_is_written_down_two_years_at_a_time() -> None:
    *waiting, last = first_periods(
        date(1997, 1, 1),
        cadence=monthly(),
        zone=CHICAGO,
        activated_at=datetime(2026, 11, 22, tzinfo=UTC),
    )

    assert len(waiting) == MAX_WAITING_WRITTEN
    assert waiting[-1].period == Period(date(1998, 12, 1), date(1999, 1, 1))
    assert {one.reason for one in waiting} == {PeriodReason.BEFORE_ACTIVATION}
    assert last.period == Period(date(2026, 11, 1), date(2026, 12, 1))
    assert last.reason is None


@given(STARTS, CADENCES, ZONES, ACTIVATIONS)
def test_the_earliest_that_ended_are_written_down_and_the_one_under_way(
    start: date, cadence: Cadence, zone: ZoneInfo, activated_at: datetime
) -> None:
    planned = first_periods(start, cadence=cadence, zone=zone, activated_at=activated_at)

    # Longer than any of these chains, so that the activation lies inside it.
    chain = list(islice(chain_from(start, cadence), 53 * 31))
    ended = [one for one in chain if boundary_instant(one.end, zone) <= activated_at]
    assert [one.period for one in planned] == [*ended[:MAX_WAITING_WRITTEN], chain[len(ended)]]
    for one in planned:
        assert one.starts_at == boundary_instant(one.period.start, zone)
        assert one.ends_at == boundary_instant(one.period.end, zone)
        assert (one.reason is None) == (one.ends_at > activated_at)


@given(STARTS, CADENCES, ZONES, ACTIVATIONS)
def test_following_periods_fill_the_hole_up_to_the_one_under_way(
    start: date, cadence: Cadence, zone: ZoneInfo, activated_at: datetime
) -> None:
    *waiting, last = first_periods(start, cadence=cadence, zone=zone, activated_at=activated_at)
    filled = waiting[:1]
    while filled and filled[-1] != last:
        following = following_period(
            filled[-1].period, cadence=cadence, zone=zone, activated_at=activated_at
        )
        assert following.period.start == filled[-1].period.end
        assert following.starts_at == filled[-1].ends_at
        assert following.ends_at <= last.ends_at
        filled.append(following)

    assert filled[: len(waiting)] == waiting


@given(STARTS, CADENCES, ZONES, ACTIVATIONS, st.integers(1, 60))
def test_the_periods_between_two_of_a_chain_are_those_of_the_chain(
    start: date, cadence: Cadence, zone: ZoneInfo, activated_at: datetime, later: int
) -> None:
    chain = list(islice(chain_from(start, cadence), later + 1))

    between = list(
        periods_between(
            chain[0],
            chain[later].start,
            cadence=cadence,
            zone=zone,
            activated_at=activated_at,
        )
    )

    assert [one.period for one in between] == chain[1:later]
    for one in between:
        assert one.starts_at == boundary_instant(one.period.start, zone)
        assert one.ends_at == boundary_instant(one.period.end, zone)
        assert (one.reason is None) == (one.ends_at > activated_at)


def test_the_periods_between_start_where_the_last_one_was_recorded_to_end() -> None:
    # In Pago Pago; in Kiritimati, where its client is now, the next day was over by then.
    ended_at = datetime(2026, 1, 31, 11, tzinfo=UTC)

    day, month = periods_between(
        Period(date(2026, 1, 1), date(2026, 1, 31)),
        date(2026, 2, 2),  # the one that starts on 1 February is among them
        cadence=monthly(),
        zone=ZoneInfo("Pacific/Kiritimati"),
        activated_at=datetime(2026, 1, 1, tzinfo=UTC),
        ended_at=ended_at,
    )

    assert (day.period.end, day.starts_at, day.ends_at) == (date(2026, 2, 1), ended_at, ended_at)
    assert (month.period.end, month.starts_at) == (date(2026, 3, 1), ended_at)


def test_a_chain_asked_for_without_end_has_none() -> None:
    chain = periods_between(
        Period(date(2026, 1, 1), date(2026, 2, 1)),
        date.max,
        cadence=monthly(),
        zone=CHICAGO,
        activated_at=datetime(2026, 1, 1, tzinfo=UTC),
    )

    assert next(islice(chain, 1199, None)).period == Period(date(2126, 1, 1), date(2126, 2, 1))


def test_a_changed_anchor_counts_from_the_end_of_the_last_period() -> None:
    following = following_period(
        Period(date(2026, 11, 1), date(2026, 12, 1)),
        cadence=monthly(31),
        zone=CHICAGO,
        activated_at=datetime(2026, 1, 1, tzinfo=UTC),
    )

    assert following.period == Period(date(2026, 12, 1), date(2026, 12, 31))


def test_a_changed_zone_moves_only_the_end() -> None:
    period = Period(date(2026, 11, 1), date(2026, 12, 1))
    starts_at = boundary_instant(period.start, CHICAGO)

    assert moved_to_zone(period, starts_at, ZoneInfo("Asia/Tokyo")) == datetime(
        2026, 11, 30, 15, tzinfo=UTC
    )


def test_a_day_lost_to_a_changed_zone_leaves_neither_gap_nor_overlap() -> None:
    samoa, kiritimati = ZoneInfo("Pacific/Pago_Pago"), ZoneInfo("Pacific/Kiritimati")
    day = Period(date(2026, 1, 31), date(2026, 2, 1))
    starts_at = boundary_instant(day.start, samoa)

    # In the new zone the day was over an hour before it began in the old one.
    assert boundary_instant(day.end, kiritimati) == starts_at - timedelta(hours=1)
    ends_at = moved_to_zone(day, starts_at, kiritimati)
    assert ends_at == starts_at

    following = following_period(
        day, cadence=monthly(), zone=kiritimati, activated_at=starts_at, ended_at=ends_at
    )
    assert following.starts_at == ends_at
    assert following.ends_at == boundary_instant(date(2026, 3, 1), kiritimati)


@given(STARTS, CADENCES, ZONES, ZONES)
def test_periods_of_a_client_that_moves_never_end_before_they_start(
    start: date, cadence: Cadence, old: ZoneInfo, new: ZoneInfo
) -> None:
    period = next(chain_from(start, cadence))
    starts_at = boundary_instant(start, old)
    ends_at = moved_to_zone(period, starts_at, new)
    following = following_period(
        period, cadence=cadence, zone=new, activated_at=starts_at, ended_at=ends_at
    )

    assert starts_at <= ends_at == following.starts_at <= following.ends_at
