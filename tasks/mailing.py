"""Mails to clients: written down together with their cause, each sent by a job of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import UUID

from sqlalchemy import Table, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from billing.card_amounts import minimum_charge, to_stripe
from billing.collection import Origin
from billing.declines import DeclineClass
from billing.errors import InvalidInput
from billing.invoice_states import InvoiceStatus
from billing.mails import MailKind, MailState, switched_on
from models import Account, BillingMethod, Client, Invoice, Mail, Payment, PaymentAttempt
from tasks.enqueueing import enqueue_for_each
from tasks.merchants import card_of
from tasks.sending import send_mail

SWITCHED_OFF, NO_EMAIL, PAUSED = "switched_off", "no_email", "paused"
"""Why a mail was not sent, on purpose."""

_NOT_TOLD = frozenset({InvoiceStatus.DRAFT, InvoiceStatus.VOID})

# Not through the class, whose ways with many rows cost a charge more than the insert itself does.
_MAILS = cast("Table", Mail.__table__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMail:
    """A mail to be written down.

    ``subject_key`` names what it is about: the same kind about the same thing goes to the same
    address once. ``wanted_by_staff`` sends it again, whatever is switched off; one that
    ``is_paused`` is not sent, also later.
    """

    client: Client
    kind: MailKind
    subject_key: str
    invoice_ids: Sequence[UUID]
    payment_id: UUID | None = None
    attempt_id: UUID | None = None
    told: Mapping[str, Any] = field(default_factory=dict)
    wanted_by_staff: bool = False
    is_paused: bool = False


def write_mails(
    session: Session, account: Account, mails: Sequence[NewMail], *, requested_by: str
) -> list[UUID]:
    """Write mails down and enqueue their sending; also those that are not sent, and why.

    Returns:
        The mails that were not there yet.
    """
    if not mails:
        return []
    rows = [_row(session, account, mail, requested_by) for mail in mails]
    written = session.execute(
        insert(_MAILS).on_conflict_do_nothing().returning(_MAILS.c.id, _MAILS.c.state), rows
    ).all()
    enqueue_for_each(
        session,
        send_mail,
        [
            (account.id, {"mail_id": mail_id})
            for mail_id, state in written
            if state == MailState.QUEUED
        ],
        requested_by=requested_by,
    )
    return [mail_id for mail_id, _ in written]


def _row(session: Session, account: Account, mail: NewMail, requested_by: str) -> dict[str, object]:
    client = mail.client
    on = mail.wanted_by_staff or switched_on(mail.kind, account.notifications, client.notifications)
    reason = None if on and client.email else (NO_EMAIL if on else SWITCHED_OFF)
    if mail.is_paused:
        reason = reason or PAUSED
    return {
        "account_id": account.id,
        "client_id": client.id,
        "kind": mail.kind,
        "subject_key": mail.subject_key,
        "recipient": client.email or "",
        "sending": _next_sending(session, mail) if mail.wanted_by_staff else 1,
        "state": MailState.QUEUED if reason is None else MailState.SUPPRESSED,
        "reason": reason,
        "invoice_ids": list(mail.invoice_ids),
        "payment_id": mail.payment_id,
        "attempt_id": mail.attempt_id,
        "told": dict(mail.told),
        "requested_by": requested_by,
    }


def _next_sending(session: Session, mail: NewMail) -> int:
    last = session.scalar(
        select(func.max(Mail.sending)).where(
            Mail.kind == mail.kind, Mail.subject_key == mail.subject_key
        )
    )
    return (last or 0) + 1


def announcement(
    client: Client,
    invoices: Sequence[Invoice],
    method: BillingMethod | None,
    *,
    subject_key: str,
    wanted_by_staff: bool = False,
) -> NewMail | None:
    """The mail that tells a client of new invoices; ``None`` when they ask for nothing.

    What is due, and who will pay it, is told as it stands now: the charge may be faster than the
    mail. A receipt instead when credit has paid everything; money that came has its own.
    """
    told_of = [invoice for invoice in invoices if invoice.status not in _NOT_TOLD]
    due = [invoice for invoice in told_of if invoice.outstanding > 0]
    settled_by_credit = any(invoice.total > 0 and not invoice.amount_paid for invoice in told_of)
    if not (due or settled_by_credit or (told_of and wanted_by_staff)):
        return None
    return NewMail(
        client=client,
        kind=MailKind.INVOICE_READY if due else MailKind.RECEIPT,
        subject_key=subject_key,
        invoice_ids=[invoice.id for invoice in told_of],
        told=_told(due, method) if due else {},
        wanted_by_staff=wanted_by_staff,
    )


def _told(due: Sequence[Invoice], method: BillingMethod | None) -> dict[str, Any]:
    """What is due by invoice, and the invoices that a card will be charged for by itself.

    What is too little for a card is carried to the next invoice instead.
    """
    charged: list[str] = []
    carried: list[str] = []
    for invoice in due:
        if method is None or method.stopped_for is not None or invoice.next_attempt_at is None:
            continue
        try:
            least = minimum_charge(invoice.currency)
            to_stripe(invoice.amount_due, invoice.currency)
        except InvalidInput:
            continue
        (charged if invoice.amount_due >= least else carried).append(str(invoice.id))
    return {
        "due": {
            str(invoice.id): {
                "amount_due": invoice.outstanding,
                "credit_applied": invoice.credit_applied,
            }
            for invoice in due
        },
        "charged": charged,
        "carried": carried,
    }


def announce_invoice(
    session: Session,
    account: Account,
    invoice_id: UUID,
    *,
    requested_by: str,
    wanted_by_staff: bool = False,
) -> list[UUID]:
    """Tell a client of one invoice; the mails written down."""
    invoice = session.get_one(Invoice, invoice_id, populate_existing=True)
    client = session.get_one(Client, invoice.client_id)
    mail = announcement(
        client,
        [invoice],
        card_charged_by_itself(session, account, client),
        subject_key=f"invoice:{invoice_id}",
        wanted_by_staff=wanted_by_staff,
    )
    return [] if mail is None else write_mails(session, account, [mail], requested_by=requested_by)


def announce_reviewed(
    session: Session,
    account: Account,
    client: Client,
    invoice_ids: Sequence[UUID],
    *,
    requested_by: str,
) -> None:
    """Tell a client in one mail of these invoices of billing periods, finalized after a review."""
    invoices = {
        invoice.id: invoice
        for invoice in session.scalars(
            select(Invoice)
            .where(Invoice.id.in_(invoice_ids))
            .execution_options(populate_existing=True)
        )
    }
    mail = announcement(
        client,
        [invoices[invoice_id] for invoice_id in invoice_ids],
        card_charged_by_itself(session, account, client),
        # Each is finalized once, so no other mail about a review begins with it.
        subject_key=f"review:{invoice_ids[0]}",
    )
    write_mails(session, account, [] if mail is None else [mail], requested_by=requested_by)


def card_charged_by_itself(
    session: Session, account: Account, client: Client
) -> BillingMethod | None:
    """The card that pays without being asked; ``None`` while collection is paused."""
    return None if client.is_collection_paused(account) else card_of(session, client.id)


def tell_receipt(
    session: Session, account: Account, client: Client, payment: Payment, *, requested_by: str
) -> None:
    """Tell a client that its money came."""
    mail = NewMail(
        client=client,
        kind=MailKind.RECEIPT,
        subject_key=f"payment:{payment.id}",
        invoice_ids=[] if payment.invoice_id is None else [payment.invoice_id],
        payment_id=payment.id,
    )
    write_mails(session, account, [mail], requested_by=requested_by)


def tell_payment_failed(
    session: Session,
    account: Account,
    client: Client,
    attempt: PaymentAttempt,
    *,
    requested_by: str,
) -> None:
    """Tell a client that its card was not charged, or that its bank waits for it.

    It can do what the bank asks on the page of an invoice: one for credit has none.
    """
    needs_client = attempt.decline_class == DeclineClass.NEEDS_AUTHENTICATION
    is_confirmed_on_page = needs_client and attempt.invoice_id is not None
    mail = NewMail(
        client=client,
        kind=MailKind.AUTHENTICATION_NEEDED if is_confirmed_on_page else MailKind.PAYMENT_FAILED,
        subject_key=f"attempt:{attempt.id}",
        invoice_ids=[] if attempt.invoice_id is None else [attempt.invoice_id],
        attempt_id=attempt.id,
        # What staff or the client began goes on, and may need the client.
        is_paused=attempt.origin == Origin.AUTOMATIC and client.is_collection_paused(account),
    )
    write_mails(session, account, [mail], requested_by=requested_by)
