"""Clients: who is billed, and on which cycle."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session
from typing_extensions import TypedDict

from api.auth import Caller, Reader, Writer
from api.auto_top_ups import AutoTopUpReport, AutoTopUpSettings, top_ups_of
from api.billing_methods import BACKUP_EXAMPLE, METHOD_EXAMPLE, MethodReport
from api.fields import (
    FORBID_UNKNOWN,
    Address,
    AnchorDay,
    ClientReviewHours,
    CurrencyCode,
    Email,
    Flag,
    IsoDate,
    Name,
    NetDays,
    Pauses,
    ShortText,
    Switches,
    TaxIds,
    TaxRateIds,
    ZoneName,
)
from api.idempotency import OnceOnly
from api.operations import posts, reads, writes
from api.paging import Paging, newest_first
from api.shapes import AddressLines, Page, PausesReport
from api.transactions import Transaction
from billing.cycles import BillingCycle
from billing.errors import NotFound
from billing.mails import DEFAULTS, MailKind
from models import Account, AutoTopUpSetting, BackupMethod, BillingMethod, Client
from models.database import database_now
from tasks.automation import PERSON
from tasks.clients import NewClient, change_client, create_clients
from tasks.top_ups import wake_top_ups

router = APIRouter(tags=["clients"])

_NEW: dict[str, Any] = {
    "name": "Ada Imports",
    "email": "billing@ada-imports.example",
    "external_ref": "merchant-17",
    "time_zone": "America/Chicago",
    "billing_cycle": "monthly",
}


class ClientCreation(BaseModel):
    """A new client. What is null or left out falls back to the account's value, if it has one."""

    model_config = FORBID_UNKNOWN | ConfigDict(json_schema_extra={"examples": [_NEW]})

    name: Name
    email: Email | None = None
    external_ref: ShortText | None = None
    currency: CurrencyCode | None = None
    time_zone: ZoneName | None = None
    billing_cycle: BillingCycle = BillingCycle.MANUAL
    anchor_day: AnchorDay = 1
    billing_starts_on: IsoDate | None = None
    legal_name: ShortText | None = None
    address: Address | None = None
    tax_ids: TaxIds = []
    tax_rates: TaxRateIds | None = None
    tax_exempt: Flag = False
    net_days: NetDays | None = None
    auto_collect: Flag | None = None
    review_hours: ClientReviewHours | None = None
    paused: Pauses = {}
    notifications: Switches = {}
    use_backup_card: Flag = False
    auto_top_up: AutoTopUpSettings | None = None


class ClientChanges(TypedDict, total=False):
    """What to change; what is left out stays, null clears."""

    __pydantic_config__ = FORBID_UNKNOWN | ConfigDict(  # type: ignore[misc]  # pydantic's way.
        json_schema_extra={"examples": [{"billing_cycle": "monthly", "anchor_day": 15}]}
    )

    name: Name
    email: Email | None
    external_ref: ShortText | None
    currency: CurrencyCode | None
    time_zone: ZoneName | None
    billing_cycle: BillingCycle
    anchor_day: AnchorDay
    billing_starts_on: IsoDate | None
    legal_name: ShortText | None
    address: Address | None
    tax_ids: TaxIds
    tax_rates: TaxRateIds | None
    tax_exempt: Flag
    net_days: NetDays | None
    auto_collect: Flag | None
    review_hours: ClientReviewHours | None
    paused: Pauses
    notifications: Switches
    archived: Flag
    use_backup_card: Flag
    auto_top_up: AutoTopUpSettings | None


class ClientReport(BaseModel):
    """A client. `currency`, `time_zone`, `net_days` and `auto_collect` are the account's where null.

    So are `review_hours` and each of the `notifications`. `paused` is this client's own; the
    account's holds it as well. So are `tax_rates`; an empty list is none, and a client that is
    `tax_exempt` bears no tax of any. `billing_method` is the card, and `auto_top_up` when it fills
    the client's credit again by itself; null where there is none. `backup_method` is a second card:
    it is tried by itself where the first one is refused if the client says `use_backup_card`.
    Nothing new is billed to an `archived` client.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "019ae8a3-5c00-7000-8000-000000000001",
                    **_NEW,
                    "currency": None,
                    "anchor_day": 1,
                    "billing_starts_on": "2026-06-01",
                    "legal_name": None,
                    "address": None,
                    "tax_ids": [],
                    "tax_rates": None,
                    "tax_exempt": False,
                    "net_days": None,
                    "auto_collect": None,
                    "review_hours": None,
                    "paused": {"billing": False, "collection": False},
                    "notifications": {
                        "invoice_ready": None,
                        "receipt": False,
                        "payment_failed": None,
                        "authentication_needed": None,
                        "card_expiring": None,
                    },
                    "billing_method": METHOD_EXAMPLE,
                    "backup_method": BACKUP_EXAMPLE,
                    "use_backup_card": True,
                    "archived": False,
                    "auto_top_up": None,
                    "created_at": "2026-06-01T12:00:00Z",
                }
            ]
        }
    )

    id: UUID
    name: str
    email: str | None
    external_ref: str | None
    currency: str | None
    time_zone: str | None
    billing_cycle: BillingCycle
    anchor_day: int
    billing_starts_on: date | None
    legal_name: str | None
    address: AddressLines | None
    tax_ids: list[str]
    tax_rates: list[UUID] | None
    tax_exempt: bool
    net_days: int | None
    auto_collect: bool | None
    review_hours: int | Literal["person"] | None
    paused: PausesReport
    notifications: dict[MailKind, bool | None]
    billing_method: MethodReport | None
    backup_method: MethodReport | None
    use_backup_card: bool
    archived: bool
    auto_top_up: AutoTopUpReport | None
    created_at: datetime

    @classmethod
    def of(
        cls,
        client: Client,
        method: BillingMethod | None,
        top_up: AutoTopUpSetting | None = None,
        backup: BackupMethod | None = None,
    ) -> "ClientReport":
        """The client as it is shown, with its cards and its setting of top-ups."""
        told = {
            *("review_hours", "paused", "notifications"),
            *("billing_method", "backup_method", "archived", "auto_top_up"),
        }
        same = cls.model_fields.keys() - told
        return cls(
            **{name: getattr(client, name) for name in same},
            review_hours=PERSON if client.review_by_person else client.review_hours,
            paused=PausesReport(billing=client.billing_paused, collection=client.collection_paused),
            notifications={kind: client.notifications.get(kind) for kind in DEFAULTS},
            billing_method=None if method is None else MethodReport.of(method),
            backup_method=None if backup is None else MethodReport.of(backup),
            archived=client.archived_at is not None,
            auto_top_up=None if top_up is None else AutoTopUpReport.of(top_up),
        )


class ClientFilters(Paging):
    """Which clients to list."""

    external_ref: ShortText | None = None
    archived: bool = Field(default=False, description="Those that are archived, or those not.")


@router.post(
    "/v1/clients",
    summary="Create a client",
    status_code=201,
    response_model=ClientReport,
    responses=posts("external_ref_taken"),
)
def create_client(
    new: ClientCreation, caller: Writer, session: Transaction, once: OnceOnly
) -> Response:
    """A client on a cycle gets its first billing period at once."""
    account = session.get_one(Account, caller.account_id)
    (client,) = create_clients(
        session, account, [NewClient(**new.model_dump())], now=database_now(session)
    )
    session.refresh(client)
    shown = ClientReport.of(client, None, session.get(AutoTopUpSetting, client.id))
    return once.done(shown, status=201, location=f"/v1/clients/{client.id}")


@router.get("/v1/clients", summary="List clients", responses=reads())
def list_clients(
    filters: Annotated[ClientFilters, Query()], caller: Reader, session: Transaction
) -> Page[ClientReport]:
    """Newest first."""
    clients = select(Client).where(
        Client.account_id == caller.account_id,
        Client.archived_at.is_not(None) if filters.archived else Client.archived_at.is_(None),
    )
    if filters.external_ref is not None:
        clients = clients.where(Client.external_ref == filters.external_ref)
    found = newest_first(session, clients, Client.id, filters, read=UUID)
    ids = [client.id for client in found.rows]
    methods, backups = methods_of(session, ids), backups_of(session, ids)
    top_ups = top_ups_of(session, ids)
    return found.page(
        lambda client: ClientReport.of(
            client, methods.get(client.id), top_ups.get(client.id), backups.get(client.id)
        )
    )


@router.get("/v1/clients/{client_id}", summary="Show a client", responses=reads("client_not_found"))
def show_client(client_id: UUID, caller: Reader, session: Transaction) -> ClientReport:
    """One client."""
    client = client_of(session, caller, client_id)
    return _shown(session, client)


@router.patch(
    "/v1/clients/{client_id}",
    summary="Change a client",
    responses=writes(
        "client_not_found",
        "client_archived",
        "client_has_drafts",
        "external_ref_taken",
        "billing_already_started",
    ),
)
def change(
    client_id: UUID, changes: ClientChanges, caller: Writer, session: Transaction
) -> ClientReport:
    """A changed cycle or zone keeps the dates of the open billing period.

    An archived client leaves its cycle, and takes no new charges and drafts; all that it was
    billed stays. One with a draft cannot be archived (`client_has_drafts`). Archived no more, it
    is billed by hand until it is put on a cycle.
    """
    account = session.get_one(Account, caller.account_id)
    client = change_client(session, account, client_id, changes, now=database_now(session))
    if changes.get("auto_top_up") is not None:
        wake_top_ups(session, [client_id], requested_by=caller.requested_by)
    return _shown(session, client)


def _shown(session: Session, client: Client) -> ClientReport:
    return ClientReport.of(
        client,
        session.get(BillingMethod, client.id),
        session.get(AutoTopUpSetting, client.id),
        session.get(BackupMethod, client.id),
    )


def client_of(session: Session, caller: Caller, client_id: UUID) -> Client:
    """A client of the caller's.

    Raises:
        NotFound: The caller's account has no such client.
    """
    client = session.get(Client, client_id)
    if client is None or client.account_id != caller.account_id:
        raise NotFound("client", str(client_id))
    return client


def methods_of(session: Session, client_ids: Sequence[UUID]) -> dict[UUID, BillingMethod]:
    """The cards of those clients that have one, by client."""
    methods = session.scalars(select(BillingMethod).where(BillingMethod.client_id.in_(client_ids)))
    return {method.client_id: method for method in methods}


def backups_of(session: Session, client_ids: Sequence[UUID]) -> dict[UUID, BackupMethod]:
    """The second cards of those clients that have one, by client."""
    backups = session.scalars(select(BackupMethod).where(BackupMethod.client_id.in_(client_ids)))
    return {backup.client_id: backup for backup in backups}
