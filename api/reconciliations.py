"""Reconciliations: our record of money compared with Stripe's, and what differs."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from api.auth import Reader, Writer
from api.fields import FORBID_UNKNOWN, Instant
from api.idempotency import Commanded
from api.operations import commands, reads
from api.paging import Paging, newest_first
from api.shapes import JobReport, Page
from api.transactions import Transaction
from billing.errors import NotFound
from billing.reconciliation import Difference
from models import DifferenceAcknowledgement, Reconciliation, ReconciliationDifference
from models.database import database_now
from tasks.acknowledging import acknowledgements_of
from tasks.reconciling import request_reconciliation, window_since

router = APIRouter(tags=["books"])

MAX_LISTED = 1_000
"""Differences that one answer holds at most."""

_RECONCILIATION: dict[str, Any] = {
    "id": "019ae8a3-5c00-7000-8000-00000000000e",
    "since": "2026-06-01T00:00:00Z",
    "until": "2026-06-05T12:00:00Z",
    "payments": 412,
    "refunds": 3,
    "disputes": 0,
    "created_at": "2026-06-05T12:00:00Z",
    "finished_at": "2026-06-05T12:00:04Z",
    "job": "019ae8a3-5c00-7000-8000-00000000000a",
}
DIFFERENCE_EXAMPLE: dict[str, Any] = {
    "id": "019ae8a3-5c00-7000-8000-000000000015",
    "difference": "payment_unheard",
    "repaired": True,
    "stripe_id": "pi_3OzDbfLkdIwHu7ix0Q4wDSKe",
    "client": "019ae8a3-5c00-7000-8000-000000000001",
    "invoice": "019ae8a3-5c00-7000-8000-000000000003",
    "currency": "usd",
    "ours": "unknown",
    "our_amount": None,
    "theirs": "succeeded",
    "their_amount": 4900,
    "rechecked_at": None,
    "acknowledgement": None,
}


class ReconciliationRequest(BaseModel):
    """From when on to compare: the last four days, unless it says otherwise."""

    model_config = FORBID_UNKNOWN | ConfigDict(
        json_schema_extra={"examples": [{"since": "2026-06-01T00:00:00Z"}]}
    )

    since: Instant | None = Field(default=None, description="In the past.")


class ReconciliationReport(BaseModel):
    """One comparison, and how many payments, refunds and disputes it looked at.

    `finished_at` is null while it is under way.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [_RECONCILIATION]})

    id: UUID
    since: datetime
    until: datetime
    payments: int
    refunds: int
    disputes: int
    created_at: datetime
    finished_at: datetime | None
    job: UUID

    @classmethod
    def of(cls, record: Reconciliation) -> "ReconciliationReport":
        """The comparison as it is shown."""
        return cls(**_facts(record))


class AcknowledgementReport(BaseModel):
    """Who acknowledged a `difference`, when and why; and who withdrew that, if somebody did."""

    difference: UUID
    reason: str
    acknowledged_by: str
    acknowledged_at: datetime
    withdrawn_by: str | None
    withdrawn_at: datetime | None

    @classmethod
    def of(cls, given: DifferenceAcknowledgement) -> "AcknowledgementReport":
        """The acknowledgement as it is shown."""
        same = cls.model_fields.keys() - {"difference"}
        return cls(**{name: getattr(given, name) for name in same}, difference=given.difference_id)


class StripeDifferenceReport(BaseModel):
    """One difference, as it was found; amounts in minor units, null where there is none.

    What is `repaired` was news that only came late, and is written down now. All else is left to
    you: which of the two records is wrong is not guessed. It stands, and the audit tells of it,
    until a later reconciliation has looked again (`rechecked_at`); that one lists it anew if the
    two records still differ. What somebody has acknowledged is listed with that `acknowledgement`,
    and told by neither the audit nor the log, as long as all else here stays as it is.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [DIFFERENCE_EXAMPLE]})

    id: UUID
    difference: Difference
    repaired: bool
    stripe_id: str
    client: UUID | None
    invoice: UUID | None
    currency: str
    ours: str | None
    our_amount: int | None
    theirs: str | None
    their_amount: int | None
    rechecked_at: datetime | None
    acknowledgement: AcknowledgementReport | None


class ReconciliationDetails(ReconciliationReport):
    """One comparison with the differences that it found, up to a thousand."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{**_RECONCILIATION, "differences": [DIFFERENCE_EXAMPLE]}]}
    )

    differences: list[StripeDifferenceReport]


def _facts(record: Reconciliation) -> dict[str, Any]:
    """The fields of ``ReconciliationReport``."""
    same = ReconciliationReport.model_fields.keys() - {"job"}
    return {**{name: getattr(record, name) for name in same}, "job": record.job_id}


@router.post(
    "/v1/reconciliations",
    summary="Reconcile with Stripe",
    status_code=202,
    response_model=JobReport,
    responses=commands(),
)
def create_reconciliation(
    caller: Writer,
    session: Transaction,
    command: Commanded,
    asked: ReconciliationRequest | None = None,
) -> Response:
    """The job's result names the comparison, and counts its differences by kind."""
    since = None if asked is None else asked.since
    record = request_reconciliation(
        session,
        caller.account_id,
        window_since(since, now=database_now(session)),
        requested_by=caller.requested_by,
    )
    return command.accepted(record.job_id)


@router.get("/v1/reconciliations", summary="List reconciliations", responses=reads())
def list_reconciliations(
    paging: Annotated[Paging, Query()], caller: Reader, session: Transaction
) -> Page[ReconciliationReport]:
    """Newest first; one a day is made by itself, of what came since the last of these."""
    ours = select(Reconciliation).where(Reconciliation.account_id == caller.account_id)
    found = newest_first(session, ours, Reconciliation.id, paging, read=UUID)
    return found.page(ReconciliationReport.of)


@router.get(
    "/v1/reconciliations/{reconciliation_id}",
    summary="Show a reconciliation",
    responses=reads("reconciliation_not_found"),
)
def show_reconciliation(
    reconciliation_id: UUID, caller: Reader, session: Transaction
) -> ReconciliationDetails:
    """With every difference it found."""
    record = session.get(Reconciliation, reconciliation_id)
    if record is None or record.account_id != caller.account_id:
        raise NotFound("reconciliation", str(reconciliation_id))
    found = session.scalars(
        select(ReconciliationDifference)
        .where(ReconciliationDifference.reconciliation_id == record.id)
        .order_by(ReconciliationDifference.id)
        .limit(MAX_LISTED)
    ).all()
    return ReconciliationDetails(**_facts(record), differences=difference_reports(session, found))


def difference_reports(
    session: Session, found: Sequence[ReconciliationDifference]
) -> list[StripeDifferenceReport]:
    """Differences as they are shown, with the acknowledgements that hold for them."""
    given = acknowledgements_of(session, found)
    return [
        StripeDifferenceReport(
            **{name: getattr(one, name) for name in _SAME},
            client=one.client_id,
            invoice=one.invoice_id,
            acknowledgement=AcknowledgementReport.of(given[one.id]) if one.id in given else None,
        )
        for one in found
    ]


_SAME = StripeDifferenceReport.model_fields.keys() - {"client", "invoice", "acknowledgement"}
