"""Disputes: what a client's bank takes back of payments, gives back, or keeps."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from zoneinfo import ZoneInfo

import structlog
from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from billing.credit import CreditEntryKind
from billing.credit_notes import Destination
from billing.cycles import local_date
from billing.disputes import (
    PENDING,
    DisputeLost,
    DisputeState,
    Loss,
    loss_of,
    steps_to,
)
from billing.errors import DuecourseError
from billing.invoice_states import InvoiceEvent, InvoiceStatus
from billing.postings import (
    LedgerEvent,
    Posting,
    postings_for_losing_dispute,
    postings_for_opening_dispute,
    postings_for_writing_off,
    reversed_postings,
)
from billing.refunds import UNSETTLED_REFUNDS
from gateways.disputes import DisputeReport, DisputeStatus
from gateways.payment_events import PaymentEvent, RefundedCharge
from models import (
    Account,
    Dispute,
    Invoice,
    Payment,
    PaymentAttempt,
    Refund,
    WebhookEvent,
)
from models.client import clients_for_update
from models.dispute import dispute_for_update
from models.invoice import invoices_for_update
from models.payment_attempt import STILL_OPEN
from models.refund import went_or_may_go
from tasks.believed_events import comes_from_where_made
from tasks.collecting import wake_collection
from tasks.credit_balances import CreditMove, balance_of, move_credit, write_expiries
from tasks.disputed_cards import resume_disputed_card, stop_disputed_card
from tasks.kinds import Run
from tasks.outcomes import Done, Outcome, Snooze
from tasks.posting import Entry, post
from tasks.refunds import kept_of, returnables

_log = structlog.get_logger(__name__)

FIRST_WAIT = timedelta(minutes=1)

PATIENCE = timedelta(days=3)
"""How long a dispute of a payment that is still being written down waits for that."""

STATES: Mapping[DisputeStatus, DisputeState] = MappingProxyType(
    {
        DisputeStatus.WARNING_NEEDS_RESPONSE: DisputeState.INQUIRY,
        DisputeStatus.WARNING_UNDER_REVIEW: DisputeState.INQUIRY,
        DisputeStatus.WARNING_CLOSED: DisputeState.CLOSED,
        DisputeStatus.PREVENTED: DisputeState.CLOSED,
        DisputeStatus.NEEDS_RESPONSE: DisputeState.OPEN,
        DisputeStatus.UNDER_REVIEW: DisputeState.OPEN,
        DisputeStatus.WON: DisputeState.WON,
        DisputeStatus.LOST: DisputeState.LOST,
    }
)
"""What Stripe's word means here."""


class PaymentNotKnownYet(DuecourseError):  # noqa: N818 - named as the fact it states.
    """A dispute is about a payment whose success is not written down."""


class DisputeInOtherCurrency(DuecourseError):  # noqa: N818 - named as the fact it states.
    """A dispute is of other money than the payment that it names."""


def handle_money_taken_back(
    run: Run, session: Session, event: WebhookEvent, told: PaymentEvent
) -> Outcome:
    """Write down what an event says of money that went back by other hands than ours."""
    about = told.refunded or told.dispute
    intent = None if about is None else about.payment_intent
    attempt = session.scalar(select(PaymentAttempt).where(PaymentAttempt.payment_intent == intent))
    if attempt is not None and not comes_from_where_made(session, event, told, attempt):
        event.outcome = "not_ours"
        return Done({"event": event.event_id, "outcome": event.outcome})
    if told.refunded is not None:
        return _handle_refunded_charge(session, event, told.refunded)
    return _handle_dispute(run, session, event, told)


def _handle_dispute(run: Run, session: Session, event: WebhookEvent, told: PaymentEvent) -> Outcome:
    """Write down what an event says of a dispute of one of our payments.

    That payment's own success may be still to come: then this waits for it, but not for ever.
    """
    report = told.dispute
    if report is None or report.payment_intent is None:
        event.outcome = "not_ours" if report else "unreadable"
        if report is None:
            _log.error("dispute cannot be read", stripe_event=event.event_id)
        return Done({"event": event.event_id, "outcome": event.outcome})
    payment = session.scalar(
        select(Payment)
        .join(PaymentAttempt, PaymentAttempt.id == Payment.attempt_id)
        .where(PaymentAttempt.payment_intent == report.payment_intent)
    )
    if payment is None:
        return _without_payment(run, session, event, report)
    try:
        dispute = settle_dispute(
            session,
            payment,
            report,
            told_at=told.created_at,
            now=run.now,
            requested_by=f"stripe:{event.event_id}",
        )
    except DisputeInOtherCurrency:
        event.account_id, event.outcome = payment.account_id, "other_currency"
        _log.error("dispute in another currency", dispute=report.dispute, payment=str(payment.id))
        return Done({"event": event.event_id, "outcome": event.outcome})
    event.account_id, event.outcome = dispute.account_id, dispute.state
    wake_collection(session, [dispute.client_id], now=run.now, requested_by=f"job:{run.job_id}")
    return Done({"event": event.event_id, "dispute": str(dispute.id), "outcome": event.outcome})


def _without_payment(
    run: Run, session: Session, event: WebhookEvent, report: DisputeReport
) -> Outcome:
    """Wait where the payment may be one of ours, of which only Stripe knows so far."""
    # It stands in no attempt before the first answer does; the dispute came after the question.
    unanswered = PaymentAttempt.payment_intent.is_(None) & PaymentAttempt.state.in_(STILL_OPEN)
    may_be_ours = session.scalar(
        select(PaymentAttempt.account_id)
        .where(
            or_(
                PaymentAttempt.payment_intent == report.payment_intent,
                unanswered
                & (PaymentAttempt.currency == report.currency)
                & (PaymentAttempt.created_at <= report.created_at),
            )
        )
        .order_by(PaymentAttempt.payment_intent.is_(None))
        .limit(1)
    )
    waited = max(run.now - event.received_at, timedelta(0))
    if may_be_ours is not None and waited < PATIENCE:
        event.handled_at = None
        unknown = PaymentNotKnownYet(f"{report.payment_intent} is not written down as paid")
        return Snooze(max(waited, FIRST_WAIT), unknown)
    event.outcome = "not_ours" if may_be_ours is None else "unknown_payment"
    if may_be_ours is not None:
        _log.error(
            "dispute of an unknown payment",
            dispute=report.dispute,
            payment_intent=report.payment_intent,
        )
    return Done({"event": event.event_id, "outcome": event.outcome})


def _handle_refunded_charge(
    session: Session, event: WebhookEvent, refunded: RefundedCharge
) -> Outcome:
    """Flag what was sent back of one of our payments by somebody else: nothing is booked of it."""
    attempt = session.scalar(
        select(PaymentAttempt).where(PaymentAttempt.payment_intent == refunded.payment_intent)
    )
    if attempt is None:
        event.outcome = "not_ours"
        return Done({"event": event.event_id, "outcome": event.outcome})
    event.account_id, event.outcome = attempt.account_id, "known"
    asked_for = session.scalar(
        select(func.coalesce(func.sum(Refund.amount), 0))
        .join(Payment, Payment.id == Refund.payment_id)
        .where(
            Payment.attempt_id == attempt.id,
            Refund.destination == Destination.CARD,
            # Also one that has failed since: it had not when this was told.
            or_(Refund.stripe_refund.is_not(None), went_or_may_go()),
        )
    )
    if refunded.amount > (asked_for or 0):
        event.outcome = "made_elsewhere"
        _log.error(
            "refund made elsewhere",
            attempt=str(attempt.id),
            payment_intent=refunded.payment_intent,
            refunded=refunded.amount,
            asked_for=asked_for,
        )
    return Done({"event": event.event_id, "attempt": str(attempt.id), "outcome": event.outcome})


def settle_dispute(
    session: Session,
    payment: Payment,
    report: DisputeReport,
    *,
    told_at: datetime,
    now: datetime,
    requested_by: str,
) -> Dispute:
    """Write down how a dispute of a payment stands, whoever brings the news, with all that follows.

    News that is older than what is known changes nothing, so it may come twice and in any order;
    states that nobody told of are gone through. ``told_at`` is when it stood so at Stripe.

    Raises:
        DisputeInOtherCurrency: Nothing was written of it.
    """
    if report.currency != payment.currency:
        raise DisputeInOtherCurrency(
            f"{report.dispute} is in {report.currency}, its payment in {payment.currency}"
        )
    session.scalars(clients_for_update([payment.client_id])).one()
    if payment.invoice_id is not None:
        session.scalars(invoices_for_update([payment.invoice_id])).one()
    dispute = session.scalars(dispute_for_update(report.dispute)).one_or_none()
    to = STATES[report.status]
    steps = steps_to(None if dispute is None else DisputeState(dispute.state), to)
    if dispute is None:
        dispute = _new_dispute(payment, report, told_at, now)
    elif told_at >= dispute.told_at and (steps or to == dispute.state):
        dispute.status, dispute.reason = report.status, report.reason
        dispute.evidence_due_at, dispute.told_at = report.evidence_due_at, told_at
    _look_for_contradictions(dispute, report, steps)
    for step in steps:
        _Course(session, dispute, payment, now=now, requested_by=requested_by).go(step)
    session.flush()
    return dispute


def _new_dispute(
    payment: Payment, report: DisputeReport, told_at: datetime, now: datetime
) -> Dispute:
    return Dispute(
        account_id=payment.account_id,
        client_id=payment.client_id,
        payment_id=payment.id,
        invoice_id=payment.invoice_id,
        stripe_dispute=report.dispute,
        currency=payment.currency,
        amount=report.amount,
        status=report.status,
        reason=report.reason,
        evidence_due_at=report.evidence_due_at,
        disputed_at=report.created_at,
        told_at=told_at,
        reopened=0,
        written_off=0,
        taken_back=0,
        created_at=now,
    )


def _look_for_contradictions(
    dispute: Dispute, report: DisputeReport, steps: tuple[DisputeState, ...]
) -> None:
    """Adopt the amount while nothing was booked of it; have a person look at what comes too late."""
    if dispute.opened_at is None:
        dispute.amount = report.amount
    elif dispute.amount != report.amount:
        _log.error("dispute changed its amount", dispute=report.dispute, amount=report.amount)
    to = STATES[report.status]
    is_end = to in {DisputeState.WON, DisputeState.LOST}
    if is_end and not steps and dispute.state != to:
        _log.error("dispute ended twice", dispute=report.dispute, was=dispute.state, told=to)


class _Course:
    """One step of a dispute, in the transaction that holds the locks."""

    def __init__(
        self,
        session: Session,
        dispute: Dispute,
        payment: Payment,
        *,
        now: datetime,
        requested_by: str,
    ) -> None:
        self._session = session
        self._dispute = dispute
        self._payment = payment
        self._now = now
        self._requested_by = requested_by
        self._account = session.get_one(Account, payment.account_id)
        self._attempt = session.get_one(PaymentAttempt, payment.attempt_id)

    def go(self, to: DisputeState) -> None:
        """Go to a state, and do what that means."""
        match to:
            case DisputeState.OPEN:
                self._open()
            case DisputeState.WON:
                self._win()
            case DisputeState.LOST:
                self._lose()
            case _:
                self._be(to)

    def _be(self, state: DisputeState) -> None:
        self._dispute.state = state
        if state not in PENDING:
            self._dispute.closed_at = self._now
        self._session.add(self._dispute)
        self._session.flush()

    def _open(self) -> None:
        """The bank has the money: its card is charged no more by itself."""
        self._dispute.opened_at, self._dispute.closed_at = self._now, None
        self._be(DisputeState.OPEN)
        self._post(LedgerEvent.DISPUTE_OPENED, postings_for_opening_dispute(self._dispute.amount))
        stop_disputed_card(self._session, self._dispute.client_id, self._attempt.payment_method)

    def _win(self) -> None:
        self._be(DisputeState.WON)
        self._post(
            LedgerEvent.DISPUTE_WON,
            reversed_postings(postings_for_opening_dispute(self._dispute.amount)),
        )
        resume_disputed_card(
            self._session,
            self._dispute.client_id,
            self._attempt.payment_method,
            now=self._now,
            requested_by=self._requested_by,
        )

    def _lose(self) -> None:
        """The money is gone: the debt is there again, or a loss; credit is taken back."""
        loss = self._loss()
        if loss.taken_back:
            # Locked before anything is booked, as everywhere.
            balance_of(self._session, self._dispute.client_id, self._dispute.currency)
        if self._dispute.invoice_id is not None:
            self._charge_to(self._session.get_one(Invoice, self._dispute.invoice_id), loss)
        self._dispute.reopened = loss.reopened
        self._dispute.written_off = loss.written_off
        self._dispute.taken_back = loss.taken_back
        self._be(DisputeState.LOST)
        self._post(
            LedgerEvent.DISPUTE_LOST,
            postings_for_losing_dispute(
                reopened=loss.reopened,
                written_off=loss.written_off,
                taken_back=loss.taken_back,
            ),
        )
        self._post(
            LedgerEvent.WRITE_OFF, postings_for_writing_off(loss.given_up), is_of_dispute=False
        )
        if loss.taken_back:
            self._take_back(loss.taken_back)

    def _loss(self) -> Loss:
        dispute, rule = self._dispute, DisputeLost(self._account.dispute_lost)
        if dispute.invoice_id is None:
            return loss_of(dispute.amount, settles=0, invoice=None, rule=rule)
        invoice = self._session.get_one(Invoice, dispute.invoice_id)
        [of_payment] = [
            one
            for one in returnables(self._session, invoice.id)
            if one.payment.id == self._payment.id
        ]
        # A refund under way has gone from the payment, and not yet from the invoice.
        under_way = self._session.scalar(
            select(func.coalesce(func.sum(Refund.amount), 0)).where(
                Refund.invoice_id == invoice.id, Refund.state.in_(UNSETTLED_REFUNDS)
            )
        )
        return loss_of(
            dispute.amount,
            settles=min(of_payment.left, kept_of(invoice) - int(under_way or 0)),
            invoice=InvoiceStatus(invoice.status),
            rule=rule,
        )

    def _charge_to(self, invoice: Invoice, loss: Loss) -> None:
        """What the loss means for the invoice that the payment had settled."""
        invoice.amount_lost += loss.written_off
        if not loss.reopened:
            return
        invoice.amount_refunded += loss.reopened
        invoice.amount_written_off += loss.given_up
        # Nobody charges for it by itself: its client said that it does not want to pay.
        invoice.auto_collect, invoice.next_attempt_at = False, None
        if invoice.status == InvoiceStatus.PAID:
            invoice.apply(InvoiceEvent.REOPEN, self._now)

    def _take_back(self, amount: int) -> None:
        write_expiries(
            self._session,
            self._account,
            [self._dispute.client_id],
            now=self._now,
            requested_by=self._requested_by,
        )
        move_credit(
            self._session,
            [
                CreditMove(
                    account_id=self._account.id,
                    client_id=self._dispute.client_id,
                    currency=self._dispute.currency,
                    kind=CreditEntryKind.DISPUTE,
                    amount=-amount,
                    invoice_id=self._dispute.invoice_id,
                    dispute_id=self._dispute.id,
                    requested_by=self._requested_by,
                )
            ],
        )

    def _post(
        self, event: LedgerEvent, postings: tuple[Posting, ...], *, is_of_dispute: bool = True
    ) -> None:
        post(
            self._session,
            event,
            [
                Entry(
                    account_id=self._account.id,
                    client_id=self._dispute.client_id,
                    currency=self._dispute.currency,
                    effective_on=local_date(self._now, ZoneInfo(self._account.time_zone)),
                    invoice_id=self._dispute.invoice_id,
                    dispute_id=self._dispute.id if is_of_dispute else None,
                    postings=postings,
                )
            ],
        )
