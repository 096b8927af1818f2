"""Stripe's webhook events, behind the PaymentEvents protocol."""

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import stripe

from gateways.cards import CardReport, RefundReport
from gateways.payment_events import PaymentEvent
from gateways.stripe_cards import card_report, refund_report
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


def _signed_at(signature: str) -> datetime:
    """The time in a signature that was found right."""
    parts = [part.split("=", 2) for part in signature.split(",")]
    return datetime.fromtimestamp(int(next(part[1] for part in parts if part[0] == "t")), UTC)
