"""Refunds to cards: written down before Stripe is asked, and asked for until its word is known."""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from billing.refunds import UNSETTLED_REFUNDS, RefundState
from billing.unknown_outcomes import ask_by, believed_never_arrived, next_ask
from gateways.cards import (
    CardRefund,
    CardsUnavailable,
    ChargeOutcomeUnknown,
    ChargeRefused,
    RefundReport,
)
from models import Payment, PaymentAttempt, Refund
from tasks.attempts import until_available
from tasks.calls import Call, Gateways, Step
from tasks.collecting import wake_collection
from tasks.kinds import Run, job
from tasks.merchants import merchant_that_took
from tasks.outcomes import Done, NotYet, Outcome, Skip, Snooze
from tasks.refunds import lock_refund, settle_refund
from tasks.turns import MayAsk, hold_back, take_turn

Answer = RefundReport | ChargeRefused | CardsUnavailable | ChargeOutcomeUnknown

NEVER_ARRIVED = "Stripe does not know of it after a day of asking: it never arrived"


def refund_to_card(session: Session, run: Run, refund: Refund) -> Call:
    """Write a refund to the card that paid down, and ask for it.

    The caller holds the client's lock and the invoice's, and knows that the payment's card can
    be sent so much. Where the refund is of no invoice, its credit is off the balance already.

    Raises:
        NotYet: There is no turn at its Stripe account: nothing of it is to be kept.
    """
    turn = _turn(session, run, refund)
    if isinstance(turn, Snooze):
        raise NotYet(turn.after)
    refund.id = session.scalars(select(func.uuid7())).one()
    refund.idempotency_key = f"duecourse-refund-{refund.id}"
    refund.first_asked_at = run.now
    refund.next_ask_at = next_ask(0, run.now, run.now)
    refund.asks = 0
    session.add(refund)
    session.flush()
    return _ask(session, run, refund, turn)


def go_on_with_refund(session: Session, run: Run, of: Select[UUID]) -> Step | None:
    """What is left to do of a refund that this job wrote down in an earlier run, if it did.

    It is ``of`` one of these payments, by id.
    """
    own = session.scalar(
        select(Refund.id).where(
            Refund.payment_id.in_(of),
            Refund.job_id == run.job_id,
            Refund.idempotency_key.is_not(None),
        )
    )
    if own is None:
        return None
    refund = lock_refund(session, own)
    # After a day only `resolve_refund` asks, which then sends nothing: a key that Stripe forgot
    # would refund again.
    if refund.state == RefundState.PENDING and ask_by(_sent_at(refund), run.now) == "key":
        turn = _turn(session, run, refund)
        return turn if isinstance(turn, Snooze) else _ask(session, run, refund, turn)
    return _outcome(refund)


def as_result(refund: Refund) -> dict[str, Any]:
    """What a job's reader is told of a refund."""
    told = {
        "refund": refund.id,
        "payment": refund.payment_id,
        "invoice": refund.invoice_id,
        "credit_note": refund.credit_note_id,
    }
    return {
        **{name: None if one is None else str(one) for name, one in told.items()},
        "state": refund.state,
        "amount": refund.amount,
    }


@job(queue="payments")
def resolve_refund(run: Run, session: Session, refund_id: UUID) -> Step:
    """Ask what became of a refund: by its key while that lives, by its metadata after."""
    refund = lock_refund(session, refund_id)
    if refund.state not in UNSETTLED_REFUNDS:
        return Skip("refund_settled", f"the refund is {refund.state}")
    since = _sent_at(refund)
    turn = _turn(session, run, refund)
    if isinstance(turn, Snooze):
        return turn
    refund.asks += 1
    refund.next_ask_at = next_ask(0, run.now, since)
    order = _order_of(session, refund)
    record = partial(_record_resolved, run, refund_id)
    if refund.state == RefundState.PROCESSING and refund.stripe_refund is not None:
        known, merchant = refund.stripe_refund, order.merchant
        return Call(
            lambda gateways: _answered(lambda: gateways.cards.retrieve_refund(known, merchant)),
            record,
        )
    if ask_by(since, run.now) == "key":
        return Call(partial(_ask_by_key, order, turn), record)
    return Call(partial(_look_up, order), record)


def _ask(session: Session, run: Run, refund: Refund, turn: MayAsk) -> Call:
    refund.asks += 1
    order = _order_of(session, refund)

    def ask(gateways: Gateways) -> Answer:
        turn.wait()
        return _answered(lambda: gateways.cards.refund(order))

    return Call(ask, partial(_record, run, refund.id))


def _turn(session: Session, run: Run, refund: Refund) -> MayAsk | Snooze:
    """A turn at the Stripe account that took the payment."""
    return take_turn(
        run,
        merchant_id=_attempt_refunded(session, refund).merchant_id,
        account_id=refund.account_id,
        is_bulk=False,
    )


def _attempt_refunded(session: Session, refund: Refund) -> PaymentAttempt:
    payment = session.get_one(Payment, refund.payment_id)
    return session.get_one(PaymentAttempt, payment.attempt_id)


def _sent_at(refund: Refund) -> datetime:
    """Since when Stripe may know a refund's key."""
    return refund.first_asked_at or refund.created_at


def _order_of(session: Session, refund: Refund) -> CardRefund:
    """What Stripe is asked for: the same every time, or its key would refuse it."""
    attempt = _attempt_refunded(session, refund)
    about = {
        "account": refund.account_id,
        "client": refund.client_id,
        "invoice": refund.invoice_id,
        "refund": refund.id,
    }
    return CardRefund(
        payment_intent=str(attempt.payment_intent),
        amount=refund.amount,
        currency=refund.currency,
        idempotency_key=str(refund.idempotency_key),
        metadata={name: str(one) for name, one in about.items() if one is not None},
        merchant=merchant_that_took(session, attempt),
    )


def _answered(ask: Callable[[], RefundReport]) -> Answer:
    """What Stripe says, or why it says nothing: that is written down, too."""
    try:
        return ask()
    except (ChargeRefused, CardsUnavailable, ChargeOutcomeUnknown) as answer:
        return answer


def _ask_by_key(order: CardRefund, turn: MayAsk, gateways: Gateways) -> Answer | None:
    """Send it again under its key; where that replays a failure of Stripe's, look it up."""
    turn.wait()
    answer = _answered(lambda: gateways.cards.refund(order))
    if not isinstance(answer, ChargeOutcomeUnknown):
        return answer
    return _look_up(order, gateways) or answer


def _look_up(order: CardRefund, gateways: Gateways) -> Answer | None:
    try:
        return gateways.cards.look_up_refund(order)
    except (CardsUnavailable, ChargeOutcomeUnknown) as answer:
        return answer


def _record(run: Run, refund_id: UUID, session: Session, answer: Answer) -> Step:
    """Write the first answer down; it decides how the job ends."""
    match answer:
        case CardsUnavailable():
            refund = lock_refund(session, refund_id)
            hold_back(session, _attempt_refunded(session, refund).merchant_id, answer)
            if refund.state == RefundState.PENDING:
                # Nothing was done: the same again, whenever Stripe is back.
                again = until_available(refund, answer)
                asked_at = run.now + again.after
                refund.next_ask_at = next_ask(0, asked_at, asked_at)
                return again
        case ChargeOutcomeUnknown():
            refund = lock_refund(session, refund_id)
            _be_unknown(refund, answer, run, next_ask(0, run.now, _sent_at(refund)))
        case _:
            refund = _settle(run, session, refund_id, answer)
    return _outcome(refund)


def _record_resolved(run: Run, refund_id: UUID, session: Session, answer: Answer | None) -> Step:
    if isinstance(answer, RefundReport | ChargeRefused):
        return Done(as_result(_settle(run, session, refund_id, answer)))
    refund = lock_refund(session, refund_id)
    if refund.state in UNSETTLED_REFUNDS:
        if isinstance(answer, CardsUnavailable):
            hold_back(session, _attempt_refunded(session, refund).merchant_id, answer)
            # Nothing was asked: the next time that is set for asking may be a day away.
            return until_available(refund, answer)
        if isinstance(answer, ChargeOutcomeUnknown):
            _be_unknown(refund, answer, run, refund.next_ask_at)
        elif believed_never_arrived(_sent_at(refund), run.now):
            refund = _settle(run, session, refund_id, ChargeRefused("never_arrived", NEVER_ARRIVED))
    return Done(as_result(refund))


def _be_unknown(
    refund: Refund, answer: ChargeOutcomeUnknown, run: Run, ask_at: datetime | None
) -> None:
    if refund.state == RefundState.PENDING:
        refund.message = str(answer)
        refund.move(RefundState.UNKNOWN, run.now, ask_at=ask_at)


def _settle(
    run: Run, session: Session, refund_id: UUID, answer: RefundReport | ChargeRefused
) -> Refund:
    asked_by = f"job:{run.job_id}"
    refund = settle_refund(session, refund_id, answer, now=run.now, requested_by=asked_by)
    if refund.state not in UNSETTLED_REFUNDS:
        # Whatever waited for the answer goes on.
        wake_collection(session, [refund.client_id], now=run.now, requested_by=asked_by)
    return refund


def _outcome(refund: Refund) -> Outcome:
    if refund.state == RefundState.FAILED:
        return Skip("refund_refused", refund.message or "Stripe refused the refund")
    return Done(as_result(refund))
