"""The caller's own account, and the defaults its clients inherit."""

from datetime import datetime
from typing import Any
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict
from typing_extensions import TypedDict

from api.auth import Reader, Writer
from api.fields import (
    FORBID_UNKNOWN,
    Address,
    CurrencyCode,
    Dunning,
    Flag,
    Name,
    NetDays,
    ShortText,
    Switches,
    TaxIds,
    ZoneName,
)
from api.operations import reads, writes
from api.shapes import AddressLines
from api.transactions import Transaction
from billing.dunning import DunningFinal
from billing.mails import DEFAULTS, MailKind, switched_on
from models import Account
from models.database import database_now
from tasks.accounts import change_account

router = APIRouter(tags=["account"])


class AccountChanges(TypedDict, total=False):
    """What to change; what is left out stays, null clears."""

    __pydantic_config__ = FORBID_UNKNOWN | ConfigDict(  # type: ignore[misc]  # pydantic's way.
        json_schema_extra={"examples": [{"time_zone": "America/Chicago", "net_days": 30}]}
    )

    name: Name
    legal_name: ShortText | None
    address: Address | None
    tax_ids: TaxIds
    time_zone: ZoneName
    currency: CurrencyCode
    net_days: NetDays
    auto_collect: Flag
    dunning: Dunning
    notifications: Switches


class DunningReport(BaseModel):
    """Days from each declined automatic try of a card to the next; if empty, it is tried once.

    `final` is what becomes of an invoice whose last try was declined: it stays `open`, or is
    written off (`uncollectible`).
    """

    days: list[int]
    final: DunningFinal


class AccountReport(BaseModel):
    """The business that bills. Names and address are frozen into each finalized invoice.

    `notifications` says of every mail whether clients get it who have no switch of their own;
    `auto_collect` whether invoices of their billing periods are charged without being asked.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "019ae8a3-5c00-7000-8000-000000000006",
                    "name": "Bluebird Prep",
                    "legal_name": "Bluebird Prep LLC",
                    "address": {"line1": "1 Dock Street", "city": "Reno", "country": "US"},
                    "tax_ids": [],
                    "time_zone": "America/Los_Angeles",
                    "currency": "usd",
                    "net_days": 14,
                    "auto_collect": True,
                    "dunning": {"days": [3, 5, 7, 7], "final": "open"},
                    "notifications": {
                        "invoice_ready": True,
                        "receipt": True,
                        "payment_failed": False,
                    },
                    "created_at": "2026-01-05T17:00:00Z",
                }
            ]
        }
    )

    id: UUID
    name: str
    legal_name: str | None
    address: AddressLines | None
    tax_ids: list[str]
    time_zone: str
    currency: str
    net_days: int
    auto_collect: bool
    dunning: DunningReport
    notifications: dict[MailKind, bool]
    created_at: datetime

    @classmethod
    def of(cls, account: Account) -> "AccountReport":
        """The account as it is shown."""
        same = cls.model_fields.keys() - {"dunning", "notifications"}
        return cls(
            **{name: getattr(account, name) for name in same},
            dunning=DunningReport(
                days=account.dunning_days, final=DunningFinal(account.dunning_final)
            ),
            notifications={kind: switched_on(kind, account.notifications, {}) for kind in DEFAULTS},
        )


@router.get("/v1/account", summary="Show the account", responses=reads())
def show_account(caller: Reader, session: Transaction) -> AccountReport:
    """The account that the key belongs to."""
    return AccountReport.of(session.get_one(Account, caller.account_id))


@router.patch("/v1/account", summary="Change the account", responses=writes())
def change(changes: AccountChanges, caller: Writer, session: Transaction) -> AccountReport:
    """A new zone moves the end of the open period of every client without a zone of its own."""
    kept: dict[str, Any] = {**changes}
    if "dunning" in changes:
        kept |= {f"dunning_{name}": value for name, value in kept.pop("dunning").items()}
    account = change_account(session, caller.account_id, kept, now=database_now(session))
    return AccountReport.of(account)
