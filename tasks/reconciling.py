"""Reconciling: our record of money against Stripe's, and what is safe to mend."""

from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from billing.errors import InvalidInput, NotFound
from gateways.payment_records import Window
from models import Account, PaymentAttempt, Reconciliation, ReconciliationDifference, Refund
from tasks.calls import Step
from tasks.comparing import Comparison
from tasks.enqueueing import enqueue
from tasks.kinds import BULK_PRIORITY, Run, job
from tasks.merchants import merchant_of
from tasks.outcomes import Done, Outcome
from tasks.reconciled_disputes import DisputeComparison
from tasks.reconciled_payments import PaymentComparison
from tasks.reconciled_refunds import RefundComparison

COMPARED_BACK = timedelta(days=4)
"""How far the daily comparison looks back: for three days Stripe tries to deliver an event."""

STILL_TOLD = timedelta(hours=1)
"""What is younger is not compared by itself: its events are on their way."""


@job(queue="payments", priority=BULK_PRIORITY)
def reconcile_accounts(run: Run, session: Session, fire_at: datetime) -> Outcome:
    """Reconcile every account that may have moved money of late, in a job of its own."""
    window = Window(fire_at - COMPARED_BACK, fire_at - STILL_TOLD)
    accounts = session.scalars(
        select(PaymentAttempt.account_id)
        .where(PaymentAttempt.created_at >= window.since)
        .union(select(Refund.account_id).where(Refund.created_at >= window.since))
    ).all()
    for account_id in accounts:
        request_reconciliation(session, account_id, window, requested_by=f"job:{run.job_id}")
    return Done({"accounts": len(accounts)})


def request_reconciliation(
    session: Session, account_id: UUID, window: Window, *, requested_by: str
) -> Reconciliation:
    """Have an account's money of a window compared, by the job that the record names."""
    record = Reconciliation(
        id=session.scalars(select(func.uuid7())).one(),
        account_id=account_id,
        since=window.since,
        until=window.until,
        requested_by=requested_by,
    )
    record.job_id = enqueue(
        session,
        reconcile_account,
        account_id=account_id,
        requested_by=requested_by,
        reconciliation_id=record.id,
    ).id
    session.add(record)
    session.flush()
    return record


def window_since(since: datetime | None, *, now: datetime) -> Window:
    """What somebody asks to be compared: all from ``since`` on, by default the last days.

    Raises:
        InvalidInput: ``since`` is still to come.
    """
    if since is not None and since >= now:
        raise InvalidInput("since", "must be in the past")
    return Window(since or now - COMPARED_BACK, now)


@job(queue="payments", priority=BULK_PRIORITY)
def reconcile_account(run: Run, session: Session, reconciliation_id: UUID) -> Step:
    """Compare an account's money of a window with Stripe's record, page by page.

    News that only came late is written down as its event would have been; all else is listed.
    """
    record = session.get(Reconciliation, reconciliation_id)
    if record is None:
        raise NotFound("reconciliation", str(reconciliation_id))
    # Begun again after a crash, it counts anew.
    record.payments = record.refunds = record.disputes = 0
    comparison = Comparison(
        run=run,
        id=record.id,
        account_id=record.account_id,
        window=Window(record.since, record.until),
        merchant=merchant_of(session, session.get_one(Account, record.account_id)),
    )
    disputes = DisputeComparison(comparison, partial(_finish, comparison))
    refunds = RefundComparison(comparison, lambda _session: disputes.read())
    return PaymentComparison(comparison, lambda _session: refunds.read()).read()


def _finish(comparison: Comparison, session: Session) -> Outcome:
    record = session.get_one(Reconciliation, comparison.id, populate_existing=True)
    record.finished_at = comparison.run.now
    found = session.execute(
        select(ReconciliationDifference.difference, func.count())
        .where(ReconciliationDifference.reconciliation_id == record.id)
        .group_by(ReconciliationDifference.difference)
        .order_by(ReconciliationDifference.difference)
    )
    return Done(
        {
            "reconciliation": str(record.id),
            "payments": record.payments,
            "refunds": record.refunds,
            "disputes": record.disputes,
            "differences": dict(found.all()),
        }
    )
