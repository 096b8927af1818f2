import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.card_amounts import (
    MINIMUMS,
    STRIPE_DECIMALS,
    from_stripe,
    minimum_charge,
    to_stripe,
)
from billing.currencies import MINOR_UNITS
from billing.errors import InvalidInput

CHARGED = st.sampled_from(sorted(STRIPE_DECIMALS))
# Drawn more often: their amounts are not simply the same on both sides.
ODD = st.sampled_from(["bhd", "isk", "jod", "kwd", "mga", "omr", "tnd", "ugx"])


@pytest.mark.parametrize(
    ("amount", "currency", "at_stripe"),
    [
        (1_099, "usd", 1_099),
        (1_099, "USD", 1_099),
        (500, "jpy", 500),  # Not multiplied by 100.
        (500, "krw", 500),
        (500, "xof", 500),
        (5, "isk", 500),
        (5, "ugx", 500),
        (500, "mga", 5),  # Two decimals by ISO, none at Stripe.
        (1_045, "huf", 1_045),  # Divisible by 100 in payouts only.
        (80_045, "twd", 80_045),
        (5_120, "kwd", 5_120),
        (5_120, "bhd", 5_120),
        (1_234, "cop", 1_234),
    ],
)
def test_amounts_are_written_with_stripes_decimals(
    amount: int, currency: str, at_stripe: int
) -> None:
    assert to_stripe(amount, currency) == at_stripe
    assert from_stripe(at_stripe, currency) == amount


@pytest.mark.parametrize("currency", ["bhd", "jod", "kwd", "omr", "tnd"])
@pytest.mark.parametrize("amount", [5_124, 5_121, 1, 9])
def test_the_last_of_three_decimals_must_be_zero(amount: int, currency: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        to_stripe(amount, currency)

    assert refused.value.field == "amount"
    assert "multiple of 10" in refused.value.message
    # Told by Stripe all the same, it is money.
    assert from_stripe(amount, currency) == amount


@pytest.mark.parametrize("amount", [550, 1, 99, 150])
def test_fractions_that_only_one_side_knows_are_refused(amount: int) -> None:
    with pytest.raises(InvalidInput, match="multiple of 100 MGA"):
        to_stripe(amount, "mga")
    for currency in ("isk", "ugx"):
        with pytest.raises(InvalidInput) as refused:
            from_stripe(amount, currency)
        assert refused.value.field == "amount"


@given(st.integers(0, 10**12), CHARGED | ODD)
def test_what_was_sent_reads_back_to_the_same_amount(amount: int, currency: str) -> None:
    try:
        sent = to_stripe(amount, currency)
    except InvalidInput:
        assert currency in {"bhd", "jod", "kwd", "mga", "omr", "tnd"}
    else:
        assert from_stripe(sent, currency) == amount
        # The same money in major units, by each side's own decimals.
        assert sent * 10 ** MINOR_UNITS[currency] == amount * 10 ** STRIPE_DECIMALS[currency]


def test_stripes_decimals_differ_from_isos_in_three_currencies() -> None:
    differ = {
        code: (MINOR_UNITS[code], places)
        for code, places in STRIPE_DECIMALS.items()
        if MINOR_UNITS[code] != places
    }

    assert differ == {"mga": (2, 0), "isk": (0, 2), "ugx": (0, 2)}


def test_the_lists_are_as_long_as_stripes() -> None:
    # Its general list has 130, one of which ISO has withdrawn (ang); five more have three decimals.
    assert len(STRIPE_DECIMALS) == 134
    # Its zero-decimal list has 16, of which ugx is a special case.
    assert sum(places == 0 for places in STRIPE_DECIMALS.values()) == 15
    assert len(MINIMUMS) == 31


# "Minimum charge amount by currency" of https://docs.stripe.com/currencies, in major units there.
@pytest.mark.parametrize(
    ("currency", "least"),
    [
        ("usd", 50),
        ("aed", 200),
        ("ars", 50),
        ("aud", 50),
        ("brl", 50),
        ("cad", 50),
        ("chf", 50),
        ("cop", 50),
        ("czk", 1_500),
        ("dkk", 250),
        ("eur", 50),
        ("gbp", 30),
        ("hkd", 400),
        ("huf", 17_500),
        ("idr", 50),
        ("ils", 50),
        ("inr", 50),
        ("jpy", 50),
        ("krw", 50),
        ("mxn", 1_000),
        ("myr", 200),
        ("nok", 300),
        ("nzd", 50),
        ("php", 50),
        ("pln", 200),
        ("ron", 200),
        ("rub", 50),
        ("sek", 300),
        ("sgd", 50),
        ("thb", 1_000),
        ("zar", 50),
        # No minimum of their own: the smallest amount that can be sent.
        ("ngn", 1),
        ("clp", 1),
        ("isk", 1),
        ("kwd", 10),
        ("mga", 100),
    ],
)
def test_the_smallest_charge_is_stripes(currency: str, least: int) -> None:
    assert minimum_charge(currency) == minimum_charge(currency.upper()) == least


@given(CHARGED)
def test_the_smallest_charge_can_be_sent_and_is_something(currency: str) -> None:
    assert to_stripe(minimum_charge(currency), currency) > 0


@pytest.mark.parametrize("currency", ["irr", "kpw", "btn", "iqd", "ang", "xxx", "", "us"])
def test_a_currency_that_stripe_does_not_charge_is_refused(currency: str) -> None:
    with pytest.raises(InvalidInput, match=r"^currency: "):
        minimum_charge(currency)
    with pytest.raises(InvalidInput, match=r"^currency: "):
        to_stripe(100, currency)
    with pytest.raises(InvalidInput, match=r"^currency: "):
        from_stripe(100, currency)
