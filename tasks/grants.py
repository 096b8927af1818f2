"""Promotional grants: what is taken from them, and which have expired; set-wise, for any clients."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, select, text, update
from sqlalchemy.orm import Session

from billing.credit_lots import CreditLot, LotKind, LotUse, expiries, spend, spent
from billing.cycles import local_date
from models import Account, Client, CreditBalance, CreditGrant

# No clock in the world is further ahead of UTC.
_FURTHEST_AHEAD = timedelta(hours=14)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """What is spent of a balance, above zero, in ``currency``'s minor units, and by which invoice.

    Without one, nothing that is done to an invoice gives it back.
    """

    client_id: UUID
    currency: str
    amount: int
    invoice_id: UUID | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InHand:
    """A balance, and how much of it its client did not pay for; in minor units."""

    balance: int
    promotional: int


_SPEND = text("""
WITH used AS (
    SELECT * FROM unnest(:grants ::uuid[], :invoices ::uuid[], :amounts ::bigint[])
        AS used (grant_id, invoice_id, amount)
), kept AS (
    INSERT INTO credit_grant_uses (invoice_id, grant_id, amount)
    SELECT invoice_id, grant_id, amount FROM used WHERE invoice_id IS NOT NULL
        ON CONFLICT (invoice_id, grant_id)
        DO UPDATE SET amount = credit_grant_uses.amount + EXCLUDED.amount
)
UPDATE credit_grants SET remaining = remaining - taken.amount
  FROM (SELECT grant_id, sum(amount) AS amount FROM used GROUP BY grant_id) AS taken
 WHERE id = taken.grant_id
""")


def spend_grants(
    session: Session, grants: Sequence[Row[*tuple[Any, ...]]], spendings: Sequence[Spending]
) -> None:
    """Take from grants what is spent of their balances, and what their clients owe.

    Args:
        session: The transaction in which the balances were moved.
        grants: What remains of each, with its client and currency, and their balance by now. None
            of them has expired.
        spendings: What was spent, in order.
    """
    lots: dict[tuple[UUID, str], tuple[CreditLot, ...]] = defaultdict(tuple)
    balances: dict[tuple[UUID, str], int] = {}
    for grant in grants:
        key = grant.client_id, grant.currency
        lots[key] = (*lots[key], _lot(grant))
        balances[key] = grant.balance
    used: Counter[tuple[UUID, UUID | None]] = Counter()
    for one in spendings:
        key = one.client_id, one.currency
        for use in _spend(lots, key, one.amount):
            used[use.lot_id, one.invoice_id] += use.amount
    for key, balance in balances.items():
        # What came in while the client owed something, as by a remainder that was carried, covers
        # that first.
        owed = sum(lot.remaining for lot in lots[key]) - max(balance, 0)
        for use in _spend(lots, key, max(owed, 0)):
            used[use.lot_id, None] += use.amount
    _write(session, used)


def cover_debts(session: Session, client_id: UUID, currency: str) -> None:
    """Have what a client owes covered by the grants that came into its balance."""
    grants = session.execute(
        select(
            CreditGrant.id,
            CreditGrant.client_id,
            CreditGrant.currency,
            CreditGrant.remaining,
            CreditGrant.expires_on,
            CreditBalance.balance,
        )
        .join(
            CreditBalance,
            (CreditBalance.client_id == CreditGrant.client_id)
            & (CreditBalance.currency == CreditGrant.currency),
        )
        .where(
            CreditGrant.client_id == client_id,
            CreditGrant.currency == currency,
            CreditGrant.remaining > 0,
        )
    ).all()
    spend_grants(session, grants, [])


def _spend(
    lots: dict[tuple[UUID, str], tuple[CreditLot, ...]], key: tuple[UUID, str], amount: int
) -> tuple[LotUse, ...]:
    # As of the first of days: what has expired by now is written down, and none of these.
    uses = spend(lots[key], amount, date.min)
    lots[key] = spent(lots[key], uses)
    return uses


def _write(session: Session, used: Mapping[tuple[UUID, UUID | None], int]) -> None:
    if not used:
        return
    session.execute(
        _SPEND,
        {
            "grants": [grant_id for grant_id, _ in used],
            "invoices": [invoice_id for _, invoice_id in used],
            "amounts": list(used.values()),
        },
    )


def _lot(grant: CreditGrant | Row[*tuple[Any, ...]]) -> CreditLot:
    return CreditLot(
        lot_id=grant.id,
        kind=LotKind.PROMOTIONAL,
        remaining=grant.remaining,
        expires_on=grant.expires_on,
    )


def may_expire(now: datetime) -> ColumnElement[bool]:
    """Whether a grant that is a part of a ``CreditBalance`` has a date that has come somewhere."""
    return (
        select(CreditGrant.id)
        .where(
            CreditGrant.client_id == CreditBalance.client_id,
            CreditGrant.currency == CreditBalance.currency,
            has_ended_somewhere(now),
        )
        .exists()
    )


def has_ended_somewhere(now: datetime) -> ColumnElement[bool]:
    """Whether something remains of a grant whose date has come where the day begins first."""
    latest = (now.astimezone(UTC) + _FURTHEST_AHEAD).date()
    return (CreditGrant.remaining > 0) & (CreditGrant.expires_on <= latest)


def expired_grants(
    session: Session, account: Account, client_ids: Sequence[UUID], now: datetime
) -> Iterator[tuple[CreditGrant, date]]:
    """These clients' grants whose date, in the client's zone, has come, and the date.

    Only those of which something remains.
    """
    found = session.execute(
        select(CreditGrant, Client)
        .join(Client, Client.id == CreditGrant.client_id)
        .where(CreditGrant.client_id.in_(client_ids), has_ended_somewhere(now))
        .order_by(CreditGrant.client_id, CreditGrant.id)
        .execution_options(populate_existing=True)
    ).all()
    for grant, client in found:
        today = local_date(now, client.zone(account))
        if grant.expires_on is not None and _lot(grant).is_expired(today):
            yield grant, grant.expires_on


def in_hand(
    session: Session, account: Account, client: Client, currency: str, *, now: datetime
) -> InHand:
    """What a client can use in one currency, also before what has expired is written down."""
    balance = session.scalar(
        select(CreditBalance.balance).where(
            CreditBalance.client_id == client.id, CreditBalance.currency == currency
        )
    )
    grants = session.scalars(
        select(CreditGrant)
        .where(
            CreditGrant.client_id == client.id,
            CreditGrant.currency == currency,
            CreditGrant.remaining > 0,
        )
        .execution_options(populate_existing=True)
    ).all()
    lots = [_lot(grant) for grant in grants]
    expired = sum(use.amount for use in expiries(lots, local_date(now, client.zone(account))))
    return InHand(
        balance=(balance or 0) - expired,
        promotional=sum(lot.remaining for lot in lots) - expired,
    )


def empty_grants(session: Session, ids: Sequence[UUID]) -> None:
    """Leave nothing of these grants."""
    session.execute(update(CreditGrant).where(CreditGrant.id.in_(ids)).values(remaining=0))
