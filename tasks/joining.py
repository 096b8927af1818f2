"""New charges that join a draft: work of a billing period that is recorded while it is reviewed."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from models.client import clients_for_update
from tasks.drafting import sum_drafts

# A client's periods from the oldest charge on: few, however long it has been billed.
_CLIENTS_IN_REVIEW = text("""
SELECT DISTINCT recorded.client_id
  FROM (SELECT client_id, min(charged_on) AS oldest FROM charges
         WHERE id = ANY(:charges) GROUP BY client_id) AS recorded
  JOIN billing_periods AS periods
    ON periods.client_id = recorded.client_id AND periods.period_end > recorded.oldest
  JOIN invoices ON invoices.period_id = periods.id AND invoices.status = 'draft'
""")

_LOCK_DRAFTS = text("""
SELECT invoices.id FROM invoices
 WHERE client_id = ANY(:clients) AND status = 'draft' AND period_id IS NOT NULL
 ORDER BY client_id, id FOR UPDATE
""")

_JOIN = text("""
UPDATE charges SET invoice_id = oldest.invoice_id
  FROM (SELECT DISTINCT ON (charges.id) charges.id, drafts.id AS invoice_id
          FROM invoices AS drafts
          JOIN billing_periods AS periods ON periods.id = drafts.period_id
          JOIN charges ON charges.client_id = drafts.client_id
                      AND charges.currency = drafts.currency
                      AND charges.charged_on < periods.period_end
         WHERE drafts.id = ANY(:drafts) AND charges.id = ANY(:charges)
         ORDER BY charges.id, periods.period_end) AS oldest
 WHERE charges.id = oldest.id AND charges.invoice_id IS NULL
RETURNING charges.invoice_id
""")


def join_drafts(session: Session, charge_ids: Sequence[UUID]) -> None:
    """Put charges that this transaction recorded on drafts of billing periods, where they belong.

    Each joins its client's oldest draft in its currency whose period ends after its date; the
    rest stay open. So does one whose draft was finalized meanwhile, or is being made: it goes on
    the next invoice.

    It takes the locks of clients who have such drafts, and of no others.
    """
    if not charge_ids:
        return
    charges = list(charge_ids)
    clients = session.scalars(_CLIENTS_IN_REVIEW, {"charges": charges}).all()
    if not clients:
        return
    # Whoever finalizes, deletes or edits these drafts holds their clients' locks too.
    locked = [client.id for client in session.scalars(clients_for_update(clients))]
    drafts = session.scalars(_LOCK_DRAFTS, {"clients": locked}).all()
    joined = session.scalars(_JOIN, {"drafts": drafts, "charges": charges}).all()
    if joined:
        sum_drafts(session, sorted(set(joined)))
