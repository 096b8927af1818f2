"""Tax rates: made and ended here, put on the account, clients and charges there."""

from datetime import date, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from typing_extensions import TypedDict

from api.auth import Reader, Writer
from api.fields import FORBID_UNKNOWN, DecimalText, Flag, IsoDate, Name, plain
from api.idempotency import OnceOnly
from api.operations import posts, reads, writes
from api.paging import Paging, newest_first
from api.shapes import Page
from api.transactions import Transaction
from billing.errors import NotFound
from models import TaxRateRow
from tasks.tax_rates import create_tax_rate, end_tax_rate

router = APIRouter(tags=["tax rates"])

_NEW: dict[str, Any] = {
    "name": "VAT",
    "percent": "20",
    "inclusive": False,
    "valid_from": "2026-01-01",
}


class TaxRateCreation(BaseModel):
    """A new rate: `percent` out of 100, on top of prices or, `inclusive`, contained in them.

    Work bears it from `valid_from` to before `valid_to`, by the date of the charge.
    """

    model_config = FORBID_UNKNOWN | ConfigDict(json_schema_extra={"examples": [_NEW]})

    name: Name
    percent: DecimalText
    inclusive: Flag
    valid_from: IsoDate
    valid_to: IsoDate | None = None


class TaxRateChanges(TypedDict, total=False):
    """The end of a rate; null is without end. A new percent is a new rate."""

    __pydantic_config__ = FORBID_UNKNOWN | ConfigDict(  # type: ignore[misc]  # pydantic's way.
        json_schema_extra={"examples": [{"valid_to": "2026-07-01"}]}
    )

    valid_to: IsoDate | None


class TaxRateReport(BaseModel):
    """A tax rate. Only `valid_to`, the first day without it, ever changes."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "019ae8a3-5c00-7000-8000-000000000011",
                    **_NEW,
                    "valid_to": None,
                    "created_at": "2026-01-05T17:00:00Z",
                }
            ]
        }
    )

    id: UUID
    name: str
    percent: str
    inclusive: bool
    valid_from: date
    valid_to: date | None
    created_at: datetime

    @classmethod
    def of(cls, rate: TaxRateRow) -> "TaxRateReport":
        """The rate as it is shown."""
        same = cls.model_fields.keys() - {"percent"}
        return cls(
            **{name: getattr(rate, name) for name in same},
            percent=plain(rate.percent),
        )


@router.post(
    "/v1/tax-rates",
    summary="Create a tax rate",
    status_code=201,
    response_model=TaxRateReport,
    responses=posts(),
)
def create(new: TaxRateCreation, caller: Writer, session: Transaction, once: OnceOnly) -> Response:
    """Nothing bears it until the account, a client or a charge has it among its `tax_rates`."""
    rate = create_tax_rate(
        session,
        caller.account_id,
        name=new.name,
        percent=new.percent,
        inclusive=new.inclusive,
        valid_from=new.valid_from,
        valid_to=new.valid_to,
    )
    return once.done(TaxRateReport.of(rate), status=201, location=f"/v1/tax-rates/{rate.id}")


@router.get("/v1/tax-rates", summary="List tax rates", responses=reads())
def list_tax_rates(
    paging: Annotated[Paging, Query()], caller: Reader, session: Transaction
) -> Page[TaxRateReport]:
    """Newest first, also those that are no longer valid."""
    rates = select(TaxRateRow).where(TaxRateRow.account_id == caller.account_id)
    found = newest_first(session, rates, TaxRateRow.id, paging, read=UUID)
    return found.page(TaxRateReport.of)


@router.get(
    "/v1/tax-rates/{tax_rate_id}",
    summary="Show a tax rate",
    responses=reads("tax_rate_not_found"),
)
def show(tax_rate_id: UUID, caller: Reader, session: Transaction) -> TaxRateReport:
    """One tax rate."""
    rate = session.get(TaxRateRow, tax_rate_id)
    if rate is None or rate.account_id != caller.account_id:
        raise NotFound("tax_rate", str(tax_rate_id))
    return TaxRateReport.of(rate)


@router.patch(
    "/v1/tax-rates/{tax_rate_id}",
    summary="End a tax rate",
    responses=writes("tax_rate_not_found"),
)
def end(
    tax_rate_id: UUID, changes: TaxRateChanges, caller: Writer, session: Transaction
) -> TaxRateReport:
    """Drafts follow; finalized invoices keep what they say, whatever day it is."""
    if "valid_to" not in changes:
        return show(tax_rate_id, caller, session)
    rate = end_tax_rate(session, caller.account_id, tax_rate_id, changes["valid_to"])
    return TaxRateReport.of(rate)
