"""One page of a billing run: up to a thousand clients at one boundary, in one transaction."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Row, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from billing.cycles import BillingCycle, Period
from billing.errors import NotFound
from billing.periods import PeriodReason, PeriodState, periods_between
from models import Account, BillingPeriod, BillingRun, Client
from models.billing_period import due_in
from models.client import clients_for_update
from tasks.drafting import DraftFor, draft_invoices
from tasks.finalizing import finalize_invoices
from tasks.kinds import BULK_PRIORITY, Run, job
from tasks.outcomes import Done, Outcome, described
from tasks.pauses import is_held
from tasks.periods import ClientPeriod, write_periods
from tasks.reviewing import begin_reviews
from tasks.run_conclusions import conclude_late_page

_log = structlog.get_logger(__name__)

_ON_MANUAL_DRAFTS = text("""
SELECT DISTINCT charges.client_id
  FROM invoices
  JOIN charges ON charges.client_id = invoices.client_id AND charges.invoice_id = invoices.id
 WHERE invoices.client_id = ANY(:clients) AND invoices.status = 'draft'
   AND invoices.period_id IS NULL AND charges.charged_on < :before
""")

# What waits from before the client's activation has lost its charges to this later period.
_SKIP_WAITING = text("""
UPDATE billing_periods SET state = 'skipped', error = NULL, run_id = :run, decided_at = :now
 WHERE client_id = ANY(:clients) AND period_end < :boundary
   AND (state = 'open' OR state = 'failed' AND run_id <> :run)
   AND reason = 'before_activation'
""")

# Where each period's chain stands around it: the end of the last one before, and whether the next
# is there.
_AROUND = text("""
SELECT page.client_id, earlier.period_start, earlier.period_end, earlier.ends_at,
       EXISTS (SELECT FROM billing_periods AS later
                WHERE later.client_id = page.client_id AND later.period_start = :boundary)
       AS has_next
  FROM unnest(:clients ::uuid[], :starts ::date[]) AS page (client_id, period_start)
  LEFT JOIN LATERAL (
       SELECT period_start, period_end, ends_at FROM billing_periods
        WHERE client_id = page.client_id AND period_end <= page.period_start
        ORDER BY period_end DESC LIMIT 1) AS earlier ON true
""")

_DECIDE = text("""
UPDATE billing_periods
   SET state = decided.state, reason = decided.reason, error = NULL, run_id = :run,
       decided_at = :now
  FROM unnest(:periods ::uuid[], :states ::text[], :reasons ::text[])
       AS decided (id, state, reason)
 WHERE billing_periods.id = decided.id
""")


@dataclass(frozen=True, slots=True)
class _Due:
    """A period to bill, and its client, locked."""

    period: BillingPeriod
    client: Client


@job(queue="billing", subject="billing_run", priority=BULK_PRIORITY)
def bill_page(  # noqa: PLR0917 - the runner passes its own two by position
    run: Run,
    session: Session,
    run_id: UUID,
    boundary: date,
    first_client: UUID,
    last_client: UUID,
) -> Outcome:
    """Bill the periods of a run that end on ``boundary``, for clients from first to last."""
    billing_run = session.get(BillingRun, run_id)
    if billing_run is None:
        raise NotFound("billing_run", str(run_id))
    due = _lock_due(session, billing_run, boundary, first_client, last_client)
    # Read under the clients' locks, which whoever moves them to another zone takes as well.
    account = session.get_one(Account, billing_run.account_id)
    failed = _bill_or_halve(session, account, billing_run, due, run.now)
    conclude_late_page(session, run_id, now=run.now, requested_by=f"job:{run.job_id}")
    return Done({"periods": len(due), "failed": failed})


def _lock_due(
    session: Session, run: BillingRun, boundary: date, first_client: UUID, last_client: UUID
) -> list[_Due]:
    """The page's due periods under their clients' locks, so that nothing else drafts for them."""
    due = due_in(run).where(
        BillingPeriod.period_end == boundary,
        BillingPeriod.client_id.between(first_client, last_client),
    )
    ids = session.scalars(due.with_only_columns(BillingPeriod.client_id)).all()
    clients = {client.id: client for client in session.scalars(clients_for_update(ids))}
    # Read again under the locks: a zone, a cycle or a run may have changed while waiting.
    locked = session.scalars(
        due.order_by(BillingPeriod.client_id)
        .with_for_update(of=BillingPeriod)
        .execution_options(populate_existing=True)
    )
    return [_Due(one, clients[one.client_id]) for one in locked if one.client_id in clients]


def _bill_or_halve(
    session: Session, account: Account, run: BillingRun, due: Sequence[_Due], now: datetime
) -> int:
    """Bill these periods together, or else each half of them; how many cannot be billed at all.

    So a bad period costs two tries for each time the page can be halved, not one for each client.
    """
    try:
        with session.begin_nested():
            _bill(session, account, run, due, now)
    except Exception as error:
        if is_transient(error):
            raise
        what = "{type}: {message}".format(**described(error))
        if len(due) == 1:
            _log.error("period failed", period=str(due[0].period.id), exc_info=error)
            _record_failure(session, run, due[0].period, what, now)
            return 1
        _log.warning("page failed, billing its halves", periods=len(due), error=what)
        middle = len(due) // 2
        return sum(
            _bill_or_halve(session, account, run, half, now)
            for half in (due[:middle], due[middle:])
        )
    return 0


def _record_failure(
    session: Session, run: BillingRun, period: BillingPeriod, error: str, now: datetime
) -> None:
    period.state = PeriodState.FAILED
    period.error = error
    period.run_id = run.id
    period.decided_at = now
    session.flush()


def _bill(
    session: Session, account: Account, run: BillingRun, due: Sequence[_Due], now: datetime
) -> None:
    """Draft a page, finalize what nobody reviews, and record what became of every period."""
    if not due:
        return
    boundary = due[0].period.period_end
    held = {one.client.id for one in due if is_held(one.client, account, run)}
    by_id = {one.client.id: one.client for one in due if one.client.id not in held}
    clients = list(by_id)
    drafts = draft_invoices(
        session,
        [DraftFor(one.client.id, one.period.id, run.id) for one in due if one.client.id in by_id],
        before=boundary,
    )
    waiting = begin_reviews(session, account, by_id, drafts, boundary=boundary, now=now)
    in_review = {draft.invoice_id for draft in waiting}
    page = {"run": run.id, "clients": clients, "boundary": boundary, "now": now}
    elsewhere = set(
        session.scalars(_ON_MANUAL_DRAFTS, {"clients": clients, "before": boundary}).all()
    )
    starts = [one.period.period_start for one in due]
    everyone = {"clients": [one.client.id for one in due], "starts": starts, "boundary": boundary}
    around = {row.client_id: row for row in session.execute(_AROUND, everyone)}
    missing = [
        period for one in due for period in _missing_around(one, account, around[one.client.id])
    ]
    write_periods(session, missing)
    session.execute(_SKIP_WAITING, page)
    drafted = {draft.client_id: PeriodState.BILLED for draft in drafts}
    drafted |= {draft.client_id: PeriodState.DRAFTED for draft in waiting}
    decided = [
        (PeriodState.HELD, PeriodReason.PAUSED)
        if one.client.id in held
        else _decided(one.period, drafted.get(one.client.id), elsewhere=one.client.id in elsewhere)
        for one in due
    ]
    session.execute(
        _DECIDE,
        {
            "run": run.id,
            "now": now,
            "periods": [one.period.id for one in due],
            "states": [state for state, _ in decided],
            "reasons": [reason for _, reason in decided],
        },
    )
    # Last: once it has taken numbers, all that finalizes for this account waits for the commit,
    # of a failing page for the tries of its other halves as well.
    finalize_invoices(
        session,
        account,
        [draft.invoice_id for draft in drafts if draft.invoice_id not in in_review],
        now=now,
        requested_by=f"billing_run:{run.id}",
    )


def _decided(
    period: BillingPeriod, drafted: PeriodState | None, *, elsewhere: bool
) -> tuple[PeriodState, PeriodReason | None]:
    """What became of a period; ``drafted`` if it has an invoice."""
    if drafted is None and period.state == PeriodState.SKIPPED:
        # Its charges have joined another invoice since its draft was deleted.
        return PeriodState.SKIPPED, PeriodReason.DRAFT_DELETED
    reason = PeriodReason.CHARGES_ON_MANUAL_DRAFT if elsewhere else None
    return drafted or PeriodState.EMPTY, reason


def _missing_around(one: _Due, account: Account, around: Row[Any]) -> Iterator[ClientPeriod]:
    """The periods to write down around a billed one: the next, and any that are missing before.

    Of a start long ago only the oldest periods were written down. Those between them and this
    one were never billed and have lost their charges to it.
    """
    client, period = one.client, one.period
    if client.billing_cycle == BillingCycle.MANUAL or client.activated_at is None:
        return
    if around.has_next and around.period_end in (None, period.period_start):
        return
    plan = partial(
        periods_between,
        cadence=client.cadence,
        zone=client.zone(account),
        activated_at=client.activated_at,
    )
    if around.period_end is not None:
        last = Period(around.period_start, around.period_end)
        for waiting in plan(last, period.period_start, ended_at=around.ends_at):
            yield ClientPeriod(account.id, client.id, waiting)
    if not around.has_next:
        billed = Period(period.period_start, period.period_end)
        following = next(plan(billed, date.max, ended_at=period.ends_at))
        yield ClientPeriod(account.id, client.id, following)


def is_transient(error: Exception) -> bool:
    """Whether the trouble is the database's and not one period's: deadlock, timeout, shutdown."""
    return isinstance(error, OperationalError) or (
        isinstance(error, DBAPIError) and error.connection_invalidated
    )
