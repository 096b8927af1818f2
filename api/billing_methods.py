"""Billing methods: the card that a client agreed to be charged on, and a second one behind it."""

from datetime import datetime
from typing import Any
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from api.auth import Writer
from api.fields import FORBID_UNKNOWN, ShortText
from api.operations import reads, writes
from api.transactions import Transaction
from models.billing_method import CardOfClient
from models.database import database_now
from tasks.billing_methods import (
    remove_backup_method,
    remove_billing_method,
    set_backup_method,
    set_billing_method,
)

router = APIRouter(tags=["clients"])

_CARD: dict[str, Any] = {
    "stripe_customer": "cus_PyHtn9EEEyFMwm",
    "payment_method": "pm_1OzDbfLkdIwHu7ix",
}
METHOD_EXAMPLE: dict[str, Any] = {
    **_CARD,
    "stopped_for": None,
    "kind": "card",
    "brand": "visa",
    "last4": "4242",
    "exp_month": 8,
    "exp_year": 2030,
    "checked_at": "2026-06-01T12:00:01Z",
    "created_at": "2026-06-01T12:00:00Z",
}
BACKUP_EXAMPLE: dict[str, Any] = {
    **METHOD_EXAMPLE,
    "payment_method": "pm_1OzDcgLkdIwHu7iyGm2Q2a1B",
    "brand": "mastercard",
    "last4": "4444",
}


class MethodSetting(BaseModel):
    """A card by Stripe's own names: the customer, and the payment method attached to it."""

    model_config = FORBID_UNKNOWN | ConfigDict(json_schema_extra={"examples": [_CARD]})

    stripe_customer: ShortText
    payment_method: ShortText


class MethodReport(BaseModel):
    """A client's card. `stopped_for` is the decline after which it is not tried by itself.

    It is `resource_missing` for one that Stripe does not know, or not as this customer's. `kind`
    (`card`, `us_bank_account`), `brand`, `last4` and the last month in which it can be charged are
    what Stripe said at `checked_at`; they are null until it was asked, which is done at once.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [METHOD_EXAMPLE]})

    stripe_customer: str
    payment_method: str
    stopped_for: str | None
    kind: str | None
    brand: str | None
    last4: str | None
    exp_month: int | None
    exp_year: int | None
    checked_at: datetime | None
    created_at: datetime

    @classmethod
    def of(cls, method: CardOfClient) -> "MethodReport":
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
    """It is charged no more; a charge that is under way is not taken back.

    Once none is, it is detached from its customer at Stripe, unless another client is charged on
    it. A client's second card takes its place, and is charged from then on.
    """
    remove_billing_method(
        session,
        caller.account_id,
        client_id,
        now=database_now(session),
        requested_by=caller.requested_by,
    )
    return RemovedMethodReport(client=client_id, deleted=True)


@router.put(
    "/v1/clients/{client_id}/backup-method",
    summary="Set a client's second card",
    responses=writes("client_not_found", "stripe_customer_taken"),
)
def put_backup(
    client_id: UUID, card: MethodSetting, caller: Writer, session: Transaction
) -> MethodReport:
    """It becomes the client's card when the first one is removed, here or at Stripe.

    Where the client's `use_backup_card` is on, it is also tried at once for an invoice that the
    first one has refused for good when it was charged by itself; if it pays, the two change
    places. Automatic top-ups are never tried on it.
    """
    backup = set_backup_method(
        session,
        caller.account_id,
        client_id,
        stripe_customer=card.stripe_customer,
        payment_method=card.payment_method,
        now=database_now(session),
        requested_by=caller.requested_by,
    )
    return MethodReport.of(backup)


@router.delete(
    "/v1/clients/{client_id}/backup-method",
    summary="Remove a client's second card",
    responses=reads("client_not_found", "backup_method_not_found"),
)
def delete_backup(client_id: UUID, caller: Writer, session: Transaction) -> RemovedMethodReport:
    """Once no charge on it is under way, it is detached from its customer at Stripe, too."""
    remove_backup_method(session, caller.account_id, client_id, requested_by=caller.requested_by)
    return RemovedMethodReport(client=client_id, deleted=True)
