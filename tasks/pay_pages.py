"""Pages at Stripe on which clients pay an invoice by themselves."""

from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from billing.card_amounts import minimum_charge, to_stripe
from billing.collection import UNSETTLED, AttemptState, Origin
from billing.errors import InvalidInput, RuleViolation
from billing.invoice_states import InvoiceStatus
from billing.unknown_outcomes import next_ask
from gateways.cards import CardsUnavailable, ChargeOutcomeUnknown, ChargeRefused
from gateways.checkout import CheckoutOrder, CheckoutReport
from models import Account, Client, Invoice, PaymentAttempt
from models.payment_attempt import STILL_OPEN, open_attempts_of
from tasks.attempt_locks import lock_attempt
from tasks.attempts import Answer, answered, as_result, named, sent_at, until_available, withdraw
from tasks.calls import Call, Gateways, Step
from tasks.collecting import wake_collection
from tasks.credit_balances import apply_credit
from tasks.kinds import Run, job
from tasks.merchants import merchant_that_took
from tasks.outcomes import Done, Skip, Snooze
from tasks.page_closing import close_pages_for_credit
from tasks.settling import close_page, settle_page
from tasks.stripe_customers import create_customer, customer_of, forget_customer
from tasks.turns import MayAsk, hold_back, take_turn
from tasks.withdrawing import keep_trying, lock_invoice, require_no_payment_in_flight

_log = structlog.get_logger(__name__)

PAGES_LIVE = timedelta(hours=1)
"""How long a page can be used. Stripe opens none for less than half of that."""

GOOD_FOR = timedelta(minutes=10)
"""What a page must have left to be given again: paying takes a while."""

OPENED_WITHIN = timedelta(minutes=10)
"""For how long a page is asked for; nobody waits any longer for its address."""

AFTER_ITS_END = timedelta(minutes=1)

_PAYABLE = frozenset({InvoiceStatus.OPEN, InvoiceStatus.UNCOLLECTIBLE})


@job(queue="payments", subject="invoice")
def open_pay_page(run: Run, session: Session, invoice_id: UUID) -> Step:
    """Open a page for all that is due of an invoice, or find the one that is open for it.

    What waits for the client elsewhere is withdrawn first: a charge to be authenticated, and a
    page for another amount.
    """
    invoice = lock_invoice(session, run, invoice_id)
    waiting = session.scalars(open_attempts_of([invoice_id])).one_or_none()
    if waiting is not None and waiting.job_id == run.job_id and _is_not_yet_open(waiting):
        return _ask_for(session, run, waiting)
    return _open(run, session, invoice)


def require_payable_online(invoice: Invoice) -> None:
    """Check that an invoice is owed, and that Stripe takes what is due of it.

    Raises:
        RuleViolation: It is not (``invoice_not_open``), or Stripe does not (``not_chargeable``).
    """
    if invoice.status not in _PAYABLE:
        raise RuleViolation("invoice_not_open", f"an invoice that is {invoice.status} is not paid")
    try:
        to_stripe(invoice.outstanding, invoice.currency)
        least = minimum_charge(invoice.currency)
    except InvalidInput as error:
        raise RuleViolation("not_chargeable", str(error)) from error
    if invoice.outstanding < least:
        raise RuleViolation("not_chargeable", f"Stripe charges no less than {least}")


def is_page_for(attempt: PaymentAttempt, invoice: Invoice, now: datetime) -> bool:
    """Whether the client can pay just what is due on this page, and has the time to."""
    return (
        attempt.is_open_page
        and attempt.amount == invoice.outstanding
        and attempt.checkout_expires_at is not None
        and attempt.checkout_expires_at > now + GOOD_FOR
    )


def _is_not_yet_open(attempt: PaymentAttempt) -> bool:
    return attempt.is_page and attempt.state == AttemptState.PENDING


def _open(run: Run, session: Session, invoice: Invoice) -> Step:
    waiting = require_no_payment_in_flight(session, invoice.id)
    if waiting is not None:
        if is_page_for(waiting, invoice, run.now):
            return Done(as_result(waiting))
        keep_trying(session, run, invoice, waiting)
        return withdraw(session, run, waiting, partial(_withdrawn, run, invoice.id))
    account = session.get_one(Account, invoice.account_id)
    apply_credit(
        session,
        account,
        [invoice.client_id],
        currency=invoice.currency,
        now=run.now,
        requested_by=f"job:{run.job_id}",
    )
    if invoice.status == InvoiceStatus.PAID:
        return Done({"invoice": str(invoice.id), "state": "paid_by_credit"})
    require_payable_online(invoice)
    client = session.get_one(Client, invoice.client_id)
    customer = customer_of(session, client)
    if customer is None:
        return create_customer(session, run, client, partial(_go_on, run, invoice.id))
    return _begin(run, session, invoice, customer)


def _withdrawn(
    run: Run, invoice_id: UUID, session: Session, attempt: PaymentAttempt | None
) -> Step:
    """Go on once what waited for the client is withdrawn; it may have been paid meanwhile."""
    if attempt is not None and attempt.state in STILL_OPEN:
        return Skip("payment_in_flight", f"attempt {attempt.id} was not withdrawn")
    return _go_on(run, invoice_id, session)


def _go_on(run: Run, invoice_id: UUID, session: Session) -> Step:
    """Open the page after all; a refusal is returned and not raised: what Stripe said is kept."""
    try:
        return _open(run, session, lock_invoice(session, run, invoice_id))
    except RuleViolation as refusal:
        return Skip(refusal.code, refusal.message)


def _begin(run: Run, session: Session, invoice: Invoice, customer: str) -> Call | Snooze:
    """Write the page down under a key of its own, before Stripe is asked for it."""
    merchant_id = session.get_one(Account, invoice.account_id).merchant_id
    turn = _turn(run, invoice.account_id, merchant_id)
    if isinstance(turn, Snooze):
        return turn
    attempt_id = session.scalars(select(func.uuid7())).one()
    invoice.attempt_count += 1
    attempt = PaymentAttempt(
        id=attempt_id,
        account_id=invoice.account_id,
        client_id=invoice.client_id,
        invoice_id=invoice.id,
        job_id=run.job_id,
        ordinal=invoice.attempt_count,
        origin=Origin.CLIENT,
        amount=invoice.outstanding,
        currency=invoice.currency,
        customer=customer,
        merchant_id=merchant_id,
        idempotency_key=f"duecourse-attempt-{attempt_id}",
        first_asked_at=run.now,
        next_ask_at=next_ask(0, run.now, run.now),
        checkout_expires_at=run.now + PAGES_LIVE,
        created_at=run.now,
    )
    session.add(attempt)
    session.flush()
    return _asked(session, run, attempt, turn)


def _ask_for(session: Session, run: Run, attempt: PaymentAttempt) -> Call | Snooze:
    """Ask Stripe for a page under its key once more. Hold the attempt's lock."""
    turn = _turn(run, attempt.account_id, attempt.merchant_id)
    return turn if isinstance(turn, Snooze) else _asked(session, run, attempt, turn)


def _turn(run: Run, account_id: UUID, merchant_id: UUID | None) -> MayAsk | Snooze:
    """A client waits for the page."""
    return take_turn(run, merchant_id=merchant_id, account_id=account_id, is_bulk=False)


def _asked(session: Session, run: Run, attempt: PaymentAttempt, turn: MayAsk) -> Call:
    if attempt.invoice_id is None or attempt.checkout_expires_at is None:
        raise ValueError("only a page for an invoice is opened")
    attempt.asks += 1
    description, metadata = named(session, attempt)
    # All but where the client comes back to, which is the same every time.
    order = partial(
        CheckoutOrder,
        amount=attempt.amount,
        currency=attempt.currency,
        customer=attempt.customer,
        idempotency_key=attempt.idempotency_key,
        description=description,
        metadata=metadata,
        expires_at=attempt.checkout_expires_at,
        merchant=merchant_that_took(session, attempt),
    )
    invoice_id = attempt.invoice_id

    def ask(gateways: Gateways) -> Answer:
        turn.wait()
        here = gateways.links.to_invoice(invoice_id)
        page = order(success_url=f"{here}/paid", cancel_url=here)
        return answered(lambda: gateways.checkout.open(page))

    return Call(ask, partial(_record_opening, run, attempt.id))


def _record_opening(run: Run, attempt_id: UUID, session: Session, answer: Answer) -> Step:
    match answer:
        case CheckoutReport():
            attempt = _opened(run, session, attempt_id, answer)
        case ChargeRefused():
            _log.error("page refused", attempt=str(attempt_id), code=answer.code)
            attempt = close_page(run, session, attempt_id, answer)
            if answer.code == "resource_missing":
                forget_customer(session, attempt.client_id, attempt.customer)
            _wake(run, session, attempt)
            return Skip(answer.code, answer.message)
        case CardsUnavailable() | ChargeOutcomeUnknown():
            attempt = lock_attempt(session, attempt_id)
            hold_back(session, attempt.merchant_id, answer)
            if _is_not_yet_open(attempt):
                if run.now - sent_at(attempt) < OPENED_WITHIN:
                    return until_available(attempt, CardsUnavailable(str(answer)))
                # Nobody was given its address, so nobody can pay on it, opened or not.
                attempt.message = str(answer)
                attempt = close_page(run, session, attempt_id)
                _wake(run, session, attempt)
        case _:
            raise ValueError(f"not an answer to opening a page: {answer}")
    return Done(as_result(attempt))


def _opened(run: Run, session: Session, attempt_id: UUID, report: CheckoutReport) -> PaymentAttempt:
    """Keep a page's address, which is what gives it to the client."""
    attempt = lock_attempt(session, attempt_id)
    ends_at = attempt.checkout_expires_at
    if _is_not_yet_open(attempt) and report.url is not None and ends_at is not None:
        attempt.checkout_session, attempt.checkout_url = report.session, report.url
        attempt.move(AttemptState.NEEDS_ACTION, run.now, ask_at=ends_at + AFTER_ITS_END)
        session.flush()
        # What came while it was being opened.
        close_pages_for_credit(
            session,
            [(attempt.client_id, attempt.currency)],
            requested_by=f"job:{run.job_id}",
        )
        return attempt
    return _settled(run, session, attempt_id, report)


def ask_after_page(run: Run, session: Session, attempt: PaymentAttempt) -> Call | Snooze:
    """Ask what became of a page, or for its address if that is not known. Hold its lock."""
    page = attempt.checkout_session
    if page is None:
        attempt.next_ask_at = next_ask(0, run.now, sent_at(attempt))
        return _ask_for(session, run, attempt)
    attempt.asks += 1
    attempt.next_ask_at = next_ask(0, run.now, attempt.checkout_expires_at or sent_at(attempt))
    merchant = merchant_that_took(session, attempt)
    return Call(
        lambda gateways: answered(lambda: gateways.checkout.retrieve(page, merchant)),
        partial(_record_news, run, attempt.id),
    )


def _record_news(run: Run, attempt_id: UUID, session: Session, answer: Answer) -> Step:
    match answer:
        case CheckoutReport():
            attempt = _settled(run, session, attempt_id, answer)
        case ChargeRefused():
            # There is no such page any more, so nobody can pay on it either.
            attempt = close_page(run, session, attempt_id, answer)
            _wake(run, session, attempt)
        case CardsUnavailable():
            attempt = lock_attempt(session, attempt_id)
            hold_back(session, attempt.merchant_id, answer)
            if attempt.is_open_page:
                return until_available(attempt, answer)
        case _:
            attempt = lock_attempt(session, attempt_id)
    return Done(as_result(attempt))


def _settled(
    run: Run, session: Session, attempt_id: UUID, report: CheckoutReport
) -> PaymentAttempt:
    attempt = settle_page(
        session, attempt_id, report, now=run.now, requested_by=f"job:{run.job_id}"
    )
    _wake(run, session, attempt)
    return attempt


def _wake(run: Run, session: Session, attempt: PaymentAttempt) -> None:
    """Whatever of this client's waited for the page goes on."""
    if attempt.state not in UNSETTLED:
        wake_collection(session, [attempt.client_id], now=run.now, requested_by=f"job:{run.job_id}")
