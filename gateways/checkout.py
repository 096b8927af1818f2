"""Pages at which a client pays, or leaves a card, as the rest of the system sees them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from gateways.cards import CardReport
from gateways.merchants import DEPLOYMENT, Merchant


class CheckoutStatus(StrEnum):
    """How a page stands."""

    # The client can still use it.
    OPEN = "open"
    # The client has paid, or a bank debit is under way; or has left a card.
    COMPLETE = "complete"
    # Nobody can use it any more, and nothing was paid.
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckoutOrder:
    """A page to open.

    Attributes:
        amount: What is to be paid, in our minor units; ``None`` for a page that only takes a card.
        customer: Stripe's id of who pays.
        idempotency_key: One for all calls that mean this page, and not empty.
        description: What is paid, for people; empty for a page that only takes a card.
        metadata: Comes back in every report and event, those of the payment too: holds "attempt"
            or "card_setup", which no other has.
        expires_at: Until when it can be used: 30 minutes to 24 hours from when Stripe gets to know
            of it, so neither bound is safe to be met exactly. The same in all calls.
        success_url, cancel_url: Where the client is sent afterwards.
    """

    amount: int | None
    currency: str
    customer: str
    idempotency_key: str
    description: str
    metadata: Mapping[str, str]
    expires_at: datetime
    success_url: str
    cancel_url: str
    merchant: Merchant = DEPLOYMENT


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckoutReport:
    """How a page stands.

    Attributes:
        session: Stripe's id of it.
        url: Where the client finds it, while it is open.
        payment: How the payment stands, once there is one; an open page may have a declined one. As
            told by an event, only of one that succeeded.
        payment_method: Stripe's id of the card that was left, where the page only takes a card;
            ``None`` as told by an event.
    """

    session: str
    status: CheckoutStatus
    url: str | None
    customer: str | None
    payment: CardReport | None = None
    payment_method: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


class CheckoutGateway(Protocol):
    """Opens and closes such pages. Safe to use from many threads."""

    def open(self, order: CheckoutOrder) -> CheckoutReport:
        """Open a page, once however often it is called with the same idempotency key.

        Where it may be open unknown to us, nobody has its address: nothing can be paid there.

        Raises:
            CardsUnavailable: It may be open or not; call it again.
            ChargeRefused: It cannot be opened like this.
        """
        ...

    def retrieve(self, session: str, merchant: Merchant) -> CheckoutReport:
        """How a page stands.

        Raises:
            CardsUnavailable: It could not be asked; asking again harms nothing.
            ChargeOutcomeUnknown: Its payment is in a state that says neither paid nor not.
            ChargeRefused: There is no such page (any more).
        """
        ...

    def expire(self, session: str, merchant: Merchant) -> CheckoutReport:
        """Close a page, if it is not too late; returns how it stands after.

        Raises:
            CardsUnavailable: It may be closed or not; doing it again harms nothing.
            ChargeOutcomeUnknown: Its payment is in a state that says neither paid nor not.
            ChargeRefused: There is no such page (any more).
        """
        ...
