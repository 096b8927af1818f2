"""A client's statement, out of the documents that moved what it owes and what it has in hand."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from billing.cycles import Period
from billing.statements import Movement, MovementKind, Statement, statement_of
from models import Account, Client, Invoice
from tasks.movements import movements_of


@dataclass(frozen=True, slots=True)
class OpenDocument:
    """An invoice with something due at the end of a statement, in minor units."""

    invoice_id: UUID
    number: str
    issued_on: date
    due_on: date
    amount_due: int


@dataclass(frozen=True, slots=True)
class ClientStatement:
    """A statement, and the invoices that are open at its end."""

    statement: Statement
    open_documents: tuple[OpenDocument, ...]


# One statement sees one moment.
_MOVEMENTS = text(
    f"{movements_of('client_id = :client AND currency = :currency')} ORDER BY recorded_at, turn, id"
)


def client_statement(
    session: Session, account: Account, client: Client, *, currency: str, period: Period
) -> ClientStatement:
    """What a client owed and had before a period, what moved in it, and how it stood at its end.

    In one currency. Days are those of the account's zone, as in the books.
    """
    rows = session.execute(
        _MOVEMENTS, {"client": client.id, "currency": currency, "zone": account.time_zone}
    )
    statement = statement_of(
        (
            Movement(
                dated_on=row.dated_on,
                kind=MovementKind(row.kind),
                reference=row.reference,
                currency=currency,
                invoice_id=row.invoice_id,
                due=row.due,
                credit=row.credit,
            )
            for row in rows
        ),
        currency=currency,
        period=period,
    )
    return ClientStatement(statement, tuple(_open_documents(session, statement)))


def _open_documents(session: Session, statement: Statement) -> Sequence[OpenDocument]:
    due = {item.invoice_id: item.due for item in statement.open_items}
    # What is read of them was frozen when they were finalized.
    found = {
        invoice.id: invoice
        for invoice in session.scalars(select(Invoice).where(Invoice.id.in_(due)))
    }
    return [
        OpenDocument(
            invoice_id=invoice.id,
            number=invoice.number,
            issued_on=invoice.issued_on,
            due_on=invoice.due_on,
            amount_due=due[invoice.id],
        )
        for invoice in (found[invoice_id] for invoice_id in due)
        if invoice.number and invoice.issued_on and invoice.due_on  # As every finalized one has.
    ]
