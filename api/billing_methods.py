"""Billing methods: the card that a client agreed to be charged on."""

from datetime import datetime
from typing import Any
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from api.auth import Writer
from api.fields import FORBID_UNKNOWN, ShortText
from api.operations import reads, writes
from api.transactions import Transaction
from models import BillingMethod
from models.database import database_now
from tasks.billing_methods import remove_billing_method, set_billing_method

router = APIRouter(tags=["clients"])

_CARD: dict[str, Any] = {
    "stripe_customer": "cus_PyHtn9EEEyFMwm",
    "payment_method": "pm_1OzDbfLkdIwHu7ix",
}
METHOD_EXAMPLE: dict[str, Any] = {
    **_CARD,
    "stopped_for": None,
    "created_at": "2026-06-01T12:00:00Z",
}


class MethodSetting(BaseModel):
    """A card by Stripe's own names: the customer, and the payment method attached to it."""

    model_config = FORBID_UNKNOWN | ConfigDict(json_schema_extra={"examples": [_CARD]})

    stripe_customer: ShortText
    payment_method: ShortText


class MethodReport(BaseModel):
    """A client's card. `stopped_for` is the decline after which it is not tried by itself."""

    model_config = ConfigDict(json_schema_extra={"examples": [METHOD_EXAMPLE]})

    stripe_customer: str
    payment_method: str
    stopped_for: str | None
    created_at: datetime

    @classmethod
    def of(cls, method: BillingMethod) -> "MethodReport":
        """The card as it is shown."""
        return cls.model_validate(method, from_attributes=True)


class RemovedMethodReport(BaseModel):
    """Whose card was removed."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"client": "019ae8a3-5c00-7000-8000-000000000001", "deleted": True}]
        }
    )

    client: UUID
    deleted: bool


@router.put(
    "/v1/clients/{client_id}/billing-method",
    summary="Set a client's card",
    responses=writes("client_not_found", "stripe_customer_taken"),
)
def put_method(
    client_id: UUID, card: MethodSetting, caller: Writer, session: Transaction
) -> MethodReport:
    """A new card is tried at once for what waits to be collected.

    The same card again changes nothing, but where it was `stopped_for` a decline: it is tried anew.
    """
    method = set_billing_method(
        session,
        caller.account_id,
        client_id,
        stripe_customer=card.stripe_customer,
        payment_method=card.payment_method,
        now=database_now(session),
        requested_by=caller.requested_by,
    )
    return MethodReport.of(method)


@router.delete(
    "/v1/clients/{client_id}/billing-method",
    summary="Remove a client's card",
    responses=reads("client_not_found", "billing_method_not_found"),
)
def delete_method(client_id: UUID, caller: Writer, session: Transaction) -> RemovedMethodReport:
    """It is charged no more; a charge that is under way is not taken back."""
    remove_billing_method(session, caller.account_id, client_id)
    return RemovedMethodReport(client=client_id, deleted=True)
