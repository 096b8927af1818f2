"""Payment attempts: written down before the card is touched, and what comes of them."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from types import MappingProxyType
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import structlog
from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from billing.card_amounts import minimum_charge, to_stripe
from billing.collection import (
    UNSETTLED,
    AttemptPurpose,
    AttemptState,
    Origin,
    may_follow,
)
from billing.credit import CreditEntryKind
from billing.cycles import local_date
from billing.declines import DeclineClass, decline_class
from billing.dunning import MAX_TRIES_IN_30_DAYS, DunningFinal, next_try
from billing.errors import InvalidInput, RuleViolation
from billing.invoice_states import InvoiceEvent, InvoiceStatus
from billing.job_states import retry_delay
from billing.postings import LedgerEvent, postings_for_applying_credit
from billing.statement_descriptors import statement_suffix
from billing.unknown_outcomes import ask_by, next_ask
from gateways.cards import (
    CardCharge,
    CardReport,
    CardStatus,
    CardsUnavailable,
    ChargeOutcomeUnknown,
    ChargeRefused,
)
from gateways.checkout import CheckoutReport
from models import (
    Account,
    Client,
    Invoice,
    PaymentAttempt,
    PaymentSource,
    Refund,
)
from models.billing_method import CardOfClient
from tasks.attempt_locks import lock_with_all
from tasks.bad_debt import write_off
from tasks.calls import Call, Gateways, Step
from tasks.credit_balances import CreditMove, apply_credit, move_credit, write_expiries
from tasks.credit_settlements import CreditSettlement
from tasks.kinds import Run
from tasks.mailing import tell_payment_failed, tell_receipt
from tasks.merchants import merchant_that_took
from tasks.outcomes import Snooze
from tasks.page_news import PageClosed, news_of
from tasks.payments import Received, flag_of_amount, receive
from tasks.posting import Entry, post
from tasks.refused_charges import Fault, fault_of
from tasks.tried_cards import TriedCard
from tasks.turns import MayAsk, hold_back, take_turn

_log = structlog.get_logger(__name__)

# A bank debit is told by its webhook days later; one that got lost is asked after.
ASK_AFTER_PROCESSING = timedelta(days=1)

# However long Stripe says to wait: an invoice with a charge under way can be neither paid nor
# voided.
LONGEST_WAIT = timedelta(hours=1)

_NEXT_DAY = (1,)

# The same every time an attempt is asked for, whatever the account is called by then.
_FOR_CREDIT = {
    AttemptPurpose.DEPOSIT: "Credit deposit",
    AttemptPurpose.TOP_UP: "Automatic credit top-up",
}


@dataclass(frozen=True, slots=True)
class PaymentMissing:
    """Stripe knows a payment no more that it once told of; ``message`` says so to people."""

    message: str


News = CardReport | ChargeRefused | PageClosed | PaymentMissing
"""What may be told of an attempt."""

Answer = CardReport | CheckoutReport | ChargeRefused | CardsUnavailable | ChargeOutcomeUnknown

Ended = Callable[[Session, PaymentAttempt | None], Step]
"""How a job goes on after an attempt; ``None`` where the card was not needed."""

# What else is told of a payment on a page is one of the client's tries there: only the page itself
# says that it was the last.
_TAKEN_OF_A_PAGE = frozenset({AttemptState.SUCCEEDED, AttemptState.PROCESSING})

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
    method: CardOfClient,
    *,
    origin: Origin,
    ended: Ended,
) -> Step:
    """Write an attempt for all that is due of an invoice down, and ask for it.

    What is below Stripe's minimum is carried to the next invoice instead, with no call. The
    caller holds the client's lock and the invoice's, and knows that no attempt is under way.
    ``ended`` says how the job goes on once there is an answer, or none was needed.

    Raises:
        RuleViolation: Stripe charges no such amount (``not_chargeable``), or the card networks
            allow no more tries of this invoice for now (``too_many_tries``).
    """
    account = session.get_one(Account, invoice.account_id)
    due = invoice.amount_due
    require_tries_left(session, invoice, method, now=run.now)
    try:
        too_little = due < minimum_charge(invoice.currency)
        if not too_little:
            to_stripe(due, invoice.currency)
    except InvalidInput as error:
        raise RuleViolation("not_chargeable", str(error)) from error
    if too_little:
        _carry(session, account, invoice, now=run.now, requested_by=run.requested_by)
        return ended(session, None)
    turn = _turn(run, method, origin)
    if isinstance(turn, Snooze):
        return turn
    invoice.attempt_count += 1
    return _begin(
        session,
        run,
        method,
        ended,
        turn,
        statement_suffix=statement_suffix(account.name, invoice.number),
        invoice_id=invoice.id,
        ordinal=invoice.attempt_count,
        origin=origin,
        amount=due,
        currency=invoice.currency,
    )


def begin_credit_attempt(
    session: Session,
    run: Run,
    method: CardOfClient,
    *,
    purpose: AttemptPurpose,
    amount: int,
    currency: str,
    ended: Ended,
    told: Mapping[str, Any] = MappingProxyType({}),
) -> Step:
    """Write an attempt for credit down, in ``currency``'s minor units, and ask for it.

    The caller holds the client's lock, and knows that none for this purpose has no outcome yet,
    and that a card can be charged the amount. ``told`` is what was said of the money.
    """
    origin = Origin.AUTOMATIC if purpose == AttemptPurpose.TOP_UP else Origin.STAFF
    turn = _turn(run, method, origin)
    if isinstance(turn, Snooze):
        return turn
    account = session.get_one(Account, method.account_id)
    return _begin(
        session,
        run,
        method,
        ended,
        turn,
        statement_suffix=statement_suffix(account.name, None),
        purpose=purpose,
        origin=origin,
        amount=amount,
        currency=currency,
        told=dict(told),
    )


def _turn(run: Run, of: CardOfClient | PaymentAttempt, origin: str) -> MayAsk | Snooze:
    """A turn at the Stripe account of a card; people go before what is tried by itself."""
    return take_turn(
        run,
        merchant_id=of.merchant_id,
        account_id=of.account_id,
        is_bulk=origin == Origin.AUTOMATIC,
    )


def _begin(
    session: Session, run: Run, method: CardOfClient, ended: Ended, turn: MayAsk, **asked: object
) -> Call:
    """Write an attempt down under a key of its own, before the card is touched; then ask."""
    attempt = PaymentAttempt(
        account_id=method.account_id,
        client_id=method.client_id,
        job_id=run.job_id,
        customer=method.stripe_customer,
        payment_method=method.payment_method,
        card_brand=method.brand,
        card_last4=method.last4,
        merchant_id=method.merchant_id,
        idempotency_key=f"duecourse-attempt-{uuid4()}",
        asks=1,
        first_asked_at=run.now,
        next_ask_at=next_ask(0, run.now, run.now),
        created_at=run.now,
        **asked,
    )
    session.add(attempt)
    session.flush()
    return _asked(session, run, attempt, ended, turn, is_unsent=True)


def require_tries_left(
    session: Session, invoice: Invoice, method: CardOfClient, *, now: datetime
) -> None:
    """Check that the card networks allow another try of an invoice on this card.

    Raises:
        RuleViolation: It was tried too often of late (``too_many_tries``).
    """
    if invoice.attempt_count < MAX_TRIES_IN_30_DAYS:
        # On all its cards, at any time.
        return
    tries = session.scalar(
        select(func.count()).where(
            PaymentAttempt.invoice_id == invoice.id,
            PaymentAttempt.payment_method == method.payment_method,
            PaymentAttempt.created_at > now - timedelta(days=30),
            ~PaymentAttempt.is_unsent,
            # What Stripe refused without asking the card has no class, and was no try of it.
            or_(
                PaymentAttempt.state != AttemptState.DECLINED,
                PaymentAttempt.decline_class.is_not(None),
            ),
        )
    )
    if tries is not None and tries >= MAX_TRIES_IN_30_DAYS:
        raise RuleViolation(
            "too_many_tries", f"this card was tried {tries} times in 30 days: use another"
        )


def ask_for(session: Session, run: Run, attempt: PaymentAttempt, ended: Ended) -> Step:
    """Ask Stripe for an attempt again under its key, in a turn of its own. Hold its lock."""
    turn = _turn(run, attempt, attempt.origin)
    if isinstance(turn, Snooze):
        return turn
    attempt.asks += 1
    # Until its answer is known it may have been sent.
    is_unsent, attempt.is_unsent = attempt.is_unsent, False
    return _asked(session, run, attempt, ended, turn, is_unsent=is_unsent)


def _asked(
    session: Session,
    run: Run,
    attempt: PaymentAttempt,
    ended: Ended,
    turn: MayAsk,
    *,
    is_unsent: bool,
) -> Call:
    order = order_of(session, attempt)

    def ask(gateways: Gateways) -> Answer:
        turn.wait()
        return charge(order, gateways)

    lone_question = attempt.asks if is_unsent else None
    return Call(ask, partial(record_answer, run, attempt.id, ended, lone_question=lone_question))


def is_to_ask_again(run: Run, attempt: PaymentAttempt) -> bool:
    """Whether this job wrote the attempt down in an earlier run, and may send it once more.

    That run died with the question on its way, or was told to wait. After a day only
    ``resolve_attempt`` asks, which then sends nothing: a key that Stripe forgot would charge again.
    """
    return (
        attempt.job_id == run.job_id
        and attempt.state == AttemptState.PENDING
        and ask_by(sent_at(attempt), run.now) == "key"
    )


def sent_at(attempt: PaymentAttempt) -> datetime:
    """Since when Stripe may know an attempt's key."""
    return attempt.first_asked_at or attempt.created_at


def withdraw(session: Session, run: Run, attempt: PaymentAttempt, ended: Ended) -> Call:
    """Cancel an attempt that waits for the client; Stripe may say that it is being paid.

    A page is closed. Hold the attempt's lock.
    """
    attempt.asks += 1
    intent, page = str(attempt.payment_intent), attempt.checkout_session
    merchant = merchant_that_took(session, attempt)

    def ask(gateways: Gateways) -> Answer:
        if page is not None:
            return answered(lambda: gateways.checkout.expire(page, merchant))
        return answered(lambda: gateways.cards.cancel(intent, merchant))

    return Call(ask, partial(_record_withdrawal, run, attempt.id, ended))


def _record_withdrawal(
    run: Run, attempt_id: UUID, ended: Ended, session: Session, answer: Answer
) -> Step:
    if isinstance(answer, ChargeRefused):
        # Stripe knows it no more, so nobody can pay it either.
        attempt = lock_attempt(session, attempt_id)
        if attempt.is_page:
            attempt = close_page(run, session, attempt_id, answer)
        elif attempt.state == AttemptState.NEEDS_ACTION:
            attempt.message = str(answer)
            attempt.move(AttemptState.CANCELED, run.now)
        return ended(session, attempt)
    return record_answer(run, attempt_id, ended, session, answer)


def order_of(session: Session, attempt: PaymentAttempt) -> CardCharge:
    """What Stripe is asked for: the same every time, or its key would refuse it."""
    if attempt.payment_method is None:
        raise ValueError("a page is opened, and not charged")
    description, metadata = named(session, attempt)
    return CardCharge(
        amount=attempt.amount,
        currency=attempt.currency,
        customer=attempt.customer,
        payment_method=attempt.payment_method,
        idempotency_key=attempt.idempotency_key,
        description=description,
        metadata=metadata,
        sent_since=sent_at(attempt),
        merchant=merchant_that_took(session, attempt),
        statement_suffix=attempt.statement_suffix,
    )


def named(session: Session, attempt: PaymentAttempt) -> tuple[str, dict[str, str]]:
    """What an attempt is for, in words and in metadata."""
    words, of = _purpose(session, attempt)
    return words, {
        "account": str(attempt.account_id),
        "client": str(attempt.client_id),
        **of,
        "attempt": str(attempt.id),
    }


def _purpose(session: Session, attempt: PaymentAttempt) -> tuple[str, dict[str, str]]:
    if attempt.invoice_id is None:
        purpose = AttemptPurpose(attempt.purpose)
        return _FOR_CREDIT[purpose], {"purpose": purpose.value}
    invoice = session.get_one(Invoice, attempt.invoice_id)
    return f"Invoice {invoice.number}", {"invoice": str(invoice.id)}


def charge(order: CardCharge, gateways: Gateways) -> Answer:
    """Ask for the charge; what went wrong is an answer, too: it is written down."""
    return answered(lambda: gateways.cards.charge(order))


def answered(ask: Callable[[], CardReport | CheckoutReport]) -> Answer:
    """What Stripe says, or why it says nothing."""
    try:
        return ask()
    except (ChargeRefused, CardsUnavailable, ChargeOutcomeUnknown) as answer:
        return answer


def record_answer(
    run: Run,
    attempt_id: UUID,
    ended: Ended,
    session: Session,
    answer: Answer,
    *,
    lone_question: int | None = None,
) -> Step:
    """Write down what Stripe says of an attempt, and go on; where it says nothing, ask again.

    ``lone_question`` is the number of this one, where none before it had an effect. One that was
    asked beside it may have: Stripe then says of this one that the key is in use.
    """
    match answer:
        case CardsUnavailable():
            attempt = lock_attempt(session, attempt_id)
            hold_back(session, attempt.merchant_id, answer)
            if attempt.state in {AttemptState.PENDING, AttemptState.NEEDS_ACTION}:
                # Nothing was done: the same again, whenever Stripe is back.
                again = until_available(attempt, answer)
                if attempt.state == AttemptState.PENDING:
                    attempt.is_unsent = attempt.asks == lone_question
                    asked_at = run.now + again.after
                    attempt.next_ask_at = next_ask(0, asked_at, asked_at)
                return again
        case ChargeOutcomeUnknown():
            attempt = lock_attempt(session, attempt_id)
            if attempt.state == AttemptState.PENDING:
                attempt.message = str(answer)
                attempt.move(
                    AttemptState.UNKNOWN,
                    run.now,
                    ask_at=next_ask(0, run.now, sent_at(attempt)),
                )
        case CheckoutReport():
            attempt = settle_page(
                session, attempt_id, answer, now=run.now, requested_by=f"job:{run.job_id}"
            )
        case _:
            attempt = settle_attempt(
                session, attempt_id, answer, now=run.now, requested_by=f"job:{run.job_id}"
            )
    return ended(session, attempt)


def until_available(attempt: PaymentAttempt | Refund, reason: CardsUnavailable) -> Snooze:
    """Wait for Stripe as long as it says, else longer each time."""
    if reason.retry_after:
        return Snooze(min(reason.retry_after, LONGEST_WAIT), reason)
    jitter = random.random()  # noqa: S311 - it spreads retries
    return Snooze(retry_delay(max(attempt.asks, 1), jitter=jitter), reason)


def as_result(attempt: PaymentAttempt) -> dict[str, Any]:
    """What a job's reader is told of an attempt."""
    of = (
        {"client": str(attempt.client_id), "purpose": attempt.purpose}
        if attempt.invoice_id is None
        else {"invoice": str(attempt.invoice_id)}
    )
    return {
        **of,
        "attempt": str(attempt.id),
        "state": attempt.state,
        "decline_code": attempt.decline_code,
    }


def lock_attempt(session: Session, attempt_id: UUID) -> PaymentAttempt:
    """An attempt under its own lock and its client's and, if any, its invoice's, in that order."""
    return lock_with_all(session, attempt_id).attempt


def close_page(
    run: Run, session: Session, attempt_id: UUID, reason: ChargeRefused | None = None
) -> PaymentAttempt:
    """Give up a page on which nobody can pay, with all that follows."""
    closed = (
        PageClosed() if reason is None else PageClosed(code=reason.code, message=reason.message)
    )
    return settle_attempt(
        session,
        attempt_id,
        closed,
        now=run.now,
        requested_by=f"job:{run.job_id}",
        is_current=True,
    )


def settle_page(
    session: Session, attempt_id: UUID, report: CheckoutReport, *, now: datetime, requested_by: str
) -> PaymentAttempt:
    """Write down how a page stands, with all that follows; one that is open waits on."""
    news = news_of(report)
    if news is None:
        return lock_attempt(session, attempt_id)
    return settle_attempt(
        session, attempt_id, news, now=now, requested_by=requested_by, is_current=True
    )


def settle_attempt(
    session: Session,
    attempt_id: UUID,
    news: News,
    *,
    now: datetime,
    requested_by: str,
    is_current: bool = False,
) -> PaymentAttempt:
    """Write down what became of an attempt, whoever brings the news, with all that follows.

    News that is older than what is known changes nothing, so it may come twice and in any order.
    ``is_current`` says that it tells how the charge stands now, and not how it stood at some time.
    """
    # Held to the end: the session forgets, and reads again, what nobody holds.
    locked = lock_with_all(session, attempt_id)
    attempt = locked.attempt
    to = _state_told(news)
    was = AttemptState(attempt.state)
    if attempt.is_page and not is_current and to not in _TAKEN_OF_A_PAGE:
        return _tried_on_page(attempt, news)
    was_under_way = was == AttemptState.PROCESSING or attempt.is_page
    failed_late = is_current and was_under_way and to == AttemptState.NEEDS_ACTION
    if failed_late:
        # What was under way has failed after all. The client may still pay it, so nothing else
        # is tried by itself.
        to = AttemptState.DECLINED
    try:
        _require_its_currency(attempt, news)
        attempt.move(to, now, ask_at=now + ASK_AFTER_PROCESSING)
    except (RuleViolation, _OfAnotherCurrency):
        return attempt
    _note(attempt, news)
    settle = _Settlement if attempt.invoice_id is not None else CreditSettlement
    settlement = settle(session, attempt, now=now, requested_by=requested_by)
    match to:
        case AttemptState.SUCCEEDED if isinstance(news, CardReport):
            settlement.succeed(news.amount_received)
        case AttemptState.DECLINED if isinstance(news, ChargeRefused):
            settlement.refuse(news.code)
        case AttemptState.DECLINED if failed_late:
            settlement.decline(DeclineClass.NEEDS_AUTHENTICATION)
        case AttemptState.DECLINED:
            settlement.decline(decline_class(attempt.decline_code))
        case AttemptState.NEEDS_ACTION:
            settlement.wait_for_client()
        case AttemptState.CANCELED:
            _end(settlement, news, was_open=was in UNSETTLED or attempt.is_page)
        case _:
            pass
    session.flush()
    return attempt


def _end(settlement: "_Settlement | CreditSettlement", news: News, *, was_open: bool) -> None:
    """What follows where no money comes, and nobody was refused any."""
    if isinstance(news, PaymentMissing):
        settlement.leave_to_people()
    elif was_open:
        settlement.stop()


def told_before(session: Session, attempt_id: UUID, news: CardReport) -> PaymentAttempt | None:
    """An attempt that ``news`` of it cannot change any more; ``None`` where they may.

    An attempt only moves on: what is no news to it now is none to what it may become meanwhile,
    so that no lock is needed to tell. Of a page several tries are told.
    """
    attempt = session.get(PaymentAttempt, attempt_id)
    if attempt is None or attempt.is_page:
        return None
    known, to = AttemptState(attempt.state), _STATES[news.status]
    return None if may_follow(known, to) else attempt


def _tried_on_page(attempt: PaymentAttempt, news: News) -> PaymentAttempt:
    """Note a try that ends nothing: the client tries again there, with this card or another."""
    if attempt.is_open_page:
        _note(attempt, news)
    return attempt


def _state_told(news: News) -> AttemptState:
    match news:
        case CardReport():
            return _STATES[news.status]
        case ChargeRefused():
            return AttemptState.DECLINED
        case PageClosed() | PaymentMissing():
            return AttemptState.CANCELED


def _note(attempt: PaymentAttempt, news: News) -> None:
    match news:
        case CardReport():
            attempt.payment_intent = news.payment_intent
            attempt.decline_code, attempt.message = news.decline_code, news.message
        case ChargeRefused():
            attempt.decline_code, attempt.message = news.code, str(news)
        case PageClosed() if news.code is not None:
            attempt.decline_code, attempt.message = news.code, news.message
        case PaymentMissing():
            attempt.message = news.message


class _OfAnotherCurrency(Exception):  # noqa: N818 - named as the fact it states
    """News of money that no attempt asked for."""


def _require_its_currency(attempt: PaymentAttempt, news: News) -> None:
    """Check that news is of what an attempt asked for, whoever says so.

    Raises:
        _OfAnotherCurrency: It tells of other money.
    """
    if not isinstance(news, CardReport) or news.currency == attempt.currency:
        return
    _log.error(
        "payment in another currency than asked for",
        attempt=str(attempt.id),
        payment_intent=news.payment_intent,
        currency=news.currency,
        asked=attempt.currency,
    )
    raise _OfAnotherCurrency


class _Settlement:
    """What follows from the news of an invoice's attempt, in the transaction with its locks."""

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
        self._card = TriedCard(session, attempt)
        self._decides_next_try = attempt.origin == Origin.AUTOMATIC and self._card.is_current

    def succeed(self, amount: int) -> None:
        """Money came: it settles the invoice, or is credit where nothing is due any more."""
        due = self._invoice.outstanding
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
                flagged=flag_of_amount(self._attempt, amount)
                or (None if amount <= due else f"invoice_{self._invoice.status}"),
            ),
            invoice=self._invoice,
            now=self._now,
        )
        self._card.paid(self._now)
        tell_receipt(
            self._session, self._account, self._client, payment, requested_by=self._requested_by
        )

    def decline(self, kind: DeclineClass) -> None:
        """The card refused: the next try follows the schedule, if any try can help."""
        self._attempt.decline_class = kind
        if self._decides_next_try and self._invoice.status == InvoiceStatus.OPEN:
            self._plan_next_try(kind)
            self._hold_the_rest()
        self._card.declined(kind)
        goes_on = self._goes_on_with_backup(kind)
        if goes_on:
            self._invoice.next_attempt_at = self._now
        self._use_credit()
        if self._invoice.status != InvoiceStatus.OPEN:
            return
        if self._decides_next_try and not goes_on:
            self._tell()
            self._give_up_if_exhausted()
        elif self._attempt.is_page:
            # The client saw it taken: a bank debit came back days later.
            self._tell()

    def _plan_next_try(self, kind: DeclineClass) -> None:
        if self._card.is_backup:
            # It is one more try beside the schedule, which had ended with the first card's.
            self._invoice.next_attempt_at = None
            return
        self._invoice.failures += 1
        self._invoice.next_attempt_at = (
            self._try_after(self._invoice.failures) if kind == DeclineClass.SOFT else None
        )

    def _goes_on_with_backup(self, kind: DeclineClass) -> bool:
        """Whether the client's second card is tried now: nothing has failed for good before that."""
        backup = self._card.gives_way(kind)
        if backup is None or self._invoice.status != InvoiceStatus.OPEN:
            return False
        try:
            require_tries_left(self._session, self._invoice, backup, now=self._now)
        except RuleViolation:
            return False
        return True

    def refuse(self, code: str) -> None:
        """Stripe did not even ask the card: whose fault that is decides what can help."""
        fault = fault_of(code)
        if fault is Fault.CARD:
            self.decline(DeclineClass.NEEDS_NEW_CARD)
            return
        _log.error(
            "charge refused",
            invoice=str(self._invoice.id),
            attempt=str(self._attempt.id),
            code=code,
        )
        if self._decides_next_try and self._invoice.status == InvoiceStatus.OPEN:
            self._invoice.next_attempt_at = None if fault is Fault.AMOUNT else self._tomorrow()
        self._use_credit()

    def wait_for_client(self) -> None:
        """Only the client can go on, by authenticating."""
        self._attempt.decline_class = DeclineClass.NEEDS_AUTHENTICATION
        if self._decides_next_try:
            self._invoice.next_attempt_at = None
            self._hold_the_rest()
        if self._decides_next_try or self._attempt.origin != Origin.AUTOMATIC:
            self._tell()

    def stop(self) -> None:
        """Somebody cancelled it at Stripe: trying again by itself would undo that."""
        if self._decides_next_try:
            self._invoice.next_attempt_at = None
        self._use_credit()

    def leave_to_people(self) -> None:
        """Money may have moved, and nobody here can tell: only a person has it tried again."""
        self._invoice.auto_collect, self._invoice.next_attempt_at = False, None
        self._use_credit()

    def _use_credit(self) -> None:
        """What came while the charge was under way had to leave this invoice alone."""
        self._session.flush()
        apply_credit(
            self._session,
            self._account,
            [self._client.id],
            currency=self._attempt.currency,
            now=self._now,
            requested_by=self._requested_by,
        )

    def _try_after(self, failures: int) -> datetime | None:
        zone = self._client.zone(self._account)
        return next_try(self._now, failures, zone, self._account.dunning_days)

    def _give_up_if_exhausted(self) -> None:
        """The last scheduled try was declined: the account may want no open invoice of that."""
        gives_up = self._account.dunning_final == DunningFinal.UNCOLLECTIBLE
        # Without a failure it has its first scheduled try still to come.
        has_failed = self._invoice.failures > 0
        if gives_up and has_failed and self._try_after(self._invoice.failures) is None:
            write_off(self._session, self._account, self._invoice, now=self._now)

    def _hold_the_rest(self) -> None:
        """One client's charges go one after another: a decline holds the others."""
        # Where the account retries nothing, each of them has its first try still to come.
        until = self._invoice.next_attempt_at or self._try_after(1) or self._tomorrow()
        self._session.execute(
            update(Invoice)
            .where(
                Invoice.client_id == self._client.id,
                Invoice.id != self._invoice.id,
                # One that was declined itself keeps its own schedule.
                Invoice.failures == 0,
                Invoice.next_attempt_at < until,
            )
            .values(next_attempt_at=until)
        )

    def _tomorrow(self) -> datetime | None:
        return next_try(self._now, 1, self._client.zone(self._account), _NEXT_DAY)

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
    # Credit that is kept for later is used by it, but none that has expired.
    write_expiries(session, account, [invoice.client_id], now=now, requested_by=requested_by)
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
