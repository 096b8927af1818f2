"""Clients whose drafts are reviewed, and what the scheduler does about them."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from models import Account, BillingPeriod, Client, Invoice
from tasks.accounts import change_account
from tasks.drafting import delete_draft
from tasks.enqueueing import enqueue
from tasks.period_outcomes import settle_period
from tasks.reviewing import finalize_due_reviews
from tests.worlds import NOW, perform, periods_of, work


def states(engine: Engine, client: Client) -> list[tuple[str, str | None]]:
    """State and reason of each of a client's periods, oldest first."""
    return [(one.state, one.reason) for one in periods_of(engine, client)]


def end_reviews(engine: Engine, *, now: datetime) -> None:
    """What the scheduler does about reviews at ``now``, worked to its end."""
    with Session(engine) as session, session.begin():
        enqueue(session, finalize_due_reviews, account_id=None, requested_by="test")
    work(engine, now=now)


def change_business(
    engine: Engine, account: Account, *, now: datetime = NOW, **changes: Any
) -> Account:
    """The account after a committed change."""
    with Session(engine, expire_on_commit=False) as session, session.begin():
        return change_account(session, account.id, changes, now=now)


def delete(engine: Engine, account: Account, invoice_id: UUID, *, now: datetime = NOW) -> None:
    """Delete a draft, as staff do, with what that means for its period."""
    with Session(engine) as session:
        period_id = session.get_one(Invoice, invoice_id).period_id
    perform(engine, delete_draft, account, now=now, invoice_id=invoice_id)
    if period_id is not None:
        with Session(engine) as session, session.begin():
            settle_period(session, period_id, now)


def boundary_of(engine: Engine, invoice: Invoice) -> date:
    """The local date that ended an invoice's period."""
    with Session(engine) as session:
        return session.get_one(BillingPeriod, invoice.period_id).period_end
