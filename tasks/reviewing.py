"""Reviews of billing periods' drafts: which drafts wait, and what finalizes them when it is time."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from uuid import UUID

from sqlalchemy import Select, or_, select, text
from sqlalchemy.orm import Session, aliased

from billing.errors import NotFound
from billing.invoice_states import InvoiceStatus
from billing.reviews import AT_ONCE, WaitingDraft, review_end, ripe
from models import Account, BillingPeriod, Client, Invoice
from models.client import clients_for_update
from tasks.collecting import MAX_FOUND_AT_ONCE, wake_collection
from tasks.drafting import Drafted
from tasks.enqueueing import enqueue_for_each
from tasks.finalizing import finalize_invoices
from tasks.kinds import BULK_PRIORITY, Run, job
from tasks.mailing import announce_reviewed
from tasks.outcomes import Done, Outcome, Skip
from tasks.period_outcomes import settle_periods

_BEHIND_OLDER = text("""
SELECT DISTINCT invoices.client_id
  FROM invoices JOIN billing_periods AS periods ON periods.id = invoices.period_id
 WHERE invoices.client_id = ANY(:clients) AND invoices.status = 'draft'
   AND periods.period_end < :boundary
""")

_BEGIN = text("""
UPDATE invoices SET review_ends_at = reviewed.ends_at
  FROM unnest(:ids ::uuid[], :ends ::timestamptz[]) AS reviewed (id, ends_at)
 WHERE invoices.id = reviewed.id
""")


def begin_reviews(
    session: Session,
    account: Account,
    clients: Mapping[UUID, Client],
    drafts: Sequence[Drafted],
    *,
    boundary: date,
    now: datetime,
) -> list[Drafted]:
    """Let those new drafts of a boundary wait that are not to be finalized at once; which they are.

    Also one that nobody reviews waits, for an older draft of its client: numbers follow dates. The
    caller holds the clients' locks.
    """
    behind_older = set(
        session.scalars(_BEHIND_OLDER, {"clients": list(clients), "boundary": boundary}).all()
    )
    hours = {client.id: client.hours_of_review(account) for client in clients.values()}
    waiting = [
        draft
        for draft in drafts
        if hours[draft.client_id] != AT_ONCE or draft.client_id in behind_older
    ]
    ends = [review_end(now, hours[draft.client_id]) for draft in waiting]
    if waiting:
        session.execute(_BEGIN, {"ids": [draft.invoice_id for draft in waiting], "ends": ends})
    return waiting


@job(queue="billing", subject="client", priority=BULK_PRIORITY)
def finalize_reviewed(run: Run, session: Session, client_id: UUID) -> Outcome:
    """Finalize a client's drafts whose review is over, oldest first; it is told of all in one mail."""
    client = session.scalars(clients_for_update([client_id])).one_or_none()
    if client is None:
        raise NotFound("client", str(client_id))
    # Read under the client's lock, as a page of a run does.
    account = session.get_one(Account, client.account_id)
    if client.is_billing_paused(account):
        return Skip("paused", "billing is paused: its drafts are finalized when it goes on")
    periods = _ripe_drafts(session, client_id, run.now)
    if not periods:
        return Done({"invoices": []})
    asked_by = f"job:{run.job_id}"
    ids = list(periods)
    finalize_invoices(session, account, ids, now=run.now, requested_by=asked_by)
    settle_periods(session, [*periods.values()], run.now)
    announce_reviewed(session, account, client, ids, requested_by=asked_by)
    wake_collection(session, [client_id], now=run.now, requested_by=asked_by)
    return Done({"invoices": [str(invoice_id) for invoice_id in ids]})


def _ripe_drafts(session: Session, client_id: UUID, now: datetime) -> dict[UUID, UUID]:
    """A client's drafts that are to be finalized by themselves now, oldest first, and their periods.

    They are locked: one that is just being deleted is not among them.
    """
    rows = session.execute(
        select(Invoice.id, Invoice.period_id, BillingPeriod.period_end, Invoice.review_ends_at)
        .join(BillingPeriod, BillingPeriod.id == Invoice.period_id)
        .where(Invoice.client_id == client_id, Invoice.status == InvoiceStatus.DRAFT)
        .order_by(Invoice.id)
        .with_for_update(of=Invoice)
    ).all()
    periods = {row.id: row.period_id for row in rows}
    drafts = [WaitingDraft(row.id, row.period_end, row.review_ends_at) for row in rows]
    return {draft.invoice_id: periods[draft.invoice_id] for draft in ripe(drafts, now)}


@job(queue="billing")
def finalize_due_reviews(run: Run, session: Session) -> Outcome:
    """Find the drafts whose review is over, and enqueue a job for each client."""
    owners = session.execute(_due_reviews(run.now).distinct().limit(MAX_FOUND_AT_ONCE)).all()
    enqueue_for_each(
        session,
        finalize_reviewed,
        [(account_id, {"client_id": client_id}) for account_id, client_id in owners],
        requested_by=f"job:{run.job_id}",
        unique_key=lambda arguments: f"review:{arguments['client_id']}",
    )
    return Done({"clients": len(owners)})


def _due_reviews(now: datetime) -> Select[UUID, UUID]:
    """Account and client of the drafts that are to be finalized by themselves now.

    What waits for an older draft, or is paused, is left out here: it would be found every minute.
    """
    older, older_period = aliased(Invoice), aliased(BillingPeriod)
    waits_for = (
        select(older.id)
        .join(older_period, older_period.id == older.period_id)
        .where(
            older.client_id == Invoice.client_id,
            older.status == InvoiceStatus.DRAFT,
            older_period.period_end < BillingPeriod.period_end,
            or_(older.review_ends_at.is_(None), older.review_ends_at > now),
        )
    )
    return (
        select(Invoice.account_id, Invoice.client_id)
        .join(BillingPeriod, BillingPeriod.id == Invoice.period_id)
        .join(Client, Client.id == Invoice.client_id)
        .join(Account, Account.id == Invoice.account_id)
        .where(
            Invoice.review_ends_at <= now,
            ~Client.billing_paused,
            ~Account.billing_paused,
            ~waits_for.exists(),
        )
    )
