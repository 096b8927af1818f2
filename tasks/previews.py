"""Dry runs: what a billing run would invoice, without moving anything."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import islice, takewhile
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from billing.cycles import MAX_PERIODS_PER_RUN, BillingCycle, Cadence, Period
from billing.periods import PeriodState, periods_between
from models import Account, BillingPeriod, BillingRun, Charge, Client
from models.billing_period import STAFFS_STATES, drafted_again
from tasks.forecasting import Prediction, Prospect, predict
from tasks.pauses import is_held
from tasks.taxing import IS_EXEMPT, RATES, TAXED_ON, TaxPart, rates_by_id, tax_parts


def preview(session: Session, run: BillingRun, *, now: datetime) -> dict[str, Any]:
    """Every invoice that a run up to ``run``'s as-of would make, as JSON values in minor units.

    Returns:
        ``invoices``: a list, oldest boundary first, of client, name, period_start, period_end,
        currency, charges, total (with tax), outcome (``billed``, ``drafted`` for review, ``held``
        by a pause), credit (what it applies, signed) and card (what a card is charged by itself);
        ``clients``: the same summed by client, currency and outcome; ``totals``: how many periods
        were looked at, how many of them are empty or held, and by currency what is invoiced,
        drafted and on hold.
    """
    account = session.get_one(Account, run.account_id)
    clients = select(Client).where(
        Client.account_id == run.account_id, Client.billing_cycle != BillingCycle.MANUAL
    )
    if run.client_id is not None:
        clients = clients.where(Client.id == run.client_id)
    due: list[tuple[Period, Client]] = []
    undecided = _undecided(session, run)
    for client in session.scalars(clients):
        zone, held = client.zone(account), is_held(client, account, run)
        periods = [one for one in undecided[client.id] if held or not _waits_for_resume(*one, run)]
        due += [(period, client) for period in _due_periods(client, periods, run, zone, now)]
    due.sort(key=lambda one: (one[0].end, one[1].id))
    charges = _open_charges(session, run)
    rates = rates_by_id(
        session,
        {rate for parts in charges.values() for one in parts for rate in one.part.rate_ids},
    )
    prospects: list[Prospect] = []
    empty = held_periods = 0
    for period, client in due:
        taken = _take(charges[client.id], period.end)
        held_periods += is_held(client, account, run)
        empty += not taken and not is_held(client, account, run)
        prospects += [
            Prospect(
                client=client,
                period=period,
                currency=currency,
                charges=sum(one.count for one in of_currency),
                total=tax_parts([one.part for one in of_currency], rates=rates).total,
            )
            for currency, of_currency in sorted(taken.items())
        ]
    predictions = predict(session, account, run, prospects, now=now)
    return {
        "invoices": [_as_json(one) for one in predictions],
        "clients": _by_client(predictions),
        "totals": {
            "periods": len(due),
            "empty": empty,
            "held": held_periods,
            "invoiced": _sums(predictions, PeriodState.BILLED),
            "drafted": _sums(predictions, PeriodState.DRAFTED),
            "on_hold": _sums(predictions, PeriodState.HELD),
        },
    }


def _as_json(one: Prediction) -> dict[str, Any]:
    prospect = one.prospect
    return {
        "client": str(prospect.client.id),
        "name": prospect.client.name,
        "period_start": prospect.period.start.isoformat(),
        "period_end": prospect.period.end.isoformat(),
        "currency": prospect.currency,
        "charges": prospect.charges,
        "total": prospect.total,
        "outcome": one.outcome.value,
        "credit": one.credit,
        "card": one.card,
    }


def _by_client(predictions: Iterable[Prediction]) -> list[dict[str, Any]]:
    of_client: dict[tuple[Client, str, PeriodState], list[Prediction]] = defaultdict(list)
    for one in predictions:
        of_client[one.prospect.client, one.prospect.currency, one.outcome].append(one)
    return [
        {
            "client": str(client.id),
            "name": client.name,
            "currency": currency,
            "outcome": outcome.value,
            **_sum(ones),
        }
        for (client, currency, outcome), ones in of_client.items()
    ]


def _sums(predictions: Iterable[Prediction], outcome: PeriodState) -> dict[str, dict[str, int]]:
    by_currency: dict[str, list[Prediction]] = defaultdict(list)
    for one in predictions:
        if one.outcome == outcome:
            by_currency[one.prospect.currency].append(one)
    return {currency: _sum(ones) for currency, ones in by_currency.items()}


def _sum(predictions: Sequence[Prediction]) -> dict[str, int]:
    return {
        "invoices": len(predictions),
        "total": sum(one.prospect.total for one in predictions),
        "credit": sum(one.credit for one in predictions),
        "card": sum(one.card for one in predictions),
    }


@dataclass(frozen=True, slots=True)
class _Charges:
    """Charges of one date and currency that bear the same rates: how many, and their sum."""

    charged_on: date
    currency: str
    count: int
    part: TaxPart


_Undecided = tuple[BillingPeriod, date | None]


def _undecided(session: Session, run: BillingRun) -> dict[UUID, list[_Undecided]]:
    """By client, oldest first: each undecided period, and where the one written after it starts."""
    which: ColumnElement[bool] = BillingPeriod.state.in_(STAFFS_STATES)
    if run.client_id is not None:
        which = or_(which, drafted_again())
    following = func.lead(BillingPeriod.period_start).over(
        partition_by=BillingPeriod.client_id, order_by=BillingPeriod.period_start
    )
    chains = (
        select(BillingPeriod.id, following.label("following_start"))
        .where(*_whose(BillingPeriod, run))
        .subquery()
    )
    periods: dict[UUID, list[_Undecided]] = defaultdict(list)
    for period, following_start in session.execute(
        select(BillingPeriod, chains.c.following_start)
        .join(chains, chains.c.id == BillingPeriod.id)
        .where(which)
        .order_by(BillingPeriod.client_id, BillingPeriod.period_start)
    ):
        periods[period.client_id].append((period, following_start))
    return periods


def _open_charges(session: Session, run: BillingRun) -> dict[UUID, list[_Charges]]:
    """By client."""
    charges: dict[UUID, list[_Charges]] = defaultdict(list)
    rows = session.execute(
        select(
            Charge.client_id,
            Charge.charged_on,
            Charge.currency,
            func.count(),
            func.sum(Charge.amount),
            RATES,
            TAXED_ON,
            IS_EXEMPT,
        )
        .join(Client, Client.id == Charge.client_id)
        .join(Account, Account.id == Charge.account_id)
        .where(*_whose(Charge, run), Charge.invoice_id.is_(None))
        .group_by(Charge.client_id, Charge.charged_on, Charge.currency, RATES, TAXED_ON, IS_EXEMPT)
    )
    for client_id, charged_on, currency, count, total, rate_ids, day, exempt in rows:
        part = TaxPart(int(total), rate_ids, day, exempt)
        charges[client_id].append(_Charges(charged_on, currency, count, part))
    return charges


def _whose(rows: type[BillingPeriod | Charge], run: BillingRun) -> Iterator[ColumnElement[bool]]:
    """Only those of the run's account, or of its one client."""
    yield rows.account_id == run.account_id
    if run.client_id is not None:
        yield rows.client_id == run.client_id


def _waits_for_resume(period: BillingPeriod, _following: date | None, run: BillingRun) -> bool:
    """Whether a pause that has just ended still holds it from a run for everyone."""
    return run.client_id is None and period.state == PeriodState.HELD


def _due_periods(
    client: Client,
    undecided: list[_Undecided],
    run: BillingRun,
    zone: ZoneInfo,
    now: datetime,
) -> Iterator[Period]:
    """The client's periods that end by the run's as-of, also those not written down yet."""
    due = takewhile(
        lambda one: _is_due(*one, run),
        _chain(undecided, client.cadence, zone, client.activated_at or now),
    )
    return (period for period, _ in islice(due, MAX_PERIODS_PER_RUN))


def _chain(
    undecided: list[_Undecided], cadence: Cadence, zone: ZoneInfo, activated_at: datetime
) -> Iterator[tuple[Period, datetime]]:
    """Undecided periods and when they end, among them each that billing the last one would add."""
    for row, following_start in undecided:
        period, ends_at = Period(row.period_start, row.period_end), row.ends_at
        yield period, ends_at
        for planned in periods_between(
            period,
            following_start or date.max,
            cadence=cadence,
            zone=zone,
            activated_at=activated_at,
            ended_at=ends_at,
        ):
            yield planned.period, planned.ends_at


def _is_due(period: Period, ends_at: datetime, run: BillingRun) -> bool:
    if not run.looks_ahead and ends_at > run.created_at:
        return False
    if run.as_of_on is not None:
        return period.end <= run.as_of_on
    return run.as_of_at is not None and ends_at <= run.as_of_at


def _take(charges: list[_Charges], before: date) -> dict[str, list[_Charges]]:
    """Remove the charges dated before a day; these, by currency."""
    taken: dict[str, list[_Charges]] = defaultdict(list)
    for one in charges:
        if one.charged_on < before:
            taken[one.currency].append(one)
    charges[:] = [one for one in charges if one.charged_on >= before]
    return taken
