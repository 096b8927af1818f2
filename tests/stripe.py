"""The real card gateway, for tests that need no more of Stripe."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gateways.cards import CardGateway, CardReport
from gateways.merchants import DEPLOYMENT
from gateways.stripe_api import StripeApi
from gateways.stripe_cards import StripeCards


@contextmanager
def cards_at_stripe(secret_key: str, **options: Any) -> Iterator[StripeCards]:
    """Cards at Stripe, as ``StripeApi`` reaches it, until the block ends."""
    with StripeApi(secret_key, **options) as api:
        yield StripeCards(api)


def known_payment(cards: CardGateway, payment_intent: str) -> CardReport:
    """How a payment stands that is at Stripe."""
    report = cards.retrieve(payment_intent, DEPLOYMENT)
    assert report is not None
    return report
