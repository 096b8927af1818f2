"""What became of billing periods, as their invoices say: drafts of them are finalized, or go."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from billing.periods import PeriodState

# Why its draft was made, or what else it left out, stays true; why it was not billed does not.
_SETTLE = text("""
WITH standing AS (
    SELECT periods.id,
           CASE WHEN bool_or(invoices.status = 'draft') THEN 'drafted'
                WHEN count(invoices.id) > 0 THEN 'billed'
                ELSE :without END AS state
      FROM billing_periods AS periods
      LEFT JOIN invoices ON invoices.period_id = periods.id
     WHERE periods.id = ANY(:periods)
     GROUP BY periods.id
)
UPDATE billing_periods
   SET state = standing.state,
       reason = CASE WHEN standing.state = 'skipped' THEN 'draft_deleted'
                     WHEN reason = 'charges_on_manual_draft' THEN reason END,
       error = NULL, decided_at = :now
  FROM standing
 WHERE billing_periods.id = standing.id AND billing_periods.state <> standing.state
""")


def settle_period(
    session: Session,
    period_id: UUID,
    now: datetime,
    *,
    without: Literal[PeriodState.SKIPPED, PeriodState.EMPTY] = PeriodState.SKIPPED,
) -> None:
    """Bring a period's state in line with its invoices. The caller holds its client's lock.

    It is ``drafted`` while one of them is a draft, and ``billed`` once none is.

    Args:
        session: The transaction to do it in.
        period_id: A period that was drafted.
        now: When what happened to its invoices happened.
        without: What becomes of it when no invoice is left: ``skipped``, since its draft was
            deleted, or ``empty``, since its draft lost its last charge.
    """
    settle_periods(session, [period_id], now, without=without)


def settle_periods(
    session: Session,
    period_ids: Sequence[UUID],
    now: datetime,
    *,
    without: Literal[PeriodState.SKIPPED, PeriodState.EMPTY] = PeriodState.SKIPPED,
) -> None:
    """The same for any number of them, in one statement."""
    if not period_ids:
        return
    # A draft that is gone for the session has to be gone for the statement.
    session.flush()
    session.execute(_SETTLE, {"periods": list(period_ids), "without": without, "now": now})
