"""Stripe accounts of their own that accounts charge through, in place of the deployment's."""

from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Select,
    UniqueConstraint,
    or_,
    select,
)
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, CreatedAt, PrimaryKey


class StripeMerchant(Base):
    """How a Stripe account is reached: as one that is connected to ours, or by a key of its own.

    Append-only. A new key of the same Stripe account is a row that ``continues`` its first one:
    that one's id stands for the Stripe account, in ``payment_attempts`` and wherever else, and the
    newest row says how it is reached. Key and secret are sealed; ``key_hint`` is the key's end.
    """

    __tablename__ = "stripe_merchants"
    __table_args__ = (
        UniqueConstraint("account_id", "id"),
        ForeignKeyConstraint(
            ["account_id", "continues"], ["stripe_merchants.account_id", "stripe_merchants.id"]
        ),
        # A connected account is one account's: its events settle no other's charges.
        Index(
            "uq_stripe_merchants_stripe_account",
            "stripe_account",
            unique=True,
            postgresql_where="stripe_account IS NOT NULL",
        ),
        CheckConstraint("(stripe_account IS NULL) <> (sealed_key IS NULL)", name="way"),
        CheckConstraint(
            "(sealed_key IS NULL) = (sealed_webhook_secret IS NULL)"
            " AND (sealed_key IS NULL) = (key_hint IS NULL)",
            name="own_key",
        ),
        CheckConstraint("continues IS NULL OR sealed_key IS NOT NULL", name="continues"),
    )

    id: Mapped[PrimaryKey]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"))
    continues: Mapped[UUID | None]
    stripe_account: Mapped[str | None]
    sealed_key: Mapped[str | None]
    sealed_webhook_secret: Mapped[str | None]
    key_hint: Mapped[str | None]
    created_at: Mapped[CreatedAt]

    @property
    def merchant_id(self) -> UUID:
        """The id that stands for the Stripe account."""
        return self.continues or self.id


def newest_of(merchant_id: UUID) -> Select[StripeMerchant]:
    """How a Stripe account is reached now."""
    return (
        select(StripeMerchant)
        .where(or_(StripeMerchant.id == merchant_id, StripeMerchant.continues == merchant_id))
        .order_by(StripeMerchant.id.desc())
        .limit(1)
    )


def own_keys_of(account_id: UUID) -> Select[StripeMerchant]:
    """The keys of its own that an account was ever given, newest first."""
    return (
        select(StripeMerchant)
        .where(StripeMerchant.account_id == account_id, StripeMerchant.sealed_key.is_not(None))
        .order_by(StripeMerchant.id.desc())
    )
