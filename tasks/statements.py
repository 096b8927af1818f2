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


# One statement sees one moment. Every document is read from its own row, and only what has none of
# its own, a write-off or the settling of a refund, from the books. Days are those of :zone.
_MOVEMENTS = text("""
WITH mine AS (
    SELECT * FROM invoices
     WHERE client_id = :client AND currency = :currency AND status <> 'draft'
), movements AS (
    SELECT issued_on AS dated_on, 'invoice' AS kind, number AS reference, id AS invoice_id,
           GREATEST(total, 0) AS due, GREATEST(-total, 0) AS credit,
           finalized_at AS recorded_at, 1 AS turn, id
      FROM mine
    UNION ALL
    -- Credit that pays an invoice, a debit that it takes in, a remainder that is carried from it.
    SELECT (entries.created_at AT TIME ZONE :zone)::date, 'credit', number, mine.id,
           amount, amount, entries.created_at, 2, entries.id
      FROM credit_entries AS entries JOIN mine ON mine.id = invoice_id
     WHERE kind IN ('applied', 'carried')
    UNION ALL
    -- Granted, corrected, expired. All else came with a document that is listed itself.
    SELECT (created_at AT TIME ZONE :zone)::date, 'credit', COALESCE(note, kind), NULL,
           0, amount, created_at, 2, id
      FROM credit_entries
     WHERE client_id = :client AND currency = :currency
       AND kind NOT IN ('applied', 'carried', 'returned', 'settled', 'negative_invoice', 'deposit',
                        'overpayment', 'unexpected', 'credit_note', 'refund', 'refund_failed',
                        'paid_out')
    UNION ALL
    SELECT paid_on, 'payment', COALESCE(reference, method, source), invoice_id,
           -applied, amount - applied, created_at, 3, id
      FROM payments
     WHERE client_id = :client AND currency = :currency
    UNION ALL
    -- What a note returns is the client's until it is paid out, which is the next line.
    SELECT issued_on, 'credit_note', number, invoice_id,
           -lowers_due, returned, created_at, 4, id
      FROM credit_notes
     WHERE client_id = :client AND currency = :currency AND NOT voids
    UNION ALL
    SELECT issued_on, 'refund', number, NULL, 0, -returned, created_at, 5, id
      FROM credit_notes
     WHERE client_id = :client AND currency = :currency AND returned_to IN ('card', 'outside')
    UNION ALL
    SELECT effective_on, 'refund', COALESCE(mine.number, refunds.destination),
           CASE event WHEN 'refund' THEN mine.id END,
           CASE event WHEN 'refund' THEN amount ELSE 0 END,
           CASE event WHEN 'refund_failed' THEN amount WHEN 'credit_refund' THEN -amount
                      WHEN 'refund' THEN amount * (destination = 'credit')::int END,
           posted_at, 5, entries.id
      FROM refunds JOIN ledger_entries AS entries ON refund_id = refunds.id
      LEFT JOIN mine ON mine.id = refunds.invoice_id
     WHERE refunds.client_id = :client AND refunds.currency = :currency
       AND event IN ('refund', 'refund_failed', 'credit_refund')
    UNION ALL
    SELECT effective_on, 'write_off', number, mine.id, amount, 0, posted_at, 6, entries.id
      FROM mine JOIN ledger_entries AS entries ON entries.invoice_id = mine.id
      JOIN ledger_postings ON entry_id = entries.id
     WHERE event IN ('write_off', 'recovery') AND ledger_account = 'receivable'
    UNION ALL
    -- What was due is so no longer, and what had settled the rest is the client's again.
    SELECT (voided_at AT TIME ZONE :zone)::date, 'void', number, mine.id,
           credit_applied + amount_paid + amount_credited - amount_refunded - total,
           COALESCE((SELECT sum(amount) FROM credit_entries
                      WHERE invoice_id = mine.id AND kind IN ('returned', 'settled')), 0),
           voided_at, 7, mine.id
      FROM mine WHERE status = 'void'
)
SELECT dated_on, kind, reference, invoice_id, due::bigint, credit::bigint
  FROM movements ORDER BY recorded_at, turn, id
""")


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
