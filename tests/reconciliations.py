"""Reconciliations and their differences, as if they had been made and found."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from gateways.payment_records import Window
from models import Account, Reconciliation, ReconciliationDifference
from tasks.reconciling import request_reconciliation
from tests.worlds import NOW


def a_reconciliation(engine: Engine, account: Account) -> None:
    """One that has not begun."""
    with Session(engine) as session, session.begin():
        window = Window(NOW - timedelta(days=4), NOW)
        request_reconciliation(session, account.id, window, requested_by="test")


def a_difference(engine: Engine, stripe_id: str = "re_1") -> UUID:
    """A refund made at Stripe's own pages, which the newest reconciliation found."""
    with Session(engine) as session, session.begin():
        newest = select(Reconciliation.id).order_by(Reconciliation.id.desc()).limit(1)
        difference = ReconciliationDifference(
            reconciliation_id=session.scalars(newest).one(),
            difference="refund_made_elsewhere",
            stripe_id=stripe_id,
            currency="usd",
            theirs="succeeded",
            their_amount=250,
            repaired=False,
        )
        session.add(difference)
        session.flush()
        return difference.id
