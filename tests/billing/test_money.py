from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from billing.currencies import MINOR_UNITS
from billing.errors import InvalidInput
from billing.money import (
    MAX_AMOUNT,
    decimal_from,
    format_amount,
    round_half_away,
    rounded_quotient,
)

DECIMALS = st.decimals(allow_nan=False, allow_infinity=False, min_value=-1e15, max_value=1e15)


@pytest.mark.parametrize(
    ("value", "rounded"),
    [
        ("0.5", 1),
        ("-0.5", -1),
        ("1.5", 2),
        ("2.5", 3),
        ("-2.5", -3),
        ("2.4999999999999999999999999999999999999", 2),
        ("1000000000000000000000000000000000000000.5", 10**39 + 1),
        ("-0.0", 0),
    ],
)
def test_a_half_goes_away_from_zero(value: str, rounded: int) -> None:
    assert round_half_away(Decimal(value)) == rounded


@given(st.integers(-(10**30), 10**30), st.integers(1, 10**12))
@example(5, 10)
@example(-5, 10)
def test_a_quotient_is_rounded_half_away_from_zero(numerator: int, denominator: int) -> None:
    exact = Fraction(numerator, denominator)
    away = int(abs(exact) + Fraction(1, 2))

    assert rounded_quotient(numerator, denominator) == (away if exact >= 0 else -away)


@given(DECIMALS)
def test_rounding_agrees_with_exact_fractions(value: Decimal) -> None:
    exact = Fraction(value)
    away = int(abs(exact) + Fraction(1, 2))

    assert round_half_away(value) == (away if exact >= 0 else -away)


@given(DECIMALS)
def test_a_correction_cancels_exactly(value: Decimal) -> None:
    assert round_half_away(value) + round_half_away(value.copy_negate()) == 0


def test_rounding_ignores_the_decimal_context_of_the_thread() -> None:
    with localcontext(prec=3):
        assert round_half_away(Decimal("1234567.5")) == 1_234_568


@pytest.mark.parametrize(("value", "error"), [("NaN", ValueError), ("Infinity", OverflowError)])
def test_what_is_no_number_is_not_rounded(value: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        round_half_away(Decimal(value))


@pytest.mark.parametrize("text", ["0", "12", "12.50", "-0.2500", "+3", "007.10", "1" * 20])
def test_plain_decimals_are_read_as_they_stand(text: str) -> None:
    value = decimal_from(text, "quantity")

    assert value == Fraction(text)
    assert value.as_tuple().exponent == -len(text.partition(".")[2])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        ".",
        ".5",
        "5.",
        "1e3",
        "1E-3",
        "NaN",
        "Infinity",
        " 1",
        "1 ",
        "1\n",
        "1_000",
        "1,000",
        "--1",
        "1.2.3",
        "0x10",
        "\u0661\u0662",  # Arabic-Indic digits
        "\uff11",  # a full-width one
        "1" * 21,
        "0." + "1" * 21,
    ],
)
def test_other_spellings_are_refused_by_the_name_of_their_field(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        decimal_from(text, "charges[3].quantity")

    assert refused.value.field == "charges[3].quantity"


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (123_450, "usd", "1,234.50 USD"),
        (5, "usd", "0.05 USD"),
        (-5, "usd", "-0.05 USD"),
        (-100_000, "eur", "-1,000.00 EUR"),
        (0, "usd", "0.00 USD"),
        (1_234_567, "jpy", "1,234,567 JPY"),
        (1_234_567, "kwd", "1,234.567 KWD"),
        (900_719_925_474_099_301, "usd", "9,007,199,254,740,993.01 USD"),
    ],
)
def test_amounts_are_written_with_the_currency_s_decimals(
    amount: int, currency: str, text: str
) -> None:
    assert format_amount(amount, currency) == text


@given(st.integers(-(10**18), 10**18), st.sampled_from(sorted(MINOR_UNITS)))
def test_a_written_amount_reads_back_to_the_same_amount(amount: int, currency: str) -> None:
    number, code = format_amount(amount, currency).split(" ")

    assert Fraction(number.replace(",", "")) * 10 ** MINOR_UNITS[currency] == amount
    assert code == currency.upper()


def test_a_million_of_the_largest_lines_fit_a_signed_64_bit_integer() -> None:
    assert MAX_AMOUNT * 10**6 < 2**63
