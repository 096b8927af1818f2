"""Billing methods: the card that a client agreed to be charged on."""

from uuid import UUID

from sqlalchemy import ForeignKeyConstraint
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, CreatedAt


class BillingMethod(Base):
    """A client's card, by Stripe's own names for the customer and the payment method.

    ``stopped_for`` is the decline code after which automatic tries on this card ended;
    ``merchant_id`` the Stripe account that knows the card, NULL for the deployment's.
    """

    __tablename__ = "billing_methods"
    __table_args__ = (
        ForeignKeyConstraint(["account_id", "client_id"], ["clients.account_id", "clients.id"]),
        ForeignKeyConstraint(
            ["account_id", "merchant_id"],
            ["stripe_merchants.account_id", "stripe_merchants.id"],
        ),
    )

    client_id: Mapped[UUID] = mapped_column(primary_key=True)
    account_id: Mapped[UUID]
    stripe_customer: Mapped[str]
    payment_method: Mapped[str]
    merchant_id: Mapped[UUID | None]
    stopped_for: Mapped[str | None]
    created_at: Mapped[CreatedAt]
