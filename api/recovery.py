"""The recovery report: what dunning brought in, step by step. JSON, or CSV where Accept asks for it."""

from datetime import date
from typing import Annotated
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from api.auth import Reader
from api.csv_answers import Accept, as_csv, or_csv, wants_csv
from api.fields import IsoDate
from api.operations import reads
from api.transactions import Transaction
from billing.cycles import local_date
from billing.recovery import days_asked_for
from models import Account
from models.database import database_now
from tasks.recovery import recovery_report

router = APIRouter(tags=["books"])


class RecoveryPart(BaseModel):
    """What one outcome has of what had failed: invoices, amount in minor units, and its share.

    `failed` is all of it, and its rate 1. `recovered` is the sum of the steps: `retry_1` and so on of the
    schedule, `new_card`, `backup_card` (the second card, tried at once), `staff`, `client`
    (paid or confirmed by itself), `outside` and `credit`. It counts the invoices that were
    recovered whole, a step those that it brought something of. The rest is `open`, `given_up` (written off), or
    `withdrawn` (voided, or taken back by credit notes).
    """

    currency: str
    outcome: str
    invoices: int
    amount: int
    rate: Annotated[str, Field(description="Of the amount that had failed, from 0 to 1.")]


def _part(outcome: str, invoices: int, amount: int, rate: str) -> RecoveryPart:
    return RecoveryPart(
        currency="usd", outcome=outcome, invoices=invoices, amount=amount, rate=rate
    )


_EXAMPLE = [
    _part("failed", 40, 196_000, "1.0000"),
    _part("recovered", 30, 147_000, "0.7500"),
    _part("retry_1", 18, 88_200, "0.4500"),
    _part("new_card", 12, 58_800, "0.3000"),
    _part("open", 8, 39_200, "0.2000"),
    _part("given_up", 2, 9_800, "0.0500"),
    _part("withdrawn", 0, 0, "0.0000"),
]


class RecoveryReport(BaseModel):
    """By currency, what became of what had failed on these days."""

    model_config = ConfigDict(
        populate_by_name=True,
        json_schema_extra={
            "examples": [
                {
                    "from": "2026-04-01",
                    "to": "2026-06-29",
                    "data": [one.model_dump() for one in _EXAMPLE],
                }
            ]
        },
    )

    first: date = Field(alias="from")
    last: date = Field(alias="to")
    data: list[RecoveryPart]


@router.get(
    "/v1/reports/recovery",
    summary="Show what each step of dunning recovered",
    response_model=RecoveryReport,
    responses={
        **or_csv(RecoveryReport, ",".join(RecoveryPart.model_fields) + "\r\n"),
        **reads(),
    },
)
def show_recovery(
    caller: Reader,
    session: Transaction,
    first: Annotated[
        IsoDate | None,
        Query(alias="from", description="The first day; by default 90 days up to the last one."),
    ] = None,
    to: Annotated[
        IsoDate | None, Query(description="The last day, which is in it; by default today.")
    ] = None,
    accept: Accept = "application/json",
) -> RecoveryReport | Response:
    """Of the invoices whose first automatic try failed on these days, in your zone; up to now."""
    account = session.get_one(Account, caller.account_id)
    today = local_date(database_now(session), ZoneInfo(account.time_zone))
    days = days_asked_for(first, to, today=today)
    parts = [
        RecoveryPart(
            currency=currency,
            outcome=outcome,
            invoices=part.invoices,
            amount=part.amount,
            rate=str(part.rate_of(recovery.failed)),
        )
        for currency, recovery in recovery_report(session, account, *days).items()
        for outcome, part in recovery.outcomes.items()
    ]
    if wants_csv(accept):
        return as_csv(RecoveryPart, parts)
    return RecoveryReport(first=days[0], last=days[1], data=parts)
