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
from billing.postings import LedgerAccount, LedgerEvent, postings_for_paying_out_credit
from billing.refunds import RefundState
from models import Refund
from tasks.credit_balances import CreditMove, balance_of, move_credit, write_expiries
from tasks.crediting import lock_client
from tasks.grants import InHand, in_hand
from tasks.kinds import Run, job
from tasks.outcomes import Done, Outcome
from tasks.payments import require_some
from tasks.posting import Entry, post


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
    require_some(amount)
    currency = currency_code(currency)
    account, client = lock_client(session, run, client_id)
    write_expiries(session, account, [client_id], now=run.now, requested_by=f"job:{run.job_id}")
    require_paid_in(in_hand(session, account, client, currency, now=run.now), amount)
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
    move_credit(
        session,
        [
            CreditMove(
                account_id=account.id,
                client_id=client_id,
                currency=currency,
                kind=CreditEntryKind.PAID_OUT,
                amount=-amount,
                refund_id=refund.id,
                note=reason,
                requested_by=run.requested_by,
            )
        ],
    )
    post(
        session,
        LedgerEvent.CREDIT_REFUND,
        [
            Entry(
                account_id=account.id,
                client_id=client_id,
                currency=currency,
                effective_on=local_date(run.now, ZoneInfo(account.time_zone)),
                refund_id=refund.id,
                postings=postings_for_paying_out_credit(LedgerAccount.OUTSIDE, amount),
            )
        ],
    )
    return Done(
        {
            "client": str(client_id),
            "refund": str(refund.id),
            "balance": balance_of(session, client_id, currency),
        }
    )


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
