"""Stripe, behind the CardGateway protocol."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

import stripe
from stripe.params import PaymentIntentCreateParams, PaymentIntentListParams

from billing.card_amounts import from_stripe, to_stripe
from billing.declines import DECLINES, DeclineClass, decline_class
from billing.errors import InvalidInput
from gateways.cards import (
    CardCharge,
    CardRefund,
    CardReport,
    CardStatus,
    ChargeOutcomeUnknown,
    ChargeRefused,
    RefundReport,
    RefundStatus,
)
from gateways.merchants import Merchant
from gateways.stripe_api import UNREADABLE, StripeApi, asking, details, said, unknown

LOOK_BACK = timedelta(hours=1)
PAGE = 100
NOT_FOUND = 404

WHY = "latest_charge"
"""What tells why a bank debit was returned: nothing else does."""

_STATUSES = {
    "succeeded": CardStatus.SUCCEEDED,
    "processing": CardStatus.PROCESSING,
    "requires_action": CardStatus.NEEDS_ACTION,
    "canceled": CardStatus.CANCELED,
}
_REFUND_STATUSES = {
    "succeeded": RefundStatus.SUCCEEDED,
    "pending": RefundStatus.PROCESSING,
    # The client has to say where to: Stripe has mailed it.
    "requires_action": RefundStatus.PROCESSING,
    "failed": RefundStatus.FAILED,
    "canceled": RefundStatus.FAILED,
}


class StripeCards:
    """Charges and refunds through Stripe."""

    def __init__(self, api: StripeApi) -> None:
        self._api = api

    def charge(self, order: CardCharge) -> CardReport:
        """Charge with nobody present; see ``CardGateway``."""
        wanted: PaymentIntentCreateParams = {
            "amount": _sendable(order),
            "currency": order.currency,
            "customer": order.customer,
            "payment_method": order.payment_method,
            "off_session": True,
            "confirm": True,
            # Else Stripe may ask for a page to send the client back to.
            "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
            "description": order.description,
            "metadata": dict(order.metadata),
        }
        # One that was written down before charges said anything is asked for as it was.
        if order.statement_suffix is not None:
            wanted["statement_descriptor_suffix"] = order.statement_suffix
        with self._api.moving_money():
            try:
                intent = self._api.create(
                    order.merchant,
                    "/v1/payment_intents",
                    wanted,
                    idempotency_key=order.idempotency_key,
                )
            except stripe.CardError as error:
                return _decline(error)
            return _report(intent)

    def look_up(self, order: CardCharge) -> CardReport | None:
        """How a charge stands, if there is one; see ``CardGateway``."""
        # Not by searching, which finds a new payment a minute late.
        since: PaymentIntentListParams = {
            "expand": [f"data.{WHY}"],
            "created": {"gte": int((order.sent_since - LOOK_BACK).timestamp())},
            "limit": PAGE,
        }
        with asking():
            try:
                reports = self._attempted(order, {**since, "customer": order.customer})
            except stripe.InvalidRequestError as error:
                if error.code != "resource_missing" or not self._is_deleted(order):
                    raise
                # Of the payment, if there is one, nothing was deleted.
                reports = self._attempted(order, since)
        # A key that Stripe forgot may have made a second one: that with the money counts.
        return min(reports, key=lambda report: list(CardStatus).index(report.status), default=None)

    def _is_deleted(self, order: CardCharge) -> bool:
        """Whether a customer was deleted; fails for one that this Stripe account never had."""
        return (
            "deleted" in self._api.at(order.merchant).customers.retrieve(order.customer).to_dict()
        )

    def _attempted(self, order: CardCharge, wanted: PaymentIntentListParams) -> list[CardReport]:
        listed = self._api.at(order.merchant).payment_intents.list(wanted)
        intents = (intent.to_dict() for intent in listed.auto_paging_iter())
        attempt = order.metadata["attempt"]
        return [
            _report(intent) for intent in intents if intent["metadata"].get("attempt") == attempt
        ]

    def retrieve(self, payment_intent: str, merchant: Merchant) -> CardReport | None:
        """How a payment stands, if there is one; see ``CardGateway``."""
        with asking():
            try:
                return self._retrieved(payment_intent, merchant)
            except stripe.InvalidRequestError as error:
                if error.http_status == NOT_FOUND and error.code == "resource_missing":
                    return None
                raise

    def _retrieved(self, payment_intent: str, merchant: Merchant) -> CardReport:
        intents = self._api.at(merchant).payment_intents
        return _report(intents.retrieve(payment_intent, {"expand": [WHY]}).to_dict())

    def cancel(self, payment_intent: str, merchant: Merchant) -> CardReport:
        """Give a payment up; see ``CardGateway``."""
        with asking():
            intents = self._api.at(merchant).payment_intents
            try:
                return _report(intents.cancel(payment_intent).to_dict())
            except stripe.InvalidRequestError as error:
                if error.code == "resource_missing":
                    raise ChargeRefused(error.code, said(error)) from error
                if error.code != "payment_intent_unexpected_state":
                    raise
            return self._retrieved(payment_intent, merchant)

    def refund(self, order: CardRefund) -> RefundReport:
        """Give money back to where it came from; see ``CardGateway``."""
        amount = _sendable(order)
        with self._api.moving_money():
            created = self._api.at(order.merchant).refunds.create(
                {
                    "payment_intent": order.payment_intent,
                    "amount": amount,
                    "metadata": dict(order.metadata),
                },
                {"idempotency_key": order.idempotency_key},
            )
            return _refund(created.to_dict())

    def look_up_refund(self, order: CardRefund) -> RefundReport | None:
        """How a refund stands, if there is one; see ``CardGateway``."""
        wanted = order.metadata["refund"]
        with asking():
            listed = self._api.at(order.merchant).refunds.list(
                {"payment_intent": order.payment_intent, "limit": PAGE}
            )
            refunds = (refund.to_dict() for refund in listed.auto_paging_iter())
            reports = [
                _refund(refund)
                for refund in refunds
                if (refund.get("metadata") or {}).get("refund") == wanted
            ]
        return min(
            reports, key=lambda report: list(RefundStatus).index(report.status), default=None
        )

    def retrieve_refund(self, refund: str, merchant: Merchant) -> RefundReport:
        """How a refund stands; see ``CardGateway``."""
        with asking():
            return _refund(self._api.at(merchant).refunds.retrieve(refund).to_dict())


def refund_report(refund: Mapping[str, Any]) -> RefundReport | None:
    """How a refund of Stripe's stands, if it is in a state that is known here.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: It is no refund.
    """
    if refund["object"] != "refund":
        raise ValueError(f"{refund['object']} is no refund")
    status = _REFUND_STATUSES.get(refund["status"])
    if status is None:
        return None
    amount, currency = None, refund.get("currency")
    if currency is not None:
        # Of an amount that our minor units cannot hold we have sent none.
        with suppress(InvalidInput):
            amount = from_stripe(int(refund["amount"]), str(currency))
    return RefundReport(
        refund=str(refund["id"]),
        status=status,
        message=refund.get("failure_reason") if status is RefundStatus.FAILED else None,
        metadata=dict(refund.get("metadata") or {}),
        amount=amount,
        currency=currency,
    )


def _refund(refund: Mapping[str, Any]) -> RefundReport:
    report = refund_report(refund)
    if report is None:
        raise ChargeOutcomeUnknown(f"stripe: {refund['id']} is {refund['status']}")
    return report


def _sendable(order: CardCharge | CardRefund) -> int:
    """What an order asks for, as Stripe counts it.

    Raises:
        ChargeRefused: Stripe cannot be sent such an amount.
        ValueError: It has no key.
    """
    if not order.idempotency_key:
        raise ValueError("a call needs an idempotency key: the SDK would make up another one")
    try:
        return to_stripe(order.amount, order.currency)
    except InvalidInput as error:
        raise ChargeRefused(f"invalid_{error.field}", error.message) from error


def card_report(intent: Mapping[str, Any]) -> CardReport | None:
    """How a payment intent of Stripe's stands, if it is in one of the states of ``CardStatus``.

    ``None`` also where our minor units cannot hold what was received: of such an amount we have
    sent none.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: It is no payment intent.
    """
    error = intent.get("last_payment_error") or {}
    status = _STATUSES.get(intent["status"])
    if intent["status"] == "requires_payment_method" and error:
        kind = decline_class(error.get("decline_code"), error.get("code"))
        is_waiting = kind is DeclineClass.NEEDS_AUTHENTICATION
        status = CardStatus.NEEDS_ACTION if is_waiting else CardStatus.DECLINED
    if status is None:
        return None
    currency, received = str(intent["currency"]), 0
    if status is CardStatus.SUCCEEDED:
        try:
            received = from_stripe(int(intent["amount_received"]), currency)
        except InvalidInput:
            return None
    is_unpaid = status in {CardStatus.DECLINED, CardStatus.NEEDS_ACTION}
    code = _code(error, intent.get(WHY)) if is_unpaid else None
    return CardReport(
        payment_intent=str(intent["id"]),
        status=status,
        amount_received=received,
        currency=currency,
        decline_code=code,
        message=error.get("message") if is_unpaid else None,
        is_unexplained=status is CardStatus.DECLINED
        and code not in DECLINES
        and isinstance(intent.get(WHY), str),
        metadata=dict(intent.get("metadata") or {}),
    )


def _code(error: Mapping[str, Any], charge: object) -> str | None:
    """Why a payment failed: what the error says, else its charge, if that is here and not just named."""
    code: str | None = error.get("decline_code") or error.get("code")
    if code in DECLINES or not isinstance(charge, Mapping):
        return code
    return charge.get("failure_code") or code


def _report(intent: Mapping[str, Any]) -> CardReport:
    report = card_report(intent)
    if report is None:
        raise ChargeOutcomeUnknown(f"stripe: {intent['id']} is {intent['status']}")
    return report


def _decline(error: stripe.CardError) -> CardReport:
    intent = details(error).get("payment_intent")
    if not isinstance(intent, dict):
        raise ChargeRefused(error.code or "card_error", said(error)) from error
    try:
        return _report(intent)
    except UNREADABLE as unreadable:
        raise unknown(error) from unreadable
