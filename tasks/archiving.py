"""Archived clients: nothing new is billed to them, and all that was stays."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from billing.cycles import BillingCycle
from billing.errors import InvalidInput, RuleViolation
from billing.invoice_states import InvoiceStatus
from models import Client, Invoice


def with_archiving(
    session: Session, client: Client, changes: Mapping[str, Any], *, now: datetime
) -> dict[str, Any]:
    """``changes`` of a client with what ``archived`` means for its other fields.

    An archived client is on no cycle, and stays off it when it is archived no more. To archive,
    hold the client alone (``client_alone``): whoever records a charge for it meanwhile is waited
    for.

    Raises:
        InvalidInput: It would be archived and on a cycle at once.
        RuleViolation: It has a draft (``client_has_drafts``), or is archived and would go on a
            cycle (``client_archived``).
    """
    changes = dict(changes)
    match changes.pop("archived", None):
        case True:
            if changes.get("billing_cycle", BillingCycle.MANUAL) != BillingCycle.MANUAL:
                raise InvalidInput("billing_cycle", "must be manual for an archived client")
            _require_no_drafts(session, client)
            changes["billing_cycle"] = BillingCycle.MANUAL.value
            changes["archived_at"] = client.archived_at or now
        case False:
            changes["archived_at"] = None
        case None if changes.get("billing_cycle", BillingCycle.MANUAL) != BillingCycle.MANUAL:
            require_not_archived(client)
        case None:
            pass
        case _:
            raise InvalidInput("archived", "must be true or false")
    return changes


def require_not_archived(client: Client) -> None:
    """Check that a client may be billed. Hold its lock, or look again under it.

    Raises:
        RuleViolation: It is archived (``client_archived``).
    """
    if client.archived_at is not None:
        raise RuleViolation(
            "client_archived", "the client is archived: nothing new is billed to it"
        )


def _require_no_drafts(session: Session, client: Client) -> None:
    draft = session.scalar(
        select(Invoice.id)
        .where(Invoice.client_id == client.id, Invoice.status == InvoiceStatus.DRAFT)
        .limit(1)
    )
    if draft is not None:
        raise RuleViolation(
            "client_has_drafts",
            f"invoice {draft} of this client is a draft: finalize or delete it first",
        )
