"""Reconciling: our record of money against Stripe's, and what is safe to mend."""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, or_, select, union
from sqlalchemy.orm import Session

from billing.credit_notes import Destination
from billing.disputes import PENDING
from billing.errors import InvalidInput, NotFound
from billing.job_states import FINAL
from billing.refunds import UNSETTLED_REFUNDS
from gateways.payment_records import Window
from models import (
    Account,
    DifferenceAcknowledgement,
    Dispute,
    Job,
    PaymentAttempt,
    Reconciliation,
    ReconciliationDifference,
    Refund,
)
from models.reconciliation import acknowledgement_in_force, still_stands
from tasks.calls import Step
from tasks.enqueueing import enqueue
from tasks.kinds import BULK_PRIORITY, Run, job
from tasks.outcomes import Done, Outcome
from tasks.reconciled_refunds import MAY_COME_BACK
from tasks.reconciliation_course import REACH, Course

COMPARED_BACK = timedelta(days=4)
"""How far the daily comparison looks back: for three days Stripe tries to deliver an event."""

LONGEST_GAP = timedelta(days=90)
"""How far back it looks at most, where no comparison was finished for long."""

STILL_TOLD = timedelta(hours=1)
"""What is younger is not compared by itself: its events are on their way."""

_DAILY = "job:"


@job(queue="payments", priority=BULK_PRIORITY)
def reconcile_accounts(run: Run, session: Session, fire_at: datetime) -> Outcome:
    """Reconcile every account of whose money there may be news, in a job of its own.

    One whose last comparison is still under way, be it for want of Stripe, is left to that.
    """
    accounts = session.scalars(_with_news(fire_at)).all()
    begins = _begins(session, fire_at)
    for account_id in accounts:
        window = Window(begins.get(account_id, fire_at - COMPARED_BACK), fire_at - STILL_TOLD)
        request_reconciliation(session, account_id, window, requested_by=f"{_DAILY}{run.job_id}")
    return Done({"accounts": len(accounts)})


def _with_news(now: datetime) -> Select[UUID]:
    """The accounts that charged a card of late, or wait for what Stripe or a person says."""
    news = union(
        select(PaymentAttempt.account_id).where(PaymentAttempt.created_at >= now - REACH),
        select(Refund.account_id).where(
            or_(
                Refund.state.in_(UNSETTLED_REFUNDS),
                Refund.succeeded_at >= now - MAY_COME_BACK,
            ),
            Refund.destination == Destination.CARD,
        ),
        select(Dispute.account_id).where(Dispute.state.in_(PENDING)),
        select(Reconciliation.account_id)
        .join(ReconciliationDifference)
        .where(still_stands(), ~_is_left_alone(now)),
    )
    under_way = (
        select(Reconciliation.id)
        .join(Job, Job.id == Reconciliation.job_id)
        .where(
            Reconciliation.account_id == Account.id,
            Reconciliation.finished_at.is_(None),
            Job.state.not_in(FINAL),
        )
    )
    return select(Account.id).where(Account.id.in_(news), ~under_way.exists()).order_by(Account.id)


def _is_left_alone(now: datetime) -> ColumnElement[bool]:
    """Whether a difference was acknowledged so long ago that there is no more news of its money.

    It alone is no reason to ask Stripe, for ever; whatever else is asks for it as well.
    """
    in_force = acknowledgement_in_force()
    return in_force.where(DifferenceAcknowledgement.acknowledged_at < now - REACH).exists()


def _begins(session: Session, now: datetime) -> dict[UUID, datetime]:
    """Where the daily windows begin: at the end of the last one that was compared, at the latest.

    What a person asked for says nothing of what lies before it.
    """
    compared_until = func.max(Reconciliation.until).filter(Reconciliation.finished_at.is_not(None))
    # None was ever finished: from where the first would have begun.
    rows = session.execute(
        select(
            Reconciliation.account_id,
            func.coalesce(compared_until, func.min(Reconciliation.since)),
        )
        .where(Reconciliation.requested_by.startswith(_DAILY))
        .group_by(Reconciliation.account_id)
    )
    latest, earliest = now - COMPARED_BACK, now - LONGEST_GAP
    return {account_id: max(min(until, latest), earliest) for account_id, until in rows}


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
    """Compare an account's money with Stripe's record, from where the last run ended.

    News that only came late is written down as its event would have been; all else is listed.
    """
    record = session.get(Reconciliation, reconciliation_id)
    if record is None:
        raise NotFound("reconciliation", str(reconciliation_id))
    return Course(run, record).go_on(session)
