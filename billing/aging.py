"""Aging: how long open invoices have been past due, by client and currency."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from uuid import UUID


class AgeBucket(StrEnum):
    """Days past due, youngest first. On its due date an invoice is current: it may be paid yet."""

    CURRENT = "current"
    DAYS_1_30 = "1-30"
    DAYS_31_60 = "31-60"
    DAYS_61_90 = "61-90"
    # From the 91st day.
    OVER_90 = "90+"


_BUCKETS = tuple(AgeBucket)
# Of each bucket but the one without end.
_LAST_DAYS = (0, 30, 60, 90)


@dataclass(frozen=True, slots=True)
class OpenItem:
    """An invoice with ``amount_due`` above zero, in minor units; ``due_on`` is its last day to pay."""

    client_id: UUID
    currency: str
    due_on: date
    amount_due: int

    def __post_init__(self) -> None:
        """Refuse what is settled.

        Raises:
            ValueError: Nothing is due.
        """
        if self.amount_due <= 0:
            raise ValueError("an open item has something due")


@dataclass(frozen=True, slots=True)
class AgedDebt:
    """What is owed in one currency, in minor units by bucket: all of them, empty ones as 0."""

    amounts: Mapping[AgeBucket, int]

    @property
    def total(self) -> int:
        """The sum of all buckets."""
        return sum(self.amounts.values())


@dataclass(frozen=True, slots=True)
class Aging:
    """What each client owes, by its id and the currency; and all of them together, by currency."""

    debts: Mapping[tuple[UUID, str], AgedDebt]
    totals: Mapping[str, AgedDebt]


def bucket_of(due_on: date, as_of: date) -> AgeBucket:
    """The bucket of an invoice due on ``due_on``, seen on ``as_of``."""
    return _BUCKETS[bisect_left(_LAST_DAYS, (as_of - due_on).days)]


def age(items: Iterable[OpenItem], as_of: date) -> Aging:
    """The aging of ``items``, which the caller found open, as of a day in the account's zone.

    Amounts in two currencies are never added up. Clients and currencies come in the order in which
    the items first show them.
    """
    debts: dict[tuple[UUID, str], dict[AgeBucket, int]] = {}
    totals: dict[str, dict[AgeBucket, int]] = {}
    for item in items:
        bucket = bucket_of(item.due_on, as_of)
        for amounts in (
            debts.setdefault((item.client_id, item.currency), _nothing()),
            totals.setdefault(item.currency, _nothing()),
        ):
            amounts[bucket] += item.amount_due
    return Aging(
        {key: AgedDebt(amounts) for key, amounts in debts.items()},
        {currency: AgedDebt(amounts) for currency, amounts in totals.items()},
    )


def _nothing() -> dict[AgeBucket, int]:
    return dict.fromkeys(_BUCKETS, 0)
