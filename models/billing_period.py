"""Billing periods: every client's half-open spans, and what became of each."""

from datetime import date, datetime, timedelta
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ColumnElement,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Select,
    UniqueConstraint,
    and_,
    func,
    or_,
    select,
)
from sqlalchemy.orm import Mapped, aliased, mapped_column

from billing.cycles import MAX_PERIODS_PER_RUN, BillingCycle
from billing.periods import PeriodReason, PeriodState
from models.base import Base, CreatedAt, PrimaryKey, one_of
from models.billing_run import BillingRun
from models.client import Client

UNDECIDED_STATES = (PeriodState.OPEN, PeriodState.FAILED)
UNDECIDED = "state IN ('open', 'failed')"

STAFFS_STATES = (*UNDECIDED_STATES, PeriodState.HELD)
"""What a run of one client bills, which is staff's own command: a pause does not stop it."""

RETRY_FAILED_AFTER = timedelta(hours=1)


class BillingPeriod(Base):
    """``[period_start, period_end)`` in local dates, ``[starts_at, ends_at)`` as instants.

    ``run_id`` is the run that last worked on it; ``error`` says why a ``failed`` one failed.
    """

    __tablename__ = "billing_periods"
    __table_args__ = (
        ForeignKeyConstraint(["account_id", "client_id"], ["clients.account_id", "clients.id"]),
        UniqueConstraint("client_id", "id"),  # Lets an invoice prove that it is the client's.
        UniqueConstraint("client_id", "period_start"),
        UniqueConstraint("client_id", "period_end"),
        Index(
            "ix_billing_periods_undecided",
            "account_id",
            "period_end",
            "client_id",
            postgresql_where=UNDECIDED,
        ),
        # What the scheduler asks every minute: due by itself, in any account.
        Index(
            "ix_billing_periods_due",
            "ends_at",
            postgresql_where=f"{UNDECIDED} AND reason IS NULL",
        ),
        # What a pause holds, for its end.
        Index(
            "ix_billing_periods_held",
            "account_id",
            "client_id",
            postgresql_where="state = 'held'",
        ),
        # By client within a run: what a run has done for a client so far, in one probe.
        Index(
            "ix_billing_periods_run_id_client_id",
            "run_id",
            "client_id",
            postgresql_where="run_id IS NOT NULL",
        ),
        CheckConstraint(one_of("state", PeriodState), name="state"),
        CheckConstraint(one_of("reason", PeriodReason), name="reason"),
        CheckConstraint("period_start < period_end", name="dates"),
        CheckConstraint("starts_at <= ends_at", name="instants"),
        CheckConstraint("(state = 'failed') = (error IS NOT NULL)", name="error"),
    )

    id: Mapped[PrimaryKey]
    account_id: Mapped[UUID]
    client_id: Mapped[UUID]
    period_start: Mapped[date]
    period_end: Mapped[date]
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime]
    state: Mapped[str] = mapped_column(server_default=PeriodState.OPEN)
    reason: Mapped[str | None]
    error: Mapped[str | None]
    run_id: Mapped[UUID | None] = mapped_column(ForeignKey("billing_runs.id"))
    created_at: Mapped[CreatedAt]
    decided_at: Mapped[datetime | None]


def due_in(run: BillingRun, *, capped: bool = True) -> Select[BillingPeriod]:
    """The periods that ``run`` has still to bill, unordered.

    ``capped`` leaves out clients of whom the run has billed its maximum; to count without
    looking at each client's is much cheaper.

    A boundary never counts before it has passed, whatever date was asked for. What failed in
    this run is left for the next, with all of its client's later periods: they would take its
    charges. A run of one client also bills what a pause holds, and drafts again what was deleted.
    """
    failed = aliased(BillingPeriod)
    failed_for_client = select(failed.id).where(
        failed.client_id == BillingPeriod.client_id,
        failed.run_id == run.id,
        failed.state == PeriodState.FAILED,
    )
    due = select(BillingPeriod).where(
        BillingPeriod.account_id == run.account_id,
        BillingPeriod.state.in_(UNDECIDED_STATES) if run.client_id is None else _staffs(run),
        ~failed_for_client.exists(),
        BillingPeriod.ends_at <= run.created_at,
        BillingPeriod.ends_at <= run.as_of_at
        if run.as_of_on is None
        else BillingPeriod.period_end <= run.as_of_on,
    )
    if run.client_id is not None:
        archived = select(Client.id).where(
            Client.id == run.client_id, Client.archived_at.is_not(None)
        )
        due = due.where(BillingPeriod.client_id == run.client_id, ~archived.exists())
    if run.scheduled:
        due = due.where(due_by_itself(run.created_at))
    if not capped:
        return due
    decided = aliased(BillingPeriod)
    done_for_client = (
        select(func.count())
        .where(
            decided.client_id == BillingPeriod.client_id,
            decided.run_id == run.id,
            decided.state != PeriodState.SKIPPED,
        )
        .scalar_subquery()
    )
    return due.where(done_for_client < MAX_PERIODS_PER_RUN)


def _staffs(run: BillingRun) -> ColumnElement[bool]:
    """What a run of one client may take up, but for what it has left skipped itself."""
    return or_(
        BillingPeriod.state.in_(STAFFS_STATES),
        and_(drafted_again(), BillingPeriod.run_id.is_distinct_from(run.id)),
    )


def drafted_again() -> ColumnElement[bool]:
    """Skipped since its draft was deleted, of a client still on a cycle: staff may think again."""
    on_a_cycle = select(Client.id).where(
        Client.id == BillingPeriod.client_id, Client.billing_cycle != BillingCycle.MANUAL
    )
    return and_(
        BillingPeriod.state == PeriodState.SKIPPED,
        BillingPeriod.reason == PeriodReason.DRAFT_DELETED,
        on_a_cycle.exists(),
    )


def due_by_itself(now: datetime) -> ColumnElement[bool]:
    """What the scheduler bills: what has ended and waits for nobody.

    It leaves a client with a fresh failure alone for a while.
    """
    fresh = aliased(BillingPeriod)
    fresh_failure = select(fresh.id).where(
        fresh.client_id == BillingPeriod.client_id,
        fresh.state == PeriodState.FAILED,
        fresh.reason.is_(None),
        fresh.ends_at <= now,
        fresh.decided_at >= now - RETRY_FAILED_AFTER,
    )
    return and_(
        BillingPeriod.state.in_(UNDECIDED_STATES),
        BillingPeriod.reason.is_(None),
        BillingPeriod.ends_at <= now,
        ~fresh_failure.exists(),
    )


def undecided_of(client_id: UUID) -> Select[BillingPeriod]:
    """A client's periods of which nothing has become yet, held or not, oldest first, locked."""
    return (
        select(BillingPeriod)
        .where(
            BillingPeriod.client_id == client_id,
            BillingPeriod.state.in_(STAFFS_STATES),
        )
        .order_by(BillingPeriod.period_start)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
