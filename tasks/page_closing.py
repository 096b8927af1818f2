"""Open pages that ask for too much, closed: credit came that pays their invoices first."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from tasks.enqueueing import enqueue_for_each
from tasks.kinds import JobKind

_ASKING_TOO_MUCH = text("""
SELECT attempts.account_id, attempts.id
  FROM unnest(:clients ::uuid[], :currencies ::text[]) AS spenders (client_id, currency)
  JOIN credit_balances AS balances USING (client_id, currency)
  JOIN invoices ON invoices.client_id = balances.client_id
   AND invoices.currency = balances.currency AND invoices.status = 'open'
  JOIN payment_attempts AS attempts ON attempts.invoice_id = invoices.id
 WHERE balance > 0 AND attempts.state = 'needs_action' AND checkout_session IS NOT NULL
 ORDER BY attempts.id
""")


def close_pages_for_credit(
    session: Session, keys: Sequence[tuple[UUID, str]], *, requested_by: str
) -> None:
    """Have the open pages of clients closed, by client and currency, where there is credit to use.

    It is used once they are. The caller holds the clients' locks.
    """
    pages = session.execute(
        _ASKING_TOO_MUCH,
        {
            "clients": [client_id for client_id, _ in keys],
            "currencies": [currency for _, currency in keys],
        },
    ).all()
    if not pages:
        return
    enqueue_for_each(
        session,
        _withdraw_attempt(),
        [(one.account_id, {"attempt_id": one.id}) for one in pages],
        requested_by=requested_by,
        unique_key=lambda arguments: f"withdraw:{arguments['attempt_id']}",
    )


def _withdraw_attempt() -> JobKind:
    # What is withdrawn ends in credit that is used, and that may close another page.
    from tasks.withdrawing import withdraw_attempt  # noqa: PLC0415

    return withdraw_attempt
