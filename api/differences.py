"""Differences from Stripe's record that stand, and those of them that staff acknowledge."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from api.auth import Reader, Writer
from api.fields import FORBID_UNKNOWN, NoOptions, Note
from api.idempotency import OnceOnly
from api.operations import posts, reads
from api.paging import Paging, newest_first
from api.reconciliations import (
    DIFFERENCE_EXAMPLE,
    AcknowledgementReport,
    StripeDifferenceReport,
    difference_reports,
)
from api.shapes import Page
from api.transactions import Transaction
from models import ReconciliationDifference
from models.database import database_now
from models.reconciliation import is_acknowledged, standing_differences
from tasks.acknowledging import (
    acknowledge_difference,
    acknowledgements_about,
    difference_of,
    withdraw_acknowledgement,
)

router = APIRouter(tags=["books"])

_REASON = "Refunded by hand at Stripe, and credited by CN-000012."
_ACKNOWLEDGEMENT: dict[str, Any] = {
    "difference": "019ae8a3-5c00-7000-8000-000000000015",
    "reason": _REASON,
    "acknowledged_by": "api:5f1c0a7b9d3e",
    "acknowledged_at": "2026-06-06T09:30:00Z",
    "withdrawn_by": None,
    "withdrawn_at": None,
}


class Acknowledgement(BaseModel):
    """Why the two records may differ here."""

    model_config = FORBID_UNKNOWN | ConfigDict(
        json_schema_extra={"examples": [{"reason": _REASON}]}
    )

    reason: Note


class DifferenceDetails(StripeDifferenceReport):
    """One difference, and all `acknowledgements` ever given of its `stripe_id`, oldest first.

    An earlier one names the difference of other facts for which it was given.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    **DIFFERENCE_EXAMPLE,
                    "difference": "refund_made_elsewhere",
                    "repaired": False,
                    "stripe_id": "re_3OzDbfLkdIwHu7ix0Q4wDSKe",
                    "ours": None,
                    "their_amount": 250,
                    "acknowledgement": _ACKNOWLEDGEMENT,
                    "acknowledgements": [_ACKNOWLEDGEMENT],
                }
            ]
        }
    )

    acknowledgements: list[AcknowledgementReport]

    @classmethod
    def of(
        cls, session: Session, account_id: UUID, found: ReconciliationDifference
    ) -> "DifferenceDetails":
        """The difference as it is shown by itself."""
        [report] = difference_reports(session, [found])
        given = acknowledgements_about(session, account_id, found.stripe_id)
        return cls(
            **report.model_dump(),
            acknowledgements=[AcknowledgementReport.of(one) for one in given],
        )


class DifferenceFilters(Paging):
    """Which differences to list."""

    acknowledged: bool | None = Field(
        default=None, description="Those that somebody has acknowledged, or those that nobody has."
    )


@router.get(
    "/v1/reconciliation-differences",
    summary="List the differences that stand",
    responses=reads(),
)
def list_differences(
    filters: Annotated[DifferenceFilters, Query()], caller: Reader, session: Transaction
) -> Page[StripeDifferenceReport]:
    """Newest first, whichever reconciliation found them: not repaired, and not looked at since."""
    standing = standing_differences(caller.account_id)
    if filters.acknowledged is not None:
        wanted = is_acknowledged() if filters.acknowledged else ~is_acknowledged()
        standing = standing.where(wanted)
    found = newest_first(session, standing, ReconciliationDifference.id, filters, read=UUID)
    return Page(data=difference_reports(session, found.rows), next_cursor=found.next_cursor)


@router.get(
    "/v1/reconciliation-differences/{difference_id}",
    summary="Show a difference",
    responses=reads("difference_not_found"),
)
def show_difference(difference_id: UUID, caller: Reader, session: Transaction) -> DifferenceDetails:
    """Whether it still stands or not, with everybody who acknowledged it or withdrew that."""
    found = difference_of(session, caller.account_id, difference_id)
    return DifferenceDetails.of(session, caller.account_id, found)


@router.post(
    "/v1/reconciliation-differences/{difference_id}/acknowledge",
    summary="Acknowledge a difference",
    response_model=DifferenceDetails,
    responses=posts(
        "difference_not_found", "difference_not_standing", "difference_already_acknowledged"
    ),
)
def acknowledge(
    difference_id: UUID,
    asked: Acknowledgement,
    caller: Writer,
    session: Transaction,
    once: OnceOnly,
) -> Response:
    """The audit names it no more, and the log does not count it, as long as its facts stay.

    Another amount, state or kind of difference on either side is told again, and can be
    acknowledged anew. Where a later reconciliation has found the same once more, that one is
    acknowledged and answered.
    """
    found = acknowledge_difference(
        session,
        caller.account_id,
        difference_id,
        asked.reason,
        requested_by=caller.requested_by,
    )
    return once.done(DifferenceDetails.of(session, caller.account_id, found))


@router.post(
    "/v1/reconciliation-differences/{difference_id}/withdraw-acknowledgement",
    summary="Withdraw the acknowledgement of a difference",
    response_model=DifferenceDetails,
    responses=posts(
        "difference_not_found", "difference_not_standing", "difference_not_acknowledged"
    ),
)
def withdraw(
    difference_id: UUID,
    caller: Writer,
    session: Transaction,
    once: OnceOnly,
    _options: NoOptions | None = None,
) -> Response:
    """The audit names it again. Who had acknowledged it, when and why stays on record."""
    found = withdraw_acknowledgement(
        session,
        caller.account_id,
        difference_id,
        requested_by=caller.requested_by,
        now=database_now(session),
    )
    return once.done(DifferenceDetails.of(session, caller.account_id, found))
