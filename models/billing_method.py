"""Billing methods: the card that a client agreed to be charged on."""

from uuid import UUID

from sqlalchemy import ForeignKeyConstraint
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, CreatedAt


class BillingMethod(Base):
    """A client's card, by Stripe's own names for the customer and the payment method.

    ``stopped_for`` is the decline code after which automatic tries on this card ended, or
    "disputed".
    """

    __tablename__ = "billing_methods"
    __table_args__ = (
        ForeignKeyConstraint(["account_id", "client_id"], ["clients.account_id", "clients.id"]),
    )

    client_id: Mapped[UUID] = mapped_column(primary_key=True)
    account_id: Mapped[UUID]
    stripe_customer: Mapped[str]
    payment_method: Mapped[str]
    stopped_for: Mapped[str | None]
    created_at: Mapped[CreatedAt]
