"""Mails: what clients were told, and whether it was delivered."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select

from api.auth import Reader
from api.operations import reads
from api.paging import Paging, newest_first
from api.shapes import Page
from api.transactions import Transaction
from billing.mails import MailKind, MailState
from models import Mail

router = APIRouter(tags=["mails"])

MAIL_EXAMPLE: dict[str, Any] = {
    "id": "019ae8a3-5c00-7000-8000-00000000000c",
    "client": "019ae8a3-5c00-7000-8000-000000000001",
    "invoices": ["019ae8a3-5c00-7000-8000-000000000003"],
    "payment": None,
    "kind": "invoice_ready",
    "state": "delivered",
    "reason": None,
    "recipient": "billing@ada-imports.example",
    "created_at": "2026-06-01T12:00:00Z",
    "sent_at": "2026-06-01T12:00:02Z",
    "delivered_at": "2026-06-01T12:00:05Z",
}


class MailReport(BaseModel):
    """One mail to one recipient. `reason` says why it was not sent, or not delivered.

    One that is not sent on purpose is listed too: `suppressed`, with an empty `recipient` where
    the client has no address. `unknown`: SendGrid's answer was lost, and no event has told.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [MAIL_EXAMPLE]})

    id: UUID
    client: UUID
    invoices: list[UUID]
    payment: UUID | None
    kind: MailKind
    state: MailState
    reason: str | None
    recipient: str
    created_at: datetime
    sent_at: datetime | None
    delivered_at: datetime | None

    @classmethod
    def of(cls, mail: Mail) -> "MailReport":
        """The mail as it is shown."""
        same = cls.model_fields.keys() - {"client", "invoices", "payment"}
        return cls(
            **{name: getattr(mail, name) for name in same},
            client=mail.client_id,
            invoices=mail.invoice_ids,
            payment=mail.payment_id,
        )


class MailFilters(Paging):
    """Which mails to list."""

    client: UUID | None = None
    invoice: UUID | None = None
    state: MailState | None = None


@router.get("/v1/mails", summary="List mails", responses=reads())
def list_mails(
    filters: Annotated[MailFilters, Query()], caller: Reader, session: Transaction
) -> Page[MailReport]:
    """Newest first."""
    mails = select(Mail).where(Mail.account_id == caller.account_id)
    if filters.client is not None:
        mails = mails.where(Mail.client_id == filters.client)
    if filters.invoice is not None:
        mails = mails.where(Mail.invoice_ids.contains([filters.invoice]))
    if filters.state is not None:
        mails = mails.where(Mail.state == filters.state)
    return newest_first(session, mails, Mail.id, filters, read=UUID).page(MailReport.of)
