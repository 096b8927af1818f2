"""Unused credit that a client is paid out."""

from enum import StrEnum
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from api.auth import Writer
from api.clients import client_of
from api.fields import FORBID_UNKNOWN, CurrencyCode, Note, PositiveAmount, ShortText
from api.idempotency import Commanded
from api.operations import commands
from api.shapes import JobReport
from api.transactions import Transaction
from models import Account
from models.database import database_now
from tasks.enqueueing import enqueue
from tasks.grants import in_hand
from tasks.paying_out import refund_credit, require_paid_in

router = APIRouter(tags=["credit"])


class PaidTo(StrEnum):
    """Where unused credit goes."""

    OUTSIDE = "outside"


class CreditRefund(BaseModel):
    """Unused credit that was paid out, in `currency`'s minor unit, and why."""

    model_config = FORBID_UNKNOWN | ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "amount": 12500,
                    "currency": "usd",
                    "to": "outside",
                    "reason": "Has left us",
                    "reference": "wire 9120",
                }
            ]
        }
    )

    amount: PositiveAmount
    currency: CurrencyCode
    to: PaidTo = Field(description="`outside`: by bank or in cash, which nothing here does.")
    reason: Note | None = None
    reference: ShortText | None = None


@router.post(
    "/v1/clients/{client_id}/credit/refunds",
    summary="Record that unused credit was paid out",
    status_code=202,
    response_model=JobReport,
    responses=commands("client_not_found", "insufficient_credit"),
)
def refund(
    client_id: UUID, new: CreditRefund, caller: Writer, session: Transaction, command: Commanded
) -> Response:
    """Only what the client paid in: promotional credit is never paid out."""
    client = client_of(session, caller, client_id)
    account = session.get_one(Account, caller.account_id)
    now = database_now(session)
    require_paid_in(in_hand(session, account, client, new.currency, now=now), new.amount)
    job = enqueue(
        session,
        refund_credit,
        account_id=caller.account_id,
        requested_by=caller.requested_by,
        client_id=client_id,
        **new.model_dump(exclude={"to"}),
    )
    return command.accepted(job.id)
