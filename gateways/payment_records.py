"""The vendor's own record of money moved, as the rest of the system sees it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from gateways.cards import CardReport, RefundReport
from gateways.disputes import DisputeReport
from gateways.merchants import Merchant

Record = TypeVar("Record")


@dataclass(frozen=True, slots=True)
class Window:
    """What was made from ``since`` on, and before ``until``."""

    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRefund:
    """A refund as it stands. ``amount`` is in our minor units."""

    report: RefundReport
    payment_intent: str | None
    amount: int
    currency: str


@dataclass(frozen=True, slots=True)
class RecordPage(Generic[Record]):
    """Some of the records of a window; ``after`` asks for those that follow, ``None`` ends them."""

    records: Sequence[Record]
    after: str | None


class PaymentRecords(Protocol):
    """Reads what was moved. Safe to use from many threads.

    Every method raises ``CardsUnavailable`` where it could not be asked; asking again harms
    nothing.
    """

    def payments(
        self, window: Window, merchant: Merchant, after: str | None
    ) -> RecordPage[CardReport]:
        """The payments that were begun in a window, as they stand now.

        Those in none of the states of ``CardStatus`` are left out: nothing was taken with them.
        """
        ...

    def refunds(
        self, window: Window, merchant: Merchant, after: str | None
    ) -> RecordPage[RecordedRefund]:
        """The refunds that were made in a window, as they stand now."""
        ...

    def disputes(
        self, window: Window, merchant: Merchant, after: str | None
    ) -> RecordPage[DisputeReport]:
        """The disputes that were begun in a window, as they stand now.

        Those that our minor units or states cannot hold are left out.
        """
        ...

    def payment(self, payment_intent: str, merchant: Merchant) -> CardReport | None:
        """One payment; ``None`` if there is none, or nothing was taken with it yet."""
        ...

    def refund(self, refund: str, merchant: Merchant) -> RecordedRefund | None:
        """One refund; ``None`` if there is none."""
        ...

    def dispute(self, dispute: str, merchant: Merchant) -> DisputeReport | None:
        """One dispute; ``None`` if there is none."""
        ...
