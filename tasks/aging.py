"""Who owes what, and since when: the open invoices by age."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from billing.aging import AgedDebt, OpenItem, age
from billing.invoice_states import InvoiceStatus
from models import Client, Invoice


@dataclass(frozen=True, slots=True)
class ClientDebt:
    """What one client owes in one currency."""

    client_id: UUID
    name: str
    currency: str
    debt: AgedDebt


@dataclass(frozen=True, slots=True)
class AgingReport:
    """Every client that owes something, by name; and all of them together, by currency."""

    clients: tuple[ClientDebt, ...]
    totals: dict[str, AgedDebt]


def aging_report(session: Session, account_id: UUID, as_of: date) -> AgingReport:
    """What is due now, by how long it was past due on ``as_of``.

    What was written off is no debt any more, as in the books.
    """
    rows = session.execute(
        select(Invoice.client_id, Client.name, Invoice.currency, Invoice.due_on, Invoice.amount_due)
        .join(Client, Client.id == Invoice.client_id)
        .where(Invoice.account_id == account_id, Invoice.status == InvoiceStatus.OPEN)
        .order_by(Client.name, Invoice.client_id, Invoice.currency)
    ).all()
    names = {row.client_id: row.name for row in rows}
    aging = age(
        (OpenItem(row.client_id, row.currency, row.due_on, row.amount_due) for row in rows), as_of
    )

    def debts() -> Iterator[ClientDebt]:
        for (client_id, currency), debt in aging.debts.items():
            yield ClientDebt(client_id, names[client_id], currency, debt)

    return AgingReport(tuple(debts()), dict(sorted(aging.totals.items())))
