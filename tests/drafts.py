"""Drafts of billing periods that somebody reviews."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from billing.cycles import Period, boundary_instant
from billing.periods import PeriodState
from models import Account, BillingPeriod, Charge, Client, Invoice
from tasks.draft_editing import edit_draft
from tasks.drafting import DraftFor, draft_invoices
from tests.worlds import NOW

APRIL, MAY, JUNE = date(2026, 4, 1), date(2026, 5, 1), date(2026, 6, 1)


def in_review(
    engine: Engine, account: Account, client: Client, *, start: date = MAY, end: date = JUNE
) -> list[Invoice]:
    """Drafts of the client's open charges before ``end``, for the period that ends then."""
    zone = client.zone(account)
    with Session(engine, expire_on_commit=False) as session, session.begin():
        period = session.scalars(
            select(BillingPeriod).where(
                BillingPeriod.client_id == client.id, BillingPeriod.period_start == start
            )
        ).one_or_none()
        if period is None:
            span = Period(start, end)
            period = BillingPeriod(
                account_id=account.id,
                client_id=client.id,
                period_start=span.start,
                period_end=span.end,
                starts_at=boundary_instant(span.start, zone),
                ends_at=boundary_instant(span.end, zone),
            )
            session.add(period)
        period.state = PeriodState.DRAFTED
        session.flush()
        drafts = draft_invoices(session, [DraftFor(client.id, period.id)], before=end)
        return [session.get_one(Invoice, draft.invoice_id) for draft in drafts]


def edited(
    engine: Engine, account: Account, draft_id: UUID, *, now: datetime = NOW, **changes: Any
) -> Invoice | None:
    """A draft after a committed change; None if that deleted it."""
    with Session(engine, expire_on_commit=False) as session, session.begin():
        return edit_draft(session, account.id, draft_id, changes, now=now)


def on_invoice(engine: Engine, *charge_ids: UUID) -> list[UUID | None]:
    """The invoice that each of the charges is on."""
    with Session(engine) as session:
        return [session.get_one(Charge, charge_id).invoice_id for charge_id in charge_ids]
