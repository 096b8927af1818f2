"""Deposits by card: credit that a client's card is charged for, on demand."""

from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from billing.card_amounts import minimum_charge, to_stripe
from billing.collection import UNSETTLED, AttemptPurpose, AttemptState
from billing.currencies import currency_code
from billing.errors import InvalidInput, NotFound, RuleViolation
from models import Client, Payment, PaymentAttempt
from models.client import clients_for_update
from models.payment_attempt import open_for_credit
from tasks.attempts import as_result, ask_for, begin_credit_attempt, is_to_ask_again, withdraw
from tasks.calls import Step
from tasks.charging import require_billing_method
from tasks.collecting import wake_collection
from tasks.credit_balances import balance_of
from tasks.kinds import Run, job
from tasks.outcomes import Done, Skip


@job(queue="payments", subject="client")
def deposit_by_card(
    run: Run,
    session: Session,
    *,
    client_id: UUID,
    amount: int,
    currency: str,
    reference: str | None = None,
    note: str | None = None,
    apply: bool = True,
) -> Step:
    """Charge the client's card for credit, as staff asked; it counts once it is settled."""
    require_chargeable(amount, currency)
    find = clients_for_update([client_id]).where(Client.account_id == run.account_id)
    if session.scalars(find).one_or_none() is None:
        raise NotFound("client", str(client_id))
    own = session.scalar(select(PaymentAttempt).where(PaymentAttempt.job_id == run.job_id))
    if own is not None:
        if is_to_ask_again(run, own):
            return ask_for(session, run, own, partial(_ended, run))
        return _done(session, own)
    wanted = {
        "amount": amount,
        "currency": currency_code(currency),
        "told": {"reference": reference, "note": note, "apply": apply},
    }
    waiting = require_no_deposit_in_flight(session, client_id)
    if waiting is not None:
        # Checked first: without another try, what waits for the client goes on waiting.
        require_billing_method(session, client_id)
        return withdraw(session, run, waiting, partial(_withdrawn, run, client_id, wanted))
    return _begin(run, session, client_id, wanted)


def require_chargeable(amount: int, currency: str) -> None:
    """Check that a card can be charged so much.

    Raises:
        InvalidInput: It is below Stripe's minimum or not a multiple of what it takes
            (``amount``), or Stripe charges no cards in the currency (``currency``).
    """
    least = minimum_charge(currency)
    if amount < least:
        code = currency_code(currency).upper()
        raise InvalidInput(
            "amount", f"must be at least {least:,}: a card is charged {least:,} {code} or more"
        )
    to_stripe(amount, currency)


def require_no_deposit_in_flight(session: Session, client_id: UUID) -> PaymentAttempt | None:
    """Check that no deposit of a client's may be moving money.

    Returns:
        The one that waits for the client, if there is one: it has to be withdrawn first.

    Raises:
        RuleViolation: One is not settled (``payment_in_flight``).
    """
    deposits = open_for_credit(client_id).where(PaymentAttempt.purpose == AttemptPurpose.DEPOSIT)
    attempt = session.scalars(deposits).one_or_none()
    if attempt is not None and attempt.state in UNSETTLED:
        raise RuleViolation(
            "payment_in_flight",
            f"a deposit of this client is {attempt.state}: wait until it is settled",
        )
    return attempt


def _begin(run: Run, session: Session, client_id: UUID, wanted: dict[str, Any]) -> Step:
    return begin_credit_attempt(
        session,
        run,
        require_billing_method(session, client_id),
        purpose=AttemptPurpose.DEPOSIT,
        ended=partial(_ended, run),
        **wanted,
    )


def _withdrawn(
    run: Run,
    client_id: UUID,
    wanted: dict[str, Any],
    session: Session,
    attempt: PaymentAttempt | None,
) -> Step:
    """Go on once what waited for the client is withdrawn; it may have been paid meanwhile.

    A refusal is returned and not raised: what Stripe said of the other attempt is kept.
    """
    if attempt is not None and attempt.state not in {AttemptState.CANCELED, AttemptState.DECLINED}:
        return Skip("payment_in_flight", "the client is paying, or has just paid, another deposit")
    try:
        return _begin(run, session, client_id, wanted)
    except RuleViolation as refusal:
        return Skip(refusal.code, refusal.message)


def _ended(run: Run, session: Session, attempt: PaymentAttempt | None) -> Step:
    if attempt is None:
        raise ValueError("a deposit is never made without the card")
    wake_collection(session, [attempt.client_id], now=run.now, requested_by=f"job:{run.job_id}")
    return _done(session, attempt)


def _done(session: Session, attempt: PaymentAttempt) -> Done:
    """As a deposit from outside ends, once there is money."""
    result = as_result(attempt)
    if attempt.state == AttemptState.SUCCEEDED:
        paid = select(Payment.id).where(Payment.attempt_id == attempt.id)
        result["payment"] = str(session.scalars(paid).one())
        result["balance"] = balance_of(session, attempt.client_id, attempt.currency)
    return Done(result)
