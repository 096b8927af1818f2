"""Stripe's customers and their payment methods, behind the SavedCardsGateway protocol."""

from collections.abc import Mapping
from typing import Any

from stripe.params import CustomerCreateParams

from gateways.merchants import Merchant
from gateways.saved_cards import NewCustomer, SavedCard
from gateways.stripe_api import StripeApi, refusable


class StripeSavedCards:
    """Knows and forgets cards at Stripe."""

    def __init__(self, api: StripeApi) -> None:
        self._api = api

    def create_customer(self, new: NewCustomer) -> str:
        """Have a client known at Stripe; see ``SavedCardsGateway``."""
        if not new.idempotency_key:
            raise ValueError("a call needs an idempotency key: the SDK would make up another one")
        wanted: CustomerCreateParams = {"name": new.name, "metadata": dict(new.metadata)}
        if new.email is not None:
            wanted["email"] = new.email
        with refusable():
            made = self._api.at(new.merchant).customers.create(
                wanted, {"idempotency_key": new.idempotency_key}
            )
            return str(made.to_dict()["id"])

    def retrieve(self, payment_method: str, merchant: Merchant) -> SavedCard:
        """A card as Stripe knows it; see ``SavedCardsGateway``."""
        with refusable():
            methods = self._api.at(merchant).payment_methods
            return saved_card(methods.retrieve(payment_method).to_dict())

    def detach(self, payment_method: str, merchant: Merchant) -> None:
        """Have Stripe forget whose card it is; see ``SavedCardsGateway``."""
        with refusable():
            self._api.at(merchant).payment_methods.detach(payment_method)


def saved_card(method: Mapping[str, Any]) -> SavedCard:
    """A card as a payment method of Stripe's tells it.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: It is no payment method.
    """
    if method["object"] != "payment_method":
        raise ValueError(f"{method['object']} is no payment method")
    kind = str(method["type"])
    # Of the kinds that are no card, few have more than a part of this, and some have none.
    shown = method.get(kind) or {}
    return SavedCard(
        payment_method=str(method["id"]),
        customer=method["customer"],
        kind=kind,
        brand=shown.get("brand") or shown.get("bank_name"),
        last4=shown.get("last4"),
        exp_month=shown.get("exp_month"),
        exp_year=shown.get("exp_year"),
    )
