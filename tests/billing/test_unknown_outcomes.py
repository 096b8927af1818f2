from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.unknown_outcomes import (
    KEY_LIFETIME,
    KEY_TRUSTED_FOR,
    NEVER_ARRIVED_AFTER,
    ask_by,
    believed_never_arrived,
    next_ask,
)

SENT = datetime(2026, 11, 22, 14, tzinfo=UTC)
MOMENT = timedelta(microseconds=1)
SINCE_SENT = st.timedeltas(timedelta(0), timedelta(days=40))


def after(**span: float) -> datetime:
    return SENT + timedelta(**span)


def test_it_is_asked_after_1_minute_5_minutes_an_hour_then_daily() -> None:
    at, asks = SENT, []
    for asked in range(6):
        at = next_ask(asked, at, SENT)
        asks.append(at)

    assert asks == [
        after(minutes=1),
        after(minutes=5),
        after(hours=1),
        after(days=1),
        after(days=2),
        after(days=3),
    ]


@pytest.mark.parametrize(
    ("asked", "at", "asks"),
    [
        (0, after(seconds=59), after(minutes=1)),
        (0, after(minutes=1), after(minutes=5)),
        # Down for two hours, then asked once: not three times in a row.
        (1, after(hours=2), after(days=1)),
        (1, after(days=9, hours=1), after(days=10)),
        # Asked early, by hand: the plan is kept.
        (3, after(minutes=2), after(days=1)),
        (4, after(minutes=2), after(days=2)),
    ],
)
def test_missed_times_are_passed_over(asked: int, at: datetime, asks: datetime) -> None:
    assert next_ask(asked, at, SENT) == asks


@given(st.integers(0, 50), SINCE_SENT)
def test_the_next_time_is_later_and_within_a_day_of_the_plan(asked: int, waited: timedelta) -> None:
    at = SENT + waited
    asks = next_ask(asked, at, SENT)

    planned = next_ask(asked, SENT - MOMENT, SENT)
    assert asks > at
    assert asks >= planned
    assert asks == planned or asks - at <= timedelta(days=1)


def test_asks_are_counted_from_zero() -> None:
    with pytest.raises(ValueError, match="counted from 0"):
        next_ask(-1, SENT, SENT)


@pytest.mark.parametrize(
    ("now", "how"),
    [
        (SENT, "key"),
        (after(hours=23) - MOMENT, "key"),
        (after(hours=23), "metadata"),
        (after(hours=24), "metadata"),
        (after(days=30), "metadata"),
    ],
)
def test_the_key_is_used_only_while_stripe_surely_knows_it(now: datetime, how: str) -> None:
    assert ask_by(SENT, now) == how


def test_the_key_is_given_up_before_stripe_may_forget_it() -> None:
    assert timedelta(hours=24) == KEY_LIFETIME
    assert timedelta(hours=23) == KEY_TRUSTED_FOR


@pytest.mark.parametrize(
    "now",
    [
        SENT,
        after(hours=24) - MOMENT,
        SENT - timedelta(days=2),  # A clock that went back proves nothing.
    ],
)
def test_silence_of_less_than_a_day_is_not_believed(now: datetime) -> None:
    assert not believed_never_arrived(SENT, now)


@pytest.mark.parametrize("now", [after(hours=24), after(days=30)])
def test_silence_of_a_day_is_believed(now: datetime) -> None:
    assert believed_never_arrived(SENT, now)


@given(SINCE_SENT)
def test_nothing_is_given_up_while_asking_could_still_make_the_charge(waited: timedelta) -> None:
    now = SENT + waited

    assert not (believed_never_arrived(SENT, now) and ask_by(SENT, now) == "key")


def test_the_first_daily_ask_is_the_one_that_may_give_up() -> None:
    asks = next_ask(3, after(hours=1), SENT)

    assert asks - SENT == NEVER_ARRIVED_AFTER
    assert ask_by(SENT, asks) == "metadata"
