"""Unused credit that a client is paid: what it paid in, never what it was granted."""

from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from billing.credit import CreditEntryKind
from billing.credit_notes import Destination
from billing.currencies import currency_code
from billing.cycles import local_date
from billing.errors import RuleViolation
from billing.postings import LedgerEvent, postings_for_paying_out_credit
from billing.refunds import RefundState
from models import Account, Payment, Refund
from tasks.calls import Step
from tasks.card_refunds import go_on_with_refund, refund_to_card
from tasks.credit_balances import CreditMove, balance_of, move_credit, write_expiries
from tasks.credit_notes import PAID_FROM
from tasks.crediting import lock_client
from tasks.grants import InHand, in_hand
from tasks.kinds import Run, job
from tasks.outcomes import Done, Outcome
from tasks.payments import require_some
from tasks.posting import Entry, post
from tasks.refunds import require_card_payment


@job(queue="billing", subject="client")
def refund_credit(
    run: Run,
    session: Session,
    *,
    client_id: UUID,
    amount: int,
    currency: str,
    reason: str | None = None,
    reference: str | None = None,
) -> Outcome:
    """Record that a client was paid, outside, what it has in hand and had paid in."""
    currency = currency_code(currency)
    account = _require_in_hand(session, run, client_id, currency, amount)
    refund = Refund(
        id=session.scalars(select(func.uuid7())).one(),
        account_id=account.id,
        client_id=client_id,
        currency=currency,
        amount=amount,
        destination=Destination.OUTSIDE,
        makes_note=False,
        state=RefundState.PENDING,
        reason=reason,
        reference=reference,
        job_id=run.job_id,
        requested_by=run.requested_by,
        created_at=run.now,
    )
    refund.move(RefundState.SUCCEEDED, run.now)
    session.add(refund)
    session.flush()
    _take_off_balance(session, run, account, refund)
    return Done(
        {
            "client": str(client_id),
            "refund": str(refund.id),
            "balance": balance_of(session, client_id, currency),
        }
    )


@job(queue="payments", subject="client")
def refund_credit_to_card(
    run: Run,
    session: Session,
    *,
    client_id: UUID,
    amount: int,
    currency: str,
    reason: str | None = None,
    reference: str | None = None,
) -> Step:
    """Send a client what it has in hand and had paid in, to the newest card that paid so much.

    It is off the balance before Stripe is asked, and back on it if the card does not take it.
    """
    goes_on = go_on_with_refund(
        session, run, select(Payment.id).where(Payment.client_id == client_id)
    )
    if goes_on is not None:
        return goes_on
    currency = currency_code(currency)
    account = _require_in_hand(session, run, client_id, currency, amount)
    refund = Refund(
        account_id=account.id,
        client_id=client_id,
        payment_id=require_card_payment(session, client_id, currency, amount),
        currency=currency,
        amount=amount,
        destination=Destination.CARD,
        makes_note=False,
        state=RefundState.PENDING,
        reason=reason,
        reference=reference,
        job_id=run.job_id,
        requested_by=run.requested_by,
        created_at=run.now,
    )
    call = refund_to_card(session, run, refund)
    _take_off_balance(session, run, account, refund)
    return call


def require_paid_in(in_hand: InHand, amount: int) -> None:
    """Check that a client has so much in hand that it paid in.

    Raises:
        RuleViolation: It has not (``insufficient_credit``).
    """
    if amount > in_hand.balance - in_hand.promotional:
        raise RuleViolation(
            "insufficient_credit",
            f"the balance is {in_hand.balance}, of which {in_hand.promotional} are promotional:"
            f" {amount} cannot be paid out",
        )


def _require_in_hand(
    session: Session, run: Run, client_id: UUID, currency: str, amount: int
) -> Account:
    """Lock a client, and check that it may be paid out so much; its account.

    Raises:
        InvalidInput: ``amount`` is not above zero.
        NotFound: The job's account has no such client.
        RuleViolation: The client has not paid in so much (``insufficient_credit``).
    """
    require_some(amount)
    account, client = lock_client(session, run, client_id)
    write_expiries(session, account, [client_id], now=run.now, requested_by=f"job:{run.job_id}")
    require_paid_in(in_hand(session, account, client, currency, now=run.now), amount)
    return account


def _take_off_balance(session: Session, run: Run, account: Account, refund: Refund) -> None:
    """The credit is paid out, or on its way: nothing can use it any more."""
    move_credit(
        session,
        [
            CreditMove(
                account_id=account.id,
                client_id=refund.client_id,
                currency=refund.currency,
                kind=CreditEntryKind.PAID_OUT,
                amount=-refund.amount,
                refund_id=refund.id,
                note=refund.reason,
                requested_by=run.requested_by,
            )
        ],
    )
    paid_from = PAID_FROM[Destination(refund.destination)]
    post(
        session,
        LedgerEvent.CREDIT_REFUND,
        [
            Entry(
                account_id=account.id,
                client_id=refund.client_id,
                currency=refund.currency,
                effective_on=local_date(run.now, ZoneInfo(account.time_zone)),
                refund_id=refund.id,
                postings=postings_for_paying_out_credit(paid_from, refund.amount),
            )
        ],
    )
