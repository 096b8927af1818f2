"""Stripe's webhook events, behind the PaymentEvents protocol."""

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import stripe

from gateways.cards import CardReport, RefundReport
from gateways.checkout import CheckoutReport
from gateways.disputes import DisputeReport
from gateways.payment_events import PaymentEvent, RefundedCharge
from gateways.saved_cards import SavedCard
from gateways.stripe_cards import card_report, refund_report
from gateways.stripe_checkout import checkout_report
from gateways.stripe_disputes import dispute_report, refunded_charge
from gateways.stripe_saved_cards import saved_card
from gateways.webhooks import MalformedEvents, UntrustedEvents

TOLERANCE = timedelta(minutes=5)
SIGNATURE = "stripe-signature"

REPORTING = frozenset(
    f"payment_intent.{ending}"
    for ending in ("succeeded", "payment_failed", "processing", "requires_action", "canceled")
)
"""The types of event that tell what became of a charge; others are kept, and left alone."""

REFUNDS_TOLD = frozenset(
    {"refund.created", "refund.updated", "refund.failed", "charge.refund.updated"}
)
"""The types of event that tell what became of a refund; one thing may be told by several."""


CHECKOUTS_TOLD = frozenset(
    f"checkout.session.{ending}"
    for ending in ("completed", "expired", "async_payment_succeeded", "async_payment_failed")
)
"""The types of event that tell what became of a page; a payment there has events of its own."""

CARDS_TOLD = frozenset(
    f"payment_method.{ending}" for ending in ("updated", "automatically_updated", "detached")
)
"""The types of event that tell what a card has become."""

CUSTOMER_DELETED = "customer.deleted"

DISPUTES_TOLD = frozenset(
    f"charge.dispute.{ending}"
    for ending in ("created", "updated", "closed", "funds_withdrawn", "funds_reinstated")
)
"""The types of event that tell how a dispute stands; one thing may be told by several."""

CHARGE_REFUNDED = "charge.refunded"
"""Tells what was refunded of a charge, also by hand."""


class StripeEvents:
    """Trusts what Stripe has signed, if it did so just now: every try to deliver is signed anew.

    Args:
        secrets: The webhooks' signing secrets, any of which will do: of two endpoints, or an old
            one and a new; each starts with "whsec_".
        tolerance: How old a signature may be, or how far ahead of our clock.

    Raises:
        ValueError: There is no secret.
    """

    def __init__(self, *secrets: str, tolerance: timedelta = TOLERANCE) -> None:
        if not secrets or not all(secret.strip() for secret in secrets):
            raise ValueError("the Stripe webhook's signing secret is empty")
        self._secrets = secrets
        self._tolerance = tolerance

    def read(self, body: bytes, headers: Mapping[str, str], *, now: datetime) -> PaymentEvent:
        """The event of one request; see ``PaymentEvents``."""
        sent = {name.lower(): value for name, value in headers.items()}
        signature = sent.get(SIGNATURE, "")
        try:
            self._verify(body, signature)
            age = now - _signed_at(signature)
        except (stripe.SignatureVerificationError, ValueError, TypeError, OverflowError, OSError):
            # Not as the cause: the SDK's error holds the body, which nobody vouches for.
            raise UntrustedEvents("stripe: an event without a right signature") from None
        if abs(age) > self._tolerance:
            raise UntrustedEvents(f"stripe: an event signed {age} ago")
        try:
            payload = json.loads(body)
        except ValueError as error:
            raise MalformedEvents(f"stripe: not an event: {error!r}") from error
        return event_from(payload)

    def _verify(self, body: bytes, signature: str) -> None:
        *others, last = self._secrets
        for secret in others:
            with suppress(stripe.SignatureVerificationError):
                _verify(body, signature, secret)
                return
        _verify(body, signature, last)


def _verify(body: bytes, signature: str, secret: str) -> None:
    # Without a tolerance: the SDK would hold the time against its own clock.
    stripe.WebhookSignature.verify_header(body, signature, secret)


def event_from(payload: Mapping[str, Any]) -> PaymentEvent:
    """An event that was read and kept before; its signature is not asked for again.

    Raises:
        MalformedEvents: It is no event.
    """
    try:
        return PaymentEvent(
            id=str(payload["id"]),
            type=str(payload["type"]),
            created_at=datetime.fromtimestamp(payload["created"], UTC),
            report=_report(payload),
            payload=payload,
            refund=_refund(payload),
            stripe_account=None if payload.get("account") is None else str(payload["account"]),
            checkout=_checkout(payload),
            card=_card(payload),
            deleted_customer=_deleted_customer(payload),
            dispute=_dispute(payload),
            refunded=_refunded(payload),
        )
    except (
        AttributeError, KeyError, TypeError, ValueError, OverflowError, OSError,
    ) as error:  # fmt: skip
        raise MalformedEvents(f"stripe: not an event: {error!r}") from error


def _report(payload: Mapping[str, Any]) -> CardReport | None:
    return card_report(payload["data"]["object"]) if payload["type"] in REPORTING else None


def _refund(payload: Mapping[str, Any]) -> RefundReport | None:
    is_told = payload["type"] in REFUNDS_TOLD
    return refund_report(payload["data"]["object"]) if is_told else None


def _checkout(payload: Mapping[str, Any]) -> CheckoutReport | None:
    is_told = payload["type"] in CHECKOUTS_TOLD
    return checkout_report(payload["data"]["object"]) if is_told else None


def _card(payload: Mapping[str, Any]) -> SavedCard | None:
    return saved_card(payload["data"]["object"]) if payload["type"] in CARDS_TOLD else None


def _deleted_customer(payload: Mapping[str, Any]) -> str | None:
    is_told = payload["type"] == CUSTOMER_DELETED
    return str(payload["data"]["object"]["id"]) if is_told else None


def _dispute(payload: Mapping[str, Any]) -> DisputeReport | None:
    is_told = payload["type"] in DISPUTES_TOLD
    return dispute_report(payload["data"]["object"]) if is_told else None


def _refunded(payload: Mapping[str, Any]) -> RefundedCharge | None:
    is_told = payload["type"] == CHARGE_REFUNDED
    return refunded_charge(payload["data"]["object"]) if is_told else None


def _signed_at(signature: str) -> datetime:
    """The time in a signature that was found right."""
    parts = [part.split("=", 2) for part in signature.split(",")]
    return datetime.fromtimestamp(int(next(part[1] for part in parts if part[0] == "t")), UTC)
