"""What one line costs."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal

from billing.currencies import decimals
from billing.errors import InvalidInput
from billing.money import (
    MAX_AMOUNT,
    MAX_QUANTITY,
    MAX_UNIT_PRICE,
    QUANTITY_PLACES,
    UNIT_PRICE_PLACES,
    round_half_away,
)

# Not the context of the thread, which others may have set to fewer digits than a product has.
_EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)


@dataclass(frozen=True, slots=True)
class PricedLine:
    """A line's price as it is kept.

    ``unit_price`` is in major units, or None where the amount was given outright; ``amount`` is
    the whole line's, in minor units.
    """

    quantity: Decimal
    unit_price: Decimal | None
    amount: int


def price_line(
    *,
    currency: str,
    quantity: Decimal | None = None,
    unit_price: Decimal | None = None,
    amount: int | None = None,
) -> PricedLine:
    """Price a line by its ``unit_price`` (major units) or its ``amount`` (minor units).

    The product is rounded once, half away from zero, so a line with the price negated cancels
    exactly. An ``amount`` is the whole line's: the quantity (1 by default) does not multiply it.

    Raises:
        InvalidInput: Both or neither are given, the quantity is not above zero, or a value is
            larger or finer than its limit. The error names the field.
    """
    places = decimals(currency)
    if quantity is None:
        quantity = Decimal(1)
    _require_within("quantity", quantity, MAX_QUANTITY, QUANTITY_PLACES)
    if quantity <= 0:
        raise InvalidInput("quantity", "must be above zero; for a correction negate the price")
    if unit_price is None:
        if amount is None:
            raise InvalidInput(
                "unit_price", "give unit_price (major units) or amount (minor units)"
            )
        if abs(amount) > MAX_AMOUNT:
            raise InvalidInput("amount", f"must be no further than {MAX_AMOUNT:,} from zero")
        return PricedLine(quantity, None, amount)
    if amount is not None:
        raise InvalidInput("amount", "give unit_price or amount, not both")
    _require_within("unit_price", unit_price, MAX_UNIT_PRICE, UNIT_PRICE_PLACES)
    product = _EXACT.scaleb(_EXACT.multiply(quantity, unit_price), places)
    amount = round_half_away(product)
    if abs(amount) > MAX_AMOUNT:
        raise InvalidInput(
            "unit_price", f"times the quantity must stay within {MAX_AMOUNT:,} minor units"
        )
    return PricedLine(quantity, unit_price, amount)


def _require_within(field: str, value: Decimal, limit: Decimal, places: int) -> None:
    # copy_abs, not abs(): the latter rounds to the thread's context.
    if not value.is_finite() or value.copy_abs() > limit:
        raise InvalidInput(field, f"must be a number no further than {limit:,} from zero")
    # Zeros at the end carry nothing: 0.250000000 is as good as 0.25.
    scaled = _EXACT.scaleb(value, places)
    if scaled != scaled.to_integral_value():
        raise InvalidInput(field, f"must have at most {places} decimals")
