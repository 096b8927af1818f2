"""Mails: claimed before they are sent, so that each is sent once."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Select,
    UniqueConstraint,
    Uuid,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from billing.mails import MailKind, MailState
from models.base import Base, CreatedAt, JsonObject, PrimaryKey, one_of


class Mail(Base):
    """One mail to one recipient about one subject.

    ``subject_key`` names what it is about, such as ``run:<id>:<client>``; ``sending`` counts
    deliberate sendings, so that only a person's wish makes a second one. One that is not sent on
    purpose is written down as well, with the ``reason``: a client without an address has an
    empty ``recipient``. ``told`` holds what it says that may be different by the time it is sent.
    """

    __tablename__ = "mails"
    __table_args__ = (
        ForeignKeyConstraint(["account_id", "client_id"], ["clients.account_id", "clients.id"]),
        UniqueConstraint("kind", "subject_key", "recipient", "sending"),
        Index("ix_mails_client_id_id", "client_id", "id"),
        Index("ix_mails_account_id_id", "account_id", "id"),
        Index("ix_mails_invoice_ids", "invoice_ids", postgresql_using="gin"),
        CheckConstraint(one_of("kind", MailKind), name="kind"),
        CheckConstraint(one_of("state", MailState), name="state"),
    )

    id: Mapped[PrimaryKey]
    account_id: Mapped[UUID]
    client_id: Mapped[UUID]
    kind: Mapped[str]
    subject_key: Mapped[str]
    recipient: Mapped[str]
    sending: Mapped[int] = mapped_column(server_default="1")
    state: Mapped[str] = mapped_column(server_default=MailState.QUEUED)
    invoice_ids: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid))
    told: Mapped[JsonObject]
    payment_id: Mapped[UUID | None] = mapped_column(ForeignKey("payments.id"))
    attempt_id: Mapped[UUID | None] = mapped_column(ForeignKey("payment_attempts.id"))
    message_id: Mapped[str | None]
    reason: Mapped[str | None]
    requested_by: Mapped[str]
    created_at: Mapped[CreatedAt]
    claimed_at: Mapped[datetime | None]
    sent_at: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]


def mail_for_update(mail_id: UUID) -> Select[Mail]:
    """One mail, locked, as the last writer left it."""
    return (
        select(Mail)
        .where(Mail.id == mail_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
