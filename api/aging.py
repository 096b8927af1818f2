"""The aging report: who owes what, and since when. JSON, or CSV where Accept asks for it."""

from datetime import date
from typing import Annotated, Any
from uuid import UUID
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict

from api.auth import Reader
from api.csv_answers import Accept, as_csv, or_csv, wants_csv
from api.fields import IsoDate
from api.operations import reads
from api.transactions import Transaction
from billing.aging import AgeBucket, AgedDebt
from billing.cycles import local_date
from models import Account
from models.database import database_now
from tasks.aging import aging_report

router = APIRouter(tags=["books"])

_AMOUNTS = {
    "current": 1100,
    "days_1_30": 0,
    "days_31_60": 4900,
    "days_61_90": 0,
    "days_over_90": 0,
    "total": 6000,
}
_CLIENT = {"client": "019ae8a3-5c00-7000-8000-000000000001", "name": "Ada Imports"}


class AgedAmounts(BaseModel):
    """What is due in one currency, in minor units, by days past due."""

    currency: str
    current: int
    days_1_30: int
    days_31_60: int
    days_61_90: int
    days_over_90: int
    total: int


class _WhoOwes(BaseModel):
    client: UUID
    name: str


class AgedClient(AgedAmounts, _WhoOwes):
    """What one client owes in one currency, in minor units, by days past due."""


class AgingReport(BaseModel):
    """Every client that owes something, by name, and the sums of each currency."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "as_of": "2026-06-30",
                    "data": [{**_CLIENT, "currency": "usd", **_AMOUNTS}],
                    "totals": [{"currency": "usd", **_AMOUNTS}],
                }
            ]
        }
    )

    as_of: date
    data: list[AgedClient]
    totals: list[AgedAmounts]


@router.get(
    "/v1/reports/aging",
    summary="Show who owes what, and since when",
    response_model=AgingReport,
    responses={
        **or_csv(AgingReport, ",".join(AgedClient.model_fields) + "\r\n"),
        **reads(),
    },
)
def show_aging(
    caller: Reader,
    session: Transaction,
    as_of: Annotated[
        IsoDate | None,
        Query(description="Age what is due now as of this day; by default today in your zone."),
    ] = None,
    accept: Accept = "application/json",
) -> AgingReport | Response:
    """On its due date an invoice is current; from the day after, it is past due."""
    if as_of is None:
        account = session.get_one(Account, caller.account_id)
        as_of = local_date(database_now(session), ZoneInfo(account.time_zone))
    report = aging_report(session, caller.account_id, as_of)
    clients = [
        AgedClient(client=one.client_id, name=one.name, **_amounts(one.currency, one.debt))
        for one in report.clients
    ]
    if wants_csv(accept):
        return as_csv(AgedClient, clients)
    totals = [AgedAmounts(**_amounts(*total)) for total in report.totals.items()]
    return AgingReport(as_of=as_of, data=clients, totals=totals)


def _amounts(currency: str, debt: AgedDebt) -> dict[str, Any]:
    """The fields of ``AgedAmounts``."""
    return {
        "currency": currency,
        "current": debt.amounts[AgeBucket.CURRENT],
        "days_1_30": debt.amounts[AgeBucket.DAYS_1_30],
        "days_31_60": debt.amounts[AgeBucket.DAYS_31_60],
        "days_61_90": debt.amounts[AgeBucket.DAYS_61_90],
        "days_over_90": debt.amounts[AgeBucket.OVER_90],
        "total": debt.total,
    }
