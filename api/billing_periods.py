"""Billing periods: what became of every period of a client, and why."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import date, datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.orm import Session

from api.auth import Reader
from api.clients import client_of
from api.operations import reads
from api.paging import Paging, newest_first
from api.shapes import Page
from api.transactions import Transaction
from billing.periods import PeriodState
from models import BillingPeriod, Invoice

router = APIRouter(tags=["billing periods"])


class PeriodReport(BaseModel):
    """A half-open span of local dates. `reason` says why it waits, was not billed or failed."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "019ae8a3-5c00-7000-8000-000000000002",
                    "client": "019ae8a3-5c00-7000-8000-000000000001",
                    "period_start": "2026-05-01",
                    "period_end": "2026-06-01",
                    "starts_at": "2026-05-01T05:00:00Z",
                    "ends_at": "2026-06-01T05:00:00Z",
                    "state": "billed",
                    "reason": None,
                    "invoices": ["019ae8a3-5c00-7000-8000-000000000003"],
                }
            ]
        }
    )

    id: UUID
    client: UUID
    period_start: date
    period_end: date
    starts_at: datetime
    ends_at: datetime
    state: PeriodState
    reason: str | None
    invoices: list[UUID]


@router.get(
    "/v1/clients/{client_id}/billing-periods",
    summary="List a client's billing periods",
    responses=reads("client_not_found"),
)
def list_periods(
    client_id: UUID, paging: Annotated[Paging, Query()], caller: Reader, session: Transaction
) -> Page[PeriodReport]:
    """Newest first. The one that is open now is always listed."""
    client = client_of(session, caller, client_id)
    periods = select(BillingPeriod).where(BillingPeriod.client_id == client.id)
    found = newest_first(
        session, periods, BillingPeriod.period_start, paging, read=date.fromisoformat
    )
    invoices = _invoices_by_period(session, [period.id for period in found.rows])

    def report(period: BillingPeriod) -> PeriodReport:
        return PeriodReport(
            id=period.id,
            client=period.client_id,
            period_start=period.period_start,
            period_end=period.period_end,
            starts_at=period.starts_at,
            ends_at=period.ends_at,
            state=PeriodState(period.state),
            reason=period.reason if period.error is None else period.error,
            invoices=invoices[period.id],
        )

    return found.page(report)


def _invoices_by_period(session: Session, periods: Sequence[UUID]) -> dict[UUID, list[UUID]]:
    invoices: dict[UUID, list[UUID]] = defaultdict(list)
    rows = session.execute(
        select(Invoice.period_id, Invoice.id)
        .where(Invoice.period_id.in_(periods))
        .order_by(Invoice.id)
    )
    for period_id, invoice_id in rows:
        if period_id is not None:
            invoices[period_id].append(invoice_id)
    return invoices
