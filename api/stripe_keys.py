"""An account's own Stripe key: kept sealed, and never shown again."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, SecretStr

from api.auth import Writer
from api.fields import FORBID_UNKNOWN, Flag
from api.operations import reads, writes
from api.transactions import Transaction
from gateways.sealing import Seal
from models import Account
from tasks.accounts import lock_account
from tasks.merchants import charge_by_own_key, forget_own_key

router = APIRouter(tags=["account"])


class StripeKey(BaseModel):
    """A secret key of the account's own Stripe account, and what verifies its webhook's events.

    Where the account had a key of its own before, `same_stripe_account` says whether this one is of
    the same Stripe account: its cards and payments stay good then, and `webhook_secret` may be left
    out if it has not changed. At another Stripe account clients have to leave their cards anew; a
    `webhook_secret` of an earlier key leads back to that one's, where they are known.
    """

    model_config = FORBID_UNKNOWN | ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "secret_key": "rk_live_...",
                    "webhook_secret": "whsec_...",
                    "same_stripe_account": True,
                }
            ]
        }
    )

    secret_key: SecretStr
    webhook_secret: SecretStr | None = None
    same_stripe_account: Flag | None = None


class StripeKeyReport(BaseModel):
    """By which key the account charges: its last four characters.

    `webhook` is where its Stripe account's webhook has to point to.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "ends_with": "9f2k",
                    "webhook": "/webhooks/stripe/019ae8a3-5c00-7000-8000-000000000006",
                    "created_at": "2026-06-01T12:00:00Z",
                }
            ]
        }
    )

    ends_with: str
    webhook: str
    created_at: datetime


class ForgottenKeyReport(BaseModel):
    """Whose key is used no more."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"account": "019ae8a3-5c00-7000-8000-000000000006", "deleted": True}]
        }
    )

    account: UUID
    deleted: bool


def seal_of(request: Request) -> Seal:
    """What the application was made with."""
    seal = request.app.state.seal
    if not isinstance(seal, Seal):
        raise TypeError("create_app was given no seal")
    return seal


SealOf = Annotated[Seal, Depends(seal_of)]


@router.put(
    "/v1/account/stripe-key",
    summary="Charge by a Stripe key of the account's own",
    responses=writes(),
)
def put_key(key: StripeKey, caller: Writer, session: Transaction, seal: SealOf) -> StripeKeyReport:
    """New charges are made by it from now on; what was charged before stays where it was made.

    The key is kept sealed. Point a webhook of its Stripe account to the address that is answered.
    A card that a client left at another Stripe account is not charged here: its invoices wait for
    one (`no_billing_method`).
    """
    account = lock_account(session, caller.account_id)
    own = charge_by_own_key(
        session,
        account,
        seal,
        secret_key=key.secret_key.get_secret_value(),
        webhook_secret=None
        if key.webhook_secret is None
        else key.webhook_secret.get_secret_value(),
        same_stripe_account=key.same_stripe_account,
    )
    return StripeKeyReport(
        ends_with=str(own.key_hint),
        webhook=f"/webhooks/stripe/{account.id}",
        created_at=own.created_at,
    )


@router.delete(
    "/v1/account/stripe-key",
    summary="Charge through the deployment's Stripe account again",
    responses=reads("stripe_key_not_found"),
)
def delete_key(caller: Writer, session: Transaction) -> ForgottenKeyReport:
    """What was charged by the key is still looked after, and refunded, by it."""
    account: Account = lock_account(session, caller.account_id)
    forget_own_key(session, account)
    return ForgottenKeyReport(account=account.id, deleted=True)
