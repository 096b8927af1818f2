"""Charges: recorded, edited and deleted at once; billed by drafts."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import date, datetime
from typing import Annotated, Any
from uuid import UUID
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag
from sqlalchemy import or_, select
from sqlalchemy.orm import Session
from typing_extensions import TypedDict

from api.auth import Caller, Reader, Writer
from api.fields import (
    FORBID_UNKNOWN,
    Amount,
    CurrencyCode,
    DecimalText,
    Description,
    IsoDate,
    Metadata,
    ShortText,
    TaxRateIds,
    plain,
)
from api.idempotency import OnceOnly
from api.operations import posts, reads, writes
from api.paging import Paging, newest_first
from api.problems import FieldError, Refusal, field_path
from api.shapes import Page
from api.transactions import Transaction
from billing.cycles import local_date
from billing.errors import InvalidInput, NotFound, RuleViolation
from billing.invoice_states import InvoiceStatus
from models import Account, Charge, ChargeState, Client, Invoice
from models.database import database_now
from tasks.amending import change_charge, remove_charge
from tasks.charges import NewCharge, Recorded, Refused, record_charges

router = APIRouter(tags=["charges"])

MAX_CHARGES = 1_000

_NEW: dict[str, Any] = {
    "client": "019ae8a3-5c00-7000-8000-000000000001",
    "description": "FNSKU labelling",
    "quantity": "40",
    "unit_price": "0.2750",
    "currency": "usd",
    "charged_on": "2026-05-12",
    "external_ref": "work-order-991",
    "category": "prep",
}


class ChargeCreation(BaseModel):
    """One piece of work to bill: `unit_price` in major units, or `amount` in minor units."""

    model_config = FORBID_UNKNOWN | ConfigDict(json_schema_extra={"examples": [_NEW]})

    client: UUID
    description: Description
    quantity: DecimalText | None = Field(default=None, description="1 if left out.")
    unit_price: DecimalText | None = None
    amount: Amount | None = None
    currency: CurrencyCode | None = Field(
        default=None, description="The client's, else the account's, if left out."
    )
    charged_on: IsoDate | None = Field(
        default=None, description="Today in the client's zone if left out."
    )
    external_ref: ShortText | None = Field(
        default=None, description="Unique in the account; with the same content, the same charge."
    )
    category: ShortText | None = None
    tax_rates: TaxRateIds | None = Field(
        default=None, description="The client's, else the account's, if left out; none if empty."
    )
    metadata: Metadata = {}


class ChargesCreation(BaseModel):
    """Up to a thousand charges, recorded all or none."""

    model_config = FORBID_UNKNOWN | ConfigDict(
        json_schema_extra={"examples": [{"charges": [_NEW]}]}
    )

    charges: Annotated[list[ChargeCreation], Field(min_length=1, max_length=MAX_CHARGES)]


class ChargeChanges(TypedDict, total=False):
    """What to change; what is left out stays. A new `amount` replaces the price, and vice versa."""

    __pydantic_config__ = FORBID_UNKNOWN | ConfigDict(  # type: ignore[misc]  # pydantic's way.
        json_schema_extra={"examples": [{"quantity": "42"}]}
    )

    description: Description
    quantity: DecimalText
    unit_price: DecimalText | None
    amount: Amount | None
    charged_on: IsoDate
    category: ShortText | None
    tax_rates: TaxRateIds | None
    metadata: Metadata


_ID = "019ae8a3-5c00-7000-8000-000000000004"
_AMENDMENT_ID = "019ae8a3-5c00-7000-8000-000000000007"

_EXAMPLE: dict[str, Any] = {
    "id": _ID,
    **_NEW,
    "unit_price": "0.275",
    "amount": 1100,
    "tax_rates": None,
    "metadata": {},
    "state": "open",
    "invoice": None,
    "copy_of": None,
    "amends": None,
    "amendments": [],
    "created_at": "2026-05-12T16:20:00Z",
}
_AMENDED: dict[str, Any] = {
    **_EXAMPLE,
    "state": "locked",
    "invoice": "019ae8a3-5c00-7000-8000-000000000003",
    "amendments": [{"id": _AMENDMENT_ID, "amount": 55, "state": "open", "invoice": None}],
    "amendment": _AMENDMENT_ID,
}


class AmendmentReport(BaseModel):
    """A charge that bills a difference to another, signed, in minor units."""

    id: UUID
    amount: int
    state: ChargeState
    invoice: UUID | None


class ChargeReport(BaseModel):
    """A charge: `open`, `invoiced` on a draft, or `locked` on a finalized invoice.

    One that `amends` a locked charge bills the difference to what that was invoiced for; a locked
    charge lists its `amendments`, but for those on void invoices, which count for nothing: all of
    them and its own `amount` sum to what was last asked for.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    id: UUID
    client: UUID
    description: str
    quantity: str
    unit_price: str | None
    amount: int
    currency: str
    charged_on: date
    external_ref: str | None
    category: str | None
    tax_rates: list[UUID] | None
    metadata: dict[str, Any]
    state: ChargeState
    invoice: UUID | None
    copy_of: UUID | None
    amends: UUID | None
    amendments: list[AmendmentReport]
    created_at: datetime


class ChangedReport(ChargeReport):
    """A charge after an edit. A locked one is as it was; `amendment` bills the difference.

    That is the open charge among its `amendments`, null where there is nothing left to bill.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [_AMENDED]})

    amendment: UUID | None


class DeletedReport(BaseModel):
    """What was deleted. A locked charge stays; `amendment` takes back what it was billed for.

    That is null where nothing, or no more, is to be taken back.
    """

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"id": _ID, "deleted": True, "amendment": None}]}
    )

    id: UUID
    deleted: bool
    amendment: UUID | None


class ChargeFilters(Paging):
    """Which charges to list. `invoiced` is on any invoice, `locked` on a finalized one."""

    client: UUID | None = None
    state: ChargeState | None = None


def _one_or_many(body: object) -> str:
    return "many charges" if isinstance(body, dict) and "charges" in body else "one charge"


OneOrMany = Annotated[
    Annotated[ChargeCreation, Tag("one charge")] | Annotated[ChargesCreation, Tag("many charges")],
    Discriminator(_one_or_many),
]


@router.post(
    "/v1/charges",
    summary="Record one charge or many",
    status_code=201,
    response_model=ChargeReport | Page[ChargeReport],
    responses={
        200: {
            "model": ChargeReport | Page[ChargeReport],
            "description": "Every charge was recorded before, with the same content",
        },
        **posts("client_not_found", "client_archived", "external_ref_taken"),
    },
)
def record(body: OneOrMany, caller: Writer, session: Transaction, once: OnceOnly) -> Response:
    """All or none. One is answered with the charge, many with a list in the order they came in.

    An unknown client is 404 `client_not_found` for one charge; among many it is 422 `invalid`,
    which names every `charges[i].client` that is unknown.
    """
    one = isinstance(body, ChargeCreation)
    bodies = [body] if isinstance(body, ChargeCreation) else body.charges
    new = _with_defaults(session, caller, bodies, one=one)
    recorded = _recorded(record_charges(session, caller.account_id, new), one=one)
    status = 201 if any(answer.created for answer in recorded) else 200
    reports = _reports(session, [answer.charge_id for answer in recorded])
    if one:
        return once.done(reports[0], status=status, location=f"/v1/charges/{recorded[0].charge_id}")
    return once.done(Page[ChargeReport](data=reports), status=status)


@router.get("/v1/charges", summary="List charges", responses=reads())
def list_charges(
    filters: Annotated[ChargeFilters, Query()], caller: Reader, session: Transaction
) -> Page[ChargeReport]:
    """Newest first."""
    charges = select(Charge).where(Charge.account_id == caller.account_id)
    if filters.client is not None:
        charges = charges.where(Charge.client_id == filters.client)
    match filters.state:
        case ChargeState.OPEN:
            charges = charges.where(Charge.invoice_id.is_(None))
        case ChargeState.INVOICED:
            charges = charges.where(Charge.invoice_id.is_not(None))
        case ChargeState.LOCKED:
            charges = charges.join(Invoice, Invoice.id == Charge.invoice_id).where(
                Invoice.status != InvoiceStatus.DRAFT
            )
        case None:
            pass
    found = newest_first(session, charges, Charge.id, filters, read=UUID)
    return Page(
        data=_reports(session, [charge.id for charge in found.rows]),
        next_cursor=found.next_cursor,
    )


@router.get("/v1/charges/{charge_id}", summary="Show a charge", responses=reads("charge_not_found"))
def show_charge(charge_id: UUID, caller: Reader, session: Transaction) -> ChargeReport:
    """One charge."""
    charge = session.get(Charge, charge_id)
    if charge is None or charge.account_id != caller.account_id:
        raise NotFound("charge", str(charge_id))
    return _reports(session, [charge_id])[0]


@router.patch(
    "/v1/charges/{charge_id}",
    summary="Change a charge",
    responses=writes(
        "charge_not_found",
        "charge_locked",
        "charge_voided",
        "edit_the_original",
        "line_already_credited",
        "refund_in_flight",
        "client_archived",
    ),
)
def change(
    charge_id: UUID, changes: ChargeChanges, caller: Writer, session: Transaction
) -> ChangedReport:
    """The total of a draft that it is on follows.

    A locked charge stays as it was invoiced: the difference to its new price is billed by an
    amendment, an open charge that the next invoice takes. What is left out of a new price is as
    it was invoiced, so the same request again changes nothing, and the invoiced price takes an
    open amendment away. Nothing else of a locked charge can be changed (`charge_locked`).
    """
    now = database_now(session)
    amendment = change_charge(session, caller.account_id, charge_id, changes, now=now)
    [charge] = _reports(session, [charge_id])
    return ChangedReport(**charge.model_dump(), amendment=amendment)


@router.delete(
    "/v1/charges/{charge_id}",
    summary="Delete a charge",
    responses=reads(
        "charge_not_found",
        "charge_voided",
        "edit_the_original",
        "line_already_credited",
        "refund_in_flight",
        "client_archived",
    ),
)
def delete(charge_id: UUID, caller: Writer, session: Transaction) -> DeletedReport:
    """A draft that loses its last charge is deleted too.

    A locked charge stays; an amendment, an open charge that the next invoice takes, brings what it
    is billed for to nothing.
    """
    deleted, amendment = remove_charge(
        session, caller.account_id, charge_id, now=database_now(session)
    )
    return DeletedReport(id=charge_id, deleted=deleted, amendment=amendment)


def _with_defaults(
    session: Session, caller: Caller, bodies: Sequence[ChargeCreation], *, one: bool
) -> list[NewCharge]:
    """The charges with what their clients and the account stand in for.

    Raises:
        NotFound: The client of the one charge is unknown.
        Refusal: A client of many charges is unknown; every such charge is named.
    """
    account = session.get_one(Account, caller.account_id)
    now = database_now(session)
    wanted = {body.client for body in bodies}
    clients = {
        client.id: client
        for client in session.scalars(
            select(Client).where(Client.account_id == account.id, Client.id.in_(wanted))
        )
    }
    unknown = [
        FieldError(
            field=field_path(("charges", index, "client")),
            message="must be the id of one of your clients",
        )
        for index, body in enumerate(bodies)
        if body.client not in clients
    ]
    if unknown and one:
        raise NotFound("client", str(bodies[0].client))
    if unknown:
        raise Refusal("invalid", "There is no such client.", unknown)
    zones: dict[UUID, ZoneInfo] = {id_: client.zone(account) for id_, client in clients.items()}
    return [
        NewCharge(
            client_id=body.client,
            description=body.description,
            currency=body.currency or clients[body.client].currency or account.currency,
            charged_on=body.charged_on or local_date(now, zones[body.client]),
            quantity=body.quantity,
            unit_price=body.unit_price,
            amount=body.amount,
            external_ref=body.external_ref,
            category=body.category,
            tax_rates=body.tax_rates,
            metadata=body.metadata,
            assumed=frozenset(
                name for name in ("currency", "charged_on") if getattr(body, name) is None
            ),
        )
        for body in bodies
    ]


def _recorded(answers: Sequence[Recorded | Refused], *, one: bool) -> list[Recorded]:
    """The answers, if none is a refusal.

    Raises:
        Refusal: Some are. Wrong values come before references that are taken.
    """
    wrong: list[FieldError] = []
    taken: list[FieldError] = []
    archived: list[FieldError] = []
    recorded: list[Recorded] = []
    for index, answer in enumerate(answers):
        match answer:
            case Recorded():
                recorded.append(answer)
            case Refused(InvalidInput() as error):
                field = _field(index, error.field, one=one)
                wrong.append(FieldError(field=field, message=error.message))
            case Refused(RuleViolation(code="client_archived") as error):
                field = _field(index, "client", one=one)
                archived.append(FieldError(field=field, message=error.message))
            case Refused(RuleViolation() as error):
                field = _field(index, "external_ref", one=one)
                taken.append(FieldError(field=field, message=error.message))
    if wrong:
        raise Refusal("invalid", "Some values are wrong; nothing was recorded.", wrong)
    if archived:
        raise Refusal("client_archived", "A client is archived; nothing was recorded.", archived)
    if taken:
        raise Refusal(
            "external_ref_taken",
            "An external_ref belongs to a charge with other content; nothing was recorded.",
            taken,
        )
    return recorded


def _field(index: int, name: str, *, one: bool) -> str:
    return name if one else field_path(("charges", index, name))


def _reports(session: Session, ids: Sequence[UUID]) -> list[ChargeReport]:
    """The charges with these ids, in this order."""
    rows = session.execute(
        select(Charge, Invoice.status)
        .outerjoin(Invoice, Invoice.id == Charge.invoice_id)
        .where(Charge.id.in_(ids))
        .execution_options(populate_existing=True)
    )
    amendments = _amendments_of(session, ids)
    reports = {
        charge.id: _report(charge, status, amendments.get(charge.id, [])) for charge, status in rows
    }
    return [reports[charge_id] for charge_id in ids]


def _amendments_of(
    session: Session, ids: Sequence[UUID]
) -> dict[UUID | None, list[AmendmentReport]]:
    """What bills a difference to each of these charges, oldest first."""
    rows = session.execute(
        select(Charge, Invoice.status)
        .outerjoin(Invoice, Invoice.id == Charge.invoice_id)
        .where(
            Charge.amends.in_(ids),
            or_(Charge.invoice_id.is_(None), Invoice.status != InvoiceStatus.VOID),
        )
        .order_by(Charge.id)
        .execution_options(populate_existing=True)
    )
    amendments: dict[UUID | None, list[AmendmentReport]] = defaultdict(list)
    for charge, status in rows:
        amendments[charge.amends].append(
            AmendmentReport(
                id=charge.id,
                amount=charge.amount,
                state=_state(status),
                invoice=charge.invoice_id,
            )
        )
    return amendments


def _state(status: str | None) -> ChargeState:
    """Where a charge stands, by the status of the invoice it is on, if any."""
    if status is None:
        return ChargeState.OPEN
    return ChargeState.INVOICED if status == InvoiceStatus.DRAFT else ChargeState.LOCKED


def _report(charge: Charge, status: str | None, amendments: list[AmendmentReport]) -> ChargeReport:
    return ChargeReport(
        id=charge.id,
        client=charge.client_id,
        description=charge.description,
        quantity=plain(charge.quantity),
        unit_price=None if charge.unit_price is None else plain(charge.unit_price),
        amount=charge.amount,
        currency=charge.currency,
        charged_on=charge.charged_on,
        external_ref=charge.external_ref,
        category=charge.category,
        tax_rates=charge.tax_rates,
        metadata=charge.details,
        state=_state(status),
        invoice=charge.invoice_id,
        copy_of=charge.copy_of,
        amends=charge.amends,
        amendments=amendments,
        created_at=charge.created_at,
    )
