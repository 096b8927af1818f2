"""Amending: an edit of a charge on a finalized invoice is billed by a charge of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID

from sqlalchemy import Select, any_, func, literal, or_, select
from sqlalchemy.orm import Session, aliased

from billing.amendments import (
    Amendment,
    AmendmentStep,
    ChangedAmendment,
    NewAmendment,
    RemovedAmendment,
    amend,
    amend_again,
    removed_by_void,
    require_billed,
)
from billing.cycles import local_date
from billing.errors import NotFound, RuleViolation
from billing.invoice_states import InvoiceStatus
from billing.pricing import price_line
from billing.texts import MAX_LONG
from models import Account, Charge, Client, CreditNote, Invoice, InvoiceLine
from models.client import clients_for_update
from models.invoice import invoices_for_update
from models.refund import unsettled_refund_of
from tasks.archiving import require_not_archived
from tasks.charges import delete_charge, edit_charge, money_after
from tasks.drafting import refresh_totals

_MONEY = frozenset({"quantity", "unit_price", "amount"})

_COLUMNS = {"metadata": "details"}

_LOCKED = "charge_locked"


def change_charge(
    session: Session,
    account_id: UUID,
    charge_id: UUID,
    changes: Mapping[str, Any],
    *,
    now: datetime,
) -> UUID | None:
    """Edit a charge; one on a finalized invoice stays, and an amendment bills the difference.

    What is left out of the price of such a one is as it was invoiced, so the same edit once more
    changes nothing.

    Returns:
        The open amendment that bills the difference, if there is any to bill.

    Raises:
        InvalidInput: A field's value is wrong.
        NotFound: The account has no such charge.
        RuleViolation: The charge amends another (``edit_the_original``), its invoice is void
            (``charge_voided``), or what would change on a finalized invoice is not its price
            (``charge_locked``); what it billed is credited already (``line_already_credited``) or
            just being so (``refund_in_flight``); or it needs an amendment of a client that is
            archived (``client_archived``).
    """
    try:
        edit_charge(session, account_id, charge_id, changes)
    except RuleViolation as refusal:
        if refusal.code != _LOCKED:
            raise
    else:
        return None
    amended = _lock_amended(session, account_id, charge_id)
    _require_money_alone(amended.charge, changes)
    if _MONEY.isdisjoint(changes):
        return amended.pending_id
    line = price_line(currency=amended.charge.currency, **money_after(amended.charge, changes))
    return _amend(session, amended, line.amount, now)


def remove_charge(
    session: Session, account_id: UUID, charge_id: UUID, *, now: datetime
) -> tuple[bool, UUID | None]:
    """Delete a charge; one on a finalized invoice stays, and is amended to nothing.

    Returns:
        Whether it is gone, and else the open amendment that takes it back.

    Raises:
        NotFound: The account has no such charge.
        RuleViolation: The charge amends another (``edit_the_original``), its invoice is void
            (``charge_voided``), or it cannot be amended, as in ``change_charge``.
    """
    try:
        delete_charge(session, account_id, charge_id)
    except RuleViolation as refusal:
        if refusal.code != _LOCKED:
            raise
    else:
        return True, None
    return False, _amend(session, _lock_amended(session, account_id, charge_id), 0, now)


def require_unamended(session: Session, invoice: Invoice) -> None:
    """Check that nothing bills a difference to an invoice's charges, before it is voided.

    Raises:
        RuleViolation: An amendment of one is on a finalized invoice (``charge_amended``).
    """
    rows = session.execute(
        _amendments_on_charges_of(invoice)
        .outerjoin(Invoice, Invoice.id == Charge.invoice_id)
        .with_only_columns(Charge.id, Charge.amount, Invoice.status)
    )
    removed_by_void([_amendment(*row) for row in rows])


def require_uncredited(session: Session, charge: Charge, invoice: Invoice) -> None:
    """Check that no credit note took a charge's line back, so that it is not given back twice.

    A note of an amount is no correction of one line, unless it took all of the invoice.

    Raises:
        RuleViolation: One did (``line_already_credited``).
    """
    named = session.scalar(
        select(CreditNote.number)
        .join(InvoiceLine, InvoiceLine.invoice_id == CreditNote.invoice_id)
        .where(
            CreditNote.invoice_id == invoice.id,
            InvoiceLine.charge_id == charge.id,
            or_(
                InvoiceLine.position == any_(CreditNote.positions),
                literal(invoice.amount_credited >= invoice.total),
            ),
        )
        .limit(1)
    )
    if named is not None:
        raise RuleViolation(
            "line_already_credited", f"the charge's line was credited already, by {named}"
        )


def _require_no_note_under_way(session: Session, invoice: Invoice) -> None:
    """Check that no money is on its way back whose note was agreed by what there was to credit.

    Raises:
        RuleViolation: Some is (``refund_in_flight``).
    """
    refund = session.scalars(unsettled_refund_of(invoice.id)).one_or_none()
    if refund is not None and refund.makes_note:
        raise RuleViolation(
            "refund_in_flight",
            f"a refund that makes a credit note of {invoice.number} is {refund.state}: wait until "
            "it is settled",
        )


def require_lines_unamended(session: Session, charge_ids: Sequence[UUID]) -> None:
    """Check that nothing bills a difference to charges whose lines are to be credited whole.

    Raises:
        RuleViolation: Something does, or will (``charge_amended``).
    """
    amended = session.scalar(
        select(Charge.amends)
        .outerjoin(Invoice, Invoice.id == Charge.invoice_id)
        .where(
            Charge.amends.in_(charge_ids),
            or_(Charge.invoice_id.is_(None), Invoice.status != InvoiceStatus.VOID),
        )
        .limit(1)
    )
    if amended is not None:
        raise RuleViolation(
            "charge_amended", f"charge {amended} was amended: credit an amount, or edit the charge"
        )


def left_of(invoice: Invoice) -> int:
    """What credit notes have left of an invoice, tax included, in minor units."""
    return invoice.total - invoice.amount_credited


def lowered_by_amendments(
    session: Session, invoice: Invoice, *, instead: Mapping[UUID, int] = MappingProxyType({})
) -> int:
    """What amendments take back of an invoice's charges, billed or open, with tax in proportion.

    Rounded up, in minor units; ``instead`` has the differences that charges are about to have.
    """
    rows = session.execute(
        _amendments_on_charges_of(invoice)
        .outerjoin(Invoice, Invoice.id == Charge.invoice_id)
        .where(or_(Charge.invoice_id.is_(None), Invoice.status != InvoiceStatus.VOID))
        .group_by(Charge.amends)
        .with_only_columns(Charge.amends, func.sum(Charge.amount))
    )
    differences = {amends: int(total) for amends, total in rows if amends is not None}
    differences |= instead
    lowered = -sum(min(one, 0) for one in differences.values())
    if invoice.subtotal <= 0:
        return lowered
    return -(-lowered * max(invoice.total, invoice.subtotal) // invoice.subtotal)


def remove_open_amendments(session: Session, invoice: Invoice) -> int:
    """Delete what would bill a difference to an invoice's charges, as it is voided; how many.

    The caller holds the client's lock. A draft that they were on follows, and goes if it had
    nothing else.

    Raises:
        RuleViolation: One of them is on a finalized invoice (``charge_amended``).
    """
    amendments, invoices = _lock_amendments(session, _amendments_on_charges_of(invoice))
    by_id = {one.id: one for one in amendments}
    removed = removed_by_void(_as_rules_see(amendments, invoices))
    for charge_id in removed:
        _remove(session, by_id[charge_id], invoices)
    return len(removed)


def reissue_amendments(session: Session, invoice: Invoice) -> list[UUID]:
    """Let open amendments take in those on a void invoice that is reissued; which are not copied.

    A copy would be a second open amendment of the same charge. Neither copied nor taken in are
    those whose originals were edited since, which says all there is to bill, or are on a void
    invoice themselves. The caller holds the client's lock and the invoice's.
    """
    not_copied = []
    for voided in session.scalars(
        select(Charge)
        .where(
            Charge.client_id == invoice.client_id,
            Charge.invoice_id == invoice.id,
            Charge.amends.is_not(None),
        )
        .order_by(Charge.id)
    ).all():
        original = session.get_one(Charge, voided.amends)
        billed_on = session.get_one(Invoice, original.invoice_id, populate_existing=True)
        if billed_on.status == InvoiceStatus.VOID or voided.id in invoice.superseded:
            not_copied.append(voided.id)
            continue
        amended = _Amended(
            original,
            billed_on,
            *_lock_amendments(session, select(Charge).where(Charge.amends == original.id)),
        )
        step = amend_again(original.amount, amended.as_rules_see, voided.amount)
        if not isinstance(step, NewAmendment):
            _take(session, amended, step)
            not_copied.append(voided.id)
    return not_copied


@dataclass(frozen=True, slots=True)
class _Amended:
    """A locked charge, the invoice that billed it, and all its amendments with theirs."""

    charge: Charge
    invoice: Invoice
    amendments: Sequence[Charge]
    invoices: Mapping[UUID, Invoice]

    @property
    def as_rules_see(self) -> list[Amendment]:
        """The amendments without what the rules do not ask for."""
        return _as_rules_see(self.amendments, self.invoices)

    @property
    def pending_id(self) -> UUID | None:
        """The amendment that can still be changed, if there is one."""
        return next((one.charge_id for one in self.as_rules_see if one.is_open), None)


def _lock_amended(session: Session, account_id: UUID, charge_id: UUID) -> _Amended:
    """A charge on a finalized invoice that stands, with what amends it, all locked.

    Raises:
        NotFound: The account has no such charge.
        RuleViolation: Its invoice is void (``charge_voided``), a credit note took its line back
            (``line_already_credited``), or one is about to be written (``refund_in_flight``).
    """
    # The refusal to edit the charge let go of its invoice: an amendment begins with the client.
    client_id = session.scalar(
        select(Charge.client_id).where(Charge.account_id == account_id, Charge.id == charge_id)
    )
    if client_id is None:
        raise NotFound("charge", str(charge_id))
    session.scalars(clients_for_update([client_id])).one()
    charge = session.get_one(Charge, charge_id, populate_existing=True)
    invoice = session.get_one(Invoice, charge.invoice_id, populate_existing=True)
    require_billed(InvoiceStatus(invoice.status))
    require_uncredited(session, charge, invoice)
    _require_no_note_under_way(session, invoice)
    return _Amended(
        charge,
        invoice,
        *_lock_amendments(session, select(Charge).where(Charge.amends == charge_id)),
    )


def _amendments_on_charges_of(invoice: Invoice) -> Select[Charge]:
    original = aliased(Charge)
    return select(Charge).where(
        Charge.amends.in_(
            select(original.id).where(
                original.client_id == invoice.client_id, original.invoice_id == invoice.id
            )
        )
    )


def _lock_amendments(
    session: Session, find: Select[Charge]
) -> tuple[Sequence[Charge], dict[UUID, Invoice]]:
    """Amendments of one client and the invoices they are on, all locked: the invoices first.

    Whatever drafts, finalizes or voids waits for the client's lock, which the caller holds. A
    draft can be deleted meanwhile; its amendments are on no invoice then.
    """
    on = session.scalars(find.with_only_columns(Charge.invoice_id)).all()
    wanted = [invoice_id for invoice_id in on if invoice_id is not None]
    invoices = {one.id: one for one in session.scalars(invoices_for_update(wanted))}
    amendments = session.scalars(
        find.order_by(Charge.id).with_for_update().execution_options(populate_existing=True)
    ).all()
    return amendments, invoices


def _as_rules_see(
    amendments: Sequence[Charge], invoices: Mapping[UUID, Invoice]
) -> list[Amendment]:
    return [
        _amendment(
            one.id,
            one.amount,
            None if one.invoice_id is None else invoices[one.invoice_id].status,
        )
        for one in amendments
    ]


def _amendment(charge_id: UUID, amount: int, status: str | None) -> Amendment:
    return Amendment(charge_id, amount, None if status is None else InvoiceStatus(status))


def _require_money_alone(charge: Charge, changes: Mapping[str, Any]) -> None:
    """Check that an edit of a locked charge changes its price alone; the rest may be repeated.

    Raises:
        RuleViolation: It would change something else (``charge_locked``).
    """
    others = [
        name
        for name, value in changes.items()
        if name not in _MONEY and getattr(charge, _COLUMNS.get(name, name)) != value
    ]
    if others:
        raise RuleViolation(
            _LOCKED,
            f"the charge is on a finalized invoice, so its {', '.join(others)} cannot be changed: "
            "a new quantity, unit_price or amount is billed by an amendment",
        )


def _amend(session: Session, amended: _Amended, value: int, now: datetime) -> UUID | None:
    """Bring a locked charge to ``value``; the open amendment it has then, if any.

    Raises:
        InvalidInput: It is too far from what was invoiced.
        RuleViolation: Credit notes took back so much of the invoice already
            (``line_already_credited``).
    """
    step = amend(amended.charge.amount, amended.as_rules_see, value)
    lowered = lowered_by_amendments(
        session, amended.invoice, instead={amended.charge.id: value - amended.charge.amount}
    )
    if amended.invoice.amount_credited and lowered > left_of(amended.invoice):
        raise RuleViolation(
            "line_already_credited",
            f"credit notes took back {amended.invoice.amount_credited} of {amended.invoice.number}"
            f" already, and {amended.invoice.total} is all that it billed",
        )
    _supersede(amended)
    if isinstance(step, NewAmendment):
        return _open(session, amended, step.amount, now).id
    _take(session, amended, step)
    return None if isinstance(step, RemovedAmendment) else amended.pending_id


def _supersede(amended: _Amended) -> None:
    """Keep amendments that were voided from being reissued: this edit says what is to be billed."""
    for one in amended.amendments:
        on = None if one.invoice_id is None else amended.invoices[one.invoice_id]
        if on is not None and on.status == InvoiceStatus.VOID and one.id not in on.superseded:
            on.superseded = [*on.superseded, one.id]


def _take(session: Session, amended: _Amended, step: AmendmentStep | None) -> None:
    """Do a step that opens no amendment."""
    by_id = {one.id: one for one in amended.amendments}
    match step:
        case ChangedAmendment(charge_id, amount):
            by_id[charge_id].amount = amount
            session.flush()
            _refresh_draft_of(session, by_id[charge_id].invoice_id, amended.invoices)
        case RemovedAmendment(charge_id):
            _remove(session, by_id[charge_id], amended.invoices)
        case _:
            session.flush()


def _open(session: Session, amended: _Amended, amount: int, now: datetime) -> Charge:
    """An amendment of ``amount``, dated today on the client's calendar.

    Raises:
        RuleViolation: The client is archived (``client_archived``).
    """
    original = amended.charge
    account = session.get_one(Account, original.account_id)
    client = session.get_one(Client, original.client_id)
    require_not_archived(client)
    description = f"Correction of {amended.invoice.number}: {original.description}"
    opened = Charge(
        account_id=original.account_id,
        client_id=original.client_id,
        amends=original.id,
        charged_on=local_date(now, client.zone(account)),
        description=description[:MAX_LONG],
        category=original.category,
        quantity=1,
        amount=amount,
        currency=original.currency,
        tax_rates=_tax_rates_of(session, original),
        taxed_on=original.taxed_on or original.charged_on,
        # As it was billed: whatever its client is by now, the difference cancels what was billed.
        tax_exempt=bool((amended.invoice.bill_to or {}).get("tax_exempt")),
    )
    session.add(opened)
    session.flush()
    return opened


def _tax_rates_of(session: Session, original: Charge) -> list[UUID] | None:
    """The rates that the original's line bears: whatever has changed since, they are the same."""
    line = session.scalars(select(InvoiceLine).where(InvoiceLine.charge_id == original.id)).one()
    if not line.taxes and line.net != line.amount:
        # An exempt client's: what its price contained was taken out, and is in the same way again.
        return original.tax_rates
    return [UUID(rate) for rate in line.taxes]


def _remove(session: Session, amendment: Charge, invoices: Mapping[UUID, Invoice]) -> None:
    on = amendment.invoice_id
    session.delete(amendment)
    session.flush()
    _refresh_draft_of(session, on, invoices)


def _refresh_draft_of(
    session: Session, invoice_id: UUID | None, invoices: Mapping[UUID, Invoice]
) -> None:
    if invoice_id is not None:
        refresh_totals(session, invoices[invoice_id])
        session.flush()
