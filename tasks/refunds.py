"""Money given back of an invoice: what there is to give, and what each refund does."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID
from zoneinfo import ZoneInfo

import structlog
from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.orm import Session

from billing.credit import CreditEntryKind
from billing.credit_notes import Destination, Settlement
from billing.cycles import local_date
from billing.errors import InvalidInput, NotFound, RuleViolation
from billing.invoice_states import InvoiceEvent, InvoiceStatus
from billing.postings import (
    LedgerEvent,
    Posting,
    postings_for_failed_refund,
    postings_for_refund,
)
from billing.refunds import UNSETTLED_REFUNDS, RefundState
from gateways.cards import ChargeRefused, RefundReport, RefundStatus
from models import Account, CreditNote, Dispute, Invoice, Payment, PaymentSource, Refund
from models.client import clients_for_update
from models.dispute import has_open_dispute
from models.invoice import invoices_for_update
from models.refund import refund_for_update, went_or_may_go
from tasks.credit_balances import CreditMove, apply_credit, balance_of, move_credit
from tasks.credit_notes import PAID_FROM, note_agreed, write_note
from tasks.posting import Entry, post
from tasks.settling import ASK_AFTER_PROCESSING

_log = structlog.get_logger(__name__)

_STATES = {
    RefundStatus.SUCCEEDED: RefundState.SUCCEEDED,
    RefundStatus.PROCESSING: RefundState.PROCESSING,
    RefundStatus.FAILED: RefundState.FAILED,
}


@dataclass(frozen=True, slots=True)
class Returnable:
    """A payment, and how much of what it paid on its invoice was not given back, in minor units.

    ``left_at_stripe`` is what its card can still be sent, of all of the payment. While it is
    disputed, nothing may be.
    """

    payment: Payment
    left: int
    left_at_stripe: int
    is_disputed: bool = False

    @property
    def left_on_card(self) -> int:
        """What may go back to its card."""
        return min(self.left, self.left_at_stripe)


def returnables(session: Session, invoice_id: UUID) -> list[Returnable]:
    """The payments of an invoice, newest first.

    Refunds under way count as gone, and what was lost in disputes is.
    """
    of_invoice = and_(went_or_may_go(), Refund.invoice_id.is_not(None))
    rows = session.execute(
        select(
            Payment,
            func.coalesce(func.sum(Refund.amount).filter(of_invoice), 0),
            _sent_to_card(),
            _lost(Dispute.reopened + Dispute.written_off),
            _lost_at_stripe(),
            has_open_dispute(Payment.id),
        )
        .outerjoin(Refund, Refund.payment_id == Payment.id)
        .where(Payment.invoice_id == invoice_id)
        .group_by(Payment.id)
        .order_by(Payment.id.desc())
    )
    return [
        Returnable(
            payment,
            left=payment.applied - int(given_back) - int(lost),
            left_at_stripe=payment.amount - int(sent) - int(lost_at_stripe)
            if payment.attempt_id is not None
            else 0,
            is_disputed=is_disputed,
        )
        for payment, given_back, sent, lost, lost_at_stripe, is_disputed in rows
    ]


def _lost(amount: ColumnElement[int]) -> ColumnElement[int]:
    """The sum over a payment's disputes."""
    of_payment = select(func.coalesce(func.sum(amount), 0)).where(Dispute.payment_id == Payment.id)
    return of_payment.scalar_subquery()


def _lost_at_stripe() -> ColumnElement[int]:
    """What the bank keeps of a payment, whatever that paid."""
    return _lost(Dispute.reopened + Dispute.written_off + Dispute.taken_back)


_AT_STRIPE = UNSETTLED_REFUNDS | {RefundState.SUCCEEDED}


def _sent_to_card() -> ColumnElement[int]:
    """What went to the card of a payment, or is on its way, for whatever: its refunds are joined."""
    # What a bank gave back can go to the card once more.
    at_stripe = and_(Refund.destination == Destination.CARD, Refund.state.in_(_AT_STRIPE))
    return func.coalesce(func.sum(Refund.amount).filter(at_stripe), 0)


def kept_of(invoice: Invoice) -> int:
    """What was paid for an invoice, by money or credit, and was neither given back nor lost."""
    money = invoice.amount_paid - invoice.amount_refunded - invoice.amount_lost
    return invoice.credit_applied + money


def card_payment_for(payments: Sequence[Returnable], amount: int) -> Payment:
    """The newest card payment that so much can go back to.

    Raises:
        InvalidInput: No single one can carry it (``amount_exceeds_paid``).
        RuleViolation: One could that is disputed (``payment_disputed``).
    """
    able = [
        one
        for one in payments
        if one.payment.source == PaymentSource.CARD and one.left_on_card >= amount
    ]
    for one in able:
        if not one.is_disputed:
            return one.payment
    if able:
        raise disputed()
    raise InvalidInput(
        "to",
        f"no single card payment can carry the {amount:,} minor units that go back: refund the "
        "payments one by one",
        code="amount_exceeds_paid",
    )


def require_card_payment(session: Session, client_id: UUID, currency: str, amount: int) -> UUID:
    """The newest card payment of a client that so much can go back to, whatever it paid.

    Raises:
        InvalidInput: No single one can carry it (``amount_exceeds_paid``).
    """
    found = session.scalar(
        select(Payment.id)
        .outerjoin(Refund, Refund.payment_id == Payment.id)
        .where(
            Payment.client_id == client_id,
            Payment.currency == currency,
            Payment.source == PaymentSource.CARD,
            Payment.amount >= amount,
            ~has_open_dispute(Payment.id),
        )
        .group_by(Payment.id)
        .having(Payment.amount - _sent_to_card() - _lost_at_stripe() >= amount)
        .order_by(Payment.id.desc())
        .limit(1)
    )
    if found is None:
        raise InvalidInput(
            "amount",
            f"no single card payment in {currency} can carry {amount:,} minor units: send them in "
            "parts, or outside",
            code="amount_exceeds_paid",
        )
    return found


def disputed() -> RuleViolation:
    """Why nothing is given back of a payment whose money the bank has."""
    return RuleViolation(
        "payment_disputed", "this payment is disputed: wait until the bank has decided"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked to be given back, and why; ``note_amount`` where a credit note says so.

    That note takes ``note_amount`` of the invoice, at least ``amount``, and names the lines at
    ``note_positions``.
    """

    amount: int
    to: Destination
    reason: str | None
    job_id: UUID
    requested_by: str
    note_amount: int | None = None
    note_positions: Sequence[int] = ()


def new_refund(invoice: Invoice, payment: Payment, asked: Asked, now: datetime) -> Refund:
    """A refund of a payment of an invoice, not yet in any state but the first."""
    return Refund(
        account_id=invoice.account_id,
        client_id=invoice.client_id,
        payment_id=payment.id,
        invoice_id=invoice.id,
        currency=invoice.currency,
        amount=asked.amount,
        destination=asked.to,
        state=RefundState.PENDING,
        makes_note=asked.note_amount is not None,
        note_amount=asked.note_amount,
        note_positions=list(asked.note_positions),
        reason=asked.reason,
        job_id=asked.job_id,
        requested_by=asked.requested_by,
        created_at=now,
    )


def give_back_outside(
    session: Session,
    invoice: Invoice,
    note: CreditNote,
    payments: Sequence[Returnable],
    job_id: UUID,
    *,
    now: datetime,
) -> list[UUID]:
    """Write down that what a note returns was given back outside; each refund's id.

    What came from outside goes back first, and the newest payments before older ones; nothing of
    what is disputed.
    """
    left = note.returned
    refunds = []
    for one in sorted(payments, key=lambda one: one.payment.source == PaymentSource.CARD):
        amount = 0 if one.is_disputed else min(one.left, left)
        if amount > 0:
            left -= amount
            asked = Asked(
                amount=amount,
                to=Destination.OUTSIDE,
                reason=note.reason,
                job_id=job_id,
                requested_by=note.requested_by,
            )
            refund = new_refund(invoice, one.payment, asked, now)
            refund.makes_note, refund.credit_note_id = True, note.id
            refund.move(RefundState.SUCCEEDED, now)
            refunds.append(refund)
    session.add_all(refunds)
    session.flush()
    return [refund.id for refund in refunds]


def lock_refund(session: Session, refund_id: UUID) -> Refund:
    """A refund under its own lock and its client's and invoice's, in that order."""
    refund = session.get(Refund, refund_id)
    if refund is None:
        raise NotFound("refund", str(refund_id))
    session.scalars(clients_for_update([refund.client_id])).one()
    if refund.invoice_id is not None:
        session.scalars(invoices_for_update([refund.invoice_id])).one()
    return session.scalars(refund_for_update(refund_id)).one()


def settle_refund(
    session: Session,
    refund_id: UUID,
    news: RefundReport | ChargeRefused,
    *,
    now: datetime,
    requested_by: str,
) -> Refund:
    """Write down what became of a refund, whoever brings the news, with all that follows.

    News that is older than what is known changes nothing, so it may come twice and in any order.
    """
    refund = lock_refund(session, refund_id)
    to = RefundState.FAILED if isinstance(news, ChargeRefused) else _STATES[news.status]
    was = RefundState(refund.state)
    try:
        refund.move(to, now, ask_at=now + ASK_AFTER_PROCESSING)
    except RuleViolation:
        if to == RefundState.SUCCEEDED and was == RefundState.FAILED:
            _log.error("refund succeeded after it had failed", refund=str(refund_id))
        return refund
    if isinstance(news, RefundReport):
        refund.stripe_refund, refund.message = news.refund, news.message
    else:
        refund.message = str(news)
    if was == RefundState.SUCCEEDED:
        _log.error("refund came back", refund=str(refund_id), reason=refund.message)
        give_as_credit(session, refund, now=now, requested_by=requested_by)
    elif to in _ENDED and refund.invoice_id is not None:
        _end(session, refund, now=now, requested_by=requested_by)
    elif to == RefundState.FAILED:
        # Unused credit was taken off its balance before Stripe was asked.
        give_as_credit(session, refund, now=now, requested_by=requested_by)
    session.flush()
    return refund


_ENDED = frozenset({RefundState.SUCCEEDED, RefundState.FAILED})


def _end(session: Session, refund: Refund, *, now: datetime, requested_by: str) -> None:
    """A refund of an invoice has its outcome: what it does is done now, or never."""
    account = session.get_one(Account, refund.account_id)
    invoice = session.get_one(Invoice, refund.invoice_id)
    was_open = invoice.status == InvoiceStatus.OPEN
    if refund.state == RefundState.SUCCEEDED:
        take_effect(session, account, invoice, refund, now=now, requested_by=requested_by)
    if was_open:
        # What came while it was under way had to leave this invoice alone.
        session.flush()
        apply_credit(
            session,
            account,
            [refund.client_id],
            currency=refund.currency,
            now=now,
            requested_by=requested_by,
        )


def take_effect(
    session: Session,
    account: Account,
    invoice: Invoice,
    refund: Refund,
    *,
    now: datetime,
    requested_by: str,
) -> None:
    """What a refund that has succeeded does to its invoice: a credit note, or the debt again."""
    if refund.note_amount is None:
        _reopen(session, account, invoice, refund, now=now, requested_by=requested_by)
        return
    # Money that came late may have settled what the note was to lower.
    lowers_due = min(refund.note_amount - refund.amount, invoice.outstanding)
    note = write_note(
        session,
        account,
        invoice,
        note_agreed(session, invoice, refund.amount + lowers_due, refund.note_positions),
        Settlement(lowers_due, refund.amount),
        to=Destination(refund.destination),
        reason=refund.reason,
        now=now,
        requested_by=refund.requested_by,
    )
    refund.credit_note_id = note.id


def _reopen(
    session: Session,
    account: Account,
    invoice: Invoice,
    refund: Refund,
    *,
    now: datetime,
    requested_by: str,
) -> None:
    """The debt is there again, and nobody charges for it by itself."""
    destination = Destination(refund.destination)
    if destination == Destination.CREDIT:
        balance_of(session, invoice.client_id, invoice.currency)
    invoice.amount_refunded += refund.amount
    invoice.auto_collect, invoice.next_attempt_at = False, None
    if invoice.status == InvoiceStatus.PAID:
        invoice.apply(InvoiceEvent.REOPEN, now)
    session.flush()
    _post(
        session,
        LedgerEvent.REFUND,
        account,
        refund,
        postings_for_refund(PAID_FROM[destination], refund.amount),
        now=now,
    )
    if destination == Destination.CREDIT:
        move_credit(session, [_move(refund, CreditEntryKind.REFUND, requested_by)])
        _use_elsewhere(session, account, invoice, now=now, requested_by=requested_by)


def _use_elsewhere(
    session: Session, account: Account, invoice: Invoice, *, now: datetime, requested_by: str
) -> None:
    """Use what came back for the client's other debts: this one was just opened again on purpose."""
    others = session.scalars(
        select(Invoice.id).where(
            Invoice.client_id == invoice.client_id,
            Invoice.currency == invoice.currency,
            Invoice.status == InvoiceStatus.OPEN,
            Invoice.id != invoice.id,
        )
    ).all()
    apply_credit(
        session,
        account,
        [invoice.client_id],
        invoice_ids=others,
        currency=invoice.currency,
        now=now,
        requested_by=requested_by,
    )


def give_as_credit(session: Session, refund: Refund, *, now: datetime, requested_by: str) -> None:
    """The money did not reach the client: it has it as credit, which is used at once."""
    account = session.get_one(Account, refund.account_id)
    session.flush()
    _post(
        session,
        LedgerEvent.REFUND_FAILED,
        account,
        refund,
        postings_for_failed_refund(refund.amount),
        now=now,
    )
    move_credit(session, [_move(refund, CreditEntryKind.REFUND_FAILED, requested_by)])
    apply_credit(
        session,
        account,
        [refund.client_id],
        currency=refund.currency,
        now=now,
        requested_by=requested_by,
    )


def _post(
    session: Session,
    event: LedgerEvent,
    account: Account,
    refund: Refund,
    postings: tuple[Posting, ...],
    *,
    now: datetime,
) -> None:
    post(
        session,
        event,
        [
            Entry(
                account_id=account.id,
                client_id=refund.client_id,
                currency=refund.currency,
                effective_on=local_date(now, ZoneInfo(account.time_zone)),
                invoice_id=refund.invoice_id,
                refund_id=refund.id,
                postings=postings,
            )
        ],
    )


def _move(refund: Refund, kind: CreditEntryKind, requested_by: str) -> CreditMove:
    return CreditMove(
        account_id=refund.account_id,
        client_id=refund.client_id,
        currency=refund.currency,
        kind=kind,
        amount=refund.amount,
        invoice_id=refund.invoice_id,
        refund_id=refund.id,
        requested_by=requested_by,
    )
