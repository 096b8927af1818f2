from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.card_amounts import STRIPE_DECIMALS, minimum_charge, to_stripe
from billing.declines import DeclineClass
from billing.errors import InvalidInput
from billing.money import MAX_AMOUNT
from billing.top_ups import (
    AutoTopUp,
    TopUpHold,
    TopUpTries,
    after_decline,
    auto_top_up,
    is_told,
    next_top_up,
)

NOW = datetime(2026, 11, 22, 14, tzinfo=UTC)
HOUR, MOMENT = timedelta(hours=1), timedelta(microseconds=1)
FRESH = TopUpTries()
SETTING = auto_top_up(threshold=5_000, target=20_000, currency="usd")


@st.composite
def settings(draw: st.DrawFn) -> AutoTopUp:
    currency = draw(st.sampled_from(sorted(STRIPE_DECIMALS)))
    # Drawn more often: where not every amount can be sent.
    currency = draw(st.sampled_from([currency, "kwd", "mga"]))
    threshold = draw(st.integers(1, 10_000))
    least = max(threshold + 1, threshold - 1 + minimum_charge(currency))
    return auto_top_up(
        threshold=threshold, target=draw(st.integers(least, least + 20_000)), currency=currency
    )


def declined(times: int, kind: str = "soft", at: datetime = NOW) -> TopUpTries:
    tries = FRESH
    for _ in range(times):
        tries = after_decline(tries, DeclineClass(kind), at)
    return tries


@pytest.mark.parametrize(
    ("balance", "charged"),
    [
        (20_000, "enough"),
        (5_000, "enough"),  # At the threshold is not below it.
        (4_999, 15_001),
        (1, 19_999),
        (0, 20_000),
        (-40, 20_040),
    ],
)
def test_below_the_threshold_the_card_is_charged_up_to_the_target(
    balance: int, charged: int | str
) -> None:
    assert next_top_up(SETTING, balance=balance, has_open=False, tries=FRESH, now=NOW) == charged


@pytest.mark.parametrize(
    ("currency", "balance", "charged"),
    [
        ("usd", 1_234, 8_766),
        ("jpy", 1_234, 8_766),
        ("isk", 1_234, 8_766),
        # Of three decimals the last must be 0, and the ariary's hundredths do not exist.
        ("kwd", 1_234, 8_760),
        ("kwd", 1_230, 8_770),
        ("mga", 1_234, 8_700),
    ],
)
def test_what_stripe_cannot_take_is_left_below_the_target(
    currency: str, balance: int, charged: int
) -> None:
    setting = auto_top_up(threshold=5_000, target=10_000, currency=currency)

    assert next_top_up(setting, balance=balance, has_open=False, tries=FRESH, now=NOW) == charged


@given(settings(), st.integers(-(10**6), 20_000))
def test_every_top_up_can_be_charged_and_one_is_enough(setting: AutoTopUp, balance: int) -> None:
    charged = next_top_up(setting, balance=balance, has_open=False, tries=FRESH, now=NOW)

    if isinstance(charged, TopUpHold):
        assert charged == "enough"
        assert balance >= setting.threshold
        return
    assert to_stripe(charged, setting.currency)
    assert charged >= minimum_charge(setting.currency)
    assert setting.threshold <= balance + charged <= setting.target
    again = next_top_up(setting, balance=balance + charged, has_open=False, tries=FRESH, now=NOW)
    assert again == "enough"


@pytest.mark.parametrize("tries", [FRESH, declined(1), declined(4)])
def test_one_is_open_at_a_time(tries: TopUpTries) -> None:
    assert next_top_up(SETTING, balance=0, has_open=True, tries=tries, now=NOW) == "open"
    assert next_top_up(SETTING, balance=5_000, has_open=True, tries=tries, now=NOW) == "enough"


@pytest.mark.parametrize(
    ("waited", "charged"),
    [
        (timedelta(0), "paused"),
        (HOUR - MOMENT, "paused"),
        (HOUR, 20_000),
        (timedelta(days=30), 20_000),
        # A clock that went back.
        (-HOUR, "paused"),
    ],
)
@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_decline_pauses_top_ups_for_an_hour(
    times: int, waited: timedelta, charged: int | str
) -> None:
    assert (
        next_top_up(SETTING, balance=0, has_open=False, tries=declined(times), now=NOW + waited)
        == charged
    )


def test_the_hour_is_counted_from_the_last_decline() -> None:
    tries = after_decline(declined(1), DeclineClass.SOFT, NOW + HOUR)

    assert tries.declined_at == NOW + HOUR
    assert next_top_up(SETTING, balance=0, has_open=False, tries=tries, now=NOW + HOUR) == "paused"


@pytest.mark.parametrize(
    ("declines", "off"),
    [
        ("soft", ""),
        ("soft soft soft", ""),
        ("soft soft soft soft", "off"),
        ("needs_authentication needs_authentication needs_authentication", ""),
        ("soft needs_authentication soft needs_authentication", "off"),
        ("soft soft soft soft soft", "off"),
        # One of these is enough: the card will not work again.
        ("hard", "off"),
        ("needs_new_card", "off"),
        ("soft hard", "off"),
        # And it stays so, whatever is told later.
        ("hard soft", "off"),
    ],
)
def test_top_ups_are_off_after_four_declines_or_one_for_good(declines: str, off: str) -> None:
    tries = FRESH
    for kind in declines.split():
        tries = after_decline(tries, DeclineClass(kind), NOW)

    assert tries.is_off is bool(off)
    months_later = NOW + timedelta(days=99)
    charged = next_top_up(SETTING, balance=0, has_open=False, tries=tries, now=months_later)
    assert charged == ("off" if off else 20_000)


@pytest.mark.parametrize("kind", DeclineClass)
def test_the_client_is_told_of_the_first_decline_only(kind: DeclineClass) -> None:
    assert not is_told(FRESH)
    assert is_told(declined(1, kind))
    assert [is_told(declined(times, kind)) for times in (2, 3, 4, 5)] == [False] * 4


def test_a_new_setting_or_a_paid_top_up_begins_as_new() -> None:
    assert TopUpTries() == TopUpTries(declines=0, declined_at=None, is_off=False)
    assert next_top_up(SETTING, balance=0, has_open=False, tries=FRESH, now=NOW) == 20_000


@pytest.mark.parametrize(
    ("threshold", "target", "currency"),
    [
        (1, 50, "usd"),
        (1, 51, "usd"),
        (5_000, 5_049, "usd"),
        (5_000, 5_001, "ngn"),  # Without a minimum of its own.
        (5_000, 5_009, "kwd"),
        (5_000, 5_099, "mga"),
        (5_000, 22_499, "huf"),
        (MAX_AMOUNT - 100, MAX_AMOUNT, "usd"),
    ],
)
def test_a_target_leaves_room_for_stripes_minimum(
    threshold: int, target: int, currency: str
) -> None:
    setting = auto_top_up(threshold=threshold, target=target, currency=currency.upper())

    assert setting == AutoTopUp(threshold, target, currency)


@pytest.mark.parametrize(
    ("threshold", "target", "currency", "field", "complaint"),
    [
        (0, 5_000, "usd", "threshold", "above zero"),
        (-1, 5_000, "usd", "threshold", "above zero"),
        (5_000, 5_000, "usd", "target", "above the threshold"),
        (5_000, 4_999, "ngn", "target", "above the threshold"),
        (5_000, 5_000, "ngn", "target", "above the threshold"),
        (1, 49, "usd", "target", "at least 50: a card is charged 50 USD"),
        (5_000, 5_048, "usd", "target", "at least 5,049: a card is charged 50 USD"),
        (5_000, 5_008, "kwd", "target", "at least 5,009: a card is charged 10 KWD"),
        (5_000, 5_098, "mga", "target", "at least 5,099: a card is charged 100 MGA"),
        (5_000, 22_498, "huf", "target", "at least 22,499: a card is charged 17,500 HUF"),
        (1, MAX_AMOUNT + 1, "usd", "target", "at most 1,000,000,000,000"),
        (5_000, 20_000, "irr", "currency", "Stripe charges no cards in IRR"),
        (5_000, 20_000, "xxx", "currency", "active ISO 4217"),
        (5_000, 20_000, "", "currency", "active ISO 4217"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_by_the_name_of_its_field(
    threshold: int, target: int, currency: str, field: str, complaint: str
) -> None:
    with pytest.raises(InvalidInput, match=complaint) as refused:
        auto_top_up(threshold=threshold, target=target, currency=currency)

    assert refused.value.field == f"auto_top_up.{field}"


def test_the_reasons_for_no_charge_have_these_names() -> None:
    assert {*TopUpHold} == {"enough", "open", "off", "paused"}
