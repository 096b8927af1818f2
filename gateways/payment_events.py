"""What became of payments, told by events, as the rest of the system sees it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from gateways.cards import CardReport, RefundReport
from gateways.checkout import CheckoutReport
from gateways.disputes import DisputeReport
from gateways.saved_cards import SavedCard


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundedCharge:
    """How much of a payment was sent back in all, whoever asked for it.

    Attributes:
        payment_intent: Stripe's id of the payment.
        amount: In our minor units.
    """

    payment_intent: str
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentEvent:
    """One thing that happened at Stripe.

    Events come more than once and in any order: ``id`` tells the repeated ones.

    Attributes:
        type: As Stripe names it: "payment_intent.succeeded", "charge.dispute.created".
        created_at: In UTC, to the second.
        report: How the payment stood at that time, in an event that says it: a payment intent's
            success, failure, processing, need for action or cancellation. Otherwise ``None``, also
            where the payment is in none of the states of ``CardStatus``.
        refund: How a refund stood, in an event that says that.
        stripe_account: Stripe's id of the connected account that it happened in, where it was one.
        checkout: How a page stood, in an event of one that was used, has expired, or whose bank
            debit came to its end.
        card: A card as it is after the event, in one of a card that was changed or forgotten.
        deleted_customer: Stripe's id of a customer, in an event of one that was deleted.
        dispute: How a dispute stood, in an event that says that; ``None`` also where it is in none
            of the states of ``DisputeStatus``.
        refunded: What was refunded of a payment so far, in an event that says that.
        payload: The whole event, as it came.
    """

    id: str
    type: str
    created_at: datetime
    report: CardReport | None
    payload: Mapping[str, Any]
    refund: RefundReport | None = None
    stripe_account: str | None = None
    checkout: CheckoutReport | None = None
    card: SavedCard | None = None
    deleted_customer: str | None = None
    dispute: DisputeReport | None = None
    refunded: RefundedCharge | None = None


class PaymentEvents(Protocol):
    """Reads the events that a vendor posts to us."""

    def read(self, body: bytes, headers: Mapping[str, str], *, now: datetime) -> PaymentEvent:
        """The event of one request.

        Args:
            body: As it came, to the byte.
            headers: The request's, under names in any case.
            now: When it came.

        Raises:
            UntrustedEvents: The signature is missing, wrong or too old.
            MalformedEvents: The signed body is no event.
        """
        ...
