"""A client's statement: what it owed before a period, what moved in it, what it owes after.

The balance is what is due on the client's invoices less the credit it has in hand: above zero the
client owes, below zero it has more than it owes. Credit that pays an invoice moves from one to
the other, so it is no line, but it shows in the open items.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from uuid import UUID

from billing.cycles import Period


class MovementKind(StrEnum):
    """What a line of a statement is about."""

    # Finalized. A negative one gives credit.
    INVOICE = "invoice"
    VOID = "void"
    CREDIT_NOTE = "credit_note"
    # Money received, for an invoice or ahead.
    PAYMENT = "payment"
    # Money given back, or taken back by the bank.
    REFUND = "refund"
    # Given up, or owed again because it is paid after all.
    WRITE_OFF = "write_off"
    # Granted, corrected or expired; applied to an invoice, or carried from one.
    CREDIT = "credit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """Something that changed what a client owes or has, in ``currency``'s minor units.

    Attributes:
        dated_on: The date it bears: of issue, of payment, of the day it was done.
        kind: What it is.
        reference: What the client knows it by: a document's number, a payment's reference.
        currency: Its currency's code, as stored.
        invoice_id: The invoice on which ``due`` changed.
        due: What is due on that invoice from now on, more or less.
        credit: What the client has in hand from now on, more or less.
    """

    dated_on: date
    kind: MovementKind
    reference: str
    currency: str
    invoice_id: UUID | None = None
    due: int = 0
    credit: int = 0

    def __post_init__(self) -> None:
        """Refuse a debt without an invoice.

        Raises:
            ValueError: ``due`` changes on no invoice.
        """
        if self.due and self.invoice_id is None:
            raise ValueError("what is due is due on an invoice")

    @property
    def amount(self) -> int:
        """What the client owes from now on, more or less."""
        return self.due - self.credit


@dataclass(frozen=True, slots=True)
class StatementLine:
    """A movement, and the balance after it."""

    movement: Movement
    balance: int


@dataclass(frozen=True, slots=True)
class InvoiceDue:
    """What an invoice still has due at a period's end, never 0.

    Below zero where a payment bears an earlier date than its invoice, which comes in a later
    period.
    """

    invoice_id: UUID
    due: int


@dataclass(frozen=True, slots=True)
class Statement:
    """What a client owed and has moved in a period, in one currency's minor units.

    ``closing_balance`` is the sum of ``open_items`` less ``credit``, which is what the client has
    in hand at the end, signed.
    """

    currency: str
    period: Period
    opening_balance: int
    lines: tuple[StatementLine, ...]
    closing_balance: int
    open_items: tuple[InvoiceDue, ...]
    credit: int


def statement_of(movements: Iterable[Movement], *, currency: str, period: Period) -> Statement:
    """A client's statement in one currency; the period's last day is the one before its end.

    Computed from all movements each time, so the closing balance of a period is always the
    opening one of the next. A movement that is recorded later with an earlier date changes both.

    Args:
        movements: All of the client's from its first, in any currency, in the order in which
            they were recorded. Those of one day keep that order.
        currency: Which to look at.
        period: The span of dates to list.

    Returns:
        Lines by date, without those that leave the balance as it is; open items in the order in
        which their invoices came.
    """
    until_end = sorted(
        (one for one in movements if one.currency == currency and one.dated_on < period.end),
        key=lambda one: one.dated_on,
    )
    opening = balance = sum(one.amount for one in until_end if one.dated_on < period.start)
    lines = []
    for one in until_end:
        if one.dated_on >= period.start and one.amount:
            balance += one.amount
            lines.append(StatementLine(one, balance))
    due: Counter[UUID] = Counter()
    for one in until_end:
        if one.invoice_id is not None:
            due[one.invoice_id] += one.due
    return Statement(
        currency=currency,
        period=period,
        opening_balance=opening,
        lines=tuple(lines),
        closing_balance=balance,
        open_items=tuple(InvoiceDue(invoice_id, left) for invoice_id, left in due.items() if left),
        credit=sum(one.credit for one in until_end),
    )
