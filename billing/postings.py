"""Double entries: what each event posts to the ledger. Every result sums to zero."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from uuid import UUID


class LedgerAccount(StrEnum):
    """Where money is booked: receivable by invoice, tax by rate, credit by client.

    ``stripe`` is what Stripe has collected, gross; ``outside`` what came in any other way.
    """

    RECEIVABLE = "receivable"
    REVENUE = "revenue"
    TAX = "tax"
    CREDIT = "credit"
    PROMOTION = "promotion"
    ADJUSTMENT = "adjustment"
    STRIPE = "stripe"
    OUTSIDE = "outside"
    BAD_DEBT = "bad_debt"
    DISPUTED = "disputed"
    DISPUTE_LOSS = "dispute_loss"


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
    # Promotional credit, given and run out.
    GRANT = "grant"
    EXPIRY = "expiry"
    ADJUSTMENT = "adjustment"
    # Unused credit that was paid out.
    CREDIT_REFUND = "credit_refund"
    CREDIT_NOTE = "credit_note"
    # Without a credit note: the debt is there again.
    REFUND = "refund"
    # The bank gave a refund back.
    REFUND_FAILED = "refund_failed"
    WRITE_OFF = "write_off"
    # What was written off is owed again: it is being paid or credited, or its invoice voided.
    RECOVERY = "recovery"
    # The bank has taken a payment back, until it is known who is right.
    DISPUTE_OPENED = "dispute_opened"
    DISPUTE_WON = "dispute_won"
    DISPUTE_LOST = "dispute_lost"


class EffectiveOn(StrEnum):
    """The date that an entry counts for; in closed books the first open day after it."""

    ISSUED_ON = "issued_on"
    TODAY = "today"
    PAID_ON = "paid_on"
    SETTLED = "day settled"
    EXPIRES_ON = "expires_on"


@dataclass(frozen=True, slots=True)
class PostingRow:
    """A row of the postings table: what may stand on each side of an entry, and when it counts.

    An event may have several rows; an entry follows one of them.
    """

    event: LedgerEvent
    what: str
    debits: tuple[LedgerAccount, ...]
    credits: tuple[LedgerAccount, ...]
    effective: tuple[EffectiveOn, ...]

    def allows(self, postings: Iterable[Posting]) -> bool:
        """Whether each stands on a side that this row has for its account."""
        return all(
            posting.account in (self.debits if posting.amount > 0 else self.credits)
            for posting in postings
        )


def _rows() -> tuple[PostingRow, ...]:
    on, event = EffectiveOn, LedgerEvent
    receivable, revenue, tax = LedgerAccount.RECEIVABLE, LedgerAccount.REVENUE, LedgerAccount.TAX
    credit, bad_debt = LedgerAccount.CREDIT, LedgerAccount.BAD_DEBT
    promotion, adjustment = LedgerAccount.PROMOTION, LedgerAccount.ADJUSTMENT
    stripe, outside = LedgerAccount.STRIPE, LedgerAccount.OUTSIDE
    disputed, loss = LedgerAccount.DISPUTED, LedgerAccount.DISPUTE_LOSS
    # Lines below zero can take a rate's tax, or the revenue, to the other side of its invoice.
    earned = (revenue, tax)
    return tuple(
        PostingRow(of, what, debits, credits_, (when,) if isinstance(when, EffectiveOn) else when)
        for of, what, debits, credits_, when in (
            (event.FINALIZE, "invoice", (receivable, *earned), earned, on.ISSUED_ON),
            (event.FINALIZE, "negative invoice", earned, (*earned, credit), on.ISSUED_ON),
            (event.VOID, "void", (*earned, credit), (*earned, receivable, credit, loss), on.TODAY),
            (event.APPLY_CREDIT, "credit used", (credit,), (receivable,), on.TODAY),
            (event.APPLY_CREDIT, "debit taken in", (receivable,), (credit,), on.TODAY),
            (event.CARRY, "remainder below the minimum", (credit,), (receivable,), on.TODAY),
            (event.CARD_PAYMENT, "by card", (stripe,), (receivable, credit), on.SETTLED),
            (event.OUTSIDE_PAYMENT, "from outside", (outside,), (receivable, credit), on.PAID_ON),
            (event.DEPOSIT, "deposit or top-up by card", (stripe,), (credit,), on.SETTLED),
            (event.DEPOSIT, "deposit from outside", (outside,), (credit,), on.PAID_ON),
            (event.GRANT, "promotional grant", (promotion,), (credit,), on.TODAY),
            (event.EXPIRY, "its expiry", (credit,), (promotion,), on.EXPIRES_ON),
            (event.ADJUSTMENT, "up", (adjustment,), (credit,), on.TODAY),
            (event.ADJUSTMENT, "down", (credit,), (adjustment,), on.TODAY),
            (event.CREDIT_REFUND, "unused credit paid out", (credit,), (stripe, outside), on.TODAY),
            (
                event.CREDIT_NOTE,
                "credit note; what is over what is due goes to credit, the card or outside",
                earned,
                (*earned, receivable, credit, stripe, outside),
                on.TODAY,
            ),
            (
                event.REFUND,
                "refund without a note: the debt is there again",
                (receivable,),
                (stripe, outside, credit),
                on.TODAY,
            ),
            (event.REFUND_FAILED, "refund given back by the bank", (stripe,), (credit,), on.TODAY),
            (event.WRITE_OFF, "write-off", (bad_debt,), (receivable,), on.TODAY),
            (
                event.RECOVERY,
                "recovery, before its payment, note or void",
                (receivable,),
                (bad_debt,),
                (on.PAID_ON, on.SETTLED, on.TODAY),
            ),
            (event.DISPUTE_OPENED, "dispute opened", (disputed,), (stripe,), on.TODAY),
            (event.DISPUTE_WON, "dispute won", (stripe,), (disputed,), on.TODAY),
            (
                event.DISPUTE_LOST,
                "dispute lost: the debt is there again, or written off; credit is taken back",
                (receivable, loss, credit),
                (disputed,),
                on.TODAY,
            ),
        )
    )


ONCE_AN_INVOICE = frozenset({LedgerEvent.FINALIZE, LedgerEvent.VOID})
"""Events that an invoice has once at most; it may use credit or be paid several times."""


@dataclass(frozen=True, slots=True)
class Posting:
    """One side of an entry, in minor units: a debit is positive, a credit negative."""

    account: LedgerAccount
    amount: int
    tax_rate_id: UUID | None = None

    def __post_init__(self) -> None:
        """Refuse tax without its rate, and a rate without tax.

        Raises:
            ValueError: It is so.
        """
        if (self.account == LedgerAccount.TAX) != (self.tax_rate_id is not None):
            raise ValueError("tax is booked by rate, and nothing else is")


POSTINGS_TABLE = _rows()
"""Every event's sides. The functions below follow it, and docs/postings.md shows it."""


Taxes = Mapping[UUID, int]
"""Tax in minor units by the id of its rate."""

NO_TAXES: Taxes = MappingProxyType({})


def postings_for_finalizing(total: int, taxes: Taxes = NO_TAXES) -> tuple[Posting, ...]:
    """What finalizing an invoice of ``total`` minor units, taxes included, posts.

    A negative total is booked in two steps, revenue to receivable and receivable to credit. The
    receivable of that invoice ends at zero, so it has no line here: one line an account, net.
    """
    earned = Posting(LedgerAccount.REVENUE, sum(taxes.values()) - total), *_taxed(taxes, -1)
    if total < 0:
        return _without_zeros(*earned, Posting(LedgerAccount.CREDIT, total))
    return _without_zeros(Posting(LedgerAccount.RECEIVABLE, total), *earned)


def postings_for_voiding(
    total: int, credit_applied: int, paid: int = 0, taxes: Taxes = NO_TAXES, lost: int = 0
) -> tuple[Posting, ...]:
    """What voiding an open invoice of ``total`` minor units posts: its finalizing, reversed.

    The credit that it had used, signed, goes back to the client, and what was ``paid`` for it and
    not refunded becomes credit. What was ``lost`` of that in disputes and written off the bank has
    given back already: it was never owed, so it is no loss.

    Raises:
        ValueError: ``total`` is not above zero: such an invoice was paid at once, never open.
    """
    if total <= 0:
        raise ValueError("an invoice without anything due is never open")
    return _without_zeros(
        Posting(LedgerAccount.REVENUE, total - sum(taxes.values())),
        *_taxed(taxes, 1),
        Posting(LedgerAccount.RECEIVABLE, credit_applied + paid + lost - total),
        Posting(LedgerAccount.CREDIT, -credit_applied - paid),
        Posting(LedgerAccount.DISPUTE_LOSS, -lost),
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


def postings_for_granting(amount: int) -> tuple[Posting, ...]:
    """What a promotional grant posts; its expiry posts the opposite."""
    return _without_zeros(
        Posting(LedgerAccount.PROMOTION, amount), Posting(LedgerAccount.CREDIT, -amount)
    )


def postings_for_paying_out_credit(paid_from: LedgerAccount, amount: int) -> tuple[Posting, ...]:
    """What unused credit posts that is refunded from ``stripe`` or ``outside``."""
    return _without_zeros(Posting(LedgerAccount.CREDIT, amount), Posting(paid_from, -amount))


def postings_for_credit_note(
    net: int, taxes: Taxes, *, lowers_due: int, returned: int, returned_to: LedgerAccount
) -> tuple[Posting, ...]:
    """What a credit note of ``net`` and ``taxes`` posts.

    It lowers what is due; what is over goes to ``credit``, ``stripe`` or ``outside``.

    Raises:
        ValueError: The two sides are not the same.
    """
    if net + sum(taxes.values()) != lowers_due + returned:
        raise ValueError("what a note takes is what it lowers and returns")
    return _without_zeros(
        Posting(LedgerAccount.REVENUE, net),
        *_taxed(taxes, 1),
        Posting(LedgerAccount.RECEIVABLE, -lowers_due),
        Posting(returned_to, -returned),
    )


def postings_for_refund(paid_from: LedgerAccount, amount: int) -> tuple[Posting, ...]:
    """What a refund without a credit note posts: the debt is there again."""
    return _without_zeros(Posting(LedgerAccount.RECEIVABLE, amount), Posting(paid_from, -amount))


def postings_for_failed_refund(amount: int) -> tuple[Posting, ...]:
    """What a refund posts that the bank gave back: the client has it as credit."""
    return _without_zeros(
        Posting(LedgerAccount.STRIPE, amount), Posting(LedgerAccount.CREDIT, -amount)
    )


def postings_for_writing_off(amount: int) -> tuple[Posting, ...]:
    """What giving up ``amount`` of a debt posts; its recovery posts the opposite."""
    return _without_zeros(
        Posting(LedgerAccount.BAD_DEBT, amount), Posting(LedgerAccount.RECEIVABLE, -amount)
    )


def postings_for_opening_dispute(amount: int) -> tuple[Posting, ...]:
    """What a payment posts that its bank takes back; winning the dispute posts the opposite."""
    return _without_zeros(
        Posting(LedgerAccount.DISPUTED, amount), Posting(LedgerAccount.STRIPE, -amount)
    )


def postings_for_losing_dispute(
    *, reopened: int, written_off: int, taken_back: int
) -> tuple[Posting, ...]:
    """What a lost dispute posts: a debt that is there again, a loss, and credit taken back."""
    return _without_zeros(
        Posting(LedgerAccount.RECEIVABLE, reopened),
        Posting(LedgerAccount.DISPUTE_LOSS, written_off),
        Posting(LedgerAccount.CREDIT, taken_back),
        Posting(LedgerAccount.DISPUTED, -reopened - written_off - taken_back),
    )


def credit_applied_when_finalized(total: int) -> int:
    """The signed credit that finalizing moves, so that total - credit applied = amount due.

    A negative total is handed to the client's credit balance: all of it is applied, none is due.
    """
    return min(total, 0)


def reversed_postings(postings: tuple[Posting, ...]) -> tuple[Posting, ...]:
    """The same with the sides swapped."""
    return tuple(Posting(one.account, -one.amount, one.tax_rate_id) for one in postings)


def _taxed(taxes: Taxes, sign: int) -> tuple[Posting, ...]:
    return tuple(Posting(LedgerAccount.TAX, sign * tax, rate) for rate, tax in taxes.items())


def _without_zeros(*postings: Posting) -> tuple[Posting, ...]:
    return tuple(posting for posting in postings if posting.amount != 0)
