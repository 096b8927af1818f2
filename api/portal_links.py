"""Links to clients' own pages, for whoever shows or sends them."""

from datetime import UTC, datetime
from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict

from api.auth import Writer
from api.clients import client_of
from api.idempotency import OnceOnly
from api.operations import posts
from api.problems import Refusal
from api.transactions import Transaction
from tasks.links import PORTAL_LINKS_LIVE

router = APIRouter(tags=["clients"])


class PortalLink(BaseModel):
    """Where a client sees its invoices, credit and cards, and until when."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "url": "https://billing.bluebird-prep.example/p/IjAxOWFlOGEzIg.aSrq4A.kQx5",
                    "expires_at": "2026-07-01T12:00:00Z",
                }
            ]
        }
    )

    url: str
    expires_at: datetime


@router.post(
    "/v1/clients/{client_id}/portal-link",
    summary="Make a link to a client's own page",
    status_code=201,
    response_model=PortalLink,
    responses=posts("client_not_found", "links_not_configured"),
)
def make_link(
    client_id: UUID, request: Request, caller: Writer, session: Transaction, once: OnceOnly
) -> Response:
    """Whoever has it sees the client's invoices, and can change its cards: give it to nobody else.

    It is good for 30 days, and cannot be taken back.
    """
    client = client_of(session, caller, client_id)
    links = request.app.state.links
    if links is None:
        raise Refusal("links_not_configured", "This server has no SECRET_KEY to sign links with.")
    # Signed by this clock, to the second.
    expires_at = datetime.now(UTC).replace(microsecond=0) + PORTAL_LINKS_LIVE
    link = PortalLink(url=links.to_portal(client.id), expires_at=expires_at)
    return once.done(link, status=201)
