"""Putting clients on a billing cycle, taking them off, and moving their boundaries."""

from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from billing.cycles import Period, local_date
from billing.errors import RuleViolation
from billing.periods import (
    PeriodReason,
    PeriodState,
    first_periods,
    following_period,
    moved_to_zone,
)
from models import Account, BillingPeriod, Client
from models.billing_period import undecided_of
from tasks.periods import ClientPeriod


def plan_cycle(client: Client, account: Account, *, activated_at: datetime) -> list[ClientPeriod]:
    """The periods to write down for a client who goes on a cycle and has none yet.

    They start at ``billing_starts_on``; by default that is today in the client's zone.
    """
    zone = client.zone(account)
    client.billing_starts_on = client.billing_starts_on or local_date(activated_at, zone)
    client.activated_at = activated_at
    return [
        ClientPeriod(account.id, client.id, planned)
        for planned in first_periods(
            client.billing_starts_on,
            anchor_day=client.anchor_day,
            zone=zone,
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
    last = _last_period(session, client.id)
    if last is None:
        return plan_cycle(client, account, activated_at=now)
    client.activated_at = now
    period, zone = Period(last.period_start, last.period_end), client.zone(account)
    if last.reason == PeriodReason.SWITCHED_TO_MANUAL and last.ends_at > now:
        last.state, last.reason, last.decided_at = PeriodState.OPEN, None, None
        last.ends_at = moved_to_zone(period, last.starts_at, zone)
        return []
    planned = [
        following_period(
            period,
            anchor_day=client.anchor_day,
            zone=zone,
            activated_at=now,
            ended_at=last.ends_at,
        )
    ]
    if planned[0].reason is not None:
        first, *rest = first_periods(
            planned[0].period.end, anchor_day=client.anchor_day, zone=zone, activated_at=now
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


def complete_chain(session: Session, client: Client, account: Account) -> list[ClientPeriod]:
    """The periods that a start long ago left out, to be written down before the rules change.

    They follow the anchor and zone that held so far; a change must not move them.
    """
    missing: list[ClientPeriod] = []
    chain = session.scalars(
        select(BillingPeriod)
        .where(BillingPeriod.client_id == client.id)
        .order_by(BillingPeriod.period_start)
    ).all()
    for earlier, later in pairwise(chain):
        end, ended_at = earlier.period_end, earlier.ends_at
        start = earlier.period_start
        while end < later.period_start and client.activated_at is not None:
            planned = following_period(
                Period(start, end),
                anchor_day=client.anchor_day,
                zone=client.zone(account),
                activated_at=client.activated_at,
                ended_at=ended_at,
            )
            missing.append(ClientPeriod(account.id, client.id, planned))
            start, end = planned.period.start, planned.period.end
            ended_at = planned.ends_at
    return missing


def move_to_zone(session: Session, client: Client, account: Account) -> None:
    """Move the end of the period that is open now to the client's new zone.

    Only that instant moves: what ended before stays, and the next period starts where it ends.
    """
    zone = client.zone(account)
    for period in session.scalars(undecided_of(client.id)):
        if period.reason is None and period.state == PeriodState.OPEN:
            period.ends_at = moved_to_zone(
                Period(period.period_start, period.period_end), period.starts_at, zone
            )


def _last_period(session: Session, client_id: UUID) -> BillingPeriod | None:
    return session.scalar(
        select(BillingPeriod)
        .where(BillingPeriod.client_id == client_id)
        .order_by(BillingPeriod.period_start.desc())
        .limit(1)
    )
