"""Payments disputed at the local Stripe, and what its events made of them here."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from gateways.sandbox.stripe.server import StripeSandbox
from models import Account, Dispute, LedgerEntry, LedgerPosting, Payment, PaymentAttempt
from tasks.calls import Gateways
from tests.cards import QUEUES, tell_all
from tests.worlds import NOW, work

Told = Callable[[], None]


def hear(engine: Engine, vendors: Gateways, stripe: StripeSandbox, *, now: datetime = NOW) -> None:
    """All that Stripe told so far comes, and is worked to its end."""
    tell_all(engine, stripe)
    work(engine, now=now, gateways=vendors, queues=QUEUES)


def disputed(
    engine: Engine,
    vendors: Gateways,
    stripe: StripeSandbox,
    payment: Payment,
    amount: int | None = None,
    *,
    now: datetime = NOW,
    **how: Any,
) -> str:
    """Stripe's id of a new dispute of a payment, in Stripe's units, of which we were told."""
    dispute = stripe.control.dispute(intent_of(engine, payment), amount, **how)
    hear(engine, vendors, stripe, now=now)
    return str(dispute["id"])


def decided(
    engine: Engine,
    vendors: Gateways,
    stripe: StripeSandbox,
    dispute: str,
    outcome: Any,  # noqa: ANN401 - one of Stripe's words
    *,
    now: datetime = NOW,
) -> Dispute:
    """The dispute after the bank's last word, of which we were told."""
    stripe.control.close_dispute(dispute, outcome)
    hear(engine, vendors, stripe, now=now)
    return dispute_of(engine, dispute)


def intent_of(engine: Engine, payment: Payment) -> str:
    """Stripe's id of what a card paid."""
    with Session(engine) as session:
        return str(session.get_one(PaymentAttempt, payment.attempt_id).payment_intent)


def dispute_of(engine: Engine, dispute: str) -> Dispute:
    """A dispute as it stands here, by Stripe's id."""
    with Session(engine) as session:
        return session.scalars(select(Dispute).where(Dispute.stripe_dispute == dispute)).one()


def disputes_of(engine: Engine) -> list[Dispute]:
    """Every dispute, oldest first."""
    with Session(engine) as session:
        return list(session.scalars(select(Dispute).order_by(Dispute.id)))


def posted(engine: Engine, account: Account) -> list[tuple[str, dict[str, int]]]:
    """What disputes posted, by event, in order."""
    with Session(engine) as session:
        entries = session.scalars(
            select(LedgerEntry)
            .where(LedgerEntry.account_id == account.id, LedgerEntry.dispute_id.is_not(None))
            .order_by(LedgerEntry.posted_at, LedgerEntry.id)
        ).all()
        return [
            (
                entry.event,
                {
                    side.ledger_account: side.amount
                    for side in session.scalars(
                        select(LedgerPosting).where(LedgerPosting.entry_id == entry.id)
                    )
                },
            )
            for entry in entries
        ]
