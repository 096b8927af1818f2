"""The sample month's clients as payers: who has which card, who pays ahead, who gets mail."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from types import MappingProxyType

VISA, MASTERCARD, AMEX = "pm_card_visa", "pm_card_mastercard", "pm_card_amex"
BANK_DEBIT = "pm_usBankAccount_processing"
"""The money of this one stays on its way for as long as the demo is watched."""

PATTERN = 32
"""After so many clients it begins again."""

# By their place in the pattern: what they pay with, where it is not a good card.
_METHODS: Mapping[int, str | None] = MappingProxyType(
    {
        3: "pm_card_chargeDeclinedInsufficientFunds",
        8: None,
        11: "pm_card_authenticationRequired",
        15: "pm_card_chargeDeclinedExpiredCard",
        19: "pm_card_chargeDeclinedInsufficientFunds",
        24: None,
        27: "pm_card_chargeDeclinedStolenCard",
        29: "pm_card_chargeDeclinedProcessingError",
    }
)
# How much of the month they paid ahead.
_PAID_AHEAD: Mapping[int, Decimal] = MappingProxyType(
    {
        5: Decimal("1.2"),
        8: Decimal("1.1"),
        13: Decimal("0.4"),
        19: Decimal("0.25"),
        21: Decimal("0.3"),
    }
)
# By number, not by place: one or two of each are enough.
_PAYS_BY_BANK = 38
_WANT_NO_READY_MAIL = frozenset({17, 90})
_HAVE_NO_EMAIL = frozenset({30, 121})


@dataclass(frozen=True, slots=True, kw_only=True)
class Payer:
    """How one client pays and is reached.

    ``payment_method`` is one of Stripe's test ones; ``paid_ahead`` is a share of what the month
    comes to, and may be above one.
    """

    client: str
    email: str | None
    wants_ready_mail: bool
    payment_method: str | None
    paid_ahead: Decimal

    def deposit(self, owed: Decimal) -> Decimal:
        """What it paid ahead of a month that comes to ``owed``: whole tens, in major units."""
        tens = (owed * self.paid_ahead / 10).to_integral_value(ROUND_CEILING)
        return max(tens, Decimal(0)) * 10


def payers(clients: Sequence[str]) -> list[Payer]:
    """How each of these clients pays; the same for the same clients in the same order."""
    return [_payer(number, client) for number, client in enumerate(clients)]


def _payer(number: int, client: str) -> Payer:
    place = number % PATTERN
    good = (VISA, VISA, MASTERCARD, AMEX)[number % 4]
    return Payer(
        client=client,
        email=None if number in _HAVE_NO_EMAIL else f"accounts@{_domain(client)}.example",
        wants_ready_mail=number not in _WANT_NO_READY_MAIL,
        payment_method=BANK_DEBIT if number == _PAYS_BY_BANK else _METHODS.get(place, good),
        paid_ahead=_PAID_AHEAD.get(place, Decimal(0)),
    )


def _domain(client: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", client.lower()).strip("-")
