"""Credit notes: what one takes from its invoice, with how much tax, and where the money goes.

A note of an amount takes the same part of every line that no note has named. A note of lines names
them and takes what is left of them. Taxes are rounded on the sum of all notes, not on each, so an
invoice credited in any number of parts ends at exactly its taxes, however small the parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from billing.errors import InvalidInput, RuleViolation
from billing.invoice_states import InvoiceStatus
from billing.money import rounded_quotient
from billing.tax import TaxedLine

CREDITABLE = frozenset({InvoiceStatus.OPEN, InvoiceStatus.PAID, InvoiceStatus.UNCOLLECTIBLE})
"""Statuses in which an invoice takes a credit note."""


class Destination(StrEnum):
    """Where goes what a note is worth over what is due."""

    # The client's credit balance.
    CREDIT = "credit"
    # Back to a card that paid.
    CARD = "card"
    # Any other way: by bank, in cash.
    OUTSIDE = "outside"


@dataclass(frozen=True, slots=True)
class CreditedInvoice:
    """A finalized invoice and what its credit notes took from it so far.

    ``credited`` is the sum of their amounts, tax included, in minor units; ``named`` the positions
    in ``lines`` that they named. Both grow by each note, and nothing else needs to be known.
    """

    lines: Sequence[TaxedLine]
    credited: int = 0
    named: AbstractSet[int] = frozenset()

    @property
    def left(self) -> int:
        """What notes may still take, tax included, in minor units."""
        return sum(line.gross for line in self.lines) - self.credited

    def after(self, note: CreditNote) -> CreditedInvoice:
        """The invoice with one note more."""
        return CreditedInvoice(self.lines, self.credited + note.amount, self.named | note.named)


@dataclass(frozen=True, slots=True)
class CreditNote:
    """What a note takes: ``amount`` is above zero, tax included, in minor units.

    ``taxes`` has each of the invoice's rates by id, also those it takes nothing of; ``named`` the
    positions of the lines it names.
    """

    amount: int
    taxes: Mapping[UUID, int]
    named: AbstractSet[int] = frozenset()

    @property
    def net(self) -> int:
        """What it takes from revenue."""
        return self.amount - sum(self.taxes.values())


@dataclass(frozen=True, slots=True)
class Settlement:
    """Where a note's amount goes, in minor units: first off what is due, then to where was asked."""

    lowers_due: int
    returned: int


def require_creditable(status: InvoiceStatus) -> None:
    """Check that an invoice in this status takes a credit note.

    Raises:
        RuleViolation: It is a draft (``invoice_not_finalized``) or void (``invoice_not_open``).
    """
    if status == InvoiceStatus.DRAFT:
        raise RuleViolation("invoice_not_finalized", "a draft is not credited: edit its charges")
    if status not in CREDITABLE:
        raise RuleViolation("invoice_not_open", f"cannot credit an invoice that is {status}")


def note_of_amount(invoice: CreditedInvoice, amount: int) -> CreditNote:
    """The credit note of ``amount`` minor units, tax included, with tax in proportion by rate.

    Raises:
        InvalidInput: The amount is not above zero, or more than is left
            (``amount_exceeds_invoice``).
        RuleViolation: Nothing is left (``nothing_to_credit``).
    """
    _require_left(invoice)
    if amount <= 0:
        raise InvalidInput("amount", "must be above zero")
    if amount > invoice.left:
        raise InvalidInput(
            "amount",
            f"must be at most the {invoice.left:,} minor units that are left",
            code="amount_exceeds_invoice",
        )
    return _note(invoice, amount)


def note_of_lines(invoice: CreditedInvoice, positions: AbstractSet[int]) -> CreditNote:
    """The credit note of what is left of the lines at these positions, with their own taxes.

    A line that no note took anything from is credited exactly as it was billed.

    Raises:
        InvalidInput: No line or an unknown one is named, they are worth nothing together
            (discounts), or more than all that no note named (``amount_exceeds_invoice``).
        RuleViolation: A note named one of them already (``line_already_credited``), or nothing is
            left of them (``nothing_to_credit``).
    """
    _require_left(invoice)
    if not positions or not positions <= set(range(len(invoice.lines))):
        raise InvalidInput("lines", "must name one or more lines of the invoice")
    if positions & invoice.named:
        raise RuleViolation("line_already_credited", "a line was credited already")
    worth = sum(invoice.lines[position].gross for position in positions)
    if worth <= 0:
        raise InvalidInput("lines", "must be worth more than zero together")
    spread, others = _spread(invoice)
    if worth > others:
        raise InvalidInput(
            "lines",
            "must not be worth more than what is left of the invoice: name its discounts too",
            code="amount_exceeds_invoice",
        )
    amount = worth - rounded_quotient(worth * spread, others)
    if amount == 0:
        raise RuleViolation("nothing_to_credit", "the lines were credited already, as amounts")
    return _note(invoice, amount, positions)


def settle_note(
    amount: int, *, due: int, kept: int, paid_by_card: int, paid_outside: int, to: Destination
) -> Settlement:
    """Where ``amount`` goes: first it lowers what is due, and what is over goes to ``to``.

    What credit paid returns to credit only, so no more goes to the card or outside than money
    paid, and to the card no more than cards paid. What a bank took back goes nowhere.

    Args:
        amount: The note's.
        due: What is due before it, or was written off, at least 0.
        kept: What was paid, by money or credit, and was neither given back nor lost.
        paid_by_card: What cards paid on the invoice, less what went back to them.
        paid_outside: What was paid otherwise, less what was returned so; below zero where a card's
            money was.
        to: Where to.

    Raises:
        InvalidInput: More is over than may go there (``amount_exceeds_paid``).
        ValueError: ``due`` is below zero.
    """
    if due < 0:
        raise ValueError("what is due is never below zero")
    lowers_due = min(amount, due)
    returned = amount - lowers_due
    most = max(min(kept, _returnable(kept, paid_by_card, paid_outside, to)), 0)
    if returned > most:
        raise InvalidInput(
            "to",
            f"at most {most:,} minor units over what is due can go there; "
            "what credit paid returns to credit only, and what a bank took back nowhere",
            code="amount_exceeds_paid",
        )
    return Settlement(lowers_due, returned)


def _returnable(kept: int, paid_by_card: int, paid_outside: int, to: Destination) -> int:
    paid = paid_by_card + paid_outside
    match to:
        case Destination.CREDIT:
            return kept
        case Destination.CARD:
            return min(paid_by_card, paid)
        case Destination.OUTSIDE:
            return paid


def _require_left(invoice: CreditedInvoice) -> None:
    if invoice.left <= 0:
        raise RuleViolation("nothing_to_credit", "nothing is left of the invoice to credit")


def _note(
    invoice: CreditedInvoice, amount: int, named: AbstractSet[int] = frozenset()
) -> CreditNote:
    note = CreditNote(amount, {}, named)
    before, after = _taxes_credited(invoice), _taxes_credited(invoice.after(note))
    return CreditNote(amount, {rate: after[rate] - before[rate] for rate in after}, named)


def _spread(invoice: CreditedInvoice) -> tuple[int, int]:
    """What notes took of the lines that none named, and what these were billed at.

    Of named lines they took all, so the first is the rest of what they took. It is at least 0 and
    at most the second.
    """
    named = sum(invoice.lines[position].gross for position in invoice.named)
    return invoice.credited - named, invoice.left + invoice.credited - named


def _taxes_credited(invoice: CreditedInvoice) -> dict[UUID, int]:
    """The taxes of all notes together: of named lines all, of the others in proportion."""
    spread, others = _spread(invoice)
    of_named: dict[UUID, int] = {}
    of_others: dict[UUID, int] = {}
    for position, line in enumerate(invoice.lines):
        taxes = of_named if position in invoice.named else of_others
        for rate, tax in line.taxes.items():
            of_named.setdefault(rate, 0)
            of_others.setdefault(rate, 0)
            taxes[rate] += tax
    if invoice.left == 0:
        # Also where the others are worth nothing, so that nothing is in proportion to it.
        return {rate: tax + of_others[rate] for rate, tax in of_named.items()}
    return {
        rate: tax + rounded_quotient(of_others[rate] * spread, others)
        for rate, tax in of_named.items()
    }
