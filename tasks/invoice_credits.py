"""Crediting an invoice: a note lowers what is due, and what is over goes back to the client."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

import billing.credit_notes as rules
from billing.credit_notes import Destination, Settlement, require_creditable, settle_note
from billing.invoice_states import InvoiceStatus
from models import Account, Invoice, Payment, PaymentSource
from tasks.calls import Step
from tasks.card_refunds import go_on_with_refund, refund_to_card
from tasks.credit_notes import note_asked_for, positions_of, write_note
from tasks.handing_over import hand_over
from tasks.kinds import Run, job
from tasks.outcomes import Done
from tasks.refunds import (
    Asked,
    Returnable,
    card_payment_for,
    disputed,
    give_back_outside,
    kept_of,
    new_refund,
    returnables,
)
from tasks.withdrawing import lock_invoice, require_no_payment_in_flight, withdraw_first


@job(queue="billing", subject="invoice")
def credit_invoice(
    run: Run,
    session: Session,
    *,
    invoice_id: UUID,
    to: Destination,
    amount: int | None = None,
    lines: list[UUID] | None = None,
    reason: str | None = None,
) -> Step:
    """Credit an invoice by an amount, or by the lines of some charges.

    What is over goes ``to`` credit or outside. To a card, which other workers can ask Stripe for,
    ``credit_invoice_to_card`` does it.
    """
    if to != Destination.CARD:
        return _credit(run, session, invoice_id, to=to, amount=amount, lines=lines, reason=reason)
    # The last release did this in one kind: a refund that such a job wrote down is its own.
    return go_on_with_refund(session, run, _payments_of(invoice_id)) or hand_over(
        session,
        run,
        credit_invoice_to_card,
        invoice_id=invoice_id,
        amount=amount,
        lines=lines,
        reason=reason,
    )


@job(queue="payments", subject="invoice")
def credit_invoice_to_card(
    run: Run,
    session: Session,
    *,
    invoice_id: UUID,
    amount: int | None = None,
    lines: list[UUID] | None = None,
    reason: str | None = None,
) -> Step:
    """Credit an invoice, and send what is over to the one card payment that can carry it.

    The note is written when that has succeeded.
    """
    return go_on_with_refund(session, run, _payments_of(invoice_id)) or _credit(
        run,
        session,
        invoice_id,
        to=Destination.CARD,
        amount=amount,
        lines=lines,
        reason=reason,
    )


def _payments_of(invoice_id: UUID) -> Select[UUID]:
    return select(Payment.id).where(Payment.invoice_id == invoice_id)


def _credit(
    run: Run,
    session: Session,
    invoice_id: UUID,
    *,
    to: Destination,
    amount: int | None,
    lines: list[UUID] | None,
    reason: str | None,
) -> Step:
    invoice = lock_invoice(session, run, invoice_id)
    require_creditable(InvoiceStatus(invoice.status))
    require_no_payment_in_flight(session, invoice_id)
    note, settlement, payments = require_note(session, invoice, to=to, amount=amount, lines=lines)
    waits = withdraw_first(session, run, invoice)
    if waits is not None:
        return waits
    if to == Destination.CARD and settlement.returned:
        asked = Asked(
            amount=settlement.returned,
            to=to,
            reason=reason,
            job_id=run.job_id,
            requested_by=run.requested_by,
            note_amount=note.amount,
            note_positions=positions_of(note),
        )
        card = card_payment_for(payments, settlement.returned)
        return refund_to_card(session, run, new_refund(invoice, card, asked, run.now))
    written = write_note(
        session,
        session.get_one(Account, invoice.account_id),
        invoice,
        note,
        settlement,
        to=to,
        reason=reason,
        now=run.now,
        requested_by=run.requested_by,
    )
    refunds: list[UUID] = []
    if to == Destination.OUTSIDE:
        refunds = give_back_outside(session, invoice, written, payments, run.job_id, now=run.now)
    return Done(
        {
            "invoice": str(invoice_id),
            "credit_note": str(written.id),
            "number": written.number,
            "lowered_due": settlement.lowers_due,
            "returned": settlement.returned,
            "refunds": [str(one) for one in refunds],
        }
    )


def require_note(
    session: Session,
    invoice: Invoice,
    *,
    to: Destination,
    amount: int | None,
    lines: Sequence[UUID] | None,
) -> tuple[rules.CreditNote, Settlement, list[Returnable]]:
    """The note that is asked for, where its amount goes, and the payments it may go back to.

    Raises:
        InvalidInput: It is more than is left of the invoice (``amount_exceeds_invoice``) or may go
            there (``amount_exceeds_paid``), or not what a note can be of.
        RuleViolation: Nothing is left to credit (``nothing_to_credit``), or of a line
            (``line_already_credited``); or what is over would go back of a payment that is disputed
            (``payment_disputed``).
    """
    note = note_asked_for(session, invoice, amount, lines)
    payments = returnables(session, invoice.id)
    if to == Destination.OUTSIDE and note.amount > invoice.amount_due:
        _require_undisputed(payments, note.amount - invoice.amount_due)
    settlement = settle_note(
        note.amount,
        due=invoice.outstanding,
        kept=kept_of(invoice),
        paid_by_card=sum(one.left for one in payments if _is_by_card(one.payment)),
        paid_outside=sum(one.left for one in payments if not _is_by_card(one.payment)),
        to=to,
    )
    if to == Destination.CARD and settlement.returned:
        card_payment_for(payments, settlement.returned)
    return note, settlement, payments


def _require_undisputed(payments: list[Returnable], returned: int) -> None:
    """Check that what goes back outside can go back of payments that are not disputed."""
    left = sum(one.left for one in payments)
    if left >= returned > left - sum(one.left for one in payments if one.is_disputed):
        raise disputed()


def _is_by_card(payment: Payment) -> bool:
    return payment.source == PaymentSource.CARD
