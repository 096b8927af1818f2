"""The client's page of an invoice, by the link in its mails: what is due, and a way to pay it.

The token in the address is all the right there is, so it is kept: nothing is loaded from
elsewhere, and no other site is told where the client came from.
"""

import time
from datetime import timedelta
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

from api.client_links import LinksOf, links_of
from api.documents import DocumentsOf, PdfAnswer
from api.transactions import EngineOf, Transaction, turn
from billing.errors import NotFound
from billing.job_states import FINAL
from models import Job
from models.database import database_now
from tasks.hosted_invoices import (
    Standing,
    ask_after_payment,
    ask_for_page,
    finalized_invoice,
    hosted_invoice,
    page_address,
    page_asked_for,
    standing_of,
)
from tasks.invoice_documents import filename, invoice_document

router = APIRouter(include_in_schema=False)

OPENED_IN_SECONDS = 5.0
"""How long the click waits for Stripe's page, before it shows a page of its own."""

LOOK_EVERY_SECONDS = 0.1

TOO_LONG = timedelta(minutes=1)
"""Who has waited for so long is told that it may take a while."""

_PAYABLE = frozenset({Standing.PAYABLE, Standing.TO_CONFIRM})
_GET = ["GET", "HEAD"]

_log = structlog.get_logger(__name__)
_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent.parent / "templates" / "pages"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def invoice_linked(token: str, links: LinksOf) -> UUID | None:
    """The invoice that an address is for; ``None`` where we have signed no such link."""
    if links is None:
        return None
    try:
        return links.invoice_of(token)
    except NotFound:
        return None


Linked = Annotated[UUID | None, Depends(invoice_linked)]


@router.api_route("/i/{token}.pdf", methods=_GET)
def show_pdf(
    linked: Linked, session: Transaction, documents: DocumentsOf, links: LinksOf
) -> Response:
    """The invoice as the client got it by mail; what was paid since is on it."""
    try:
        invoice = finalized_invoice(session, _known(linked))
    except NotFound:
        return _not_found()
    return PdfAnswer(
        documents,
        invoice_document(session, invoice, links),
        filename(invoice),
        headers=_PRIVATE,
    )


@router.api_route("/i/{token}", methods=_GET)
def show_invoice(
    token: str, linked: Linked, session: Transaction, request: Request, paid: str | None = None
) -> Response:
    """The invoice, and how it stands. ``paid`` says that the client comes from paying it."""
    try:
        shown = hosted_invoice(session, _known(linked), database_now(session))
    except NotFound:
        return _not_found()
    is_payable = shown.standing in _PAYABLE
    return _page(
        request,
        "invoice.html",
        shown=shown,
        doc=shown.document,
        standing=shown.standing.value,
        is_payable=is_payable,
        # Stripe has not told yet, or the client has changed its mind.
        is_awaited=is_payable and paid is not None,
        here=f"/i/{token}",
    )


@router.post("/i/{token}/pay")
def pay(
    token: str,
    linked: Linked,
    request: Request,
    engine: EngineOf,
    _turn: Annotated[None, Depends(turn, scope="function")],
) -> Response:
    """Send the client to a page at Stripe, as soon as one is open for what is due."""
    if not _is_asked_here(request):
        return _page(request, "not_from_here.html", status=403, here=f"/i/{token}")
    here = f"/i/{token}"
    try:
        invoice_id = _known(linked)
        with Session(engine) as session, session.begin():
            invoice = finalized_invoice(session, invoice_id)
            address = page_address(session, invoice, database_now(session))
            if address is not None:
                return _go_to(address)
            if standing_of(session, invoice) not in _PAYABLE:
                return _go_to(here)
            job_id = ask_for_page(session, invoice)
    except NotFound:
        return _not_found()
    return _Opening(engine, invoice_id, job_id, here)


@router.api_route("/i/{token}/pay", methods=_GET)
def wait_to_pay(token: str, linked: Linked, session: Transaction, request: Request) -> Response:
    """Send the client on once its page is open; until then it looks again by itself."""
    try:
        invoice = finalized_invoice(session, _known(linked))
    except NotFound:
        return _not_found()
    now = database_now(session)
    # Looked at before the address is: whoever opens the page writes both at once.
    since = page_asked_for(session, invoice)
    address = page_address(session, invoice, now)
    if address is not None:
        return _go_to(address)
    if since is None:
        return _go_to(f"/i/{token}")
    return _page(request, "one_moment.html", here=f"/i/{token}", is_long=now - since > TOO_LONG)


@router.get("/i/{token}/paid")
def come_back(
    token: str,
    linked: Linked,
    engine: EngineOf,
    _turn: Annotated[None, Depends(turn, scope="function")],
) -> Response:
    """Where Stripe sends a client that has paid: Stripe is asked, and the invoice shown."""
    try:
        with Session(engine) as session, session.begin():
            ask_after_payment(session, finalized_invoice(session, _known(linked)))
    except NotFound:
        return _not_found()
    return _go_to(f"/i/{token}?paid")


class _Opening(Response):
    """Goes to the page at Stripe if it is open in time, else to where the client waits for it.

    It holds neither a thread nor a connection between two looks.
    """

    def __init__(self, engine: Engine, invoice_id: UUID, job_id: UUID, here: str) -> None:
        super().__init__()
        self._engine = engine
        self._invoice_id = invoice_id
        self._job_id = job_id
        self._here = here

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        deadline = time.monotonic() + OPENED_IN_SECONDS
        address = await run_in_threadpool(self._look)
        while address is None and time.monotonic() < deadline:
            await anyio.sleep(LOOK_EVERY_SECONDS)
            address = await run_in_threadpool(self._look)
        await _go_to(address or f"{self._here}/pay")(scope, receive, send)

    def _look(self) -> str | None:
        """Where to go; ``None`` while that is not known."""
        try:
            with Session(self._engine) as session, session.begin():
                # Looked at before the address is, which is there once the job has ended, if ever.
                has_ended = session.get_one(Job, self._job_id).state in FINAL
                invoice = finalized_invoice(session, self._invoice_id)
                address = page_address(session, invoice, database_now(session))
                return address or (self._here if has_ended else None)
        except SQLAlchemyError as error:
            _log.warning("could not look for the page", error=str(error).split("\n", 1)[0])
            return None


def _known(linked: UUID | None) -> UUID:
    if linked is None:
        raise NotFound("page", "of this link")
    return linked


def _is_asked_here(request: Request) -> bool:
    """Whether a form was sent from a page of ours, as far as the browser tells.

    Another site knows no token, so this only keeps one that was passed on from being used unseen.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in {"same-origin", "none"}
    origin = request.headers.get("origin", "null")
    # What a browser says that was told not to say where it comes from.
    return origin == "null" or urlsplit(origin).netloc == request.headers.get("host")


def _go_to(address: str) -> RedirectResponse:
    return RedirectResponse(address, status_code=303, headers=_PRIVATE)


def _not_found() -> HTMLResponse:
    """The same for a link that nobody signed, a draft's, and one whose invoice is gone."""
    page = _templates.get_template("no_such_page.html")
    return HTMLResponse(page.render(), status_code=404, headers=_headers("'none'"))


def _page(request: Request, name: str, *, status: int = 200, **facts: object) -> HTMLResponse:
    page = _templates.get_template(name)
    return HTMLResponse(
        page.render(**facts), status_code=status, headers=_headers(_form_targets(request))
    )


def _form_targets(request: Request) -> str:
    """Where the button may lead: here, and from here to Stripe, under a name of the account's too."""
    links = links_of(request)
    is_secure = links is not None and links.is_secure
    return "'self' https:" if is_secure else "'self' https: http:"


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
