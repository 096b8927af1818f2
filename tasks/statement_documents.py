"""What the document of a client's statement says, in English."""

from collections.abc import Mapping
from datetime import date, timedelta
from types import MappingProxyType

from billing.money import format_amount
from billing.statements import MovementKind
from gateways.documents import OpenItemEntry, Party, StatementDocument, StatementEntry
from models import Account, Client
from tasks.invoice_documents import written_date, written_days, written_party
from tasks.statements import ClientStatement

_KINDS: Mapping[MovementKind, str] = MappingProxyType(
    {
        MovementKind.INVOICE: "Invoice",
        MovementKind.VOID: "Void",
        MovementKind.CREDIT_NOTE: "Credit note",
        MovementKind.PAYMENT: "Payment",
        MovementKind.REFUND: "Refund",
        MovementKind.WRITE_OFF: "Write-off",
        MovementKind.CREDIT: "Credit",
    }
)


def statement_document(
    account: Account, client: Client, stated: ClientStatement, *, today: date
) -> StatementDocument:
    """What a statement shows; ``today`` is the day it is written."""
    statement = stated.statement
    currency = statement.currency
    last = statement.period.end - timedelta(days=1)
    return StatementDocument(
        issuer=_party(account),
        client=_party(client),
        issued_on=today,
        issued=written_date(today),
        period=written_days(statement.period.start, last),
        opening_balance=format_amount(statement.opening_balance, currency),
        lines=tuple(
            StatementEntry(
                date=written_date(line.movement.dated_on),
                kind=_KINDS[line.movement.kind],
                reference=line.movement.reference,
                amount=format_amount(line.movement.amount, currency),
                balance=format_amount(line.balance, currency),
            )
            for line in statement.lines
        ),
        closing_balance=format_amount(statement.closing_balance, currency),
        open_items=tuple(
            OpenItemEntry(
                number=one.number,
                issued=written_date(one.issued_on),
                due=written_date(one.due_on),
                amount=format_amount(one.amount_due, currency),
            )
            for one in stated.open_documents
        ),
        credit=format_amount(-statement.credit, currency) if statement.credit else None,
        notes=_notes(statement.closing_balance),
    )


def filename(client: Client, last: date, currency: str) -> str:
    """What its PDF is called: the client's id, as its name may be anything."""
    return f"statement-{client.id}-{currency}-{last}.pdf"


def _party(who: Account | Client) -> Party:
    return written_party(
        {
            "name": who.name,
            "legal_name": who.legal_name,
            "address": who.address,
            "tax_ids": who.tax_ids,
            "email": who.email if isinstance(who, Client) else None,
        }
    )


def _notes(closing_balance: int) -> tuple[str, ...]:
    if closing_balance < 0:
        return ("A balance below zero is credit that you have with us.",)
    return ()
