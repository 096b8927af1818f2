"""Billing runs: finding what is due, fanning it out in pages, boundary after boundary."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

import structlog
from sqlalchemy import DateTime, literal, select, true
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from billing.errors import InvalidInput, NotFound
from billing.job_states import JobState
from models import BillingPeriod, BillingRun, Client, Job
from models.billing_period import due_by_itself, due_in
from tasks.billing_pages import bill_page, is_transient
from tasks.enqueueing import enqueue, enqueue_for_each
from tasks.kinds import BULK_PRIORITY, Run, job
from tasks.outcomes import AwaitChildren, Done, Fail, Outcome
from tasks.pauses import release_held
from tasks.previews import preview
from tasks.run_conclusions import conclude_run, resume_run, run_for_update
from tasks.run_reports import progress_of

_log = structlog.get_logger(__name__)

PAGE_SIZE = 1_000
"""Clients on a page. Larger pages hold their locks longer and gain nothing."""


class PageUnfinished(Exception):  # noqa: N818 - named as the fact it states
    """A page of the run ended dead or was cancelled: its periods are not decided."""


@dataclass(frozen=True, slots=True)
class RunRequested:
    """A run written down, and the job that carries it out."""

    run: BillingRun
    job_id: UUID


def request_run(
    session: Session,
    account_id: UUID,
    *,
    now: datetime,
    requested_by: str,
    as_of: datetime | date | None = None,
    client_id: UUID | None = None,
    dry_run: bool = False,
) -> RunRequested:
    """Write a run down and enqueue its job.

    Args:
        session: The transaction to do it in.
        account_id: Whose periods to bill.
        now: The real time; boundaries after it are not due yet.
        requested_by: Who asks.
        as_of: Bill boundaries up to this instant, or up to the midnight that begins this date in
            each client's zone; ``now`` when ``None``.
        client_id: Only this client's.
        dry_run: Only say what would be billed; ``as_of`` may then lie in the future.

    Raises:
        InvalidInput: ``as_of`` is in the future and this is no dry run.
        NotFound: The account has no such client.
    """
    if client_id is not None:
        client = session.get(Client, client_id)
        if client is None or client.account_id != account_id:
            raise NotFound("client", str(client_id))
    as_of = now if as_of is None else as_of
    on_date = not isinstance(as_of, datetime)
    billing_run = BillingRun(
        account_id=account_id,
        client_id=client_id,
        as_of_on=as_of if on_date else None,
        as_of_at=None if on_date else as_of,
        dry_run=dry_run,
        created_at=now,
    )
    if billing_run.looks_ahead and not dry_run:
        raise InvalidInput("as_of", "must not be in the future, except with dry_run")
    session.add(billing_run)
    session.flush()
    enqueued = enqueue(
        session,
        bill_due_periods,
        account_id=account_id,
        requested_by=requested_by,
        run_id=billing_run.id,
    )
    return RunRequested(billing_run, enqueued.id)


@job(queue="billing", subject="billing_run", priority=BULK_PRIORITY)
def bill_due_periods(run: Run, session: Session, run_id: UUID) -> Outcome:
    """Fan out the pages of the run's oldest boundary; come back when they are done, until none is due.

    An account's boundaries are billed one after another, so that invoice numbers follow dates.
    """
    billing_run = session.scalars(run_for_update(run_id)).one_or_none()
    if billing_run is None:
        raise NotFound("billing_run", str(run_id))
    asked_by = f"job:{run.job_id}"
    if billing_run.dry_run:
        billing_run.preview = preview(session, billing_run, now=run.now)
        conclude_run(session, billing_run, now=run.now, requested_by=asked_by)
        return Done(billing_run.preview["totals"])
    lost = session.scalar(
        select(Job.id).where(
            Job.parent_id == run.job_id, Job.state.in_((JobState.DEAD, JobState.CANCELLED))
        )
    )
    if lost is not None:
        # Going on would fan the same boundary out for ever. The next run takes what is left.
        conclude_run(session, billing_run, now=run.now, requested_by=asked_by)
        return Fail(PageUnfinished(f"page {lost} was not finished"), "page_unfinished")
    pages = _next_pages(session, billing_run)
    # A scheduled run that was retried while another is under way leaves the rest to that.
    if not pages or not resume_run(session, billing_run):
        conclude_run(session, billing_run, now=run.now, requested_by=asked_by)
        return Done(progress_of(session, billing_run).as_json())
    for page in pages:
        enqueue(
            session,
            bill_page,
            account_id=run.account_id,
            requested_by=asked_by,
            parent_id=run.job_id,
            run_id=run_id,
            boundary=page.boundary,
            first_client=page.first_client,
            last_client=page.last_client,
        )
    return AwaitChildren(len(pages))


@job(queue="billing")
def start_due_runs(run: Run, session: Session, fire_at: datetime) -> Outcome:
    """Start a run for every account with periods that fell due by ``fire_at``."""
    _close_abandoned_runs(session, run.now)
    release_held(session)
    due = (
        select(
            BillingPeriod.account_id,
            literal(fire_at, type_=DateTime(timezone=True)),
            true(),
            literal(run.now, type_=DateTime(timezone=True)),
        )
        .where(due_by_itself(run.now), BillingPeriod.ends_at <= fire_at)
        .distinct()
        .order_by(BillingPeriod.account_id)
    )
    # An account whose last scheduled run is still under way gets no second one beside it.
    started = session.execute(
        insert(BillingRun)
        .from_select(["account_id", "as_of_at", "scheduled", "created_at"], due)
        .on_conflict_do_nothing()
        .returning(BillingRun.id, BillingRun.account_id)
    ).all()
    enqueue_for_each(
        session,
        bill_due_periods,
        [(account_id, {"run_id": run_id}) for run_id, account_id in started],
        requested_by=f"job:{run.job_id}",
    )
    return Done({"runs": len(started)})


@dataclass(frozen=True, slots=True)
class _Page:
    boundary: date
    first_client: UUID
    last_client: UUID


def _next_pages(session: Session, run: BillingRun) -> Sequence[_Page]:
    """The pages of the oldest boundary still due; none when the run is through."""
    boundary = session.scalar(
        due_in(run)
        .with_only_columns(BillingPeriod.period_end)
        .order_by(BillingPeriod.period_end)
        .limit(1)
    )
    if boundary is None:
        return []
    clients = session.scalars(
        due_in(run)
        .where(BillingPeriod.period_end == boundary)
        .with_only_columns(BillingPeriod.client_id)
        .order_by(BillingPeriod.client_id)
    ).all()
    starts = range(0, len(clients), PAGE_SIZE)
    return [
        _Page(boundary, page[0], page[-1])
        for page in (clients[start : start + PAGE_SIZE] for start in starts)
    ]


def _close_abandoned_runs(session: Session, now: datetime) -> None:
    """End runs whose job ended without them: nothing else would, and no other could be scheduled."""
    job_goes_on = (
        select(Job.id).where(Job.subject_id == BillingRun.id, Job.finished_at.is_(None)).exists()
    )
    abandoned = session.scalars(
        select(BillingRun)
        .where(BillingRun.finished_at.is_(None), ~job_goes_on)
        .with_for_update(key_share=True, skip_locked=True)
    )
    for run in abandoned.all():
        try:
            with session.begin_nested():
                conclude_run(session, run, now=now, requested_by=f"billing_run:{run.id}")
        except Exception as error:
            if is_transient(error):
                raise
            # One bad run must not keep the others from starting.
            _log.error("abandoned run not concluded", run=str(run.id), exc_info=error)
