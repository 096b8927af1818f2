"""Numbers that mean money: limits, reading, rounding and writing. Never a float."""

import re
from decimal import ROUND_HALF_UP, Decimal

from billing.currencies import decimals
from billing.errors import InvalidInput

MAX_AMOUNT = 10**12
"""Largest absolute amount of one line, in minor units.

Ten thousand million dollars, a million million yen: above any honest line in any currency, and
a million such lines still sum to less than a signed 64-bit integer holds (9.2 * 10**18).
"""

MAX_QUANTITY = Decimal(10**9)
"""Largest quantity of one line."""

QUANTITY_PLACES = 6
"""Decimals a quantity may have."""

MAX_UNIT_PRICE = Decimal(10**12)
"""Largest absolute unit price, in major units: MAX_AMOUNT where the two units are one (jpy)."""

UNIT_PRICE_PLACES = 8
"""Decimals a unit price may have; per-piece prices run to fractions of a cent."""

_PLAIN_DECIMAL = re.compile(r"[+-]?[0-9]{1,20}(\.[0-9]{1,20})?")


def round_half_away(value: Decimal) -> int:
    """The nearest integer; a half goes away from zero, so that -x always cancels x.

    Exact for any number of digits, whatever the decimal context of the thread.

    Raises:
        ValueError: The value is not a number.
        OverflowError: The value is infinite.
    """
    # The decimal module's "half up" is by magnitude: away from zero for both signs.
    return int(value.to_integral_value(rounding=ROUND_HALF_UP))


def rounded_quotient(numerator: int, denominator: int) -> int:
    """The integer nearest to the quotient by a ``denominator`` above zero, half away from zero."""
    nearest = (2 * abs(numerator) + denominator) // (2 * denominator)
    return nearest if numerator >= 0 else -nearest


def decimal_from(text: str, field: str) -> Decimal:
    """Read a plain decimal string: an optional sign, digits, and a point between digits.

    ``Decimal()`` alone would also take exponents, NaN, spaces, underscores and other scripts'
    digits.

    Raises:
        InvalidInput: It is anything else, or has over 20 digits on a side of the point.
    """
    if not _PLAIN_DECIMAL.fullmatch(text):
        raise InvalidInput(
            field,
            "must be a plain decimal number, such as 12.50, "
            "with at most 20 digits on each side of the point",
        )
    return Decimal(text)


def format_amount(amount: int, currency: str) -> str:
    """Write minor units for people: ``123450`` of usd is ``1,234.50 USD``.

    Raises:
        InvalidInput: The currency is unknown.
    """
    places = decimals(currency)
    major, minor = divmod(abs(amount), 10**places)
    sign = "-" if amount < 0 else ""
    fraction = f".{minor:0{places}}" if places else ""
    return f"{sign}{major:,}{fraction} {currency.upper()}"
