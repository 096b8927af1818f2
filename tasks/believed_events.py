"""Which events are believed: those of the Stripe account that what they tell of was made at.

Whoever has a Stripe account can write anything into its metadata, and whoever has a secret of its
own can sign anything.
"""

import structlog
from sqlalchemy.orm import Session

from gateways.merchants import Merchant
from gateways.payment_events import PaymentEvent
from models import PaymentAttempt, WebhookEvent
from tasks.merchants import merchant_that_took

_log = structlog.get_logger(__name__)


def comes_from(event: WebhookEvent, told: PaymentEvent, merchant: Merchant) -> bool:
    """Whether an event comes from a merchant's Stripe account."""
    if merchant.sealed_key is not None:
        # What it is told of accounts that are connected to it is none of ours.
        return event.merchant_id == merchant.id and told.stripe_account is None
    return event.merchant_id is None and told.stripe_account == merchant.stripe_account


def comes_from_where_made(
    session: Session, event: WebhookEvent, told: PaymentEvent, attempt: PaymentAttempt
) -> bool:
    """Whether an event comes from the Stripe account that an attempt was made at."""
    is_believed = comes_from(event, told, merchant_that_took(session, attempt))
    if not is_believed:
        _log.warning(
            "event of another Stripe account",
            event_id=event.event_id,
            attempt=str(attempt.id),
            stripe_account=told.stripe_account,
        )
    return is_believed
