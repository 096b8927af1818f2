"""Amendments: what an edit of a locked charge leaves for the next invoice.

A locked charge stays as it was invoiced. Its amendments are charges of their own, each for the
difference to what was invoiced before, so that all of them together come to the new value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from billing.errors import InvalidInput, RuleViolation
from billing.invoice_states import InvoiceStatus
from billing.money import MAX_AMOUNT


@dataclass(frozen=True, slots=True)
class Amendment:
    """A charge that corrects a locked one by ``amount``, signed, in minor units.

    ``invoice_status`` is that of the invoice it is on; None while it is on none.
    """

    charge_id: UUID
    amount: int
    invoice_status: InvoiceStatus | None

    @property
    def is_open(self) -> bool:
        """Whether it can still be changed: on no invoice, or on a draft."""
        return self.invoice_status in {None, InvoiceStatus.DRAFT}

    @property
    def is_billed(self) -> bool:
        """Whether it is on a finalized invoice that stands. On a void one it counts for nothing."""
        return not self.is_open and self.invoice_status != InvoiceStatus.VOID


@dataclass(frozen=True, slots=True)
class NewAmendment:
    """Open an amendment: dated today, with the original's tax rates and its invoice's number."""

    amount: int


@dataclass(frozen=True, slots=True)
class ChangedAmendment:
    """Give the open amendment this amount instead."""

    charge_id: UUID
    amount: int


@dataclass(frozen=True, slots=True)
class RemovedAmendment:
    """Delete the open amendment: what was invoiced is the new value already."""

    charge_id: UUID


AmendmentStep = NewAmendment | ChangedAmendment | RemovedAmendment


def amend(original: int, amendments: Sequence[Amendment], value: int) -> AmendmentStep | None:
    """What brings a locked charge to ``value``; None where it is there.

    The charge and its amendments then sum to ``value``, at most one amendment is open, and the
    same edit once more changes nothing.

    Args:
        original: The locked charge's amount as it was invoiced, in minor units, signed.
        amendments: All that it has, in any order.
        value: What it should have come to. An edit prices the original's quantity and price with
            what was changed in them; deleting the charge is an edit to 0.

    Raises:
        InvalidInput: The difference is too large for one charge. The field is ``amount``.
        ValueError: More than one of the amendments is open.
    """
    open_ones = [one for one in amendments if one.is_open]
    if len(open_ones) > 1:
        raise ValueError("a charge has one open amendment at most")
    amount = value - original - sum(one.amount for one in amendments if one.is_billed)
    if abs(amount) > MAX_AMOUNT:
        raise InvalidInput(
            "amount", f"must be within {MAX_AMOUNT:,} minor units of what was invoiced"
        )
    if not open_ones:
        return NewAmendment(amount) if amount else None
    [current] = open_ones
    if amount == 0:
        return RemovedAmendment(current.charge_id)
    return None if amount == current.amount else ChangedAmendment(current.charge_id, amount)


def amend_again(
    original: int, amendments: Sequence[Amendment], amount: int
) -> AmendmentStep | None:
    """What bills an amendment of ``amount`` again, whose invoice was voided.

    It comes on top of what the charge is billed for without it; an open amendment takes it in.

    Args:
        original: The locked charge's amount as it was invoiced.
        amendments: All that the charge has; the voided one counts for nothing.
        amount: What the voided one had billed.

    Raises:
        InvalidInput: The difference is too large for one charge. The field is ``amount``.
        ValueError: More than one of the amendments is open.
    """
    billed = original + sum(one.amount for one in amendments if one.is_open or one.is_billed)
    return amend(original, amendments, billed + amount)


def require_original(amends: UUID | None) -> None:
    """Check that a charge is no amendment, open or not, before it is edited or deleted.

    ``amends`` is the charge that it amends, if it does.

    Raises:
        RuleViolation: It is one (``edit_the_original``).
    """
    if amends is not None:
        raise RuleViolation(
            "edit_the_original", f"this charge amends charge {amends}: edit that one"
        )


def require_billed(invoice_status: InvoiceStatus) -> None:
    """Check that the invoice a locked charge is on stands, before the charge is amended.

    Of a void one nothing is billed: a difference to it would be billed alone, and deleting the
    charge would pay its client for nothing.

    Raises:
        RuleViolation: It is void (``charge_voided``).
    """
    if invoice_status == InvoiceStatus.VOID:
        raise RuleViolation(
            "charge_voided", "the charge's invoice is void: edit the copy, if it was reissued"
        )


def removed_by_void(amendments: Sequence[Amendment]) -> tuple[UUID, ...]:
    """Which amendments of an invoice's charges are deleted when it is voided: those still open.

    Raises:
        RuleViolation: One of them is billed (``charge_amended``).
    """
    if any(one.is_billed for one in amendments):
        raise RuleViolation(
            "charge_amended", "an amendment of one of its charges is on a finalized invoice"
        )
    return tuple(one.charge_id for one in amendments if one.is_open)
