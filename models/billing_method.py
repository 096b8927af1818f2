"""Billing methods: the card that a client agreed to be charged on, and a second one behind it."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, Constraint, ForeignKeyConstraint, Index
from sqlalchemy.orm import Mapped, declared_attr, mapped_column

from models.base import Base, CreatedAt


class CardOfClient:
    """A client's card, by Stripe's own names for the customer and the payment method.

    ``stopped_for`` is the decline code after which automatic tries on this card ended, or
    "disputed"; ``merchant_id`` the Stripe account that knows the card, NULL for the deployment's.
    What the card is (``kind``, ``brand``, ``last4`` and its last month) is what Stripe said at
    ``checked_at``; until then nothing of it is known.
    """

    @declared_attr.directive
    @classmethod
    def __table_args__(cls) -> tuple[Constraint | Index, ...]:
        table = cls.__tablename__  # type: ignore[attr-defined]  # Each table has one.
        return (
            ForeignKeyConstraint(["account_id", "client_id"], ["clients.account_id", "clients.id"]),
            ForeignKeyConstraint(
                ["account_id", "merchant_id"],
                ["stripe_merchants.account_id", "stripe_merchants.id"],
            ),
            # Whose card an event tells of.
            Index(f"ix_{table}_payment_method", "payment_method"),
            Index(f"ix_{table}_stripe_customer", "stripe_customer"),
            CheckConstraint("exp_month BETWEEN 1 AND 12", name="exp_month"),
            CheckConstraint("(exp_month IS NULL) = (exp_year IS NULL)", name="expiry"),
            CheckConstraint("checked_at IS NOT NULL OR kind IS NULL", name="checked"),
        )

    client_id: Mapped[UUID] = mapped_column(primary_key=True)
    account_id: Mapped[UUID]
    stripe_customer: Mapped[str]
    payment_method: Mapped[str]
    merchant_id: Mapped[UUID | None]
    stopped_for: Mapped[str | None]
    kind: Mapped[str | None]
    brand: Mapped[str | None]
    last4: Mapped[str | None]
    exp_month: Mapped[int | None]
    exp_year: Mapped[int | None]
    checked_at: Mapped[datetime | None]
    created_at: Mapped[CreatedAt]


class BillingMethod(CardOfClient, Base):
    """The card that is charged."""

    __tablename__ = "billing_methods"


class BackupMethod(CardOfClient, Base):
    """The card that is there for when the first one is gone or refused."""

    __tablename__ = "backup_methods"


CARD_FIELDS = (
    "stripe_customer",
    "payment_method",
    "merchant_id",
    "stopped_for",
    "kind",
    "brand",
    "last4",
    "exp_month",
    "exp_year",
    "checked_at",
    "created_at",
)
"""All that a card has but whose it is: what moves where two cards change places."""
