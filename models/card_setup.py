"""Card setups: pages at Stripe on which a client leaves a card, each written down before it opens."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Index, Select, select
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, CreatedAt, PrimaryKey, one_of


class CardRole(StrEnum):
    """What a card is left for."""

    # To be charged.
    DEFAULT = "default"
    # For when the other one is gone or refused.
    BACKUP = "backup"


class SetupState(StrEnum):
    """How such a page stands."""

    OPEN = "open"
    # The client has left a card.
    COMPLETED = "completed"
    # Nobody can use it any more, and no card was left.
    EXPIRED = "expired"


class CardSetup(Base):
    """One page for one card. It can be used until ``expires_at``.

    ``checkout_session`` and ``url`` are Stripe's, once it is open there; ``return_url`` is where
    the client comes back to. ``payment_method`` is the card that was left.
    """

    __tablename__ = "card_setups"
    __table_args__ = (
        ForeignKeyConstraint(["account_id", "client_id"], ["clients.account_id", "clients.id"]),
        Index("uq_card_setups_checkout_session", "checkout_session", unique=True),
        # Who presses twice comes to one page.
        Index(
            "uq_card_setups_open",
            "client_id",
            "role",
            unique=True,
            postgresql_where="state = 'open'",
        ),
        Index("ix_card_setups_expires_at", "expires_at", postgresql_where="state = 'open'"),
        CheckConstraint(one_of("role", CardRole), name="role"),
        CheckConstraint(one_of("state", SetupState), name="state"),
        CheckConstraint("(checkout_session IS NULL) = (url IS NULL)", name="url"),
        CheckConstraint(
            "(state = 'completed') = (payment_method IS NOT NULL)", name="payment_method"
        ),
        CheckConstraint("(state = 'open') = (ended_at IS NULL)", name="ended"),
    )

    id: Mapped[PrimaryKey]
    account_id: Mapped[UUID]
    client_id: Mapped[UUID]
    role: Mapped[str]
    state: Mapped[str] = mapped_column(server_default=SetupState.OPEN)
    checkout_session: Mapped[str | None]
    url: Mapped[str | None]
    return_url: Mapped[str]
    payment_method: Mapped[str | None]
    expires_at: Mapped[datetime]
    created_at: Mapped[CreatedAt]
    ended_at: Mapped[datetime | None]


def setup_for_update(setup_id: UUID) -> Select[CardSetup]:
    """One setup, locked, as the last writer left it. Lock its client first."""
    return (
        select(CardSetup)
        .where(CardSetup.id == setup_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
