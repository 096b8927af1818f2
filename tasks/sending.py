"""Sending one mail: claimed before it is handed over, so that a lost reply sends none twice."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from billing.card_names import card_name, last_day
from billing.credit import CreditEntryKind
from billing.cycles import local_date
from billing.declines import STOPS_AUTOMATIC_TRIES, DeclineClass
from billing.errors import NotFound, TransientFailure
from billing.invoice_states import InvoiceStatus
from billing.job_states import retry_delay
from billing.mails import REPLY_AWAITED_FOR, MailKind, MailState, state_after
from billing.money import format_amount
from gateways import mail as gateway
from gateways.documents import InvoiceDocument
from gateways.mail import Accepted, Attachment, Mailbox, OutcomeUnknown, Refused
from models import (
    Account,
    BillingMethod,
    BillingPeriod,
    Client,
    CreditEntry,
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
from tasks.letters import Letter, LetterInvoice, LetterLinks, letter_invoice
from tasks.links import Links
from tasks.outcomes import Done, Outcome, Retry, Skip, Snooze

MAX_ATTACHED = 20
"""Invoices whose documents go with one mail; a catch-up of years would be too large to accept."""

MAX_ATTACHED_BYTES = 10_000_000
"""And so much of them: SendGrid takes 30 MB with all that encoding adds, many receivers less."""

AGAIN_AFTER, AGAIN_AFTER_AT_MOST = timedelta(minutes=1), timedelta(minutes=15)
"""How long a mail waits that SendGrid could not take: longer, the older it is."""

ANNOUNCED_WITHIN = timedelta(days=7)
"""An announcement that was kept waiting for longer is not sent: its dates are past, and other mails
have told of its invoices since."""

_ABOUT_A_CHARGE = frozenset({MailKind.PAYMENT_FAILED, MailKind.AUTHENTICATION_NEEDED})

_METHODS = {
    "bank_transfer": "Bank transfer",
    "cash": "Cash",
    "check": "Check",
    "card_elsewhere": "Card",
}

_WITHOUT_DOCUMENTS = frozenset(
    {MailKind.PAYMENT_FAILED, MailKind.AUTHENTICATION_NEEDED, MailKind.CARD_EXPIRING}
)

_REASONS = {
    DeclineClass.NEEDS_AUTHENTICATION: "Your bank asks you to confirm the payment.",
    DeclineClass.NEEDS_NEW_CARD: "The card could not be charged.",
}


@dataclass(frozen=True, slots=True)
class NotMade:
    """The mail could not be made, so nothing was handed over."""

    error: Exception


Answer = Accepted | Refused | TransientFailure | OutcomeUnknown | NotMade


@dataclass(frozen=True, slots=True)
class _Parcel:
    """A mail before it is made: its documents are still to be set.

    ``write`` gives its words, told how many documents are ``attached`` if it has any, and the
    ``link`` to the client's own page if it leads there.
    """

    account: Account
    client: Client
    mail: Mail
    write: Callable[..., Letter]
    documents: Sequence[tuple[str, UUID | None, InvoiceDocument]]


@job(queue="mail", max_attempts=8, priority=BULK_PRIORITY)
def send_mail(run: Run, session: Session, mail_id: UUID) -> Step:
    """Hand one mail over. One whose reply was lost is not sent again: its events tell."""
    mail = session.scalars(mail_for_update(mail_id)).one_or_none()
    if mail is None:
        raise NotFound("mail", str(mail_id))
    match MailState(mail.state):
        case MailState.QUEUED:
            invoices = _invoices(session, mail)
            needless = _needless(session, mail, invoices, run.now)
            if needless is not None:
                mail.state, mail.reason = MailState.SUPPRESSED, needless.reason
                return needless
            mail.state = MailState.CLAIMED
            mail.claimed_at = run.now
            parcel = _pack(session, mail, [one for one in invoices if _is_listed(mail, one)])
            return Call(partial(_hand_over, parcel), partial(_record, run, mail_id))
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
    try:
        message = _made(parcel, gateways)
        send = gateways.mail.send
    except Exception as error:  # noqa: BLE001 - whatever it is, the mail waits as it did before
        return NotMade(error)
    try:
        return send(message)
    except (TransientFailure, OutcomeUnknown) as answer:
        return answer


def _made(parcel: _Parcel, gateways: Gateways) -> gateway.Mail:
    """The mail with its documents set, as many as one mail may hold."""
    mail = parcel.mail
    attachments: list[Attachment] = []
    room = MAX_ATTACHED_BYTES
    for name, invoice_id, document in parcel.documents:
        pdf = gateways.documents.render_invoice_pdf(_leading(document, invoice_id, gateways.links))
        room -= len(pdf)
        if room < 0:
            break
        attachments.append(Attachment(name, "application/pdf", pdf))
    write = partial(parcel.write, links=LetterLinks(gateways.links, parcel.client.id))
    letter = write(attached=len(attachments)) if parcel.documents else write()
    return gateway.Mail(
        sender=Mailbox(gateways.mail_sender, letters.one_line(parcel.account.name)),
        to=(Mailbox(mail.recipient, letters.one_line(parcel.client.name)),),
        subject=letter.subject,
        text=letter.text,
        html=letter.html,
        attachments=tuple(attachments),
        custom_args={"mail": str(mail.id), "account": str(mail.account_id)},
        category=mail.kind,
    )


def _leading(document: InvoiceDocument, invoice_id: UUID | None, links: Links) -> InvoiceDocument:
    """A document that leads to the page on which it can be paid, if it can be."""
    return (
        document if invoice_id is None else replace(document, pay_url=links.to_invoice(invoice_id))
    )


def _record(run: Run, mail_id: UUID, session: Session, answer: Answer) -> Outcome:
    """Write the answer down; an event may have been faster, and told more."""
    mail = session.scalars(mail_for_update(mail_id)).one()
    known = MailState(mail.state)
    if isinstance(answer, Accepted):
        mail.message_id = answer.message_id
        mail.sent_at = mail.sent_at or run.now
    if known != MailState.CLAIMED:
        return Done({"mail": str(mail_id), "state": known})
    match answer:
        case Accepted():
            mail.state = state_after(known, MailState.ACCEPTED)
        case Refused(reason):
            mail.reason = reason
            mail.state = state_after(known, MailState.REFUSED)
        case TransientFailure():
            mail.state = state_after(known, MailState.QUEUED)
            waited = run.now - mail.created_at
            return Snooze(min(max(waited / 4, AGAIN_AFTER), AGAIN_AFTER_AT_MOST), answer)
        case OutcomeUnknown():
            mail.reason = str(answer)
            return Snooze(REPLY_AWAITED_FOR, answer)
        case NotMade(error):
            mail.state = state_after(known, MailState.QUEUED)
            jitter = random.random()  # noqa: S311 - it spreads retries
            return Retry(error, retry_delay(run.attempt, jitter=jitter))
    return Done({"mail": str(mail_id), "state": mail.state})


def _invoices(session: Session, mail: Mail) -> Sequence[Invoice]:
    """A mail's invoices by number, as they stand now."""
    return session.scalars(
        select(Invoice)
        .where(Invoice.id.in_(mail.invoice_ids))
        .order_by(func.length(Invoice.number), Invoice.number)
    ).all()


def _needless(
    session: Session, mail: Mail, invoices: Sequence[Invoice], now: datetime
) -> Skip | None:
    """Why a mail that asks for something is not sent any more; ``None`` where it still is."""
    match MailKind(mail.kind):
        case MailKind.RECEIPT:
            return None
        case MailKind.CARD_EXPIRING:
            return _needless_warning(session, mail)
        case MailKind.INVOICE_READY:
            if now - mail.created_at > ANNOUNCED_WITHIN:
                return Skip("too_old", "the mail was kept waiting for too long")
            if any(_is_listed(mail, invoice) for invoice in invoices):
                return None
        case MailKind.PAYMENT_FAILED | MailKind.AUTHENTICATION_NEEDED:
            # One of a top-up asks for a card, whatever becomes of the credit.
            if not mail.invoice_ids or any(invoice.outstanding for invoice in invoices):
                return None
    is_void = all(invoice.status == InvoiceStatus.VOID for invoice in invoices)
    return Skip("invoice_void" if is_void else "invoice_paid", "there is nothing to pay any more")


def _needless_warning(session: Session, mail: Mail) -> Skip | None:
    if mail.told["key"] == expiry_key(session.get(BillingMethod, mail.client_id)):
        return None
    return Skip("card_replaced", "the client has another card by now")


def _is_listed(mail: Mail, invoice: Invoice) -> bool:
    """Nobody is asked to pay what was voided or paid since; a payment for it has its receipt."""
    if mail.kind != MailKind.INVOICE_READY:
        return True
    if invoice.status == InvoiceStatus.VOID:
        return False
    was_due = str(invoice.id) in mail.told["due"]
    return invoice.outstanding > 0 or not was_due or _is_ours_to_end(mail, invoice)


def _is_ours_to_end(mail: Mail, invoice: Invoice) -> bool:
    """Whether the mail says that we charge or carry the invoice by ourselves.

    We may be faster than the mail is, which tells of it as it stood when it was written down.
    """
    return str(invoice.id) in {*mail.told["charged"], *mail.told["carried"]}


def _pack(session: Session, mail: Mail, invoices: Sequence[Invoice]) -> _Parcel:
    """What a mail says, as things stand now but for what we were to charge or carry."""
    account = session.get_one(Account, mail.account_id)
    client = session.get_one(Client, mail.client_id)
    if mail.kind == MailKind.INVOICE_READY:
        # As the letter lists them, so that the first of them are the first attached.
        invoices = sorted(
            invoices, key=lambda one: one.outstanding == 0 and not _is_ours_to_end(mail, one)
        )
    # A failed payment's invoice came with the mail that announced it.
    attached = [] if mail.kind in _WITHOUT_DOCUMENTS else invoices[:MAX_ATTACHED]
    return _Parcel(
        account,
        client,
        mail,
        _letter(session, account, client, mail, invoices),
        [
            (
                filename(invoice),
                invoice.id if invoice.outstanding > 0 else None,
                invoice_document(session, invoice),
            )
            for invoice in attached
        ],
    )


def _letter(
    session: Session, account: Account, client: Client, mail: Mail, invoices: Sequence[Invoice]
) -> Callable[..., Letter]:
    """The mail's words, but for how many documents are attached."""
    match MailKind(mail.kind):
        case MailKind.INVOICE_READY:
            return _ready(session, account, client, mail, invoices)
        case MailKind.RECEIPT:
            return _receipt(session, account, client, invoices, mail.payment_id)
        case MailKind.PAYMENT_FAILED:
            invoice = invoices[0] if invoices else None
            return _failed(session, account, client, invoice, mail.attempt_id)
        case MailKind.AUTHENTICATION_NEEDED:
            return _authentication_needed(session, account, client, invoices[0], mail.attempt_id)
        case MailKind.CARD_EXPIRING:
            return _expiring(account, client, mail.told)


def _ready(
    session: Session, account: Account, client: Client, mail: Mail, invoices: Sequence[Invoice]
) -> Callable[..., Letter]:
    due = mail.told["due"]
    listed = [
        _as_told(letter, invoice.currency, due[str(invoice.id)])
        if _is_ours_to_end(mail, invoice)
        else letter
        for invoice, letter in zip(invoices, _listed(session, invoices), strict=True)
    ]
    numbers = {str(invoice.id): str(invoice.number) for invoice in invoices}
    return partial(
        letters.invoice_ready,
        account=account.name,
        client=client.name,
        invoices=listed,
        charged=[numbers[one] for one in mail.told["charged"] if one in numbers],
        carried=[numbers[one] for one in mail.told["carried"] if one in numbers],
    )


def _as_told(letter: LetterInvoice, currency: str, told: Mapping[str, int]) -> LetterInvoice:
    credit = told["credit_applied"]
    return replace(
        letter,
        amount_due=format_amount(told["amount_due"], currency),
        credit_applied=format_amount(credit, currency) if credit else None,
        status="Open",
        is_due=True,
    )


def _receipt(
    session: Session,
    account: Account,
    client: Client,
    invoices: Sequence[Invoice],
    payment_id: UUID | None,
) -> Callable[..., Letter]:
    payment = None if payment_id is None else session.get_one(Payment, payment_id)
    kept = 0 if payment is None else payment.amount - payment.applied
    return partial(
        letters.receipt,
        account=account.name,
        client=client.name,
        invoices=_listed(session, invoices),
        paid=None if payment is None else format_amount(payment.amount, payment.currency),
        paid_on=None if payment is None else written_date(payment.paid_on),
        method=None if payment is None else _method(session, payment),
        credit_added=format_amount(kept, payment.currency) if payment and kept else None,
        settled_by_credit=payment is None and _settled_by_credit(session, invoices),
    )


def _settled_by_credit(session: Session, invoices: Sequence[Invoice]) -> bool:
    """Whether credit alone paid them: no money, and no remainder left to a later invoice."""
    carried = select(CreditEntry.id).where(
        CreditEntry.invoice_id.in_([invoice.id for invoice in invoices]),
        CreditEntry.kind == CreditEntryKind.CARRIED,
    )
    return (
        not any(invoice.amount_paid for invoice in invoices)
        and session.scalar(carried.limit(1)) is None
    )


def _method(session: Session, payment: Payment) -> str | None:
    if payment.source == PaymentSource.CARD:
        attempt = session.get_one(PaymentAttempt, payment.attempt_id)
        return card_name(attempt.card_brand, attempt.card_last4)
    return _METHODS.get(payment.method or "")


def _failed(
    session: Session,
    account: Account,
    client: Client,
    invoice: Invoice | None,
    attempt_id: UUID | None,
) -> Callable[..., Letter]:
    attempt = session.get_one(PaymentAttempt, attempt_id)
    kind = DeclineClass(attempt.decline_class or DeclineClass.SOFT)
    return partial(
        letters.payment_failed,
        account=account.name,
        client=client.name,
        invoice=None if invoice is None else _listed(session, [invoice])[0],
        tried=format_amount(attempt.amount, attempt.currency),
        reason=_reason(attempt, kind),
        next_try=None if invoice is None else _next_try(invoice, account, client),
        needs_authentication=kind == DeclineClass.NEEDS_AUTHENTICATION,
        needs_new_card=kind in STOPS_AUTOMATIC_TRIES,
    )


def _authentication_needed(
    session: Session, account: Account, client: Client, invoice: Invoice, attempt_id: UUID | None
) -> Callable[..., Letter]:
    attempt = session.get_one(PaymentAttempt, attempt_id)
    return partial(
        letters.authentication_needed,
        account=account.name,
        client=client.name,
        invoice=_listed(session, [invoice])[0],
        tried=format_amount(attempt.amount, attempt.currency),
        next_try=_next_try(invoice, account, client),
    )


def _next_try(invoice: Invoice, account: Account, client: Client) -> str | None:
    if invoice.next_attempt_at is None:
        return None
    return written_date(local_date(invoice.next_attempt_at, client.zone(account)))


def _expiring(account: Account, client: Client, told: Mapping[str, Any]) -> Callable[..., Letter]:
    return partial(
        letters.card_expiring,
        account=account.name,
        client=client.name,
        card=card_name(told["brand"], told["last4"]),
        good_until=written_date(last_day(told["exp_year"], told["exp_month"])),
        has_expired=told["has_expired"],
    )


def expiry_key(card: BillingMethod | None) -> str | None:
    """What one warning of a card's expiry is about; ``None`` where it has none."""
    if card is None or card.exp_year is None:
        return None
    return f"card:{card.client_id}:{card.payment_method}:{card.exp_year}-{card.exp_month}"


def _reason(attempt: PaymentAttempt, kind: DeclineClass) -> str:
    """Why, for people. What Stripe refused before it asked a bank, it tells developers."""
    told = attempt.message if attempt.payment_intent else None
    return told or _REASONS.get(kind, "Your card was declined.")


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
