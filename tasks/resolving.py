"""Charges without an answer: asked after until Stripe's word is known, never guessed."""

from functools import partial
from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from billing.collection import UNSETTLED, AttemptState
from billing.errors import DuecourseError
from billing.unknown_outcomes import (
    BELIEVED_MISSING_AFTER,
    ask_by,
    believed_missing,
    believed_never_arrived,
    next_ask,
)
from gateways.cards import (
    CardCharge,
    CardReport,
    CardsUnavailable,
    ChargeOutcomeUnknown,
    ChargeRefused,
)
from gateways.merchants import Merchant
from models import PaymentAttempt
from tasks.attempt_locks import lock_attempt
from tasks.attempts import Answer, answered, as_result, order_of, sent_at, until_available
from tasks.calls import Call, Gateways, Step
from tasks.collecting import wake_collection
from tasks.kinds import Run, job
from tasks.merchants import merchant_that_took
from tasks.outcomes import Done, Fail, Skip, Snooze
from tasks.pay_pages import ask_after_page
from tasks.settling import PaymentMissing, settle_attempt
from tasks.turns import MayAsk, hold_back, take_turn
from tasks.wanted_attempts import give_up_unsent, is_still_wanted

_log = structlog.get_logger(__name__)

NEVER_ARRIVED = "Stripe does not know of it after a day of asking: it never arrived"
NOT_KNOWN = "Stripe does not know this payment any more: it is asked once more a day later"
MISSING = (
    "Stripe has not known this payment for a day. Its money may have moved all the same: look at"
    " Stripe, in every account that was ever charged through, before it is charged again"
)


class PaymentNotAtStripe(DuecourseError):  # noqa: N818 - named as the fact it states
    """A payment that Stripe had told of is not there any more: a person has to look for it."""


@job(queue="payments")
def resolve_attempt(run: Run, session: Session, attempt_id: UUID) -> Step:
    """Ask what became of an attempt: by its key while that lives, by its metadata after."""
    attempt = lock_attempt(session, attempt_id)
    if attempt.is_page and attempt.state in {AttemptState.PENDING, AttemptState.NEEDS_ACTION}:
        return ask_after_page(run, session, attempt)
    if attempt.state not in UNSETTLED or give_up_unsent(session, attempt, run.now):
        return Skip("attempt_settled", f"the attempt is {attempt.state}")
    since = sent_at(attempt)
    turn = take_turn(
        run,
        merchant_id=attempt.merchant_id,
        account_id=attempt.account_id,
        is_bulk=True,
    )
    if isinstance(turn, Snooze):
        return turn
    attempt.asks += 1
    attempt.next_ask_at = next_ask(0, run.now, since)
    record = partial(_record, run, attempt_id)
    if attempt.payment_intent is not None:
        intent, merchant = attempt.payment_intent, merchant_that_took(session, attempt)
        return Call(partial(_retrieve, intent, merchant), partial(record, was_told=True))
    order = order_of(session, attempt)
    if ask_by(since, run.now) == "key" and is_still_wanted(session, attempt):
        attempt.is_unsent = False
        return Call(partial(_ask_by_key, order, turn), partial(record, by_key=True))
    return Call(partial(_look_up, order), record)


def _ask_by_key(order: CardCharge, turn: MayAsk, gateways: Gateways) -> Answer | None:
    """Send it again under its key; where that replays a failure of Stripe's, look it up."""
    turn.wait()
    answer = answered(lambda: gateways.cards.charge(order))
    if not isinstance(answer, ChargeOutcomeUnknown):
        return answer
    return _look_up(order, gateways) or answer


def _retrieve(intent: str, merchant: Merchant, gateways: Gateways) -> Answer | None:
    try:
        return gateways.cards.retrieve(intent, merchant)
    except (CardsUnavailable, ChargeOutcomeUnknown) as answer:
        return answer


def _look_up(order: CardCharge, gateways: Gateways) -> Answer | None:
    try:
        return gateways.cards.look_up(order)
    except (CardsUnavailable, ChargeOutcomeUnknown) as answer:
        return answer


def _record(
    run: Run,
    attempt_id: UUID,
    session: Session,
    answer: Answer | None,
    *,
    by_key: bool = False,
    was_told: bool = False,
) -> Step:
    """Write down what Stripe says; ``was_told`` is of a payment that it had told of before."""
    if isinstance(answer, CardReport | ChargeRefused):
        attempt = settle_attempt(
            session,
            attempt_id,
            answer,
            now=run.now,
            requested_by=f"job:{run.job_id}",
            # Only an answer under the key may be an old one.
            is_current=not by_key,
        )
        attempt.missing_since = None
        if attempt.state not in UNSETTLED:
            # Whatever of this client's waited for the answer goes on.
            wake_collection(
                session, [attempt.client_id], now=run.now, requested_by=f"job:{run.job_id}"
            )
        return Done(as_result(attempt))
    attempt = lock_attempt(session, attempt_id)
    since = sent_at(attempt)
    if attempt.state in UNSETTLED:
        if isinstance(answer, CardsUnavailable):
            hold_back(session, attempt.merchant_id, answer)
            # Nothing was asked: the next time that is set for asking may be a day away.
            return until_available(attempt, answer)
        if answer is None and attempt.payment_intent is not None:
            # If it was told of only while it was looked up, there it is.
            return _miss(run, session, attempt) if was_told else Done(as_result(attempt))
        if answer is None and believed_never_arrived(since, run.now):
            attempt.message = NEVER_ARRIVED
            attempt.move(AttemptState.CANCELED, run.now)
        elif isinstance(answer, ChargeOutcomeUnknown) and attempt.state == AttemptState.PENDING:
            attempt.message = str(answer)
            attempt.move(AttemptState.UNKNOWN, run.now, ask_at=attempt.next_ask_at)
    return Done(as_result(attempt))


def _miss(run: Run, session: Session, attempt: PaymentAttempt) -> Step:
    """Stripe has told of a payment, and says now that there is none.

    It was deleted with its test data, or another Stripe account is asked than the one that made it:
    money may have moved. So it is not taken for a decline, and nothing is tried again by itself.
    """
    if attempt.missing_since is None:
        attempt.missing_since, attempt.message = run.now, NOT_KNOWN
        _log.error(
            "payment is not at Stripe",
            attempt=str(attempt.id),
            payment_intent=attempt.payment_intent,
        )
    if not believed_missing(attempt.missing_since, run.now):
        attempt.next_ask_at = attempt.missing_since + BELIEVED_MISSING_AFTER
        return Done(as_result(attempt))
    asked_by = f"job:{run.job_id}"
    settle_attempt(
        session,
        attempt.id,
        PaymentMissing(MISSING),
        now=run.now,
        requested_by=asked_by,
        is_current=True,
    )
    wake_collection(session, [attempt.client_id], now=run.now, requested_by=asked_by)
    return Fail(
        PaymentNotAtStripe(f"attempt {attempt.id}: {attempt.payment_intent}"), "payment_missing"
    )
