"""A client's own page, by the link it was sent: what it owes, and the cards it is charged on.

The token in the address is all the right there is, so it is kept: nothing is loaded from
elsewhere, and no other site is told where the client came from.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit
from uuid import UUID

import anyio
import structlog
from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from api.transactions import EngineOf, Transaction, turn
from billing.errors import NotFound, RuleViolation
from models import CardRole, CardSetup, Client, SetupState
from models.database import database_now
from tasks.billing_methods import remove_backup_method, remove_billing_method
from tasks.card_setups import ask_after_setup, ask_for_setup
from tasks.client_pages import client_page, swap_cards
from tasks.links import LinkExpired, Links

router = APIRouter(include_in_schema=False)

OPENED_IN_SECONDS = 5.0
"""How long a click waits for Stripe's page, before it shows a page of its own."""

TOLD_IN_SECONDS = 4.0
"""How long who comes back from there waits for Stripe to say that a card was left."""

LOOK_EVERY_SECONDS = 0.1

CLIENT = "client"
"""Who asks for what is done here."""

_GET = ["GET", "HEAD"]
_ROLES = {"card": CardRole.DEFAULT, "backup-card": CardRole.BACKUP}

_log = structlog.get_logger(__name__)
_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent.parent / "templates" / "pages"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


class PageRefused(Exception):  # noqa: N818 - named as the fact it states
    """What is answered instead of the page."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


async def answer_instead(_request: Request, refused: PageRefused) -> Response:
    """The page that says why there is none."""
    return refused.response


def links_of(request: Request) -> Links | None:
    """What makes and reads the links; ``None`` where this process was given no key."""
    links: Links | None = request.app.state.links
    return links


def client_linked(token: str, request: Request) -> UUID:
    """The client that an address is for.

    Raises:
        PageRefused: We have signed no such link, or too long ago.
    """
    links = links_of(request)
    if links is None:
        raise PageRefused(_alone("no_such_page.html", 404))
    try:
        return links.client_of(token)
    except NotFound:
        raise PageRefused(_alone("no_such_page.html", 404)) from None
    except LinkExpired:
        raise PageRefused(_alone("link_expired.html", 410)) from None


Linked = Annotated[UUID, Depends(client_linked)]


def asked_here(token: str, request: Request) -> None:
    """Take a form only from our own page, as far as the browser tells where it is from.

    Another site knows no token, so this only keeps one that was passed on from being used unseen.

    Raises:
        PageRefused: It comes from elsewhere.
    """
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin", "null")
    is_ours = (
        site in {"same-origin", "none"}
        if site is not None
        # What a browser says that was told not to say where it comes from.
        else origin == "null" or urlsplit(origin).netloc == request.headers.get("host")
    )
    if not is_ours:
        raise PageRefused(_page(request, "start_on_your_page.html", status=403, here=_here(token)))


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
        return _alone("no_such_page.html", 404)
    setup = _setup(session, linked, left)
    return _page(
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
        return _alone("no_such_page.html", 404)
    with Session(engine) as session, session.begin():
        now = database_now(session)
        shown = client_page(session, linked, now)
        if role is CardRole.BACKUP and not shown.takes_backup:
            return _go_to(_here(token))
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
    return _Waiting(engine, look, seconds=OPENED_IN_SECONDS, otherwise=waiting)


@router.api_route("/p/{token}/opening/{setup_id}", methods=_GET)
def wait_to_add(
    token: str, setup_id: str, linked: Linked, session: Transaction, request: Request
) -> Response:
    """Send the client on once the page is open; until then it looks again by itself."""
    setup = _setup(session, linked, setup_id)
    if setup is None or setup.state != SetupState.OPEN:
        return _go_to(_here(token))
    if setup.url is not None:
        return _go_to(setup.url)
    return _page(request, "opening.html", here=_here(token))


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
            return _go_to(_here(token))
        asked = setup.id
        ask_after_setup(session, setup, requested_by=CLIENT)
    shown = f"{_here(token)}?left={asked}"

    def look(session: Session) -> str | None:
        return shown if session.get_one(CardSetup, asked).state != SetupState.OPEN else None

    return _Waiting(engine, look, seconds=TOLD_IN_SECONDS, otherwise=shown)


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
                return _alone("no_such_page.html", 404)
    except NotFound:
        pass
    return _go_to(_here(token))


@router.post("/p/{token}/use-as-backup", dependencies=[AskedHere])
def use_as_backup(token: str, linked: Linked, session: Transaction) -> Response:
    """Charge the second card from now on, and keep the first one behind it."""
    # Where there are no two any more, the page shows what there is.
    with suppress(RuleViolation):
        swap_cards(session, linked, now=database_now(session), requested_by=CLIENT)
    return _go_to(_here(token))


class _Waiting(Response):
    """Goes on as soon as it is known where to, else to a page where the client waits.

    It holds neither a thread nor a connection between two looks.
    """

    def __init__(
        self,
        engine: Engine,
        look: Callable[[Session], str | None],
        *,
        seconds: float,
        otherwise: str,
    ) -> None:
        super().__init__()
        self._engine = engine
        self._look_in = look
        self._seconds = seconds
        self._otherwise = otherwise

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        deadline = time.monotonic() + self._seconds
        address = await run_in_threadpool(self._look)
        while address is None and time.monotonic() < deadline:
            await anyio.sleep(LOOK_EVERY_SECONDS)
            address = await run_in_threadpool(self._look)
        await _go_to(address or self._otherwise)(scope, receive, send)

    def _look(self) -> str | None:
        """Where to go; ``None`` while that is not known."""
        try:
            with Session(self._engine) as session, session.begin():
                return self._look_in(session)
        except SQLAlchemyError as error:
            _log.warning("could not look for the page", error=str(error).split("\n", 1)[0])
            return None


def _setup(session: Session, client_id: UUID, setup_id: str | None) -> CardSetup | None:
    """A page of this client's for a card, by what stands in the address."""
    try:
        setup = session.get(CardSetup, UUID(setup_id or ""))
    except ValueError:
        return None
    return setup if setup is not None and setup.client_id == client_id else None


def _here(token: str) -> str:
    return f"/p/{token}"


def _go_to(address: str) -> RedirectResponse:
    return RedirectResponse(address, status_code=303, headers=_PRIVATE)


def _alone(name: str, status: int) -> HTMLResponse:
    """A page without a way on."""
    page = _templates.get_template(name)
    return HTMLResponse(page.render(), status_code=status, headers=_headers("'none'"))


def _page(request: Request, name: str, *, status: int = 200, **facts: object) -> HTMLResponse:
    page = _templates.get_template(name)
    links = links_of(request)
    # A button leads here, and from here to Stripe, under a name of the account's, too.
    targets = "'self' https:" if links is not None and links.is_secure else "'self' https: http:"
    return HTMLResponse(page.render(**facts), status_code=status, headers=_headers(targets))


_PRIVATE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Robots-Tag": "noindex, nofollow",
}


def _headers(form_targets: str) -> dict[str, str]:
    return {
        **_PRIVATE,
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
        f"base-uri 'none'; form-action {form_targets}; frame-ancestors 'none'",
        "X-Frame-Options": "DENY",
    }
