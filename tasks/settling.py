"""What becomes of payment attempts, whoever brings the news, with all that follows."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import structlog
from sqlalchemy import update
from sqlalchemy.orm import Session

from billing.collection import (
    UNSETTLED,
    AttemptState,
    Origin,
    may_follow,
)
from billing.credit import CreditEntryKind
from billing.cycles import local_date
from billing.declines import DeclineClass, decline_class
from billing.dunning import DunningFinal, next_try
from billing.errors import RuleViolation
from billing.invoice_states import InvoiceStatus
from billing.postings import LedgerEvent
from gateways.cards import (
    CardReport,
    CardStatus,
    ChargeRefused,
)
from gateways.checkout import CheckoutReport
from models import (
    Account,
    Client,
    Invoice,
    PaymentAttempt,
    PaymentSource,
)
from tasks.attempt_locks import lock_attempt, lock_with_all
from tasks.bad_debt import write_off
from tasks.credit_balances import apply_credit
from tasks.credit_settlements import CreditSettlement
from tasks.kinds import Run
from tasks.mailing import tell_payment_failed, tell_receipt
from tasks.page_news import PageClosed, news_of
from tasks.payments import Received, flag_of_amount, receive
from tasks.refused_charges import Fault, fault_of
from tasks.tried_cards import TriedCard, require_tries_left

_log = structlog.get_logger(__name__)

# A bank debit is told by its webhook days later; one that got lost is asked after.
ASK_AFTER_PROCESSING = timedelta(days=1)

_NEXT_DAY = (1,)


@dataclass(frozen=True, slots=True)
class PaymentMissing:
    """Stripe knows a payment no more that it once told of; ``message`` says so to people."""

    message: str


News = CardReport | ChargeRefused | PageClosed | PaymentMissing
"""What may be told of an attempt."""

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
