"""What has expired of promotional credit, written down as soon as its day has begun."""

from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from billing.cycles import local_date
from models import Account, Client, CreditGrant
from tasks.credit_balances import write_expiries
from tasks.crediting import lock_client
from tasks.enqueueing import enqueue_for_each
from tasks.grants import has_ended_somewhere
from tasks.kinds import BULK_PRIORITY, Run, job
from tasks.outcomes import Done, Outcome

MAX_FOUND_AT_ONCE = 10_000


@job(queue="ops")
def expire_due_credit(run: Run, session: Session) -> Outcome:
    """Find the clients of whose grants one has expired, and enqueue a job for each.

    By each client's own calendar, the longest expired first.
    """
    first = func.min(CreditGrant.expires_on)
    found = session.execute(
        select(Client, Account, first.label("expires_on"))
        .join(CreditGrant, CreditGrant.client_id == Client.id)
        .join(Account, Account.id == Client.account_id)
        .where(has_ended_somewhere(run.now))
        .group_by(Client.id, Account.id)
        .order_by(first)
        .limit(MAX_FOUND_AT_ONCE)
    ).all()
    expired = [
        (client.account_id, {"client_id": client.id})
        for client, account, expires_on in found
        if expires_on is not None and expires_on <= local_date(run.now, client.zone(account))
    ]
    enqueue_for_each(
        session,
        expire_client_credit,
        expired,
        requested_by=f"job:{run.job_id}",
        unique_key=lambda arguments: f"expire:{arguments['client_id']}",
    )
    return Done({"clients": len(expired)})


@job(queue="billing", subject="client", priority=BULK_PRIORITY)
def expire_client_credit(run: Run, session: Session, client_id: UUID) -> Outcome:
    """Write down what has expired of a client's grants, unless something has already."""
    account, _client = lock_client(session, run, client_id)
    grants = write_expiries(
        session, account, [client_id], now=run.now, requested_by=f"job:{run.job_id}"
    )
    return Done({"client": str(client_id), "grants": grants})
