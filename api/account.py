"""The caller's own account, and the defaults its clients inherit."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict
from sqlalchemy.orm import Session
from typing_extensions import TypedDict

from api.auth import Reader, Writer
from api.fields import (
    FORBID_UNKNOWN,
    Address,
    CurrencyCode,
    Dunning,
    Flag,
    IsoDate,
    Name,
    NetDays,
    NextNumber,
    Pauses,
    ReviewHours,
    ShortText,
    Switches,
    TaxIds,
    TaxRateIds,
    ZoneName,
)
from api.operations import reads, writes
from api.shapes import AddressLines, PausesReport
from api.transactions import Transaction
from billing.dates import InvoiceDate
from billing.disputes import DisputeLost
from billing.dunning import DunningFinal
from billing.mails import DEFAULTS, MailKind, switched_on
from billing.number_formats import NumberReset
from models import Account
from models.database import database_now
from tasks.accounts import change_account
from tasks.merchants import way_to
from tasks.number_settings import next_number

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
    tax_rates: TaxRateIds
    time_zone: ZoneName
    currency: CurrencyCode
    net_days: NetDays
    auto_collect: Flag
    review_hours: ReviewHours | None
    invoice_date: InvoiceDate
    void_makes_credit_note: Flag
    dispute_lost: DisputeLost
    dunning: Dunning
    paused: Pauses
    notifications: Switches
    number_format: ShortText
    credit_note_format: ShortText
    number_reset: NumberReset
    next_number: NextNumber
    stripe_account: ShortText | None
    books_closed_through: IsoDate | None


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
    `tax_rates` are borne by charges that have none of their own, nor their client;
    `auto_collect` whether invoices of their billing periods are charged without being asked;
    `review_hours` how long these stay drafts, null until a person finalizes them. `paused` holds
    billing periods and drafts, or charges of cards, for all clients.

    Invoices are numbered without a gap in `number_format`, in which `{seq}`, or `{seq:06}` with
    zeros in front, stands for the sequence number, `{year}` and `{month}` for the date of issue;
    credit notes likewise in `credit_note_format`. With `number_reset` `yearly` they start again
    with each year, if it is in the format. `next_number` is the next sequence number of invoices.
    When a dispute is lost, its invoice is due again, by hand (`dispute_lost` `reopen`), or stays
    paid and the money is lost (`write_off`). With `void_makes_credit_note` each void writes a credit note, for countries that want one.
    Cards are charged through `stripe_account`, which is connected to the deployment's, or by the
    account's own key that ends with `stripe_key`; else through the deployment's Stripe account.
    Nothing is posted any more that counts for a day up to `books_closed_through`.
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
                    "tax_rates": ["019ae8a3-5c00-7000-8000-000000000011"],
                    "time_zone": "America/Los_Angeles",
                    "currency": "usd",
                    "net_days": 14,
                    "auto_collect": True,
                    "review_hours": 48,
                    "invoice_date": "boundary",
                    "paused": {"billing": False, "collection": False},
                    "void_makes_credit_note": False,
                    "dispute_lost": "reopen",
                    "dunning": {"days": [3, 5, 7, 7], "final": "open"},
                    "notifications": {
                        "invoice_ready": True,
                        "receipt": True,
                        "payment_failed": False,
                        "authentication_needed": True,
                        "card_expiring": True,
                    },
                    "number_format": "INV-{year}-{seq:06}",
                    "credit_note_format": "CN-{seq:06}",
                    "number_reset": "yearly",
                    "next_number": 43,
                    "stripe_account": "acct_1MvK0PFCdyWQbCbX",
                    "stripe_key": None,
                    "books_closed_through": "2026-05-31",
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
    tax_rates: list[UUID]
    time_zone: str
    currency: str
    net_days: int
    auto_collect: bool
    review_hours: int | None
    invoice_date: InvoiceDate
    void_makes_credit_note: bool
    dispute_lost: DisputeLost
    dunning: DunningReport
    paused: PausesReport
    notifications: dict[MailKind, bool]
    number_format: str
    credit_note_format: str
    number_reset: NumberReset
    next_number: int
    stripe_account: str | None
    stripe_key: str | None
    books_closed_through: date | None
    created_at: datetime

    @classmethod
    def of(cls, session: Session, account: Account) -> "AccountReport":
        """The account as it is shown."""
        others = {"dunning", "paused", "notifications", "next_number"}
        same = cls.model_fields.keys() - others - {"stripe_account", "stripe_key"}
        way = None if account.merchant_id is None else way_to(session, account.merchant_id)
        return cls(
            **{name: getattr(account, name) for name in same},
            dunning=DunningReport(
                days=account.dunning_days, final=DunningFinal(account.dunning_final)
            ),
            paused=PausesReport(
                billing=account.billing_paused, collection=account.collection_paused
            ),
            notifications={kind: switched_on(kind, account.notifications, {}) for kind in DEFAULTS},
            next_number=next_number(session, account, now=database_now(session)),
            stripe_account=None if way is None else way.stripe_account,
            stripe_key=None if way is None else way.key_hint,
        )


@router.get("/v1/account", summary="Show the account", responses=reads())
def show_account(caller: Reader, session: Transaction) -> AccountReport:
    """The account that the key belongs to."""
    return AccountReport.of(session, session.get_one(Account, caller.account_id))


@router.patch(
    "/v1/account",
    summary="Change the account",
    responses=writes(
        "number_format_taken", "number_series_used", "stripe_account_taken", "books_closed"
    ),
)
def change(changes: AccountChanges, caller: Writer, session: Transaction) -> AccountReport:
    """A new zone moves the end of the open period of every client without a zone of its own.

    No number is ever given twice: a format that would come to one that exists is refused
    (`number_format_taken`), and a series that starts begins above those that look like its own.
    `next_number` can be set until its series, this year's if they start again, has begun
    (`number_series_used`).

    With another `stripe_account` new charges are made there, and null makes them at the deployment's;
    what was charged before stays where it was. A client's card is charged only at the Stripe account
    that it was left at: until there is another, its invoices wait (`no_billing_method`). An account
    that another one charges through is refused (`stripe_account_taken`).

    Books are closed through a day that is over, and later ones only: they are never opened again.
    What bears a date in them counts for the first open day; a payment of such a day is refused.
    """
    kept: dict[str, Any] = {**changes}
    if "dunning" in changes:
        kept |= {f"dunning_{name}": value for name, value in kept.pop("dunning").items()}
    account = change_account(session, caller.account_id, kept, now=database_now(session))
    return AccountReport.of(session, account)
