"""How far billing runs are: counted from what they have left behind."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from billing.invoice_states import InvoiceStatus
from billing.periods import PeriodState
from models import BillingPeriod, BillingRun, Invoice
from models.billing_period import due_in

MAX_FAILURES_LISTED = 20


@dataclass(frozen=True, slots=True)
class RunProgress:
    """How far a run is: its periods by state, those still due, and what it invoiced.

    ``invoiced`` holds, by currency, how many invoices and their total in minor units; ``drafted``
    those of its invoices that are still reviewed.
    """

    due: int
    periods: dict[str, int]
    failures: list[dict[str, str]]
    invoiced: dict[str, dict[str, int]]
    drafted: dict[str, dict[str, int]]

    def as_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {
            "due": self.due,
            "periods": self.periods,
            "failures": self.failures,
            "invoiced": self.invoiced,
            "drafted": self.drafted,
        }


def progress_of(session: Session, run: BillingRun) -> RunProgress:
    """Count what has become of a run's periods so far."""
    due = 0
    if run.finished_at is None and not run.dry_run:
        remaining = due_in(run, capped=False).with_only_columns(BillingPeriod.id).subquery()
        due = session.scalar(select(func.count()).select_from(remaining)) or 0
    by_state = session.execute(
        select(BillingPeriod.state, func.count())
        .where(BillingPeriod.run_id == run.id)
        .group_by(BillingPeriod.state)
    )
    failures = session.execute(
        select(BillingPeriod.client_id, BillingPeriod.period_start, BillingPeriod.error)
        .where(BillingPeriod.run_id == run.id, BillingPeriod.state == PeriodState.FAILED)
        .order_by(BillingPeriod.client_id)
        .limit(MAX_FAILURES_LISTED)
    )
    return RunProgress(
        due=due,
        periods=dict(by_state.all()),
        failures=[
            {"client": str(client), "period_start": start.isoformat(), "error": error or ""}
            for client, start, error in failures
        ],
        invoiced=_invoices(session, run, Invoice.status != InvoiceStatus.DRAFT),
        drafted=_invoices(session, run, Invoice.status == InvoiceStatus.DRAFT),
    )


def _invoices(
    session: Session, run: BillingRun, which: ColumnElement[bool]
) -> dict[str, dict[str, int]]:
    """How many of the run's invoices there are in each currency, and their total."""
    rows = session.execute(
        select(Invoice.currency, func.count(), func.sum(Invoice.total))
        .where(Invoice.run_id == run.id, which)
        .group_by(Invoice.currency)
        .order_by(Invoice.currency)
    )
    return {currency: {"invoices": count, "total": int(total)} for currency, count, total in rows}
