"""Cards that are kept at Stripe for their clients, as the rest of the system sees them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from gateways.merchants import Merchant


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedCard:
    """A card or bank account.

    Attributes:
        payment_method: Stripe's id of it.
        customer: Stripe's id of whose it is; ``None`` once it is detached.
        kind: Stripe's type of it: "card", "us_bank_account".
        brand: "visa"; of a bank account, the bank's name.
        exp_month, exp_year: The last month in which it can be charged; ``None`` for a bank account.
    """

    payment_method: str
    customer: str | None
    kind: str
    brand: str | None
    last4: str | None
    exp_month: int | None
    exp_year: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCustomer:
    """A client to be known at Stripe."""

    name: str
    email: str | None
    idempotency_key: str
    metadata: Mapping[str, str]
    merchant: Merchant


class SavedCardsGateway(Protocol):
    """Knows and forgets cards. Safe to use from many threads."""

    def create_customer(self, new: NewCustomer) -> str:
        """Stripe's id of a customer, one however often it is called with the same key.

        Raises:
            CardsUnavailable: It may be there or not; call it again.
            ChargeRefused: Stripe takes no such customer.
        """
        ...

    def retrieve(self, payment_method: str, merchant: Merchant) -> SavedCard:
        """A card as Stripe knows it.

        Raises:
            CardsUnavailable: It could not be asked; asking again harms nothing.
            ChargeRefused: There is no such card (any more).
        """
        ...

    def detach(self, payment_method: str, merchant: Merchant) -> None:
        """Have Stripe forget whose card it is: it can never be charged again.

        Raises:
            CardsUnavailable: It may be forgotten or not; doing it again harms nothing.
            ChargeRefused: There is no such card, or it is nobody's already.
        """
        ...
