"""The entries of the books with their postings. JSON in pages; or CSV where Accept asks for it."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from api.auth import Caller, Reader
from api.csv_answers import Accept, as_csv, or_csv, wants_csv
from api.days import Days, require_in_order
from api.operations import reads
from api.paging import Paging, newest_first
from api.shapes import Page
from api.transactions import Transaction
from billing.errors import InvalidInput
from billing.postings import LedgerAccount, LedgerEvent
from models import LedgerEntry, LedgerPosting

router = APIRouter(tags=["books"])

MAX_ENTRIES_OF_CSV = 20_000
"""A month of a large account; more is asked for by fewer days."""

_ENTRY: dict[str, Any] = {
    "id": "019ae8a3-5c00-7000-8000-000000000021",
    "posted_at": "2026-06-01T12:00:00Z",
    "effective_on": "2026-06-01",
    "event": "finalize",
    "client": "019ae8a3-5c00-7000-8000-000000000001",
    "invoice": "019ae8a3-5c00-7000-8000-000000000003",
    "payment": None,
    "credit_note": None,
    "refund": None,
    "grant": None,
}


class PostingReport(BaseModel):
    """One side of an entry, in `currency`'s minor unit: a debit is positive, a credit negative."""

    account: LedgerAccount
    amount: int
    currency: str
    tax_rate: UUID | None


class _About(BaseModel):
    id: UUID
    posted_at: datetime
    effective_on: date
    event: LedgerEvent
    client: UUID
    invoice: UUID | None
    payment: UUID | None
    credit_note: UUID | None
    refund: UUID | None
    grant: UUID | None


class LedgerEntryReport(_About):
    """What one event posted, and what it was about; its postings sum to zero.

    It was posted at an instant and counts from a date, which is never in closed books.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    **_ENTRY,
                    "postings": [
                        {
                            "account": "receivable",
                            "amount": 1100,
                            "currency": "usd",
                            "tax_rate": None,
                        },
                        {
                            "account": "revenue",
                            "amount": -1100,
                            "currency": "usd",
                            "tax_rate": None,
                        },
                    ],
                }
            ]
        }
    )

    postings: list[PostingReport]


class LedgerRow(_About, PostingReport):
    """One posting, with the entry that it is a side of."""


class LedgerFilters(Paging, Days):
    """Which entries to list."""

    client: UUID | None = None
    invoice: UUID | None = None
    event: LedgerEvent | None = None


@router.get(
    "/v1/ledger/entries",
    summary="List the entries of the books",
    response_model=Page[LedgerEntryReport],
    responses={
        **or_csv(Page[LedgerEntryReport], ",".join(LedgerRow.model_fields) + "\r\n"),
        **reads(),
    },
)
def list_entries(
    filters: Annotated[LedgerFilters, Query()],
    caller: Reader,
    session: Transaction,
    accept: Accept = "application/json",
) -> Page[LedgerEntryReport] | Response:
    """Newest first, by when they were posted; `from` and `to` go by the effective date.

    A CSV has all that match, up to 20,000 entries, a row for each posting: `limit` and `cursor` are
    for JSON.
    """
    require_in_order(filters.first, filters.to)
    entries = _matching(caller, filters)
    if wants_csv(accept):
        all_of_them = session.scalars(
            entries.order_by(LedgerEntry.id.desc()).limit(MAX_ENTRIES_OF_CSV + 1)
        ).all()
        if len(all_of_them) > MAX_ENTRIES_OF_CSV:
            raise InvalidInput(
                "from", f"must leave at most {MAX_ENTRIES_OF_CSV} entries: ask for fewer days"
            )
        return as_csv(LedgerRow, _rows(_reports(session, all_of_them)))
    found = newest_first(session, entries, LedgerEntry.id, filters, read=UUID)
    return Page(data=list(_reports(session, found.rows)), next_cursor=found.next_cursor)


def _matching(caller: Caller, filters: LedgerFilters) -> Select[LedgerEntry]:
    entries = select(LedgerEntry).where(LedgerEntry.account_id == caller.account_id)
    if filters.first is not None:
        entries = entries.where(LedgerEntry.effective_on >= filters.first)
    if filters.to is not None:
        entries = entries.where(LedgerEntry.effective_on <= filters.to)
    if filters.client is not None:
        entries = entries.where(LedgerEntry.client_id == filters.client)
    if filters.invoice is not None:
        entries = entries.where(LedgerEntry.invoice_id == filters.invoice)
    if filters.event is not None:
        entries = entries.where(LedgerEntry.event == filters.event)
    return entries


def _reports(session: Session, entries: Sequence[LedgerEntry]) -> Iterator[LedgerEntryReport]:
    """The entries with their postings, which one more statement reads."""
    sides: dict[UUID, list[PostingReport]] = defaultdict(list)
    postings = select(LedgerPosting).where(
        LedgerPosting.entry_id.in_([entry.id for entry in entries])
    )
    for posting in session.scalars(postings.order_by(LedgerPosting.id)):
        sides[posting.entry_id].append(
            PostingReport(
                account=LedgerAccount(posting.ledger_account),
                amount=posting.amount,
                currency=posting.currency,
                tax_rate=posting.tax_rate_id,
            )
        )
    for entry in entries:
        yield LedgerEntryReport(
            id=entry.id,
            posted_at=entry.posted_at,
            effective_on=entry.effective_on,
            event=LedgerEvent(entry.event),
            client=entry.client_id,
            invoice=entry.invoice_id,
            payment=entry.payment_id,
            credit_note=entry.credit_note_id,
            refund=entry.refund_id,
            grant=entry.grant_id,
            postings=sides[entry.id],
        )


def _rows(entries: Iterable[LedgerEntryReport]) -> Iterator[LedgerRow]:
    for entry in entries:
        about = entry.model_dump(exclude={"postings"})
        for posting in entry.postings:
            yield LedgerRow(**about, **posting.model_dump())
