"""Acknowledging a difference from Stripe's record: somebody knows of it, and says why it stands."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from billing.errors import NotFound, RuleViolation
from billing.texts import MAX_LONG, require_text
from models import DifferenceAcknowledgement, Reconciliation, ReconciliationDifference
from models.reconciliation import is_acknowledged, standing_differences

# What a reconciliation finds of a thing at Stripe takes the place of what the last one found: no
# row is there from one to the next that could be locked.
_ALONE = text("SELECT pg_advisory_xact_lock(hashtextextended(:subject, 0))")


def keep_differences_of(session: Session, account_id: UUID, stripe_id: str) -> None:
    """Be the only one to change what differs about a thing at Stripe, until the transaction ends."""
    session.execute(_ALONE, {"subject": f"differences of {account_id} about {stripe_id}"})


def acknowledge_difference(
    session: Session, account_id: UUID, difference_id: UUID, reason: str, *, requested_by: str
) -> ReconciliationDifference:
    """Have a difference told no more, as long as its facts stay as they are.

    Where a later reconciliation has found the same again, that is what is acknowledged, and
    returned.

    Raises:
        InvalidInput: The reason is blank or too long.
        NotFound: The account has no such difference.
        RuleViolation: It stands no more, or as another one (``difference_not_standing``), or is
            acknowledged (``difference_already_acknowledged``).
    """
    require_text("reason", reason, MAX_LONG)
    found = _standing(session, account_id, difference_id)
    if _acknowledged(session, found):
        raise RuleViolation(
            "difference_already_acknowledged", "somebody has acknowledged this difference already"
        )
    acknowledgement = DifferenceAcknowledgement(
        difference_id=found[-1].id, reason=reason, acknowledged_by=requested_by
    )
    session.add(acknowledgement)
    session.flush()
    for one in found:
        one.acknowledgement_id = acknowledgement.id
    session.flush()
    return found[-1]


def withdraw_acknowledgement(
    session: Session, account_id: UUID, difference_id: UUID, *, requested_by: str, now: datetime
) -> ReconciliationDifference:
    """Have an acknowledged difference told again. That it was acknowledged stays on record.

    Raises:
        NotFound: The account has no such difference.
        RuleViolation: It stands no more, or as another one (``difference_not_standing``), or is
            not acknowledged (``difference_not_acknowledged``).
    """
    found = _standing(session, account_id, difference_id)
    acknowledged = _acknowledged(session, found)
    if not acknowledged:
        raise RuleViolation(
            "difference_not_acknowledged", "nobody has acknowledged this difference"
        )
    for one in acknowledged:
        one.withdrawn_by, one.withdrawn_at = requested_by, now
    session.flush()
    return found[-1]


def difference_of(
    session: Session, account_id: UUID, difference_id: UUID
) -> ReconciliationDifference:
    """One difference of an account.

    Raises:
        NotFound: It has no such difference.
    """
    found = session.scalars(
        select(ReconciliationDifference)
        .join(Reconciliation, Reconciliation.id == ReconciliationDifference.reconciliation_id)
        .where(
            ReconciliationDifference.id == difference_id, Reconciliation.account_id == account_id
        )
    ).one_or_none()
    if found is None:
        raise NotFound("difference", str(difference_id))
    return found


def acknowledgements_about(
    session: Session, account_id: UUID, stripe_id: str
) -> Sequence[DifferenceAcknowledgement]:
    """All that were ever given for what differed about a thing at Stripe, oldest first."""
    return session.scalars(
        select(DifferenceAcknowledgement)
        .join(
            ReconciliationDifference,
            ReconciliationDifference.id == DifferenceAcknowledgement.difference_id,
        )
        .join(Reconciliation, Reconciliation.id == ReconciliationDifference.reconciliation_id)
        .where(
            Reconciliation.account_id == account_id,
            ReconciliationDifference.stripe_id == stripe_id,
        )
        .order_by(DifferenceAcknowledgement.id)
    ).all()


def acknowledgements_of(
    session: Session, differences: Sequence[ReconciliationDifference]
) -> dict[UUID, DifferenceAcknowledgement]:
    """By difference, the acknowledgement that holds for it."""
    given = session.scalars(
        select(DifferenceAcknowledgement).where(
            DifferenceAcknowledgement.id.in_({one.acknowledgement_id for one in differences}),
            DifferenceAcknowledgement.withdrawn_at.is_(None),
        )
    )
    by_id = {one.id: one for one in given}
    return {
        one.id: by_id[one.acknowledgement_id]
        for one in differences
        if one.acknowledgement_id in by_id
    }


def acknowledged_about(
    session: Session, account_id: UUID, stripe_id: str
) -> Sequence[ReconciliationDifference]:
    """What stands of a thing at Stripe, and is acknowledged."""
    return session.scalars(
        standing_differences(account_id).where(
            ReconciliationDifference.stripe_id == stripe_id, is_acknowledged()
        )
    ).all()


def _standing(
    session: Session, account_id: UUID, difference_id: UUID
) -> Sequence[ReconciliationDifference]:
    """The difference, locked, or those of the same facts in its place; the newest is the last."""
    named = difference_of(session, account_id, difference_id)
    keep_differences_of(session, account_id, named.stripe_id)
    about = standing_differences(account_id).where(
        ReconciliationDifference.stripe_id == named.stripe_id
    )
    # Read again: it was read before the lock was there.
    rows = session.scalars(
        about.order_by(ReconciliationDifference.id), execution_options={"populate_existing": True}
    )
    same = [one for one in rows if one.facts == named.facts]
    if not same:
        raise RuleViolation(
            "difference_not_standing",
            "the two records agree by now, or differ in another way; look at what stands",
        )
    return same


def _acknowledged(
    session: Session, found: Sequence[ReconciliationDifference]
) -> Sequence[DifferenceAcknowledgement]:
    return list({one.id: one for one in acknowledgements_of(session, found).values()}.values())
