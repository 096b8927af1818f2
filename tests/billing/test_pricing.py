from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.currencies import MINOR_UNITS
from billing.errors import InvalidInput
from billing.money import MAX_AMOUNT, MAX_QUANTITY, MAX_UNIT_PRICE
from billing.pricing import PricedLine, price_line

CURRENCIES = st.sampled_from(["usd", "jpy", "kwd"])
# Together they stay within MAX_AMOUNT in every currency above.
QUANTITIES = st.decimals(min_value="0.000001", max_value=10**6, places=6)
UNIT_PRICES = st.decimals(min_value=-100, max_value=100, places=8)


@pytest.mark.parametrize(
    ("currency", "quantity", "unit_price", "amount"),
    [
        ("usd", "1", "0.2500", 25),
        ("usd", "3", "0.335", 101),  # 100.5 cents: rounded once, not three times 34
        ("usd", "1", "0.005", 1),
        ("usd", "1", "-0.005", -1),
        ("usd", "1000", "0.0004", 40),
        ("usd", "0.333333", "100", 3333),
        ("jpy", "3", "0.5", 2),
        ("kwd", "1", "0.0005", 1),
        ("usd", "7", "0", 0),
    ],
)
def test_a_line_is_rounded_once(currency: str, quantity: str, unit_price: str, amount: int) -> None:
    line = price_line(currency=currency, quantity=Decimal(quantity), unit_price=Decimal(unit_price))

    assert line == PricedLine(Decimal(quantity), Decimal(unit_price), amount)


@given(CURRENCIES, QUANTITIES, UNIT_PRICES)
def test_amounts_agree_with_exact_fractions(
    currency: str, quantity: Decimal, unit_price: Decimal
) -> None:
    exact = Fraction(quantity) * Fraction(unit_price) * 10 ** MINOR_UNITS[currency]
    away = int(abs(exact) + Fraction(1, 2))

    line = price_line(currency=currency, quantity=quantity, unit_price=unit_price)

    assert line.amount == (away if exact >= 0 else -away)


@given(CURRENCIES, QUANTITIES, UNIT_PRICES)
def test_a_negated_price_cancels_its_line(
    currency: str, quantity: Decimal, unit_price: Decimal
) -> None:
    line = price_line(currency=currency, quantity=quantity, unit_price=unit_price)
    correction = price_line(
        currency=currency, quantity=quantity, unit_price=unit_price.copy_negate()
    )

    assert line.amount + correction.amount == 0


def test_prices_ignore_the_decimal_context_of_the_thread() -> None:
    with localcontext(prec=2):
        line = price_line(
            currency="usd", quantity=Decimal("123456.789"), unit_price=Decimal("-7.00500001")
        )

    assert line.amount == -86_481_481
    assert round(Fraction("123456.789") * Fraction("-7.00500001") * 100) == -86_481_481


def test_quantity_is_one_by_default() -> None:
    assert price_line(currency="usd", unit_price=Decimal("9.99")).quantity == 1


def test_an_amount_is_the_whole_line_s() -> None:
    line = price_line(currency="usd", quantity=Decimal(4), amount=-1_000)

    assert line == PricedLine(Decimal(4), None, -1_000)


def test_zeros_at_the_end_do_not_count_as_decimals() -> None:
    line = price_line(
        currency="usd", quantity=Decimal("2.0000000000"), unit_price=Decimal("0.2500000000")
    )

    assert line.amount == 50


def test_the_limits_themselves_are_allowed() -> None:
    assert price_line(currency="usd", amount=-MAX_AMOUNT).amount == -MAX_AMOUNT
    assert price_line(currency="jpy", unit_price=MAX_UNIT_PRICE).amount == MAX_AMOUNT
    tiny = price_line(currency="usd", quantity=MAX_QUANTITY, unit_price=Decimal("0.00000001"))
    assert tiny.amount == 1_000


@pytest.mark.parametrize(
    ("field", "given_values"),
    [
        ("unit_price", {}),
        ("amount", {"unit_price": Decimal(1), "amount": 100}),
        ("quantity", {"quantity": Decimal(0), "amount": 100}),
        ("quantity", {"quantity": Decimal(-1), "unit_price": Decimal(1)}),
        ("quantity", {"quantity": MAX_QUANTITY + 1, "unit_price": Decimal("0.01")}),
        ("quantity", {"quantity": Decimal("0.0000001"), "unit_price": Decimal(1)}),
        ("quantity", {"quantity": Decimal("NaN"), "unit_price": Decimal(1)}),
        ("unit_price", {"unit_price": Decimal("-Infinity")}),
        ("unit_price", {"unit_price": Decimal("0.000000001")}),
        ("unit_price", {"quantity": Decimal("0.1"), "unit_price": -MAX_UNIT_PRICE - 1}),
        ("unit_price", {"unit_price": Decimal("1E-999999999999")}),
        ("unit_price", {"quantity": MAX_QUANTITY, "unit_price": MAX_UNIT_PRICE}),
        ("amount", {"amount": MAX_AMOUNT + 1}),
        ("amount", {"amount": -MAX_AMOUNT - 1}),
        ("currency", {"currency": "btc", "amount": 1}),
    ],
)
def test_what_cannot_be_priced_names_its_field(field: str, given_values: dict[str, object]) -> None:
    with pytest.raises(InvalidInput) as refused:
        price_line(**{"currency": "jpy", **given_values})  # type: ignore[arg-type]  # a table of calls

    assert refused.value.field == field
