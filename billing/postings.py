"""Double entries: what each event posts to the ledger. Every result sums to zero."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class LedgerAccount(StrEnum):
    """Where money is booked: receivable by invoice, credit by client.

    ``stripe`` is what Stripe has collected, gross; ``outside`` what came in any other way.
    """

    RECEIVABLE = "receivable"
    REVENUE = "revenue"
    CREDIT = "credit"
    ADJUSTMENT = "adjustment"
    STRIPE = "stripe"
    OUTSIDE = "outside"


class LedgerEvent(StrEnum):
    """What caused an entry."""

    FINALIZE = "finalize"
    VOID = "void"
    APPLY_CREDIT = "apply_credit"
    # What is too little for a card, left for the next invoice.
    CARRY = "carry"
    CARD_PAYMENT = "card_payment"
    OUTSIDE_PAYMENT = "outside_payment"
    DEPOSIT = "deposit"
    ADJUSTMENT = "adjustment"


ONCE_AN_INVOICE = frozenset({LedgerEvent.FINALIZE, LedgerEvent.VOID})
"""Events that an invoice has once at most; it may use credit or be paid several times."""


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


def postings_for_voiding(total: int, credit_applied: int, paid: int = 0) -> tuple[Posting, ...]:
    """What voiding an open invoice of ``total`` minor units posts: its finalizing, reversed.

    The credit that it had used, signed, goes back to the client, and what was ``paid`` for it
    becomes credit.

    Raises:
        ValueError: ``total`` is not above zero: such an invoice was paid at once, never open.
    """
    if total <= 0:
        raise ValueError("an invoice without anything due is never open")
    return _without_zeros(
        Posting(LedgerAccount.REVENUE, total),
        Posting(LedgerAccount.RECEIVABLE, credit_applied + paid - total),
        Posting(LedgerAccount.CREDIT, -credit_applied - paid),
    )


def postings_for_applying_credit(amount: int) -> tuple[Posting, ...]:
    """What an invoice that uses ``amount`` of its client's credit posts.

    Below zero, a debit comes in: the sides are swapped. A remainder that is carried to the next
    invoice posts the same, and takes the balance below zero.
    """
    return _without_zeros(
        Posting(LedgerAccount.CREDIT, amount), Posting(LedgerAccount.RECEIVABLE, -amount)
    )


def postings_for_payment(
    received_by: LedgerAccount, amount: int, applied: int
) -> tuple[Posting, ...]:
    """What ``amount`` received posts, of which ``applied`` settles an invoice.

    The rest, all of it where none was due, is the client's credit.
    """
    return _without_zeros(
        Posting(received_by, amount),
        Posting(LedgerAccount.RECEIVABLE, -applied),
        Posting(LedgerAccount.CREDIT, applied - amount),
    )


def postings_for_adjusting(amount: int) -> tuple[Posting, ...]:
    """What a correction of a credit balance by ``amount``, signed, posts."""
    return _without_zeros(
        Posting(LedgerAccount.ADJUSTMENT, amount), Posting(LedgerAccount.CREDIT, -amount)
    )


def credit_applied_when_finalized(total: int) -> int:
    """The signed credit that finalizing moves, so that total - credit applied = amount due.

    A negative total is handed to the client's credit balance: all of it is applied, none is due.
    """
    return min(total, 0)


def _without_zeros(*postings: Posting) -> tuple[Posting, ...]:
    return tuple(posting for posting in postings if posting.amount != 0)
