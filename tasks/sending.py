"""Sending one mail: claimed before it is handed over, so that a lost reply sends none twice."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from billing.declines import DeclineClass
from billing.errors import NotFound, TransientFailure
from billing.invoice_states import InvoiceStatus
from billing.mails import REPLY_AWAITED_FOR, MailKind, MailState, state_after
from billing.money import format_amount
from gateways import mail as gateway
from gateways.documents import InvoiceDocument
from gateways.mail import Accepted, Attachment, Mailbox, OutcomeUnknown, Refused
from models import (
    Account,
    BillingPeriod,
    Client,
    Invoice,
    Mail,
    Payment,
    PaymentAttempt,
    PaymentSource,
)
from models.mail import mail_for_update
from tasks import letters
from tasks.calls import Call, Gateways, Step
from tasks.invoice_documents import filename, invoice_document, written_date
from tasks.kinds import BULK_PRIORITY, Run, job
from tasks.letters import Letter, letter_invoice
from tasks.outcomes import Done, Outcome, Skip, Snooze

MAX_ATTACHED = 20
"""Invoices whose documents go with one mail; a catch-up of years would be too large to accept."""

AGAIN_AFTER = timedelta(minutes=1)
"""How long a mail waits that SendGrid could not take."""

_METHODS = {
    "bank_transfer": "Bank transfer",
    "cash": "Cash",
    "check": "Check",
    "card_elsewhere": "Card",
}

Answer = Accepted | Refused | TransientFailure | OutcomeUnknown


@dataclass(frozen=True, slots=True)
class _Parcel:
    """A mail's words and the documents that go with it, before they are set."""

    account: Account
    client: Client
    mail: Mail
    letter: Letter
    documents: Sequence[tuple[str, InvoiceDocument]]


@job(queue="mail", max_attempts=8, priority=BULK_PRIORITY)
def send_mail(run: Run, session: Session, mail_id: UUID) -> Step:
    """Hand one mail over. One whose reply was lost is not sent again: its events tell."""
    mail = session.scalars(mail_for_update(mail_id)).one_or_none()
    if mail is None:
        raise NotFound("mail", str(mail_id))
    match MailState(mail.state):
        case MailState.QUEUED if _is_void(session, mail):
            mail.state, mail.reason = MailState.SUPPRESSED, "invoice_void"
            return Skip("invoice_void", "there is nothing to pay any more")
        case MailState.QUEUED:
            mail.state = MailState.CLAIMED
            mail.claimed_at = run.now
            return Call(partial(_hand_over, _pack(session, mail)), partial(_record, run, mail_id))
        case MailState.CLAIMED:
            claimed_at = mail.claimed_at or mail.created_at
            left = claimed_at + REPLY_AWAITED_FOR - run.now
            if left > timedelta(0):
                return Snooze(left)
            mail.state = state_after(MailState.CLAIMED, MailState.UNKNOWN)
            mail.reason = mail.reason or "no reply and no event told whether it was taken"
            return Done({"mail": str(mail_id), "state": mail.state})
        case state:
            return Skip("mail_settled", f"the mail is {state}")


def _hand_over(parcel: _Parcel, gateways: Gateways) -> Answer:
    client, mail, letter = parcel.client, parcel.mail, parcel.letter
    attachments = tuple(
        Attachment(name, "application/pdf", gateways.documents.render_invoice_pdf(document))
        for name, document in parcel.documents
    )
    message = gateway.Mail(
        sender=Mailbox(gateways.mail_sender, parcel.account.name),
        to=(Mailbox(mail.recipient, client.name),),
        subject=letter.subject,
        text=letter.text,
        html=letter.html,
        attachments=attachments,
        custom_args={"mail": str(mail.id), "account": str(mail.account_id)},
        category=mail.kind,
    )
    try:
        return gateways.mail.send(message)
    except (TransientFailure, OutcomeUnknown) as answer:
        return answer


def _record(run: Run, mail_id: UUID, session: Session, answer: Answer) -> Outcome:
    mail = session.scalars(mail_for_update(mail_id)).one()
    known = MailState(mail.state)
    match answer:
        case Accepted(message_id):
            mail.message_id = message_id
            mail.sent_at = run.now
            mail.state = state_after(known, MailState.ACCEPTED)
        case Refused(reason):
            mail.reason = reason
            mail.state = state_after(known, MailState.REFUSED)
        case TransientFailure():
            mail.state = state_after(known, MailState.QUEUED)
            return Snooze(AGAIN_AFTER, answer)
        case OutcomeUnknown():
            mail.reason = str(answer)
            return Snooze(REPLY_AWAITED_FOR, answer)
    return Done({"mail": str(mail_id), "state": mail.state})


def _is_void(session: Session, mail: Mail) -> bool:
    """Whether all that a mail asks to pay was voided since."""
    if mail.kind != MailKind.INVOICE_READY:
        return False
    alive = select(Invoice.id).where(
        Invoice.id.in_(mail.invoice_ids), Invoice.status != InvoiceStatus.VOID
    )
    return session.scalar(alive.limit(1)) is None


def _pack(session: Session, mail: Mail) -> _Parcel:
    """What a mail says, as things stand now."""
    account = session.get_one(Account, mail.account_id)
    client = session.get_one(Client, mail.client_id)
    invoices = session.scalars(
        select(Invoice).where(Invoice.id.in_(mail.invoice_ids)).order_by(Invoice.number)
    ).all()
    letter = _letter(session, account, client, mail, invoices)
    documents = [
        (filename(invoice), invoice_document(session, invoice))
        for invoice in invoices[:MAX_ATTACHED]
    ]
    return _Parcel(account, client, mail, letter, documents)


def _letter(
    session: Session, account: Account, client: Client, mail: Mail, invoices: Sequence[Invoice]
) -> Letter:
    match MailKind(mail.kind):
        case MailKind.INVOICE_READY:
            return _ready(session, account, client, mail, invoices)
        case MailKind.RECEIPT:
            return _receipt(session, account, client, invoices, mail.payment_id)
        case MailKind.PAYMENT_FAILED:
            return _failed(session, account, client, invoices[0], mail.attempt_id)


def _ready(
    session: Session, account: Account, client: Client, mail: Mail, invoices: Sequence[Invoice]
) -> Letter:
    """As it stood when the mail was written down: a card may be charged faster than it is sent."""
    due = mail.told["due"]
    listed = _listed(session, invoices)
    return letters.invoice_ready(
        account=account.name,
        client=client.name,
        invoices=[
            replace(
                letter,
                amount_due=format_amount(due[str(invoice.id)], invoice.currency),
                status="Open",
                is_due=True,
            )
            if str(invoice.id) in due
            else letter
            for invoice, letter in zip(invoices, listed, strict=True)
        ],
        charges_card=mail.told["charges_card"],
    )


def _receipt(
    session: Session,
    account: Account,
    client: Client,
    invoices: Sequence[Invoice],
    payment_id: UUID | None,
) -> Letter:
    payment = None if payment_id is None else session.get_one(Payment, payment_id)
    kept = 0 if payment is None else payment.amount - payment.applied
    return letters.receipt(
        account=account.name,
        client=client.name,
        invoices=_listed(session, invoices),
        paid=None if payment is None else format_amount(payment.amount, payment.currency),
        paid_on=None if payment is None else written_date(payment.paid_on),
        method=None if payment is None else _method(payment),
        credit_added=format_amount(kept, payment.currency) if payment and kept else None,
        settled_by_credit=payment is None,
    )


def _method(payment: Payment) -> str | None:
    if payment.source == PaymentSource.CARD:
        return "Card"
    return _METHODS.get(payment.method or "")


def _failed(
    session: Session,
    account: Account,
    client: Client,
    invoice: Invoice,
    attempt_id: UUID | None,
) -> Letter:
    attempt = session.get_one(PaymentAttempt, attempt_id)
    zone = client.zone(account)
    return letters.payment_failed(
        account=account.name,
        client=client.name,
        invoice=_listed(session, [invoice])[0],
        reason=attempt.message or "Your card was declined.",
        next_try=None
        if invoice.next_attempt_at is None
        else written_date(invoice.next_attempt_at.astimezone(zone).date()),
        needs_authentication=attempt.decline_class == DeclineClass.NEEDS_AUTHENTICATION,
        needs_new_card=attempt.decline_class in {DeclineClass.NEEDS_NEW_CARD, DeclineClass.HARD},
    )


def _listed(session: Session, invoices: Sequence[Invoice]) -> list[letters.LetterInvoice]:
    ids = [invoice.period_id for invoice in invoices if invoice.period_id is not None]
    periods = {
        period.id: period
        for period in session.scalars(select(BillingPeriod).where(BillingPeriod.id.in_(ids)))
    }
    return [
        letter_invoice(invoice, periods.get(invoice.period_id) if invoice.period_id else None)
        for invoice in invoices
    ]
