"""What a run will do with invoices that it would make: review, hold or finalize, credit, cards."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from billing.credit_forecasts import CreditForecast, ForecastInvoice
from billing.cycles import Period, local_date
from billing.dates import InvoiceDate, due_on, issued_on
from billing.invoice_states import InvoiceStatus
from billing.periods import PeriodState
from billing.reviews import AT_ONCE
from models import Account, BillingMethod, BillingPeriod, BillingRun, Client, CreditBalance, Invoice
from models.payment_attempt import is_open_for
from tasks.pauses import is_held


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """An invoice that a run would make of a client's period, in one currency's minor units."""

    client: Client
    period: Period
    currency: str
    charges: int
    total: int


@dataclass(frozen=True, slots=True)
class Prediction:
    """What becomes of it: ``billed``, ``drafted`` for review, or ``held`` by a pause.

    ``credit`` is what it applies, signed; ``card`` what a card is charged by itself.
    """

    prospect: Prospect
    outcome: PeriodState
    credit: int = 0
    card: int = 0


def predict(
    session: Session,
    account: Account,
    run: BillingRun,
    prospects: Sequence[Prospect],
    *,
    now: datetime,
) -> list[Prediction]:
    """What a run would do with its invoices, in the order in which it makes them."""
    outcomes = _outcomes(session, account, run, prospects)
    billed = [
        one
        for one, outcome in zip(prospects, outcomes, strict=True)
        if outcome == PeriodState.BILLED
    ]
    forecasts = _forecasts(session, billed)
    today = local_date(now, ZoneInfo(account.time_zone))
    last_issued: dict[UUID, date] = {}
    invoices: list[ForecastInvoice | None] = []
    for one, outcome in zip(prospects, outcomes, strict=True):
        if outcome != PeriodState.BILLED:
            invoices.append(None)
            continue
        client_id = one.client.id
        issued = issued_on(
            boundary=one.period.end,
            finalized_on=max(today, one.period.end),
            oldest_boundary=None,
            last_issued_on=last_issued.get(client_id),
            invoice_date=InvoiceDate(account.invoice_date),
        )
        last_issued[client_id] = issued
        net_days = account.net_days if one.client.net_days is None else one.client.net_days
        due = due_on(issued_on=issued, finalized_on=max(today, one.period.end), net_days=net_days)
        invoices.append(forecasts[client_id, one.currency].finalize(one.total, due))
    charged = _charged_by_themselves(session, account, billed)
    # Only now: what a later invoice gives pays earlier ones.
    return [
        Prediction(one, outcome)
        if invoice is None
        else Prediction(
            one,
            outcome,
            invoice.credit,
            invoice.on_card(one.currency) if one.client.id in charged else 0,
        )
        for one, outcome, invoice in zip(prospects, outcomes, invoices, strict=True)
    ]


def _outcomes(
    session: Session, account: Account, run: BillingRun, prospects: Sequence[Prospect]
) -> list[PeriodState]:
    clients = {one.client.id: one.client for one in prospects}
    oldest_drafts = _oldest_drafts(session, list(clients))
    held = {client.id for client in clients.values() if is_held(client, account, run)}
    reviewed = {
        client.id for client in clients.values() if client.hours_of_review(account) != AT_ONCE
    }
    outcomes = []
    for one in prospects:
        waits_behind = oldest_drafts.get(one.client.id, date.max) < one.period.end
        if one.client.id in held:
            outcomes.append(PeriodState.HELD)
        elif one.client.id in reviewed or waits_behind:
            outcomes.append(PeriodState.DRAFTED)
        else:
            outcomes.append(PeriodState.BILLED)
    return outcomes


def _oldest_drafts(session: Session, clients: Sequence[UUID]) -> dict[UUID, date]:
    """The oldest boundary of which each client has a draft in review."""
    rows = session.execute(
        select(Invoice.client_id, func.min(BillingPeriod.period_end))
        .join(BillingPeriod, BillingPeriod.id == Invoice.period_id)
        .where(Invoice.client_id.in_(clients), Invoice.status == InvoiceStatus.DRAFT)
        .group_by(Invoice.client_id)
    )
    return dict(rows.all())


def _forecasts(
    session: Session, billed: Sequence[Prospect]
) -> dict[tuple[UUID, str], CreditForecast]:
    """What each client has in hand, and the invoices that new credit would pay first."""
    forecasts: dict[tuple[UUID, str], CreditForecast] = defaultdict(CreditForecast)
    balances = session.execute(
        select(CreditBalance.client_id, CreditBalance.currency, CreditBalance.balance).where(
            CreditBalance.client_id.in_({one.client.id for one in billed})
        )
    )
    for client_id, currency, balance in balances:
        forecasts[client_id, currency].balance = balance
    open_invoices = session.execute(
        select(Invoice.client_id, Invoice.currency, Invoice.due_on, Invoice.amount_due)
        .where(
            Invoice.client_id.in_({one.client.id for one in billed if one.total < 0}),
            Invoice.status == InvoiceStatus.OPEN,
            ~is_open_for(Invoice.id),
        )
        .order_by(Invoice.due_on, Invoice.id)
    )
    for client_id, currency, due, amount_due in open_invoices:
        forecasts[client_id, currency].invoices.append(ForecastInvoice(due or date.max, amount_due))
    return forecasts


def _charged_by_themselves(
    session: Session, account: Account, billed: Sequence[Prospect]
) -> set[UUID]:
    """The clients whose card is charged without being asked."""
    wanted = {
        one.client.id
        for one in billed
        if (account.auto_collect if one.client.auto_collect is None else one.client.auto_collect)
        and not one.client.is_collection_paused(account)
    }
    cards = select(BillingMethod.client_id).where(
        BillingMethod.client_id.in_(wanted),
        BillingMethod.stopped_for.is_(None),
        BillingMethod.merchant_id.is_not_distinct_from(account.merchant_id),
    )
    return set(session.scalars(cards))
