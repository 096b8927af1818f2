"""Changing a draft, which is written at once."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from api.auth import Writer
from api.fields import FORBID_UNKNOWN, IsoDate, Name, Note
from api.invoice_commands import MAX_SELECTED
from api.invoices import InvoiceReport, report_of
from api.operations import writes
from api.transactions import Transaction
from models.database import database_now
from tasks.draft_editing import edit_draft

router = APIRouter(tags=["invoices"])

_CHARGE = "019ae8a3-5c00-7000-8000-000000000004"
_EXAMPLE: dict[str, Any] = {
    "add_charges": [_CHARGE],
    "po_number": "PO-7781",
    "due_on": "2026-07-15",
}

ChargeIds = Annotated[list[UUID], Field(max_length=MAX_SELECTED)]


class DraftChanges(TypedDict, total=False):
    """What to change; what is left out stays, null clears.

    `add_charges` are open charges of the draft's client in its currency; `remove_charges` are on
    the draft, and are open again. `memo` and `po_number` are shown on the invoice; `due_on` stands
    in for the day that the client's net days come to, unless the invoice is issued after it.
    """

    __pydantic_config__ = FORBID_UNKNOWN | ConfigDict(  # type: ignore[misc]  # pydantic's way.
        json_schema_extra={"examples": [_EXAMPLE]}
    )

    add_charges: ChargeIds
    remove_charges: ChargeIds
    memo: Note | None
    po_number: Name | None
    due_on: IsoDate | None


class DeletedDraft(BaseModel):
    """A draft that is no more: its last charge was removed."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"id": "019ae8a3-5c00-7000-8000-000000000003", "deleted": True}]
        }
    )

    id: UUID
    deleted: bool


@router.patch(
    "/v1/invoices/{invoice_id}",
    summary="Change a draft",
    responses=writes(
        "invoice_not_found", "invoice_not_draft", "charge_not_found", "charge_already_invoiced"
    ),
)
def change(
    invoice_id: UUID, changes: DraftChanges, caller: Writer, session: Transaction
) -> InvoiceReport | DeletedDraft:
    """Its totals follow. All of the changes are made, or none.

    A draft whose last charge is removed is deleted, as when that charge is; the answer is then its
    id and `deleted`. The billing period that it was for, if any, is `empty`.
    """
    draft = edit_draft(session, caller.account_id, invoice_id, changes, now=database_now(session))
    if draft is None:
        return DeletedDraft(id=invoice_id, deleted=True)
    # Its client sees no draft, so nothing leads to it.
    return report_of(session, draft, links=None)
