"""Stripe Checkout, behind the CheckoutGateway protocol."""

from collections.abc import Mapping
from typing import Any

import stripe
from stripe.params.checkout import SessionCreateParams

from billing.card_amounts import from_stripe, to_stripe
from billing.errors import InvalidInput
from gateways.cards import CardReport, CardStatus, ChargeOutcomeUnknown, ChargeRefused
from gateways.checkout import CheckoutOrder, CheckoutReport, CheckoutStatus
from gateways.merchants import Merchant
from gateways.stripe_api import StripeApi, asking, refusable
from gateways.stripe_cards import card_report

_WITH_INTENTS = ["payment_intent", "setup_intent"]
# Of a payment that nothing was tried for yet, or whose next step is ours, there is no report.
_UNTRIED = frozenset({"requires_payment_method", "requires_confirmation"})


class StripeCheckout:
    """Opens and closes pages at Stripe."""

    def __init__(self, api: StripeApi) -> None:
        self._api = api

    def open(self, order: CheckoutOrder) -> CheckoutReport:
        """Open a page; see ``CheckoutGateway``."""
        if not order.idempotency_key:
            raise ValueError("a call needs an idempotency key: the SDK would make up another one")
        wanted = _wanted(order)
        with refusable():
            opened = self._api.at(order.merchant).checkout.sessions.create(
                wanted, {"idempotency_key": order.idempotency_key}
            )
            return _report(opened.to_dict())

    def retrieve(self, session: str, merchant: Merchant) -> CheckoutReport:
        """How a page stands; see ``CheckoutGateway``."""
        with refusable():
            sessions = self._api.at(merchant).checkout.sessions
            return _report(sessions.retrieve(session, {"expand": _WITH_INTENTS}).to_dict())

    def expire(self, session: str, merchant: Merchant) -> CheckoutReport:
        """Close a page; see ``CheckoutGateway``."""
        with asking():
            sessions = self._api.at(merchant).checkout.sessions
            try:
                return _report(sessions.expire(session, {"expand": _WITH_INTENTS}).to_dict())
            except stripe.InvalidRequestError:
                # It was paid, or has expired, or was never there: that it says itself.
                report = self.retrieve(session, merchant)
                if report.status is CheckoutStatus.OPEN:
                    raise
                return report


def checkout_report(session: Mapping[str, Any]) -> CheckoutReport | None:
    """How a page stands, as told by a session of Stripe's in one of the states of CheckoutStatus.

    A session that names its payment without telling of it, as those in events do, tells only of
    one that succeeded.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: It is no session.
        ChargeOutcomeUnknown: Its payment is in none of the states of ``CardStatus``.
    """
    if session["object"] != "checkout.session":
        raise ValueError(f"{session['object']} is no checkout session")
    if session["status"] not in tuple(CheckoutStatus):
        return None
    return CheckoutReport(
        session=str(session["id"]),
        status=CheckoutStatus(session["status"]),
        url=session["url"],
        customer=session["customer"],
        payment=_payment(session),
        payment_method=_card_left(session["setup_intent"]),
        metadata=dict(session.get("metadata") or {}),
    )


def _report(session: Mapping[str, Any]) -> CheckoutReport:
    report = checkout_report(session)
    if report is None:
        raise ValueError(f"{session['id']} is {session['status']}")
    return report


def _card_left(setup: object) -> str | None:
    if not isinstance(setup, dict) or setup["status"] != "succeeded":
        return None
    return str(setup["payment_method"])


def _payment(session: Mapping[str, Any]) -> CardReport | None:
    intent = session["payment_intent"]
    if isinstance(intent, dict):
        report = card_report(intent)
        if report is None and intent["status"] not in _UNTRIED:
            raise ChargeOutcomeUnknown(f"stripe: {intent['id']} is {intent['status']}")
        return report
    if intent is None or session["payment_status"] != "paid":
        return None
    currency = str(session["currency"])
    try:
        received = from_stripe(int(session["amount_total"]), currency)
    except InvalidInput:
        return None
    return CardReport(
        payment_intent=str(intent),
        status=CardStatus.SUCCEEDED,
        amount_received=received,
        currency=currency,
        metadata=dict(session.get("metadata") or {}),
    )


def _wanted(order: CheckoutOrder) -> SessionCreateParams:
    """What Stripe is asked for.

    Raises:
        ChargeRefused: Stripe cannot be sent such an amount.
    """
    metadata = dict(order.metadata)
    page: SessionCreateParams = {
        "customer": order.customer,
        "metadata": metadata,
        "expires_at": int(order.expires_at.timestamp()),
        "success_url": order.success_url,
        "cancel_url": order.cancel_url,
    }
    if order.amount is None:
        return {
            **page,
            "mode": "setup",
            # Says which kinds of payment method are offered, and no amount.
            "currency": order.currency,
            "setup_intent_data": {"metadata": metadata},
        }
    try:
        amount = to_stripe(order.amount, order.currency)
    except InvalidInput as error:
        raise ChargeRefused(f"invalid_{error.field}", error.message) from error
    return {
        **page,
        "mode": "payment",
        "line_items": [
            {
                "price_data": {
                    "currency": order.currency,
                    "product_data": {"name": order.description},
                    "unit_amount": amount,
                },
                "quantity": 1,
            }
        ],
        "payment_intent_data": {"description": order.description, "metadata": metadata},
        # Else Stripe may offer, and take, another currency than the invoice's.
        "adaptive_pricing": {"enabled": False},
    }
