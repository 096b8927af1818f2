"""What a credit balance consists of: which credit is spent first, and which expires.

A lot is credit that came in at once: a deposit, a grant. The lots of one call are all of one
balance, and a balance is one client's in one currency, so no amount here can meet another
currency.

Lots are never below zero; a balance can be. What it owes then, in minor units, is covered by what
comes in, as anything else is: by ``spend``. So a balance is always the sum of its lots less what
it owes, and one of the two is zero once what has expired is written down.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum
from uuid import UUID


class LotKind(StrEnum):
    """Where a lot came from."""

    # Granted: spent first, and may expire.
    PROMOTIONAL = "promotional"
    # All other credit, also what staff corrected or an invoice gave: it never expires.
    PAID = "paid"


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditLot:
    """What remains of a lot, in minor units.

    ``expires_on`` is the first day on which it cannot be used; None if it never expires. Ids are
    in the order in which the lots came in, as uuid7 makes them.
    """

    lot_id: UUID
    kind: LotKind
    remaining: int
    expires_on: date | None = None

    def __post_init__(self) -> None:
        """Refuse a lot that cannot be.

        Raises:
            ValueError: Less than nothing remains, or paid credit has a date.
        """
        if self.remaining < 0:
            raise ValueError("a lot is never below zero")
        if self.kind == LotKind.PAID and self.expires_on is not None:
            raise ValueError("paid credit never expires")

    def is_expired(self, today: date) -> bool:
        """Whether its date has come."""
        return self.expires_on is not None and self.expires_on <= today


@dataclass(frozen=True, slots=True)
class LotUse:
    """How much of a lot is spent, expires or comes back: above zero, in minor units."""

    lot_id: UUID
    amount: int


def spend(lots: Iterable[CreditLot], amount: int, today: date) -> tuple[LotUse, ...]:
    """Which lots pay ``amount``, or as much of it as there is, in minor units.

    Promotional credit goes before paid, then what expires soonest, then the oldest. What has
    expired pays nothing, also before its expiry is written down.

    Args:
        lots: Those of one balance, each once, in any order.
        amount: What is to be paid, 0 or more.
        today: The date in the client's zone.

    Raises:
        ValueError: ``amount`` is below zero.
    """
    if amount < 0:
        raise ValueError("what is spent is not below zero")
    uses = []
    for lot in sorted(lots, key=_turn):
        used = 0 if lot.is_expired(today) else min(lot.remaining, amount)
        if used:
            uses.append(LotUse(lot.lot_id, used))
            amount -= used
    return tuple(uses)


def expiries(lots: Iterable[CreditLot], today: date) -> tuple[LotUse, ...]:
    """What expires of lots whose date, in the client's zone, has come: all that remains of them.

    What a void gives back to such a lot expires again at once: ask after ``given_back``.
    """
    return tuple(
        LotUse(lot.lot_id, lot.remaining) for lot in lots if lot.is_expired(today) and lot.remaining
    )


def spent(lots: Sequence[CreditLot], uses: Iterable[LotUse]) -> tuple[CreditLot, ...]:
    """The lots once ``uses`` were taken from them.

    Raises:
        ValueError: One is not of these lots, or takes more than remains.
    """
    return _moved(lots, uses, -1)


def given_back(lots: Sequence[CreditLot], uses: Iterable[LotUse]) -> tuple[CreditLot, ...]:
    """The lots once ``uses`` were given back to them, each to the one it was taken from.

    Raises:
        ValueError: One is not of these lots.
    """
    return _moved(lots, uses, 1)


def _turn(lot: CreditLot) -> tuple[bool, date, UUID]:
    return lot.kind == LotKind.PAID, lot.expires_on or date.max, lot.lot_id


def _moved(lots: Sequence[CreditLot], uses: Iterable[LotUse], sign: int) -> tuple[CreditLot, ...]:
    moves: Counter[UUID] = Counter()
    for use in uses:
        moves[use.lot_id] += sign * use.amount
    if moves.keys() - {lot.lot_id for lot in lots}:
        raise ValueError("a lot of another balance")
    return tuple(replace(lot, remaining=lot.remaining + moves[lot.lot_id]) for lot in lots)
