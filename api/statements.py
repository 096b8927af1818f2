"""A client's statement. JSON; or CSV or PDF where Accept asks for it."""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Annotated, Any
from uuid import UUID
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, Header, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from api.auth import Reader
from api.clients import client_of
from api.csv_answers import as_csv, likes_best, or_csv, wants_csv
from api.days import require_in_order
from api.documents import PDF, DocumentsOf, PdfAnswer
from api.fields import CurrencyCode, IsoDate
from api.operations import Responses, reads
from api.transactions import Transaction
from billing.cycles import Period, local_date
from billing.statements import MovementKind, StatementLine
from gateways.documents import DocumentRenderer
from models import Account, Client
from models.database import database_now
from tasks.statement_documents import filename, statement_document
from tasks.statements import ClientStatement, client_statement

router = APIRouter(tags=["clients"])

_DAY = timedelta(days=1)
_INVOICE = "019ae8a3-5c00-7000-8000-000000000003"
_LINE: dict[str, Any] = {
    "date": "2026-06-01",
    "kind": "invoice",
    "reference": "INV-000042",
    "invoice": _INVOICE,
    "amount": 1100,
    "balance": 1100,
}


class StatementLineReport(BaseModel):
    """Something that changed what the client owes: by `amount`, to `balance`."""

    date: date
    kind: MovementKind
    reference: str
    invoice: UUID | None
    amount: int
    balance: int


class OpenItemReport(BaseModel):
    """An invoice with something due at the end.

    Below zero where a payment of it bears an earlier date than the invoice, which comes later.
    """

    invoice: UUID
    number: str
    issued_on: date
    due_on: date
    amount_due: int


class StatementReport(BaseModel):
    """What a client owed before the first day, what changed that, and what it owed after the last.

    A balance is what is due on its invoices less the credit it has in hand, in `currency`'s minor
    unit: below zero it has more than it owes. Credit that pays an invoice moves from one to the other
    and is no line.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "client": "019ae8a3-5c00-7000-8000-000000000001",
                    "name": "Ada Imports",
                    "currency": "usd",
                    "from": "2026-06-01",
                    "to": "2026-06-30",
                    "opening_balance": 0,
                    "lines": [_LINE],
                    "closing_balance": 1100,
                    "open_items": [
                        {
                            "invoice": _INVOICE,
                            "number": "INV-000042",
                            "issued_on": "2026-06-01",
                            "due_on": "2026-06-15",
                            "amount_due": 1100,
                        }
                    ],
                    "credit": 0,
                }
            ]
        }
    )

    client: UUID
    name: str
    currency: str
    first: date = Field(alias="from")
    to: date
    opening_balance: int
    lines: list[StatementLineReport]
    closing_balance: int
    open_items: list[OpenItemReport]
    credit: int


class StatementRow(BaseModel):
    """A line of the statement's table; the first and the last are its balances."""

    date: date
    kind: str
    reference: str | None = None
    invoice: UUID | None = None
    amount: int | None = None
    balance: int


class StatementFilters(BaseModel):
    """Which days, and in which currency."""

    first: IsoDate | None = Field(
        default=None,
        alias="from",
        description="The first day, in your zone; by default that of the current month.",
    )
    to: IsoDate | None = Field(
        default=None, description="The last day, which is in it; by default that of this month."
    )
    currency: CurrencyCode | None = Field(default=None, description="By default the client's own.")


@dataclass(frozen=True, slots=True)
class _Asked:
    """The statement that was asked for, and whose it is."""

    account: Account
    client: Client
    today: date
    stated: ClientStatement

    @property
    def last(self) -> date:
        return self.stated.statement.period.end - _DAY

    def pdf(self, documents: DocumentRenderer) -> Response:
        document = statement_document(self.account, self.client, self.stated, today=self.today)
        name = filename(self.client, self.last, self.stated.statement.currency)
        return PdfAnswer(documents, document, name)


def _asked(
    client_id: UUID,
    filters: Annotated[StatementFilters, Query()],
    caller: Reader,
    session: Transaction,
) -> _Asked:
    client = client_of(session, caller, client_id)
    account = session.get_one(Account, caller.account_id)
    today = local_date(database_now(session), ZoneInfo(account.time_zone))
    stated = client_statement(
        session,
        account,
        client,
        currency=filters.currency or client.currency or account.currency,
        period=days_of(filters.first, filters.to, today=today),
    )
    return _Asked(account, client, today, stated)


def days_of(first: date | None, last: date | None, *, today: date) -> Period:
    """The days from the first to the last, those of the current month by default.

    Raises:
        InvalidInput: The last is before the first.
    """
    if first is None:
        first = (last or today).replace(day=1)
    if last is None:
        last = (today.replace(day=1) + 31 * _DAY).replace(day=1) - _DAY
    require_in_order(first, last)
    # The calendar has no day after its last.
    return Period(min(first, date.max - _DAY), min(last, date.max - _DAY) + _DAY)


AskedFor = Annotated[_Asked, Depends(_asked)]

_AS_ASKED: Responses = {
    200: {
        "model": StatementReport,
        "content": {
            **or_csv(
                StatementReport,
                ",".join(StatementRow.model_fields) + "\r\n"
                "2026-06-01,opening_balance,,,,0\r\n2026-06-30,closing_balance,,,,0\r\n",
            )[200]["content"],
            **PDF[200]["content"],
        },
    }
}


def _line(line: StatementLine) -> StatementLineReport:
    movement = line.movement
    return StatementLineReport(
        date=movement.dated_on,
        kind=movement.kind,
        reference=movement.reference,
        invoice=movement.invoice_id,
        amount=movement.amount,
        balance=line.balance,
    )


@router.get(
    "/v1/clients/{client_id}/statement",
    summary="Show a client's statement",
    response_model=StatementReport,
    responses={**_AS_ASKED, **reads("client_not_found")},
)
def show_statement(
    asked: AskedFor,
    documents: DocumentsOf,
    accept: Annotated[
        str, Header(description="`text/csv` or `application/pdf` for one of those, else JSON.")
    ] = "application/json",
) -> StatementReport | Response:
    """Of the current month by default; both days that are named are in it."""
    if likes_best(accept, "application/pdf"):
        return asked.pdf(documents)
    lines = [_line(line) for line in asked.stated.statement.lines]
    statement = asked.stated.statement
    if wants_csv(accept):
        opening, closing = statement.opening_balance, statement.closing_balance
        rows = [
            StatementRow(date=statement.period.start, kind="opening_balance", balance=opening),
            *(StatementRow(**line.model_dump()) for line in lines),
            StatementRow(date=asked.last, kind="closing_balance", balance=closing),
        ]
        return as_csv(StatementRow, rows)
    days: dict[str, Any] = {"from": statement.period.start, "to": asked.last}
    return StatementReport(
        **days,
        client=asked.client.id,
        name=asked.client.name,
        currency=statement.currency,
        opening_balance=statement.opening_balance,
        lines=lines,
        closing_balance=statement.closing_balance,
        open_items=[
            OpenItemReport(
                invoice=one.invoice_id,
                number=one.number,
                issued_on=one.issued_on,
                due_on=one.due_on,
                amount_due=one.amount_due,
            )
            for one in asked.stated.open_documents
        ],
        credit=statement.credit,
    )


@router.get(
    "/v1/clients/{client_id}/statement/pdf",
    summary="Show a client's statement as PDF",
    response_class=Response,
    responses={**PDF, **reads("client_not_found")},
)
def show_statement_pdf(asked: AskedFor, documents: DocumentsOf) -> Response:
    """The same, for people."""
    return asked.pdf(documents)
