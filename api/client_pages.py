"""A client's own page, by the link it was sent: what it owes, and the cards it is charged on."""

from contextlib import suppress
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from sqlalchemy.orm import Session

from api.browser_pages import Waiting, go_to, is_asked_here, page, page_alone
from api.client_links import links_of
from api.transactions import EngineOf, Transaction, turn
from billing.errors import NotFound, RuleViolation
from models import CardRole, CardSetup, Client, SetupState
from models.database import database_now
from tasks.billing_methods import remove_backup_method, remove_billing_method
from tasks.card_setups import ask_after_setup, ask_for_setup
from tasks.client_pages import client_page, swap_cards
from tasks.links import LinkExpired

router = APIRouter(include_in_schema=False)

OPENED_IN_SECONDS = 5.0
"""How long a click waits for Stripe's page, before it shows a page of its own."""

TOLD_IN_SECONDS = 4.0
"""How long who comes back from there waits for Stripe to say that a card was left."""

CLIENT = "client"
"""Who asks for what is done here."""

_GET = ["GET", "HEAD"]
_ROLES = {"card": CardRole.DEFAULT, "backup-card": CardRole.BACKUP}


class PageRefused(Exception):  # noqa: N818 - named as the fact it states
    """What is answered instead of the page."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


async def answer_instead(_request: Request, refused: PageRefused) -> Response:
    """The page that says why there is none."""
    return refused.response


def client_linked(token: str, request: Request) -> UUID:
    """The client that an address is for.

    Raises:
        PageRefused: We have signed no such link, or too long ago.
    """
    links = links_of(request)
    if links is None:
        raise PageRefused(page_alone("no_such_page.html", 404))
    try:
        return links.client_of(token)
    except NotFound:
        raise PageRefused(page_alone("no_such_page.html", 404)) from None
    except LinkExpired:
        raise PageRefused(page_alone("link_expired.html", 410)) from None


Linked = Annotated[UUID, Depends(client_linked)]


def asked_here(token: str, request: Request) -> None:
    """Take a form only from our own page, as far as the browser tells where it is from.

    Raises:
        PageRefused: It comes from elsewhere.
    """
    if not is_asked_here(request):
        raise PageRefused(page(request, "start_on_your_page.html", status=403, here=_here(token)))


AskedHere = Depends(asked_here)


@router.api_route("/p/{token}", methods=_GET)
def show_client(
    token: str, linked: Linked, session: Transaction, request: Request, left: str | None = None
) -> Response:
    """All of it. ``left`` says that the client comes from leaving a card."""
    links = links_of(request)
    try:
        shown = client_page(session, linked, database_now(session))
    except NotFound:
        return page_alone("no_such_page.html", 404)
    setup = _setup(session, linked, left)
    return page(
        request,
        "portal.html",
        shown=shown,
        here=_here(token),
        link_to=links.to_invoice if links is not None else None,
        is_awaited=setup is not None and setup.state == SetupState.OPEN,
        was_left=setup is not None and setup.state == SetupState.COMPLETED,
    )


@router.post("/p/{token}/{which}/add", dependencies=[AskedHere])
def add_card(
    token: str,
    which: str,
    linked: Linked,
    request: Request,
    engine: EngineOf,
    _turn: Annotated[None, Depends(turn, scope="function")],
) -> Response:
    """Send the client to a page at Stripe, as soon as one is open, to leave a card there."""
    links, role = links_of(request), _ROLES.get(which)
    if links is None or role is None:
        return page_alone("no_such_page.html", 404)
    with Session(engine) as session, session.begin():
        now = database_now(session)
        shown = client_page(session, linked, now)
        if role is CardRole.BACKUP and not shown.takes_backup:
            return go_to(_here(token))
        setup = ask_for_setup(
            session, linked, role, return_url=links.portal(token), now=now, requested_by=CLIENT
        )
        setup_id = setup.id

    def look(session: Session) -> str | None:
        setup = session.get_one(CardSetup, setup_id)
        if setup.state != SetupState.OPEN:
            return _here(token)
        return setup.url

    waiting = f"{_here(token)}/opening/{setup_id}"
    return Waiting(engine, look, seconds=OPENED_IN_SECONDS, otherwise=waiting)


@router.api_route("/p/{token}/opening/{setup_id}", methods=_GET)
def wait_to_add(
    token: str, setup_id: str, linked: Linked, session: Transaction, request: Request
) -> Response:
    """Send the client on once the page is open; until then it looks again by itself."""
    setup = _setup(session, linked, setup_id)
    if setup is None or setup.state != SetupState.OPEN:
        return go_to(_here(token))
    if setup.url is not None:
        return go_to(setup.url)
    return page(request, "opening.html", here=_here(token))


@router.get("/p/{token}/left/{setup_id}")
def come_back(
    token: str,
    setup_id: str,
    linked: Linked,
    engine: EngineOf,
    _turn: Annotated[None, Depends(turn, scope="function")],
) -> Response:
    """Where Stripe sends a client that has left a card: Stripe is asked, and the page shown."""
    with Session(engine) as session, session.begin():
        setup = _setup(session, linked, setup_id)
        if setup is None:
            return go_to(_here(token))
        asked = setup.id
        ask_after_setup(session, setup, requested_by=CLIENT)
    shown = f"{_here(token)}?left={asked}"

    def look(session: Session) -> str | None:
        return shown if session.get_one(CardSetup, asked).state != SetupState.OPEN else None

    return Waiting(engine, look, seconds=TOLD_IN_SECONDS, otherwise=shown)


@router.post("/p/{token}/{which}/remove", dependencies=[AskedHere])
def remove_card(token: str, which: str, linked: Linked, session: Transaction) -> Response:
    """Charge one of the client's cards no more. One that is gone already is no mistake."""
    client = session.get_one(Client, linked)
    now = database_now(session)
    try:
        match _ROLES.get(which):
            case CardRole.DEFAULT:
                remove_billing_method(
                    session, client.account_id, client.id, now=now, requested_by=CLIENT
                )
            case CardRole.BACKUP:
                remove_backup_method(session, client.account_id, client.id, requested_by=CLIENT)
            case None:
                return page_alone("no_such_page.html", 404)
    except NotFound:
        pass
    return go_to(_here(token))


@router.post("/p/{token}/use-as-backup", dependencies=[AskedHere])
def use_as_backup(token: str, linked: Linked, session: Transaction) -> Response:
    """Charge the second card from now on, and keep the first one behind it."""
    # Where there are no two any more, the page shows what there is.
    with suppress(RuleViolation):
        swap_cards(session, linked, now=database_now(session), requested_by=CLIENT)
    return go_to(_here(token))


def _setup(session: Session, client_id: UUID, setup_id: str | None) -> CardSetup | None:
    """A page of this client's for a card, by what stands in the address."""
    try:
        setup = session.get(CardSetup, UUID(setup_id or ""))
    except ValueError:
        return None
    return setup if setup is not None and setup.client_id == client_id else None


def _here(token: str) -> str:
    return f"/p/{token}"
