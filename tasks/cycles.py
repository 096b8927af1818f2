"""Putting clients on a billing cycle, taking them off, and moving their boundaries."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import date, datetime
from uuid import UUID

from sqlalchemy import delete, select, text
from sqlalchemy.orm import Session

from billing.cycles import Period, local_date
from billing.errors import RuleViolation
from billing.periods import (
    PeriodReason,
    PeriodState,
    first_periods,
    following_period,
    moved_to_zone,
    periods_between,
)
from models import Account, BillingPeriod, Client
from models.billing_period import undecided_of
from tasks.periods import ClientPeriod, write_periods

# Where a client's chain has a hole, or its last period is over and none was written after it.
_GAPS = text("""
SELECT client_id, period_start, period_end, ends_at, following_start
  FROM (SELECT client_id, period_start, period_end, ends_at,
               lead(period_start) OVER (PARTITION BY client_id ORDER BY period_start)
               AS following_start
          FROM billing_periods
         WHERE client_id = ANY(:clients)) AS chain
 WHERE following_start > period_end OR (following_start IS NULL AND ends_at <= :now)
""")

_UNDER_WAY = text("""
SELECT id, client_id, period_start, period_end, starts_at
  FROM billing_periods
 WHERE client_id = ANY(:clients) AND state = 'open' AND ends_at > :now
""")

_MOVE = text("""
UPDATE billing_periods SET ends_at = moved.ends_at
  FROM unnest(:periods ::uuid[], :ends_at ::timestamptz[]) AS moved (id, ends_at)
 WHERE billing_periods.id = moved.id
""")


def plan_cycle(client: Client, account: Account, *, activated_at: datetime) -> list[ClientPeriod]:
    """The periods to write down for a client who goes on a cycle and has none yet.

    They start at ``billing_starts_on``; by default that is today in the client's zone.
    """
    return [
        ClientPeriod(account.id, client.id, planned)
        for planned in first_periods(
            _activate(client, account, activated_at),
            cadence=client.cadence,
            zone=client.zone(account),
            activated_at=activated_at,
        )
    ]


def resume_cycle(
    session: Session, client: Client, account: Account, *, now: datetime
) -> list[ClientPeriod]:
    """The periods to write down for a client who comes back to a cycle.

    The chain goes on where it ended, so no day is left out or counted twice. A last period that
    was skipped by going manual and has not ended yet is simply opened again. Its end, and all
    that follows, is in the zone that the client has now.
    """
    # Before the row is read again, which writes it: on a cycle it has both, by constraint.
    _activate(client, account, now)
    last = _last_period(session, client.id)
    if last is None:
        return plan_cycle(client, account, activated_at=now)
    period, zone = Period(last.period_start, last.period_end), client.zone(account)
    if last.reason == PeriodReason.SWITCHED_TO_MANUAL and last.ends_at > now:
        last.state, last.reason, last.decided_at = PeriodState.OPEN, None, None
        last.ends_at = moved_to_zone(period, last.starts_at, zone)
        return []
    planned = [
        following_period(
            period,
            cadence=client.cadence,
            zone=zone,
            activated_at=now,
            ended_at=last.ends_at,
        )
    ]
    if planned[0].reason is not None:
        first, *rest = first_periods(
            planned[0].period.end, cadence=client.cadence, zone=zone, activated_at=now
        )
        planned += [replace(first, starts_at=planned[0].ends_at), *rest]
    return [ClientPeriod(account.id, client.id, one) for one in planned]


def leave_cycle(session: Session, client: Client, *, now: datetime) -> None:
    """Skip what is not billed yet; the client's charges wait for drafts made by hand."""
    for period in session.scalars(undecided_of(client.id)):
        period.state = PeriodState.SKIPPED
        period.reason = PeriodReason.SWITCHED_TO_MANUAL
        period.error = None
        period.decided_at = now


def forget_periods(session: Session, client: Client) -> None:
    """Delete the periods of a client of whom nothing was billed yet, so that others can be planned.

    Raises:
        RuleViolation: A period has been decided (``billing_already_started``).
    """
    decided = session.scalar(
        select(BillingPeriod.id)
        .where(BillingPeriod.client_id == client.id, BillingPeriod.state != PeriodState.OPEN)
        .limit(1)
    )
    if decided is not None:
        raise RuleViolation(
            "billing_already_started", "periods of this client have been decided already"
        )
    session.execute(
        delete(BillingPeriod)
        .where(BillingPeriod.client_id == client.id)
        .execution_options(synchronize_session=False)
    )


def complete_chains(
    session: Session, account: Account, clients: Iterable[Client], *, now: datetime
) -> None:
    """Write down every period of these clients that is not there yet, up to the one under way.

    To be called before the rules change, under the clients' locks: what a start long ago left
    out, and boundaries that passed with no one to bill them, follow the anchor and zone that
    held so far. A change must not move them.
    """
    by_id = {client.id: client for client in clients}
    missing: list[ClientPeriod] = []
    for gap in session.execute(_GAPS, {"clients": list(by_id), "now": now}):
        client = by_id[gap.client_id]
        for planned in periods_between(
            Period(gap.period_start, gap.period_end),
            gap.following_start or date.max,
            cadence=client.cadence,
            zone=client.zone(account),
            activated_at=client.activated_at or now,
            ended_at=gap.ends_at,
        ):
            missing.append(ClientPeriod(account.id, client.id, planned))
            if gap.following_start is None and planned.ends_at > now:
                break
    write_periods(session, missing)


def move_to_zone(
    session: Session, account: Account, clients: Iterable[Client], *, now: datetime
) -> None:
    """Move the end of the period that is under way to each client's new zone.

    Only that instant moves: what ended before stays, also where it is not billed yet, and the
    next period starts where it ends.
    """
    zones = {client.id: client.zone(account) for client in clients}
    under_way = session.execute(_UNDER_WAY, {"clients": list(zones), "now": now}).all()
    session.execute(
        _MOVE,
        {
            "periods": [one.id for one in under_way],
            "ends_at": [
                moved_to_zone(
                    Period(one.period_start, one.period_end), one.starts_at, zones[one.client_id]
                )
                for one in under_way
            ],
        },
    )


def _activate(client: Client, account: Account, now: datetime) -> date:
    """Note that the client is on a cycle from now on; the day on which that cycle starts."""
    starts_on = client.billing_starts_on or local_date(now, client.zone(account))
    client.billing_starts_on, client.activated_at = starts_on, now
    return starts_on


def _last_period(session: Session, client_id: UUID) -> BillingPeriod | None:
    return session.scalar(
        select(BillingPeriod)
        .where(BillingPeriod.client_id == client_id)
        .order_by(BillingPeriod.period_start.desc())
        .limit(1)
    )
