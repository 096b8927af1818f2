"""What became of the invoices whose first automatic try failed, read set-wise."""

from collections.abc import Iterator
from datetime import date, datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from billing.collection import Origin
from billing.invoice_states import InvoiceStatus
from billing.recovery import FailedInvoice, Incoming, Recovery, Try, recovery_of, span_of
from models import Account

# Ids are given in the order of the database's clock: what is newer than the first try came since.
# A try that waits for its client, or was withdrawn then, has a class as well as one declined.
_FAILED = text("""
WITH firsts AS (
    SELECT DISTINCT ON (invoice_id) id, invoice_id, ordinal, amount, currency, state,
           decline_class, CASE state WHEN 'declined' THEN settled_at ELSE created_at END AS failed_at
      FROM payment_attempts
     WHERE account_id = :account AND purpose = 'invoice' AND origin = 'automatic'
     ORDER BY invoice_id, ordinal
)
SELECT firsts.currency, firsts.amount, invoices.status, invoices.amount_due,
       invoices.amount_written_off,
       (SELECT json_agg(json_build_array(id, origin, payment_method, job_id, created_at)
                        ORDER BY ordinal)
          FROM payment_attempts AS tries
         WHERE tries.invoice_id = firsts.invoice_id) AS tries,
       (SELECT json_agg(json_build_array(amount, attempt_id, is_credit) ORDER BY id)
          FROM (SELECT id, applied AS amount, attempt_id, FALSE AS is_credit FROM payments
                 WHERE invoice_id = firsts.invoice_id AND applied > 0
                UNION ALL
                SELECT id, -amount, NULL, TRUE FROM credit_entries
                 WHERE invoice_id = firsts.invoice_id AND kind = 'applied' AND amount < 0)
               AS incoming
         WHERE id > firsts.id) AS incoming
  FROM firsts JOIN invoices ON invoices.id = firsts.invoice_id
 WHERE (firsts.state = 'declined' OR firsts.decline_class IS NOT NULL)
   AND failed_at >= :begins_at AND failed_at < :ends_at
 ORDER BY firsts.id
""")


def recovery_report(
    session: Session, account: Account, first: date, last: date
) -> dict[str, Recovery]:
    """What became, up to now, of invoices whose first automatic try failed on one of these days.

    The days are those of the account's zone. By currency.
    """
    begins_at, ends_at = span_of(first, last, ZoneInfo(account.time_zone))
    rows = session.execute(
        _FAILED, {"account": account.id, "begins_at": begins_at, "ends_at": ends_at}
    )
    return recovery_of(_invoice(row) for row in rows)


def _invoice(row: Row[Any]) -> FailedInvoice:
    return FailedInvoice(
        currency=row.currency,
        amount=row.amount,
        tries=list(_tries(row.tries)),
        incoming=[
            Incoming(amount, None if attempt is None else UUID(attempt), is_credit)
            for amount, attempt, is_credit in row.incoming or ()
        ],
        due=row.amount_due,
        written_off=row.amount_written_off,
        is_void=row.status == InvoiceStatus.VOID,
    )


def _tries(rows: list[list[str]]) -> Iterator[Try]:
    for attempt_id, origin, card, job_id, created_at in rows:
        yield Try(
            UUID(attempt_id),
            Origin(origin),
            card,
            UUID(job_id),
            datetime.fromisoformat(created_at),
        )
