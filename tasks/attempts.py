"""Payment attempts: written down before the card is touched, and what comes of them."""

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from billing.card_amounts import minimum_charge, to_stripe
from billing.collection import (
    UNSETTLED,
    AttemptState,
    Origin,
)
from billing.credit import CreditEntryKind
from billing.cycles import local_date
from billing.declines import STOPS_AUTOMATIC_TRIES, DeclineClass, decline_class
from billing.dunning import next_try
from billing.errors import InvalidInput, NotFound, RuleViolation
from billing.invoice_states import InvoiceEvent, InvoiceStatus
from billing.job_states import retry_delay
from billing.postings import LedgerEvent, postings_for_applying_credit
from billing.unknown_outcomes import next_ask
from gateways.cards import (
    CardCharge,
    CardReport,
    CardStatus,
    CardsUnavailable,
    ChargeOutcomeUnknown,
    ChargeRefused,
)
from models import Account, BillingMethod, Client, Invoice, PaymentAttempt, PaymentSource
from models.client import clients_for_update
from models.invoice import invoices_for_update
from models.payment_attempt import attempt_for_update
from tasks.calls import Call, Gateways, Step
from tasks.credit_balances import CreditMove, move_credit
from tasks.kinds import Run
from tasks.mailing import tell_payment_failed, tell_receipt
from tasks.outcomes import Snooze
from tasks.payments import Received, receive
from tasks.posting import Entry, post

# A bank debit is told by its webhook days later; one that got lost is asked after.
ASK_AFTER_PROCESSING = timedelta(days=1)

Answer = CardReport | ChargeRefused | CardsUnavailable | ChargeOutcomeUnknown

Ended = Callable[[Session, PaymentAttempt | None], Step]
"""How a job goes on after an attempt; ``None`` where the card was not needed."""

_STATES = {
    CardStatus.SUCCEEDED: AttemptState.SUCCEEDED,
    CardStatus.PROCESSING: AttemptState.PROCESSING,
    CardStatus.NEEDS_ACTION: AttemptState.NEEDS_ACTION,
    CardStatus.DECLINED: AttemptState.DECLINED,
    CardStatus.CANCELED: AttemptState.CANCELED,
}


def begin_attempt(
    session: Session,
    run: Run,
    invoice: Invoice,
    method: BillingMethod,
    *,
    origin: Origin,
    ended: Ended,
) -> Step:
    """Write an attempt for all that is due of an invoice down, and ask for it.

    What is below Stripe's minimum is carried to the next invoice instead, with no call. The
    caller holds the client's lock and the invoice's, and knows that no attempt is under way.
    ``ended`` says how the job goes on once there is an answer, or none was needed.

    Raises:
        RuleViolation: Stripe charges no such amount (``not_chargeable``).
    """
    account = session.get_one(Account, invoice.account_id)
    due = invoice.amount_due
    try:
        too_little = due < minimum_charge(invoice.currency)
        if not too_little:
            to_stripe(due, invoice.currency)
    except InvalidInput as error:
        raise RuleViolation("not_chargeable", str(error)) from error
    if too_little:
        _carry(session, account, invoice, now=run.now, requested_by=run.requested_by)
        return ended(session, None)
    attempt_id = session.scalars(select(func.uuid7())).one()
    invoice.attempt_count += 1
    attempt = PaymentAttempt(
        id=attempt_id,
        account_id=account.id,
        client_id=invoice.client_id,
        invoice_id=invoice.id,
        job_id=run.job_id,
        ordinal=invoice.attempt_count,
        origin=origin,
        amount=due,
        currency=invoice.currency,
        customer=method.stripe_customer,
        payment_method=method.payment_method,
        idempotency_key=f"duecourse-attempt-{attempt_id}",
        first_asked_at=run.now,
        next_ask_at=next_ask(0, run.now, run.now),
        created_at=run.now,
    )
    session.add(attempt)
    session.flush()
    return ask_for(session, run, attempt, ended)


def ask_for(session: Session, run: Run, attempt: PaymentAttempt, ended: Ended) -> Call:
    """Ask Stripe for an attempt under its key: the first time, or again. Hold its lock."""
    attempt.asks += 1
    order = order_of(session, attempt)
    return Call(partial(charge, order), partial(_record, run, attempt.id, ended))


def withdraw(run: Run, attempt: PaymentAttempt, ended: Ended) -> Call:
    """Cancel an attempt that waits for the client; Stripe may say that it is being paid."""
    intent = str(attempt.payment_intent)

    def ask(gateways: Gateways) -> Answer:
        return answered(lambda: gateways.cards.cancel(intent))

    return Call(ask, partial(_record, run, attempt.id, ended))


def order_of(session: Session, attempt: PaymentAttempt) -> CardCharge:
    """What Stripe is asked for: the same every time, or its key would refuse it."""
    invoice = session.get_one(Invoice, attempt.invoice_id)
    return CardCharge(
        amount=attempt.amount,
        currency=attempt.currency,
        customer=attempt.customer,
        payment_method=attempt.payment_method,
        idempotency_key=attempt.idempotency_key,
        description=f"Invoice {invoice.number}",
        metadata={
            "account": str(attempt.account_id),
            "client": str(attempt.client_id),
            "invoice": str(attempt.invoice_id),
            "attempt": str(attempt.id),
        },
        sent_since=attempt.first_asked_at or attempt.created_at,
    )


def charge(order: CardCharge, gateways: Gateways) -> Answer:
    """Ask for the charge; what went wrong is an answer, too: it is written down."""
    return answered(lambda: gateways.cards.charge(order))


def answered(ask: Callable[[], CardReport]) -> Answer:
    """What Stripe says, or why it says nothing."""
    try:
        return ask()
    except (ChargeRefused, CardsUnavailable, ChargeOutcomeUnknown) as answer:
        return answer


def _record(run: Run, attempt_id: UUID, ended: Ended, session: Session, answer: Answer) -> Step:
    match answer:
        case CardsUnavailable():
            attempt = lock_attempt(session, attempt_id)
            if attempt.state in {AttemptState.PENDING, AttemptState.NEEDS_ACTION}:
                # Nothing was done: the same again, whenever Stripe is back.
                jitter = random.random()  # noqa: S311 - it spreads retries
                after = answer.retry_after or retry_delay(max(attempt.asks, 1), jitter=jitter)
                if attempt.state == AttemptState.PENDING:
                    attempt.next_ask_at = next_ask(0, run.now + after, run.now + after)
                return Snooze(after, answer)
        case ChargeOutcomeUnknown():
            attempt = lock_attempt(session, attempt_id)
            if attempt.state == AttemptState.PENDING:
                attempt.message = str(answer)
                attempt.move(
                    AttemptState.UNKNOWN,
                    run.now,
                    ask_at=next_ask(0, run.now, attempt.first_asked_at or run.now),
                )
        case _:
            attempt = settle_attempt(
                session, attempt_id, answer, now=run.now, requested_by=f"job:{run.job_id}"
            )
    return ended(session, attempt)


def as_result(attempt: PaymentAttempt) -> dict[str, Any]:
    """What a job's reader is told of an attempt."""
    return {
        "invoice": str(attempt.invoice_id),
        "attempt": str(attempt.id),
        "state": attempt.state,
        "decline_code": attempt.decline_code,
    }


def lock_attempt(session: Session, attempt_id: UUID) -> PaymentAttempt:
    """An attempt under its own lock and its client's and invoice's, in that order."""
    attempt = session.get(PaymentAttempt, attempt_id)
    if attempt is None:
        raise NotFound("payment_attempt", str(attempt_id))
    session.scalars(clients_for_update([attempt.client_id])).one()
    session.scalars(invoices_for_update([attempt.invoice_id])).one()
    return session.scalars(attempt_for_update(attempt_id)).one()


def settle_attempt(
    session: Session,
    attempt_id: UUID,
    news: CardReport | ChargeRefused,
    *,
    now: datetime,
    requested_by: str,
) -> PaymentAttempt:
    """Write down what became of an attempt, whoever brings the news, with all that follows.

    News that is older than what is known changes nothing, so it may come twice and in any order.
    """
    attempt = lock_attempt(session, attempt_id)
    to = AttemptState.DECLINED if isinstance(news, ChargeRefused) else _STATES[news.status]
    was = AttemptState(attempt.state)
    try:
        attempt.move(to, now, ask_at=now + ASK_AFTER_PROCESSING)
    except RuleViolation:
        return attempt
    if isinstance(news, CardReport):
        attempt.payment_intent = news.payment_intent
        attempt.decline_code = news.decline_code
        attempt.message = news.message
    else:
        attempt.decline_code, attempt.message = news.code, str(news)
    settlement = _Settlement(session, attempt, now=now, requested_by=requested_by)
    match to:
        case AttemptState.SUCCEEDED if isinstance(news, CardReport):
            settlement.succeed(news.amount_received)
        case AttemptState.DECLINED:
            # What Stripe does not even try, it will not take from this card later.
            refused = isinstance(news, ChargeRefused)
            settlement.decline(
                DeclineClass.NEEDS_NEW_CARD if refused else decline_class(attempt.decline_code)
            )
        case AttemptState.NEEDS_ACTION:
            settlement.wait_for_client()
        case AttemptState.CANCELED if was in UNSETTLED:
            settlement.stop()
        case _:
            pass
    session.flush()
    return attempt


class _Settlement:
    """What follows from an attempt's news, in the transaction that holds its locks."""

    def __init__(
        self, session: Session, attempt: PaymentAttempt, *, now: datetime, requested_by: str
    ) -> None:
        self._session = session
        self._attempt = attempt
        self._now = now
        self._requested_by = requested_by
        self._account = session.get_one(Account, attempt.account_id)
        self._client = session.get_one(Client, attempt.client_id)
        self._invoice = session.get_one(Invoice, attempt.invoice_id)
        # The client's card, if it is still the one that was tried.
        self._card = session.scalar(
            select(BillingMethod).where(
                BillingMethod.client_id == attempt.client_id,
                BillingMethod.payment_method == attempt.payment_method,
            )
        )
        self._is_automatic = attempt.origin == Origin.AUTOMATIC

    def succeed(self, amount: int) -> None:
        """Money came: it settles the invoice, or is credit where nothing is due any more."""
        due = self._invoice.amount_due if self._invoice.status == InvoiceStatus.OPEN else 0
        payment = receive(
            self._session,
            self._account,
            Received(
                client_id=self._attempt.client_id,
                currency=self._attempt.currency,
                amount=amount,
                source=PaymentSource.CARD,
                paid_on=local_date(self._now, ZoneInfo(self._account.time_zone)),
                event=LedgerEvent.CARD_PAYMENT,
                excess=CreditEntryKind.UNEXPECTED,
                requested_by=self._requested_by,
                attempt_id=self._attempt.id,
                flagged=None if amount <= due else f"invoice_{self._invoice.status}",
            ),
            invoice=self._invoice,
            now=self._now,
        )
        if self._card is not None:
            self._card.stopped_for = None
        tell_receipt(
            self._session, self._account, self._client, payment, requested_by=self._requested_by
        )

    def decline(self, kind: DeclineClass) -> None:
        """The card refused: the next try follows the schedule, if any try can help."""
        self._attempt.decline_class = kind
        if self._is_automatic and self._invoice.status == InvoiceStatus.OPEN:
            self._invoice.failures += 1
            self._invoice.next_attempt_at = (
                self._try_after(self._invoice.failures) if kind == DeclineClass.SOFT else None
            )
            self._hold_the_rest(self._invoice.next_attempt_at or self._try_after(1))
        if kind in STOPS_AUTOMATIC_TRIES and self._card is not None:
            self._card.stopped_for = self._attempt.decline_code or kind
            self._stop_all()
        if self._is_automatic:
            self._tell()

    def wait_for_client(self) -> None:
        """Only the client can go on, by authenticating."""
        self._attempt.decline_class = DeclineClass.NEEDS_AUTHENTICATION
        if self._is_automatic:
            self._invoice.next_attempt_at = None
            self._hold_the_rest(self._try_after(1))
        self._tell()

    def stop(self) -> None:
        """Somebody cancelled it at Stripe: trying again by itself would undo that."""
        if self._is_automatic:
            self._invoice.next_attempt_at = None

    def _try_after(self, failures: int) -> datetime | None:
        zone = self._client.zone(self._account)
        return next_try(self._now, failures, zone, self._account.dunning_days)

    def _hold_the_rest(self, until: datetime | None) -> None:
        """One client's charges go one after another: a decline holds the others."""
        if until is None:
            self._stop_all()
            return
        self._session.execute(
            update(Invoice)
            .where(
                Invoice.client_id == self._client.id,
                Invoice.id != self._invoice.id,
                Invoice.next_attempt_at < until,
            )
            .values(next_attempt_at=until)
        )

    def _stop_all(self) -> None:
        self._session.execute(
            update(Invoice)
            .where(Invoice.client_id == self._client.id, Invoice.next_attempt_at.is_not(None))
            .values(next_attempt_at=None)
        )

    def _tell(self) -> None:
        tell_payment_failed(
            self._session,
            self._account,
            self._client,
            self._attempt,
            requested_by=self._requested_by,
        )


def _carry(
    session: Session, account: Account, invoice: Invoice, *, now: datetime, requested_by: str
) -> None:
    """Leave a remainder that no card is charged for to the next invoice: a debit on the balance."""
    amount = invoice.amount_due
    invoice.credit_applied += amount
    invoice.apply(InvoiceEvent.PAY, now)
    session.flush()
    move_credit(
        session,
        [
            CreditMove(
                account_id=account.id,
                client_id=invoice.client_id,
                currency=invoice.currency,
                kind=CreditEntryKind.CARRIED,
                amount=-amount,
                invoice_id=invoice.id,
                requested_by=requested_by,
            )
        ],
    )
    post(
        session,
        LedgerEvent.CARRY,
        [
            Entry(
                account_id=account.id,
                client_id=invoice.client_id,
                currency=invoice.currency,
                effective_on=local_date(now, ZoneInfo(account.time_zone)),
                invoice_id=invoice.id,
                postings=postings_for_applying_credit(amount),
            )
        ],
    )
