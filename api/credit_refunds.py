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
from tasks.paying_out import refund_credit, refund_credit_to_card, require_paid_in
from tasks.refunds import require_card_payment

router = APIRouter(tags=["credit"])


class PaidTo(StrEnum):
    """Where unused credit goes."""

    CARD = "card"
    OUTSIDE = "outside"


class CreditRefund(BaseModel):
    """Unused credit to be paid out, in `currency`'s minor unit, and why."""

    model_config = FORBID_UNKNOWN | ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "amount": 12500,
                    "currency": "usd",
                    "to": "outside",
                    "reason": "Has left us",
                    "reference": "wire 9120",
                },
                {"amount": 12500, "currency": "usd", "to": "card", "reason": "Has left us"},
            ]
        }
    )

    amount: PositiveAmount
    currency: CurrencyCode
    to: PaidTo = Field(
        description="`card`: back to the newest card payment in this currency that can carry it. "
        "`outside`: by bank or in cash, which nothing here does."
    )
    reason: Note | None = None
    reference: ShortText | None = None


@router.post(
    "/v1/clients/{client_id}/credit/refunds",
    summary="Pay out unused credit",
    status_code=202,
    response_model=JobReport,
    responses=commands("client_not_found", "insufficient_credit", "amount_exceeds_paid"),
)
def refund(
    client_id: UUID, new: CreditRefund, caller: Writer, session: Transaction, command: Commanded
) -> Response:
    """Only what the client paid in: promotional credit is never paid out.

    What goes to a card is off the balance at once, and on it again if the card does not take it.
    """
    client = client_of(session, caller, client_id)
    account = session.get_one(Account, caller.account_id)
    now = database_now(session)
    require_paid_in(in_hand(session, account, client, new.currency, now=now), new.amount)
    if new.to == PaidTo.CARD:
        require_card_payment(session, client_id, new.currency, new.amount)
    job = enqueue(
        session,
        refund_credit_to_card if new.to == PaidTo.CARD else refund_credit,
        account_id=caller.account_id,
        requested_by=caller.requested_by,
        client_id=client_id,
        **new.model_dump(exclude={"to"}),
    )
    return command.accepted(job.id)
