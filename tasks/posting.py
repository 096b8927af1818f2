"""Writing entries into the books, any number at once."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from billing.closing import first_open_day
from billing.postings import LedgerEvent, Posting
from models import Account


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What one event posts, in ``currency``'s minor units, and the date it bears.

    In closed books it counts for the first open day instead.
    """

    account_id: UUID
    client_id: UUID
    currency: str
    effective_on: date
    postings: tuple[Posting, ...]
    invoice_id: UUID | None = None
    payment_id: UUID | None = None
    credit_note_id: UUID | None = None
    refund_id: UUID | None = None
    grant_id: UUID | None = None
    dispute_id: UUID | None = None


# One statement: the database checks the balance of every entry that a statement touches.
_POST = text("""
WITH wanted AS (
    SELECT uuid7() AS id, wanted.*
      FROM unnest(:numbers ::int[], :accounts ::uuid[], :clients ::uuid[], :currencies ::text[],
                  :dates ::date[], :invoices ::uuid[], :payments ::uuid[], :notes ::uuid[],
                  :refunds ::uuid[], :grants ::uuid[], :disputes ::uuid[])
           AS wanted (number, account_id, client_id, currency, effective_on, invoice_id, payment_id,
                      credit_note_id, refund_id, grant_id, dispute_id)
), entries AS (
    INSERT INTO ledger_entries (id, account_id, client_id, currency, effective_on, invoice_id,
                                payment_id, credit_note_id, refund_id, grant_id, dispute_id,
                                event)
    SELECT id, account_id, client_id, currency, effective_on, invoice_id, payment_id,
           credit_note_id, refund_id, grant_id, dispute_id, :event
      FROM wanted
)
INSERT INTO ledger_postings (entry_id, ledger_account, tax_rate_id, currency, amount)
SELECT wanted.id, side.ledger_account, side.tax_rate_id, wanted.currency, side.amount
  FROM unnest(:sides ::int[], :ledger_accounts ::text[], :tax_rates ::uuid[], :amounts ::bigint[])
       AS side (number, ledger_account, tax_rate_id, amount)
  JOIN wanted USING (number)
""")


def post(session: Session, event: LedgerEvent, entries: Sequence[Entry]) -> None:
    """Post ``event`` for each; one that moves no money posts nothing.

    Neither can an invoice be finalized or voided in the books twice, nor a payment be booked
    twice: unique indexes refuse it. One that bears a date in closed books is effective on the
    first open day.
    """
    entries = [entry for entry in entries if entry.postings]
    if not entries:
        return
    closed = books_closed_through(session, {entry.account_id for entry in entries})
    sides = [(number, side) for number, entry in enumerate(entries) for side in entry.postings]
    session.execute(
        _POST,
        {
            "event": event,
            "numbers": list(range(len(entries))),
            "accounts": [entry.account_id for entry in entries],
            "clients": [entry.client_id for entry in entries],
            "currencies": [entry.currency for entry in entries],
            "dates": [
                first_open_day(entry.effective_on, closed[entry.account_id]) for entry in entries
            ],
            "invoices": [entry.invoice_id for entry in entries],
            "payments": [entry.payment_id for entry in entries],
            "notes": [entry.credit_note_id for entry in entries],
            "refunds": [entry.refund_id for entry in entries],
            "grants": [entry.grant_id for entry in entries],
            "disputes": [entry.dispute_id for entry in entries],
            "sides": [number for number, _ in sides],
            "ledger_accounts": [side.account.value for _, side in sides],
            "tax_rates": [side.tax_rate_id for _, side in sides],
            "amounts": [side.amount for _, side in sides],
        },
    )


def books_closed_through(
    session: Session, account_ids: Collection[UUID]
) -> Mapping[UUID, date | None]:
    """Through which day each account's books are closed, as it stays until the transaction ends.

    Closing waits for this lock, and this waits for a closing: what is posted is in the closed
    books, or after them. Many can hold it at once, and it is the one that a foreign key takes.
    """
    rows = session.execute(
        select(Account.id, Account.books_closed_through)
        .where(Account.id.in_(account_ids))
        .order_by(Account.id)
        .with_for_update(read=True, key_share=True)
    )
    return dict(rows.all())
