"""What Stripe's events say of cards, customers and pages on which a card is left."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gateways.webhooks import MalformedEvents


class CardNewsKind(StrEnum):
    """What happened."""

    # Its expiry, its number or something else of it is another one.
    UPDATED = "updated"
    # It is nobody's any more, for good.
    DETACHED = "detached"
    # The customer is gone with all its cards, for good.
    CUSTOMER_DELETED = "customer_deleted"
    # A page for a card was used, or has ended.
    PAGE_ENDED = "page_ended"


@dataclass(frozen=True, slots=True)
class CardNews:
    """What an event is about.

    How that stands is to be asked: events come late and in any order. Only what is gone for good
    is as the event says.

    Attributes:
        about: Stripe's id of the payment method, the customer or the page.
        stripe_account: Of the connected account that it happened in, if it was one.
    """

    kind: CardNewsKind
    about: str
    stripe_account: str | None = None


_KINDS: Mapping[str, CardNewsKind] = {
    "payment_method.updated": CardNewsKind.UPDATED,
    "payment_method.automatically_updated": CardNewsKind.UPDATED,
    "payment_method.detached": CardNewsKind.DETACHED,
    "customer.deleted": CardNewsKind.CUSTOMER_DELETED,
    "checkout.session.completed": CardNewsKind.PAGE_ENDED,
    "checkout.session.expired": CardNewsKind.PAGE_ENDED,
}


def card_news(payload: Mapping[str, Any]) -> CardNews | None:
    """What an event says of a card; ``None`` where it is about something else.

    A page on which something is paid is something else.

    Raises:
        MalformedEvents: It is no event.
    """
    try:
        kind = _KINDS.get(payload["type"])
        if kind is None:
            return None
        about = payload["data"]["object"]
        if kind is CardNewsKind.PAGE_ENDED and about["mode"] != "setup":
            return None
        return CardNews(kind, str(about["id"]), payload.get("account"))
    except (KeyError, TypeError, AttributeError) as error:
        raise MalformedEvents(f"stripe: not an event: {error!r}") from error
