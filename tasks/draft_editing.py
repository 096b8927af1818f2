"""Editing a draft: which charges are on it, what it says, and when it is due."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from billing.cycles import local_date
from billing.errors import InvalidInput, NotFound, RuleViolation
from billing.invoice_states import InvoiceStatus
from billing.texts import MAX_LONG, MAX_SHORT, require_text
from models import Account, BillingPeriod, Charge, Invoice
from models.client import clients_for_update
from models.invoice import invoices_for_update
from tasks.charges import LATEST_DATE
from tasks.drafting import refresh_totals

_TEXTS = {"memo": MAX_LONG, "po_number": MAX_SHORT}


def edit_draft(
    session: Session,
    account_id: UUID,
    invoice_id: UUID,
    changes: Mapping[str, Any],
    *,
    now: datetime,
) -> Invoice | None:
    """Change a draft; its totals follow.

    ``changes`` may hold ``add_charges`` and ``remove_charges``, which are lists of ids, and
    ``memo``, ``po_number`` and ``due_on``, which None clears.

    Returns:
        The draft; None where its last charge was removed, so that it is deleted.

    Raises:
        InvalidInput: A value is wrong, or a charge cannot be on this draft or is not.
        NotFound: The account has no such invoice, or no such charge.
        RuleViolation: The invoice is finalized (``invoice_not_draft``), or a charge that is to be
            added is on an invoice (``charge_already_invoiced``).
    """
    draft = _lock(session, account_id, invoice_id)
    if draft.status != InvoiceStatus.DRAFT:
        raise RuleViolation("invoice_not_draft", f"cannot change an invoice that is {draft.status}")
    added = changes.get("add_charges") or []
    removed = changes.get("remove_charges") or []
    charges = _lock_charges(session, account_id, [*added, *removed])
    for index, charge_id in enumerate(added):
        _require_addable(f"add_charges[{index}]", charges[charge_id], draft)
    for index, charge_id in enumerate(removed):
        if charges[charge_id].invoice_id != draft.id:
            raise InvalidInput(f"remove_charges[{index}]", "must be a charge on this draft")
    for field in _TEXTS.keys() & changes.keys():
        value = changes[field]
        setattr(draft, field, value and require_text(field, value, _TEXTS[field]))
    if "due_on" in changes:
        _require_due_on(session, draft, changes["due_on"], now)
        draft.due_on = changes["due_on"]
    _move(session, added, draft.id)
    _move(session, removed, None)
    if not charges:
        session.flush()
        return draft
    refresh_totals(session, draft)
    session.flush()
    return session.get(Invoice, invoice_id)


def _lock(session: Session, account_id: UUID, invoice_id: UUID) -> Invoice:
    """An invoice of the account under its client's lock and its own, in that order."""
    client_id = session.scalar(
        select(Invoice.client_id).where(Invoice.id == invoice_id, Invoice.account_id == account_id)
    )
    if client_id is None:
        raise NotFound("invoice", str(invoice_id))
    session.scalars(clients_for_update([client_id])).one()
    invoice = session.scalars(invoices_for_update([invoice_id])).one_or_none()
    if invoice is None:
        # Deleted while this waited for its client.
        raise NotFound("invoice", str(invoice_id))
    return invoice


def _lock_charges(
    session: Session, account_id: UUID, charge_ids: Sequence[UUID]
) -> dict[UUID, Charge]:
    """Those charges by id, locked in id order."""
    found = session.scalars(
        select(Charge)
        .where(Charge.account_id == account_id, Charge.id.in_(charge_ids))
        .order_by(Charge.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    charges = {charge.id: charge for charge in found}
    for charge_id in charge_ids:
        if charge_id not in charges:
            raise NotFound("charge", str(charge_id))
    return charges


def _require_addable(field: str, charge: Charge, draft: Invoice) -> None:
    if charge.client_id != draft.client_id:
        raise InvalidInput(field, "must be a charge of the draft's client")
    if charge.currency != draft.currency:
        raise InvalidInput(field, f"must be in {draft.currency}, as the draft is")
    if charge.invoice_id is not None:
        raise RuleViolation(
            "charge_already_invoiced", f"charge {charge.id} is on invoice {charge.invoice_id}"
        )


def _require_due_on(session: Session, draft: Invoice, due_on: date | None, now: datetime) -> None:
    """Check that the draft can be due then: not before the earliest date of issue it may bear."""
    if draft.period_id is not None:
        earliest = session.get_one(BillingPeriod, draft.period_id).period_end
    else:
        account = session.get_one(Account, draft.account_id)
        earliest = local_date(now, ZoneInfo(account.time_zone))
    if due_on is not None and not earliest <= due_on <= LATEST_DATE:
        raise InvalidInput(
            "due_on",
            f"must be from {earliest}, when it is issued at the earliest, to {LATEST_DATE}",
        )


def _move(session: Session, charge_ids: Sequence[UUID], invoice_id: UUID | None) -> None:
    session.execute(
        update(Charge)
        .where(Charge.id.in_(charge_ids))
        .values(invoice_id=invoice_id)
        .execution_options(synchronize_session=False)
    )
