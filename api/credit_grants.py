"""Promotional credit: granted to a client, with or without a date on which it expires."""

from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from api.auth import Writer
from api.clients import client_of
from api.fields import FORBID_UNKNOWN, CurrencyCode, Flag, IsoDate, Note, PositiveAmount
from api.idempotency import Commanded
from api.operations import commands
from api.shapes import JobReport
from api.transactions import Transaction
from billing.cycles import local_date
from models import Account
from models.database import database_now
from tasks.enqueueing import enqueue
from tasks.granting import grant_credit, require_later

router = APIRouter(tags=["credit"])


class Grant(BaseModel):
    """Credit that a client did not pay for, in `currency`'s minor unit."""

    model_config = FORBID_UNKNOWN | ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "amount": 10000,
                    "currency": "usd",
                    "expires_on": "2026-09-01",
                    "note": "For the first three months",
                }
            ]
        }
    )

    amount: PositiveAmount
    currency: CurrencyCode
    expires_on: IsoDate | None = Field(
        default=None,
        description="The first day, in the client's time zone, on which it cannot be used any "
        "more: after today. It never expires if left out.",
    )
    note: Note | None = None
    apply: Flag = Field(default=True, description="Use it at once for what is open.")


@router.post(
    "/v1/clients/{client_id}/credit/grants",
    summary="Grant promotional credit",
    status_code=202,
    response_model=JobReport,
    responses=commands("client_not_found"),
)
def grant(
    client_id: UUID, new: Grant, caller: Writer, session: Transaction, command: Commanded
) -> Response:
    """It is used before what the client paid in, what expires soonest first, and never paid out.

    What the client owes from before is covered first. What a void gives back after its date
    expires again at once.
    """
    client = client_of(session, caller, client_id)
    account = session.get_one(Account, caller.account_id)
    require_later(new.expires_on, local_date(database_now(session), client.zone(account)))
    job = enqueue(
        session,
        grant_credit,
        account_id=caller.account_id,
        requested_by=caller.requested_by,
        client_id=client_id,
        **new.model_dump(),
    )
    return command.accepted(job.id)
