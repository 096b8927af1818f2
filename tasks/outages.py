"""Payments that wait while Stripe is down: no job is begun that could only fail."""

from sqlalchemy import CursorResult, Update, func, select, update
from sqlalchemy.orm import Session

from models import Queue
from models.queue import PAUSED_FOR_OUTAGE

PAYMENTS = "payments"


def pause_for_outage(session: Session) -> bool:
    """Start no more payments until Stripe is back; whether that is new. A person's pause stays."""
    return _changed(
        session,
        update(Queue)
        .where(Queue.name == PAYMENTS, Queue.paused_at.is_(None))
        .values(paused_at=func.clock_timestamp(), paused_by=PAUSED_FOR_OUTAGE),
    )


def resume_after_outage(session: Session) -> bool:
    """Start payments again, if they were paused for Stripe and nobody has paused them since."""
    return _changed(
        session,
        update(Queue)
        .where(Queue.name == PAYMENTS, Queue.paused_by == PAUSED_FOR_OUTAGE)
        .values(paused_at=None, paused_by=None),
    )


def is_paused_for_outage(session: Session) -> bool:
    """Whether payments wait for Stripe to be back."""
    by = session.scalar(select(Queue.paused_by).where(Queue.name == PAYMENTS))
    return by == PAUSED_FOR_OUTAGE


def _changed(session: Session, statement: Update) -> bool:
    result = session.execute(statement)
    return isinstance(result, CursorResult) and result.rowcount > 0
