"""Card payments, as the rest of the system sees them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from billing.errors import DuecourseError, TransientFailure
from gateways.merchants import DEPLOYMENT, Merchant


class ChargeOutcomeUnknown(DuecourseError):  # noqa: N818 - named as the fact it states.
    """The card may have been charged: never make a new charge for it unasked.

    Ask again, under the same key or by ``look_up``. Not a ``TransientFailure``, so that nobody who
    repeats those repeats this one.
    """


class CardsUnavailable(TransientFailure):
    """This call charged nothing: not reached, too much at once, the key in use or not accepted.

    What an earlier call under the same idempotency key did is no clearer than it was.

    Attributes:
        retry_after: How long to wait, where the other side said so.
    """

    def __init__(self, message: str, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TooManyRequests(CardsUnavailable):
    """The Stripe account was asked too much at once; nobody should ask it for a while."""


class ChargeRefused(DuecourseError):  # noqa: N818 - named as the fact it states.
    """This request will never be taken as it is, and nothing was charged.

    Attributes:
        code: The reason for programs ("resource_missing", "amount_too_small"); may be "invalid".
        message: The reason, for people.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class CardStatus(StrEnum):
    """How a payment stands; those that have, or may yet have, the money come first."""

    SUCCEEDED = "succeeded"
    # A bank debit under way: it takes days, and ends as succeeded or declined.
    PROCESSING = "processing"
    # The client must authenticate. Until then nothing is charged.
    NEEDS_ACTION = "needs_action"
    DECLINED = "declined"
    CANCELED = "canceled"


@dataclass(frozen=True, slots=True, kw_only=True)
class CardCharge:
    """What to charge, with nobody present.

    Attributes:
        amount: In our minor units.
        customer: Stripe's id of whom the payment method belongs to.
        idempotency_key: One for all calls that mean this charge, and not empty.
        metadata: Comes back in every report and event; holds at least "attempt", which no other
            charge has.
        sent_since: Not later than the first call; ``look_up`` looks no further back, but for an
            hour.
        merchant: Whose Stripe account charges it.
        statement_suffix: What stands on the cardholder's statement behind the merchant's name.
    """

    amount: int
    currency: str
    customer: str
    payment_method: str
    idempotency_key: str
    description: str
    metadata: Mapping[str, str]
    sent_since: datetime
    merchant: Merchant = DEPLOYMENT
    statement_suffix: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CardReport:
    """How a payment stands.

    Attributes:
        payment_intent: Stripe's id of it.
        amount_received: In our minor units; 0 unless it succeeded.
        decline_code: Why it was declined, or needs action after a decline: Stripe's decline code,
            else its error code. As ``billing.declines`` takes it.
        message: The same for people.
        is_unexplained: Whether ``decline_code`` says nothing and ``retrieve`` may: of a bank debit
            that was returned, an event tells only that.
    """

    payment_intent: str
    status: CardStatus
    amount_received: int
    currency: str
    decline_code: str | None = None
    message: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    is_unexplained: bool = False


class RefundStatus(StrEnum):
    """How a refund stands; those that have, or may yet have, moved money come first."""

    # The bank may give it back all the same: it is failed then.
    SUCCEEDED = "succeeded"
    # Under way to a bank account, or for the client to claim.
    PROCESSING = "processing"
    # Nothing moved, or it came back.
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class CardRefund:
    """What to give back of a payment, to where it came from.

    Attributes:
        payment_intent: Stripe's id of the payment.
        amount: In our minor units.
        idempotency_key: One for all calls that mean this refund, and not empty.
        metadata: Comes back in every report and event; holds at least "refund", which no other
            refund has.
        merchant: Whose Stripe account took the payment.
    """

    payment_intent: str
    amount: int
    currency: str
    idempotency_key: str
    metadata: Mapping[str, str]
    merchant: Merchant = DEPLOYMENT


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundReport:
    """How a refund stands.

    Attributes:
        refund: Stripe's id of it.
        message: Why it failed, for people.
        amount, currency: What goes back, in our minor units; ``None`` where it is not known.
    """

    refund: str
    status: RefundStatus
    message: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    amount: int | None = None
    currency: str | None = None


class CardGateway(Protocol):
    """Charges cards and bank accounts, and refunds them. Safe to use from many threads."""

    def charge(self, order: CardCharge) -> CardReport:
        """Charge, once however often it is called with the same idempotency key.

        A decline is a report. Under a key used before, the report is how the payment stood then.

        Raises:
            CardsUnavailable: This call charged nothing; make it again later.
            ChargeOutcomeUnknown: The card may have been charged.
            ChargeRefused: It cannot be charged like this.
        """
        ...

    def look_up(self, order: CardCharge) -> CardReport | None:
        """How the charge stands, found by its ``metadata["attempt"]``; ``None`` if Stripe has none.

        A call of ``charge`` that is still under way may yet make one.

        Raises:
            CardsUnavailable: It could not be asked; asking again harms nothing.
            ChargeOutcomeUnknown: There is one, in a state that says neither paid nor not.
        """
        ...

    def retrieve(self, payment_intent: str, merchant: Merchant) -> CardReport | None:
        """How a payment stands; ``None`` if Stripe has none of that id there.

        Raises:
            CardsUnavailable: It could not be asked; asking again harms nothing.
            ChargeOutcomeUnknown: It is in a state that says neither paid nor not.
        """
        ...

    def cancel(self, payment_intent: str, merchant: Merchant) -> CardReport:
        """Give a payment up, if it is not too late; returns how it stands after.

        Raises:
            CardsUnavailable: It may be cancelled or not; doing it again harms nothing.
            ChargeOutcomeUnknown: It is in a state that says neither paid nor not.
            ChargeRefused: There is no such payment (any more).
        """
        ...

    def refund(self, order: CardRefund) -> RefundReport:
        """Give money back, once however often it is called with the same idempotency key.

        Under a key used before, the report is how the refund stood then.

        Raises:
            CardsUnavailable: This call moved nothing; make it again later.
            ChargeOutcomeUnknown: The money may be on its way back.
            ChargeRefused: It cannot be refunded like this, and nothing moved.
        """
        ...

    def look_up_refund(self, order: CardRefund) -> RefundReport | None:
        """How the refund stands, found by its ``metadata["refund"]``; ``None`` if there is none.

        A call of ``refund`` that is still under way may yet make one.

        Raises:
            CardsUnavailable: It could not be asked; asking again harms nothing.
            ChargeOutcomeUnknown: There is one, in a state that nobody knows here.
        """
        ...

    def retrieve_refund(self, refund: str, merchant: Merchant) -> RefundReport:
        """How a refund stands, by Stripe's id.

        Raises:
            CardsUnavailable: It could not be asked; asking again harms nothing.
            ChargeOutcomeUnknown: It is in a state that nobody knows here.
        """
        ...
