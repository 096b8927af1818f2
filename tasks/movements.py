"""What moved what clients owe and have in hand: one query over all documents that do."""

# Every document is read from its own row, and only what has none of its own, a write-off, an expiry
# or the settling of a refund or a dispute, from the books. Days are those of ``:zone``; ``turn``
# orders what was recorded at one moment.
_MOVEMENTS = """
WITH mine AS (
    SELECT * FROM invoices WHERE {whose} AND status <> 'draft'
), movements AS (
    SELECT client_id, currency, issued_on AS dated_on, 'invoice' AS kind, number AS reference,
           id AS invoice_id, GREATEST(total, 0) AS due, GREATEST(-total, 0) AS credit,
           finalized_at AS recorded_at, 1 AS turn, id
      FROM mine
    UNION ALL
    -- Credit that pays an invoice, a debit that it takes in, a remainder that is carried from it.
    SELECT mine.client_id, mine.currency, (entries.created_at AT TIME ZONE :zone)::date, 'credit',
           number, mine.id, amount, amount, entries.created_at, 2, entries.id
      FROM credit_entries AS entries JOIN mine ON mine.id = invoice_id
     WHERE kind IN ('applied', 'carried')
    UNION ALL
    -- Granted, corrected. All else is listed with its document, or from the books.
    SELECT client_id, currency, (created_at AT TIME ZONE :zone)::date, 'credit',
           COALESCE(note, kind), NULL, 0, amount, created_at, 2, id
      FROM credit_entries
     WHERE {whose}
       AND kind NOT IN ('applied', 'carried', 'returned', 'settled', 'negative_invoice', 'deposit',
                        'overpayment', 'unexpected', 'credit_note', 'refund', 'refund_failed',
                        'paid_out', 'expired', 'dispute')
    UNION ALL
    -- A grant ends on its date, however late that is written down.
    SELECT client_id, entries.currency, effective_on, 'credit', 'expired', NULL, 0, -amount,
           posted_at, 2, entries.id
      FROM (SELECT * FROM ledger_entries WHERE {whose} AND event = 'expiry') AS entries
      JOIN ledger_postings ON entry_id = entries.id
     WHERE ledger_account = 'credit'
    UNION ALL
    SELECT client_id, currency, paid_on, 'payment', COALESCE(reference, method, source), invoice_id,
           -applied, amount - applied, created_at, 3, id
      FROM payments
     WHERE {whose}
    UNION ALL
    -- What a note returns is the client's until it is paid out, which is the next line.
    SELECT client_id, currency, issued_on, 'credit_note', number, invoice_id,
           -lowers_due, returned, created_at, 4, id
      FROM credit_notes
     WHERE {whose} AND NOT voids
    UNION ALL
    SELECT client_id, currency, issued_on, 'refund', number, NULL, 0, -returned, created_at, 5, id
      FROM credit_notes
     WHERE {whose} AND returned_to IN ('card', 'outside')
    UNION ALL
    SELECT refunds.client_id, refunds.currency, effective_on, 'refund',
           COALESCE(mine.number, refunds.destination),
           CASE event WHEN 'refund' THEN mine.id END,
           CASE event WHEN 'refund' THEN amount ELSE 0 END,
           CASE event WHEN 'refund_failed' THEN amount WHEN 'credit_refund' THEN -amount
                      WHEN 'refund' THEN amount * (destination = 'credit')::int END,
           posted_at, 5, entries.id
      FROM (SELECT * FROM refunds WHERE {whose}) AS refunds
      JOIN ledger_entries AS entries ON refund_id = refunds.id
      LEFT JOIN mine ON mine.id = refunds.invoice_id
     WHERE event IN ('refund', 'refund_failed', 'credit_refund')
    UNION ALL
    -- What the bank took back for good: of an invoice, of credit, or of both.
    SELECT disputes.client_id, disputes.currency, effective_on, 'refund',
           COALESCE(mine.number, reason), CASE WHEN reopened > 0 THEN mine.id END, reopened,
           -taken_back, posted_at, 5, entries.id
      FROM (SELECT * FROM disputes WHERE {whose} AND reopened + taken_back > 0) AS disputes
      JOIN ledger_entries AS entries ON dispute_id = disputes.id AND event = 'dispute_lost'
      LEFT JOIN mine ON mine.id = disputes.invoice_id
    UNION ALL
    SELECT mine.client_id, mine.currency, effective_on, 'write_off', number, mine.id, amount,
           0, posted_at, 6, entries.id
      FROM mine JOIN ledger_entries AS entries ON entries.invoice_id = mine.id
      JOIN ledger_postings ON entry_id = entries.id
     WHERE event IN ('write_off', 'recovery') AND ledger_account = 'receivable'
    UNION ALL
    -- What was due is so no longer, and what had settled the rest is the client's again.
    SELECT mine.client_id, mine.currency, (voided_at AT TIME ZONE :zone)::date, 'void', number,
           mine.id, credit_applied + amount_paid + amount_credited - amount_refunded - total,
           COALESCE((SELECT sum(amount) FROM credit_entries
                      WHERE invoice_id = mine.id AND kind IN ('returned', 'settled')), 0),
           voided_at, 7, mine.id
      FROM mine WHERE status = 'void'
)
SELECT client_id, currency, dated_on, kind, reference, invoice_id, due::bigint, credit::bigint,
       recorded_at, turn, id
  FROM movements"""


def movements_of(whose: str) -> str:
    """The SQL of all movements where ``whose``, a condition on client_id and currency, is true.

    Columns: client_id, currency, dated_on, kind, reference, invoice_id, due, credit, recorded_at,
    turn, id.
    """
    return _MOVEMENTS.replace("{whose}", whose)
