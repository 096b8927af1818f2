"""Payment attempts: written down before the card is touched, asked for, and withdrawn."""

import random
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from types import MappingProxyType
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

from sqlalchemy.orm import Session

from billing.card_amounts import minimum_charge, to_stripe
from billing.collection import (
    AttemptPurpose,
    AttemptState,
    Origin,
)
from billing.credit import CreditEntryKind
from billing.cycles import local_date
from billing.errors import InvalidInput, RuleViolation
from billing.invoice_states import InvoiceEvent
from billing.job_states import retry_delay
from billing.postings import LedgerEvent, postings_for_applying_credit
from billing.statement_descriptors import statement_suffix
from billing.unknown_outcomes import ask_by, next_ask
from gateways.cards import (
    CardCharge,
    CardReport,
    CardsUnavailable,
    ChargeOutcomeUnknown,
    ChargeRefused,
)
from gateways.checkout import CheckoutReport
from models import (
    Account,
    Invoice,
    PaymentAttempt,
    Refund,
)
from models.billing_method import CardOfClient
from tasks.attempt_locks import lock_attempt
from tasks.calls import Call, Gateways, Step
from tasks.credit_balances import CreditMove, move_credit, write_expiries
from tasks.kinds import Run
from tasks.merchants import merchant_that_took
from tasks.outcomes import Snooze
from tasks.posting import Entry, post
from tasks.settling import close_page, settle_attempt, settle_page
from tasks.tried_cards import require_tries_left
from tasks.turns import MayAsk, hold_back, take_turn

# However long Stripe says to wait: an invoice with a charge under way can be neither paid nor
# voided.
LONGEST_WAIT = timedelta(hours=1)

# The same every time an attempt is asked for, whatever the account is called by then.
_FOR_CREDIT = {
    AttemptPurpose.DEPOSIT: "Credit deposit",
    AttemptPurpose.TOP_UP: "Automatic credit top-up",
}

Answer = CardReport | CheckoutReport | ChargeRefused | CardsUnavailable | ChargeOutcomeUnknown

Ended = Callable[[Session, PaymentAttempt | None], Step]
"""How a job goes on after an attempt; ``None`` where the card was not needed."""


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
