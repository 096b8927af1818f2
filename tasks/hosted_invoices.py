"""What a client sees of its invoice on the page that its link leads to."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from billing.collection import AttemptState
from billing.cycles import local_date
from billing.errors import NotFound, RuleViolation
from billing.invoice_states import InvoiceStatus
from billing.job_states import FINAL
from billing.money import format_amount
from gateways.documents import InvoiceDocument
from models import (
    Account,
    BillingMethod,
    Client,
    CreditNote,
    Invoice,
    Job,
    Payment,
    PaymentAttempt,
    PaymentSource,
)
from models.payment_attempt import open_attempts_of
from models.refund import unsettled_refund_of
from tasks.enqueueing import enqueue
from tasks.invoice_documents import invoice_document, written_date
from tasks.pay_pages import is_page_for, open_pay_page, require_payable_online
from tasks.resolving import resolve_attempt

_CLIENTS_WORDS = {
    "bank_transfer": "Bank transfer",
    "cash": "Cash",
    "check": "Check",
    "card_elsewhere": "Card",
}


class Standing(StrEnum):
    """How an invoice stands for its client. One that was given up is as open as any other."""

    PAID = "paid"
    VOID = "void"
    # Its total is negative: it gave credit.
    CREDITED = "credited"
    # It can be paid on a page at Stripe.
    PAYABLE = "payable"
    # The same, where the bank wants the client to confirm a charge.
    TO_CONFIRM = "to_confirm"
    # A charge is under way.
    BEING_PAID = "being_paid"
    # Money is on its way back to the client.
    BEING_REFUNDED = "being_refunded"
    # Stripe takes no such amount.
    NOT_ONLINE = "not_online"


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A payment or credit note, in words; what of it was kept as credit, if any was."""

    day: str
    what: str
    amount: str
    kept: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostedInvoice:
    """An invoice as its client sees it.

    Attributes:
        document: The same that its PDF shows.
        charged_on: When the card on file is charged without being asked; ``None`` where it is not.
    """

    invoice: Invoice
    document: InvoiceDocument
    standing: Standing
    received: Sequence[Received]
    charged_on: str | None


def finalized_invoice(session: Session, invoice_id: UUID) -> Invoice:
    """An invoice that its client may see.

    Raises:
        NotFound: There is none, or it is a draft: that is not told apart.
    """
    invoice = session.get(Invoice, invoice_id)
    if invoice is None or invoice.status == InvoiceStatus.DRAFT:
        raise NotFound("page", "of this link")
    return invoice


def hosted_invoice(session: Session, invoice_id: UUID, now: datetime) -> HostedInvoice:
    """An invoice as its client sees it, in a number of statements that is always the same.

    Raises:
        NotFound: There is none, or it is a draft.
    """
    invoice = finalized_invoice(session, invoice_id)
    return HostedInvoice(
        invoice=invoice,
        document=invoice_document(session, invoice),
        standing=standing_of(session, invoice),
        received=[*_payments(session, invoice), *_notes(session, invoice)],
        charged_on=_charged_on(session, invoice, now),
    )


def standing_of(session: Session, invoice: Invoice) -> Standing:
    """How an invoice stands for its client."""
    if invoice.status == InvoiceStatus.VOID:
        return Standing.VOID
    if invoice.status == InvoiceStatus.PAID:
        return Standing.CREDITED if invoice.total < 0 else Standing.PAID
    attempt = session.scalars(open_attempts_of([invoice.id])).one_or_none()
    if attempt is not None:
        return _standing_while(attempt)
    if session.scalars(unsettled_refund_of(invoice.id)).one_or_none() is not None:
        return Standing.BEING_REFUNDED
    try:
        require_payable_online(invoice)
    except RuleViolation:
        return Standing.NOT_ONLINE
    return Standing.PAYABLE


def _standing_while(attempt: PaymentAttempt) -> Standing:
    """How an invoice stands while an attempt has no outcome yet."""
    waits = attempt.state == AttemptState.NEEDS_ACTION
    if waits and not attempt.is_page:
        return Standing.TO_CONFIRM
    # One that is a page and not open yet is about to be.
    is_about_to_wait = attempt.is_page and attempt.state == AttemptState.PENDING
    return Standing.PAYABLE if waits or is_about_to_wait else Standing.BEING_PAID


def _payments(session: Session, invoice: Invoice) -> list[Received]:
    payments = session.scalars(
        select(Payment).where(Payment.invoice_id == invoice.id).order_by(Payment.id)
    )
    return [
        Received(
            day=written_date(payment.paid_on),
            what=_what(payment),
            amount=format_amount(payment.amount, payment.currency),
            kept=format_amount(payment.amount - payment.applied, payment.currency)
            if payment.amount > payment.applied
            else None,
        )
        for payment in payments
    ]


def _what(payment: Payment) -> str:
    if payment.source == PaymentSource.CARD:
        return "Card or bank debit"
    return _CLIENTS_WORDS.get(payment.method or "", "Payment")


def _notes(session: Session, invoice: Invoice) -> list[Received]:
    notes = session.scalars(
        select(CreditNote).where(CreditNote.invoice_id == invoice.id).order_by(CreditNote.id)
    )
    return [
        Received(
            day=written_date(note.issued_on),
            what=f"Credit note {note.number}",
            amount=format_amount(note.amount, note.currency),
        )
        for note in notes
    ]


def _charged_on(session: Session, invoice: Invoice, now: datetime) -> str | None:
    method = session.get(BillingMethod, invoice.client_id)
    account = session.get_one(Account, invoice.account_id)
    client = session.get_one(Client, invoice.client_id)
    if (
        invoice.next_attempt_at is None
        or method is None
        or method.stopped_for is not None
        or client.is_collection_paused(account)
    ):
        return None
    return written_date(local_date(max(invoice.next_attempt_at, now), client.zone(account)))


def page_address(session: Session, invoice: Invoice, now: datetime) -> str | None:
    """Where the client can pay what is due at Stripe, if a page is open for that."""
    attempt = session.scalars(open_attempts_of([invoice.id])).one_or_none()
    if attempt is None or not is_page_for(attempt, invoice, now):
        return None
    return attempt.checkout_url


def ask_for_page(session: Session, invoice: Invoice) -> UUID:
    """Have a page opened; the job that does it, one however often the client asks."""
    asked = enqueue(
        session,
        open_pay_page,
        account_id=invoice.account_id,
        requested_by=f"client:{invoice.client_id}",
        unique_key=_key(invoice.id),
        invoice_id=invoice.id,
    )
    return asked.id


def page_asked_for(session: Session, invoice: Invoice) -> datetime | None:
    """Since when the client waits for a page, if it does."""
    return session.scalar(
        select(Job.created_at).where(
            Job.unique_key == _key(invoice.id), Job.state.not_in(list(FINAL))
        )
    )


def ask_after_payment(session: Session, invoice: Invoice) -> None:
    """The client says that it has paid on its page: ask, and do not wait to be told."""
    attempt = session.scalars(open_attempts_of([invoice.id])).one_or_none()
    if attempt is None or not attempt.is_open_page:
        return
    enqueue(
        session,
        resolve_attempt,
        account_id=attempt.account_id,
        requested_by=f"client:{attempt.client_id}",
        unique_key=f"attempt:{attempt.id}",
        attempt_id=attempt.id,
    )


def _key(invoice_id: UUID) -> str:
    return f"pay:{invoice_id}"
