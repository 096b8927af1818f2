"""What an invoice gives back of credit: each grant has what was used of it, as far as it still may."""

from collections.abc import Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

from sqlalchemy import text
from sqlalchemy.orm import Session

from billing.cycles import local_date
from models import Account, Client, Invoice
from tasks.credit_balances import (
    CreditMove,
    Expired,
    expire,
    move_credit,
    write_expiries,
)
from tasks.grants import cover_debts

# What is taken from the uses cannot be taken twice. The newest grant has it first.
_GIVE_BACK = text("""
WITH uses AS (
    SELECT grant_id, amount, sum(amount) OVER (ORDER BY grant_id DESC) - amount AS before
      FROM credit_grant_uses WHERE invoice_id = :invoice
), given AS (
    SELECT grant_id, LEAST(amount, :most - before)::bigint AS amount, amount <= :most - before AS all_of_it
      FROM uses WHERE before < :most
), gone AS (
    DELETE FROM credit_grant_uses AS used USING given
     WHERE used.invoice_id = :invoice AND used.grant_id = given.grant_id AND all_of_it
), lessened AS (
    UPDATE credit_grant_uses AS used SET amount = used.amount - given.amount
      FROM given
     WHERE used.invoice_id = :invoice AND used.grant_id = given.grant_id AND NOT all_of_it
)
UPDATE credit_grants
   SET remaining = remaining + CASE WHEN expires_on <= :today THEN 0 ELSE given.amount END
  FROM given
 WHERE id = grant_id
RETURNING id, given.amount, CASE WHEN expires_on <= :today THEN expires_on END AS expired_on
""")

_ALL = 2**62
"""More than any invoice uses."""


def return_credit(
    session: Session,
    account: Account,
    invoice: Invoice,
    moves: Sequence[CreditMove],
    *,
    now: datetime,
    requested_by: str,
    at_most: int | None = None,
) -> int:
    """Write down what an invoice gives back, and let its grants have their part of it.

    What a grant gets after its date expires again at once, and counts for the day on which it is
    given back: until then the invoice had it. The caller holds the client's lock and the invoice's.

    Args:
        session: The transaction to do it in.
        account: Whose invoice it is.
        invoice: One that is voided, or credited.
        moves: What its client has in hand again.
        now: When it is given back.
        requested_by: Who asks.
        at_most: How much of it was credit and not money, in minor units; all when ``None``.

    Returns:
        How much expires again, in minor units.
    """
    client_ids = [invoice.client_id]
    write_expiries(session, account, client_ids, now=now, requested_by=requested_by)
    move_credit(session, moves)
    client = session.get_one(Client, invoice.client_id)
    given_back = session.execute(
        _GIVE_BACK,
        {
            "invoice": invoice.id,
            "most": _ALL if at_most is None else at_most,
            "today": local_date(now, client.zone(account)),
        },
    ).all()
    if not given_back:
        return 0
    today = local_date(now, ZoneInfo(account.time_zone))
    expired = [
        Expired(
            grant_id=grant.id,
            client_id=invoice.client_id,
            currency=invoice.currency,
            amount=grant.amount,
            effective_on=max(today, grant.expired_on),
        )
        for grant in given_back
        if grant.expired_on is not None
    ]
    if expired:
        expire(session, account, expired, requested_by=requested_by)
    cover_debts(session, invoice.client_id, invoice.currency)
    return sum(one.amount for one in expired)
