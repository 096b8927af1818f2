"""What a card is called, and how long it is good, for people."""

from calendar import monthrange
from collections.abc import Mapping
from datetime import date, timedelta
from types import MappingProxyType

_BRANDS: Mapping[str, str] = MappingProxyType(
    {
        "amex": "American Express",
        "cartes_bancaires": "Cartes Bancaires",
        "diners": "Diners Club",
        "discover": "Discover",
        "eftpos_au": "Eftpos",
        "jcb": "JCB",
        "mastercard": "Mastercard",
        "unionpay": "UnionPay",
        "visa": "Visa",
    }
)

WARNED_BEFORE = timedelta(days=30)
"""How long before its last day the client is told of a card that expires."""


def card_name(brand: str | None, last4: str | None) -> str:
    """A card's name: "Visa ending in 4242", or "Card" where nothing is known of it.

    A bank account has its bank's name for a brand.
    """
    name = "Card" if brand in {None, "", "unknown"} else _BRANDS.get(str(brand), str(brand))
    return f"{name} ending in {last4}" if last4 else name


def last_day(year: int, month: int) -> date:
    """The last day on which a card of that expiry is good."""
    return date(year, month, monthrange(year, month)[1])
