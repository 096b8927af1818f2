"""An invoice's story, told for people: what became of it so far, and what comes next."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel

from billing.collection import AttemptState, Collection, Origin
from billing.credit import CreditEntryKind
from billing.disputes import DisputeState
from billing.invoice_states import InvoiceStatus
from billing.mails import MailState
from billing.money import format_amount
from billing.refunds import RefundState
from models import (
    BillingMethod,
    CreditEntry,
    CreditNote,
    Dispute,
    Invoice,
    Mail,
    Payment,
    PaymentAttempt,
    Refund,
)


class NextStep(StrEnum):
    """What an invoice waits for."""

    NOTHING = "nothing"
    # The draft is finalized by itself, or by somebody who may as well delete it.
    FINALIZE = "finalize"
    # The client has to pay, or somebody has to press a button.
    PAY = "pay"
    # The card is charged by itself.
    CHARGE = "charge"
    # A charge was sent; what came of it is asked or told.
    WAIT_FOR_ANSWER = "wait_for_answer"
    # The client has to approve the charge with its bank.
    AUTHENTICATE = "authenticate"
    # Nothing happens by itself before there is a (new) card.
    ADD_CARD = "add_card"
    # Nothing happens by itself before a pause has ended.
    RESUME = "resume"


class Happening(StrEnum):
    """What can have happened to an invoice."""

    DRAFTED = "drafted"
    FINALIZED = "finalized"
    CREDIT_APPLIED = "credit_applied"
    DEBIT_ADDED = "debit_added"
    CREDIT_GIVEN = "credit_given"
    ATTEMPT_STARTED = "attempt_started"
    ATTEMPT_SUCCEEDED = "attempt_succeeded"
    ATTEMPT_DECLINED = "attempt_declined"
    ATTEMPT_CANCELED = "attempt_canceled"
    PAYMENT_RECEIVED = "payment_received"
    KEPT_AS_CREDIT = "kept_as_credit"
    REMAINDER_CARRIED = "remainder_carried"
    PAID = "paid"
    WRITTEN_OFF = "written_off"
    VOIDED = "voided"
    REISSUED = "reissued"
    CREDIT_RETURNED = "credit_returned"
    CREDITED = "credited"
    REFUND_STARTED = "refund_started"
    REFUNDED = "refunded"
    REFUND_REFUSED = "refund_refused"
    REFUND_CAME_BACK = "refund_came_back"
    QUESTIONED = "questioned"
    DISPUTE_OPENED = "dispute_opened"
    DISPUTE_CLOSED = "dispute_closed"
    DISPUTE_WON = "dispute_won"
    DISPUTE_LOST = "dispute_lost"
    CREDIT_TAKEN_BACK = "credit_taken_back"
    MAIL_WAITING = "mail_waiting"
    MAIL_NOT_SENT = "mail_not_sent"
    MAIL_UNKNOWN = "mail_unknown"
    MAIL_RETURNED = "mail_returned"
    MAIL_SENT = "mail_sent"
    MAIL_DELIVERED = "mail_delivered"


class NextReport(BaseModel):
    """What the invoice waits for, from when on (null: nobody knows), and why."""

    what: NextStep
    at: datetime | None
    why: str


class HistoryItem(BaseModel):
    """One thing that happened, and more of it in words."""

    at: datetime
    what: Happening
    detail: str | None


@dataclass(frozen=True, slots=True)
class WriteOff:
    """What was given up of an invoice, in minor units, and when."""

    at: datetime
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What is known of an invoice; each sequence oldest first.

    ``is_card_elsewhere`` says that the client's card was left at another Stripe account than the
    one that is charged through now.
    """

    invoice: Invoice
    collection: Collection
    is_billing_paused: bool
    method: BillingMethod | None
    attempts: Sequence[PaymentAttempt]
    payments: Sequence[Payment]
    credit: Sequence[CreditEntry]
    notes: Sequence[CreditNote]
    refunds: Sequence[Refund]
    mails: Sequence[Mail]
    write_offs: Sequence[WriteOff] = ()
    disputes: Sequence[Dispute] = ()
    is_card_elsewhere: bool = False


_CHARGED = frozenset(
    {
        Collection.SCHEDULED,
        Collection.MANUAL,
        Collection.NO_BILLING_METHOD,
        Collection.EXHAUSTED,
    }
)


def next_of(story: Story) -> NextReport:
    """What an invoice waits for."""
    if story.is_card_elsewhere and story.collection in _CHARGED:
        why = (
            "The client's card was left at another Stripe account than the one that is charged "
            "through now, which cannot charge it: set its billing method again."
        )
        return NextReport(what=NextStep.ADD_CARD, at=None, why=why)
    return _next_of_collection(story)


def _next_of_collection(story: Story) -> NextReport:
    last = story.attempts[-1] if story.attempts else None
    at: datetime | None = None
    match story.collection:
        case Collection.SCHEDULED:
            what, at = NextStep.CHARGE, story.invoice.next_attempt_at
            why = f"The client's card is charged by itself.{_after(last)}"
        case Collection.IN_FLIGHT if last is not None:
            what, at = NextStep.WAIT_FOR_ANSWER, last.next_ask_at
            why = _UNDER_WAY[AttemptState(last.state)]
        case Collection.NEEDS_ACTION:
            what, at, why = _waits_for_client(story, last)
        case Collection.NO_BILLING_METHOD:
            what = NextStep.ADD_CARD
            why = "The client has no card. One that is added is charged at once."
        case Collection.EXHAUSTED if story.method is not None and story.method.stopped_for:
            what = NextStep.ADD_CARD
            why = (
                f"The client's card is not tried again by itself ({story.method.stopped_for}). "
                "Another one is charged at once."
            )
        case Collection.EXHAUSTED:
            what = NextStep.PAY
            why = (
                f"The card is not charged by itself any more.{_after(last)} Charge it, record a "
                "payment, or set another card."
            )
        case Collection.PAUSED:
            what = NextStep.RESUME
            why = f"Collection is paused; the card is charged when it goes on.{_after(last)}"
        case Collection.MANUAL:
            what = NextStep.PAY
            why = "It is collected by hand: charge the card, or record the client's payment."
        case _ if story.invoice.status == InvoiceStatus.DRAFT:
            return _next_of_draft(story)
        case _:
            what, why = NextStep.NOTHING, _why_nothing(story.invoice)
    return NextReport(what=what, at=at, why=why)


def _next_of_draft(story: Story) -> NextReport:
    what, at = NextStep.FINALIZE, story.invoice.review_ends_at
    why = "It is a draft: the client does not see it, and is not charged, before it is final."
    if at is not None and story.is_billing_paused:
        what, at = NextStep.RESUME, None
        why += " Billing is paused; its review is over no sooner than the pause."
    elif at is not None:
        why += " That happens by itself when its review is over, after the client's older drafts."
    elif story.invoice.period_id is not None:
        why += " A person does that."
    return NextReport(what=what, at=at, why=why)


def _why_nothing(invoice: Invoice) -> str:
    match InvoiceStatus(invoice.status):
        case InvoiceStatus.VOID:
            return "It is void and asks for nothing."
        case InvoiceStatus.UNCOLLECTIBLE:
            left = format_amount(invoice.amount_written_off, invoice.currency)
            return (
                f"It was given up: nothing is charged any more. {left} can still be paid: record "
                "what comes."
            )
        case _ if invoice.total < 0:
            return "It gave the client credit, and asks for nothing."
        case _:
            return "Nothing is due any more."


_UNDER_WAY = {
    AttemptState.PENDING: "Stripe is being asked to charge the card.",
    AttemptState.PROCESSING: "The bank has taken the charge and will say later; it can take days.",
    AttemptState.UNKNOWN: "Stripe's answer was lost. What came of the charge is asked, not guessed.",
}


def _waits_for_client(
    story: Story, last: PaymentAttempt | None
) -> tuple[NextStep, datetime | None, str]:
    if last is None or not last.is_page:
        why = "The bank wants the client to approve the charge; until then nothing is charged."
        return NextStep.AUTHENTICATE, None, why
    why = "The client has a page open on which it can pay."
    if story.invoice.next_attempt_at is not None:
        why += " Where it does not, the card is charged by itself, as planned."
    return NextStep.PAY, None, why


def _after(last: PaymentAttempt | None) -> str:
    """What the next step follows, if a try went wrong."""
    if last is None or last.state != AttemptState.DECLINED:
        return ""
    return f" The last try was declined ({last.decline_code or last.decline_class})."


def history_of(story: Story) -> list[HistoryItem]:
    """All that happened to an invoice, oldest first.

    What one transaction did bears times that differ by the moment between its job's start and
    its own: drafting and paying are put where they belong.
    """
    told = [
        *_beginning(story.invoice),
        *(item for entry in story.credit for item in _credit(entry, _BEFORE_PAID)),
        *(item for attempt in story.attempts for item in _attempt(attempt)),
        *(_payment(payment) for payment in story.payments),
        *(item for entry in story.credit for item in _credit(entry, _WITH_PAYMENT)),
        *(item for refund in story.refunds for item in _refund(refund)),
        *(_note(note) for note in story.notes),
        *(item for dispute in story.disputes for item in _dispute(dispute)),
        *_end(story),
        *(item for entry in story.credit for item in _credit(entry, _AT_THE_END)),
        *(item for mail in story.mails for item in _mail(mail)),
    ]
    return sorted(told, key=lambda item: item.at)


_BEFORE_PAID = {
    CreditEntryKind.APPLIED: Happening.CREDIT_APPLIED,
    CreditEntryKind.NEGATIVE_INVOICE: Happening.CREDIT_GIVEN,
    CreditEntryKind.CARRIED: Happening.REMAINDER_CARRIED,
}
_WITH_PAYMENT = {
    CreditEntryKind.OVERPAYMENT: Happening.KEPT_AS_CREDIT,
    CreditEntryKind.UNEXPECTED: Happening.KEPT_AS_CREDIT,
}
_AT_THE_END = {
    CreditEntryKind.RETURNED: Happening.CREDIT_RETURNED,
    CreditEntryKind.SETTLED: Happening.KEPT_AS_CREDIT,
    CreditEntryKind.CREDIT_NOTE: Happening.KEPT_AS_CREDIT,
    CreditEntryKind.REFUND: Happening.KEPT_AS_CREDIT,
    CreditEntryKind.REFUND_FAILED: Happening.KEPT_AS_CREDIT,
    CreditEntryKind.DISPUTE: Happening.CREDIT_TAKEN_BACK,
}

_MAILS = {
    MailState.QUEUED: Happening.MAIL_WAITING,
    MailState.CLAIMED: Happening.MAIL_WAITING,
    MailState.ACCEPTED: Happening.MAIL_SENT,
    MailState.DELIVERED: Happening.MAIL_DELIVERED,
    MailState.BOUNCED: Happening.MAIL_RETURNED,
    MailState.SUPPRESSED: Happening.MAIL_NOT_SENT,
    MailState.REFUSED: Happening.MAIL_NOT_SENT,
    MailState.UNKNOWN: Happening.MAIL_UNKNOWN,
}
_NOT_DELIVERED = {MailState.BOUNCED, MailState.SUPPRESSED}

_STARTED_BY = {
    Origin.AUTOMATIC: "by itself",
    Origin.STAFF: "on demand",
    Origin.CLIENT: "by the client",
}
_OUTCOMES = {
    AttemptState.SUCCEEDED: Happening.ATTEMPT_SUCCEEDED,
    AttemptState.DECLINED: Happening.ATTEMPT_DECLINED,
    AttemptState.CANCELED: Happening.ATTEMPT_CANCELED,
}


def _beginning(invoice: Invoice) -> Iterator[HistoryItem]:
    by = "by hand" if invoice.period_id is None else "for a billing period"
    at = min(invoice.created_at, invoice.finalized_at or invoice.created_at)
    yield HistoryItem(at=at, what=Happening.DRAFTED, detail=by)
    if invoice.finalized_at is not None:
        total = format_amount(invoice.total, invoice.currency)
        yield HistoryItem(
            at=invoice.finalized_at,
            what=Happening.FINALIZED,
            detail=f"{invoice.number}: {total}, due on {invoice.due_on}",
        )


def _end(story: Story) -> Iterator[HistoryItem]:
    invoice = story.invoice
    if invoice.paid_at is not None:
        used = [entry.created_at for entry in story.credit if entry.kind in _BEFORE_PAID]
        yield HistoryItem(at=max([invoice.paid_at, *used]), what=Happening.PAID, detail=None)
    for one in story.write_offs:
        given_up = format_amount(one.amount, invoice.currency)
        yield HistoryItem(at=one.at, what=Happening.WRITTEN_OFF, detail=given_up)
    if invoice.voided_at is not None:
        yield HistoryItem(at=invoice.voided_at, what=Happening.VOIDED, detail=None)
    if invoice.reissued_at is not None:
        yield HistoryItem(at=invoice.reissued_at, what=Happening.REISSUED, detail=None)


def _credit(entry: CreditEntry, shown: dict[CreditEntryKind, Happening]) -> Iterator[HistoryItem]:
    what = shown.get(CreditEntryKind(entry.kind))
    if what is None:
        return
    if what is Happening.CREDIT_APPLIED and entry.amount > 0:
        what = Happening.DEBIT_ADDED
    detail = format_amount(abs(entry.amount), entry.currency)
    yield HistoryItem(at=entry.created_at, what=what, detail=detail)


def _attempt(attempt: PaymentAttempt) -> Iterator[HistoryItem]:
    amount = format_amount(attempt.amount, attempt.currency)
    by = _STARTED_BY[Origin(attempt.origin)]
    waits = attempt.state == AttemptState.NEEDS_ACTION and not attempt.is_page
    how = ", on a page" if attempt.is_page else ""
    yield HistoryItem(
        at=attempt.created_at,
        what=Happening.ATTEMPT_STARTED,
        detail=f"try {attempt.ordinal} of {amount}, {by}{how}"
        + ("; the client has to authenticate" if waits else ""),
    )
    if attempt.settled_at is not None:
        said = [part for part in (attempt.decline_code, attempt.message) if part]
        yield HistoryItem(
            at=attempt.settled_at,
            what=_OUTCOMES[AttemptState(attempt.state)],
            detail=": ".join(said) or None,
        )


def _payment(payment: Payment) -> HistoryItem:
    amount = format_amount(payment.amount, payment.currency)
    said = [f"{amount}, {payment.method or payment.source}", payment.reference, payment.flagged]
    return HistoryItem(
        at=payment.created_at,
        what=Happening.PAYMENT_RECEIVED,
        detail=", ".join(part for part in said if part),
    )


def _note(note: CreditNote) -> HistoryItem:
    amount = format_amount(note.amount, note.currency)
    said = [f"{note.number}: {amount}", note.reason]
    return HistoryItem(
        at=note.created_at,
        what=Happening.CREDITED,
        detail=", ".join(part for part in said if part),
    )


def _refund(refund: Refund) -> Iterator[HistoryItem]:
    detail = f"{format_amount(refund.amount, refund.currency)} to {refund.destination}"
    if refund.succeeded_at is None or refund.succeeded_at > refund.created_at:
        yield HistoryItem(at=refund.created_at, what=Happening.REFUND_STARTED, detail=detail)
    if refund.succeeded_at is not None:
        yield HistoryItem(at=refund.succeeded_at, what=Happening.REFUNDED, detail=detail)
    if refund.state == RefundState.FAILED and refund.settled_at is not None:
        what = Happening.REFUND_CAME_BACK if refund.came_back else Happening.REFUND_REFUSED
        yield HistoryItem(at=refund.settled_at, what=what, detail=refund.message)


_ENDS = {
    DisputeState.CLOSED: Happening.DISPUTE_CLOSED,
    DisputeState.WON: Happening.DISPUTE_WON,
    DisputeState.LOST: Happening.DISPUTE_LOST,
}


def _dispute(dispute: Dispute) -> Iterator[HistoryItem]:
    detail = f"{format_amount(dispute.amount, dispute.currency)}, {dispute.reason}"
    if dispute.opened_at is None or dispute.opened_at > dispute.created_at:
        yield HistoryItem(at=dispute.created_at, what=Happening.QUESTIONED, detail=detail)
    if dispute.opened_at is not None:
        yield HistoryItem(at=dispute.opened_at, what=Happening.DISPUTE_OPENED, detail=detail)
    if dispute.closed_at is not None:
        what = _ENDS[DisputeState(dispute.state)]
        yield HistoryItem(at=dispute.closed_at, what=what, detail=_loss(dispute))


def _loss(dispute: Dispute) -> str | None:
    """What a lost dispute did, in words."""
    parts = (
        (dispute.reopened, "is due again"),
        (dispute.written_off, "is lost"),
        (dispute.taken_back, "is taken back from credit"),
    )
    said = [f"{format_amount(some, dispute.currency)} {what}" for some, what in parts if some]
    return ", ".join(said) or None


def _mail(mail: Mail) -> Iterator[HistoryItem]:
    to = f"{mail.kind} to {mail.recipient}" if mail.recipient else mail.kind
    why = f"{to}: {mail.reason}" if mail.reason else to
    last = mail.sent_at or mail.claimed_at or mail.created_at
    if mail.sent_at is not None:
        yield HistoryItem(at=mail.sent_at, what=Happening.MAIL_SENT, detail=to)
        if mail.delivered_at is not None:
            # Events tell whole seconds, so this may seem to come first.
            last = max(last, mail.delivered_at)
            yield HistoryItem(at=last, what=Happening.MAIL_DELIVERED, detail=to)
    if mail.sent_at is None or mail.state in _NOT_DELIVERED:
        yield HistoryItem(at=last, what=_MAILS[MailState(mail.state)], detail=why)
