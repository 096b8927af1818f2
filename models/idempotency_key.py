"""Answers already given, by the caller's own Idempotency-Key."""

from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, CreatedAt


class IdempotencyKey(Base):
    """One POST that was answered: a digest of the request, and the answer to repeat."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (Index("ix_idempotency_keys_created_at", "created_at"),)

    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request_sha256: Mapped[str]
    status: Mapped[int | None]
    headers: Mapped[dict[str, Any] | None]
    # JSON as text: as an object its names would come back in another order.
    body: Mapped[str | None]
    created_at: Mapped[CreatedAt]
