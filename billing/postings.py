"""Double entries: what each event posts to the ledger. Every result sums to zero."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class LedgerAccount(StrEnum):
    """Where money is booked: receivable by invoice, credit by client."""

    RECEIVABLE = "receivable"
    REVENUE = "revenue"
    CREDIT = "credit"


class LedgerEvent(StrEnum):
    """What caused an entry."""

    FINALIZE = "finalize"
    VOID = "void"


@dataclass(frozen=True, slots=True)
class Posting:
    """One side of an entry, in minor units: a debit is positive, a credit negative."""

    account: LedgerAccount
    amount: int


def postings_for_finalizing(total: int) -> tuple[Posting, ...]:
    """What finalizing an invoice of ``total`` minor units posts; nothing for zero.

    A negative total is booked in two steps, revenue to receivable and receivable to credit. The
    receivable of that invoice ends at zero, so it has no line here: one line an account, net.
    """
    if total == 0:
        return ()
    if total < 0:
        return (Posting(LedgerAccount.REVENUE, -total), Posting(LedgerAccount.CREDIT, total))
    return (Posting(LedgerAccount.RECEIVABLE, total), Posting(LedgerAccount.REVENUE, -total))


def postings_for_voiding(total: int) -> tuple[Posting, ...]:
    """What voiding an open invoice of ``total`` minor units posts: its finalizing, reversed.

    Raises:
        ValueError: ``total`` is not above zero: such an invoice was paid at once, never open.
    """
    if total <= 0:
        raise ValueError("an invoice without anything due is never open")
    return (Posting(LedgerAccount.REVENUE, total), Posting(LedgerAccount.RECEIVABLE, -total))


def credit_applied_when_finalized(total: int) -> int:
    """The signed credit that finalizing moves, so that total - credit applied = amount due.

    A negative total is handed to the client's credit balance: all of it is applied, none is due.
    """
    return min(total, 0)
