"""Writing entries into the books, for any number of invoices at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from billing.postings import LedgerEvent, Posting


@dataclass(frozen=True, slots=True)
class InvoiceEntry:
    """What one event of one invoice posts, and the date it counts for."""

    invoice_id: UUID
    effective_on: date
    postings: tuple[Posting, ...]


# One statement: the database checks the balance of every entry that a statement touches.
_POST = text("""
WITH wanted AS (
    SELECT * FROM unnest(:invoices ::uuid[], :dates ::date[]) AS wanted (invoice_id, effective_on)
), entries AS (
    INSERT INTO ledger_entries (account_id, client_id, invoice_id, event, currency, effective_on)
    SELECT account_id, client_id, invoices.id, :event, currency, effective_on
      FROM wanted JOIN invoices ON invoices.id = wanted.invoice_id
    RETURNING id, invoice_id, currency
)
INSERT INTO ledger_postings (entry_id, ledger_account, currency, amount)
SELECT entries.id, side.ledger_account, entries.currency, side.amount
  FROM unnest(:sides ::uuid[], :ledger_accounts ::text[], :amounts ::bigint[])
       AS side (invoice_id, ledger_account, amount)
  JOIN entries USING (invoice_id)
""")


def post(session: Session, event: LedgerEvent, entries: Sequence[InvoiceEntry]) -> None:
    """Post ``event`` for each invoice; one that moves no money posts nothing.

    The same event of the same invoice cannot be posted twice: a unique index refuses it.
    """
    entries = [entry for entry in entries if entry.postings]
    sides = [(entry.invoice_id, side) for entry in entries for side in entry.postings]
    session.execute(
        _POST,
        {
            "event": event,
            "invoices": [entry.invoice_id for entry in entries],
            "dates": [entry.effective_on for entry in entries],
            "sides": [invoice_id for invoice_id, _ in sides],
            "ledger_accounts": [side.account.value for _, side in sides],
            "amounts": [side.amount for _, side in sides],
        },
    )
