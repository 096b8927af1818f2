"""Promotional credit: granted at will, and gone on its date if it has one."""

from datetime import date
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy.orm import Session

from billing.credit import CreditEntryKind
from billing.currencies import currency_code
from billing.cycles import local_date
from billing.errors import InvalidInput
from billing.postings import LedgerEvent, postings_for_granting
from models import CreditGrant
from tasks.credit_balances import (
    CreditMove,
    apply_credit,
    balance_of,
    move_credit,
    write_expiries,
)
from tasks.crediting import lock_client
from tasks.kinds import Run, job
from tasks.outcomes import Done, Outcome
from tasks.payments import require_some
from tasks.posting import Entry, post


@job(queue="billing", subject="client")
def grant_credit(
    run: Run,
    session: Session,
    *,
    client_id: UUID,
    amount: int,
    currency: str,
    expires_on: date | None = None,
    note: str | None = None,
    apply: bool = True,
) -> Outcome:
    """Give a client credit that it did not pay for; its open invoices use it at once.

    ``expires_on`` is the first day, in the client's zone, on which what is left of it cannot be
    used. What the client owes from before is covered first, and expires no more.
    """
    require_some(amount)
    currency = currency_code(currency)
    account, client = lock_client(session, run, client_id)
    require_later(expires_on, local_date(run.now, client.zone(account)))
    write_expiries(session, account, [client_id], now=run.now, requested_by=f"job:{run.job_id}")
    grant = CreditGrant(
        account_id=account.id,
        client_id=client_id,
        currency=currency,
        amount=amount,
        remaining=amount,
        expires_on=expires_on,
        note=note,
        requested_by=run.requested_by,
        created_at=run.now,
    )
    session.add(grant)
    session.flush()
    move_credit(
        session,
        [
            CreditMove(
                account_id=account.id,
                client_id=client_id,
                currency=currency,
                kind=CreditEntryKind.GRANTED,
                amount=amount,
                grant_id=grant.id,
                note=note,
                requested_by=run.requested_by,
            )
        ],
    )
    post(
        session,
        LedgerEvent.GRANT,
        [
            Entry(
                account_id=account.id,
                client_id=client_id,
                currency=currency,
                effective_on=local_date(run.now, ZoneInfo(account.time_zone)),
                grant_id=grant.id,
                postings=postings_for_granting(amount),
            )
        ],
    )
    if apply:
        apply_credit(
            session,
            account,
            [client_id],
            currency=currency,
            now=run.now,
            requested_by=f"job:{run.job_id}",
        )
    return Done(
        {
            "client": str(client_id),
            "grant": str(grant.id),
            "balance": balance_of(session, client_id, currency),
        }
    )


def require_later(expires_on: date | None, today: date) -> None:
    """Check that a grant can be used today.

    Raises:
        InvalidInput: Its date has come.
    """
    if expires_on is not None and expires_on <= today:
        raise InvalidInput("expires_on", f"must be after today, {today.isoformat()}")
