"""What a pause of billing holds, and its end."""

from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from models import Account, BillingRun, Client

# Whoever has one of them locked is deciding it: the scheduler looks again in a minute.
_RELEASE = text("""
UPDATE billing_periods SET state = 'open', reason = NULL, run_id = NULL, decided_at = NULL
 WHERE id IN (
       SELECT held.id FROM billing_periods AS held
         JOIN clients ON clients.id = held.client_id
         JOIN accounts ON accounts.id = held.account_id
        WHERE held.state = 'held' AND NOT clients.billing_paused AND NOT accounts.billing_paused
          AND (:account ::uuid IS NULL OR held.account_id = :account)
          AND (:client ::uuid IS NULL OR held.client_id = :client)
          FOR UPDATE OF held SKIP LOCKED)
""")


def release_held(
    session: Session, *, account_id: UUID | None = None, client_id: UUID | None = None
) -> None:
    """Open the periods that no pause holds any more; the next run bills them, oldest first.

    A page that read the account before its pause ended may still hold some afterwards, so the
    scheduler asks again, for everyone.
    """
    session.flush()
    session.execute(_RELEASE, {"account": account_id, "client": client_id})


def is_held(client: Client, account: Account, run: BillingRun) -> bool:
    """Whether a pause holds a client's periods: not from what staff ask for it alone."""
    return run.client_id is None and client.is_billing_paused(account)
