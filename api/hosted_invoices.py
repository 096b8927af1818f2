"""The client's page of an invoice, by the link in its mails: what is due, and a way to pay it."""

from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from sqlalchemy.orm import Session

from api.browser_pages import PRIVATE, Waiting, go_to, is_asked_here, page, page_alone
from api.client_links import LinksOf
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

TOO_LONG = timedelta(minutes=1)
"""Who has waited for so long is told that it may take a while."""

_PAYABLE = frozenset({Standing.PAYABLE, Standing.TO_CONFIRM})
_GET = ["GET", "HEAD"]


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
        headers=PRIVATE,
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
    return page(
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
    if not is_asked_here(request):
        return page(request, "not_from_here.html", status=403, here=f"/i/{token}")
    here = f"/i/{token}"
    try:
        invoice_id = _known(linked)
        with Session(engine) as session, session.begin():
            invoice = finalized_invoice(session, invoice_id)
            address = page_address(session, invoice, database_now(session))
            if address is not None:
                return go_to(address)
            if standing_of(session, invoice) not in _PAYABLE:
                return go_to(here)
            job_id = ask_for_page(session, invoice)
    except NotFound:
        return _not_found()

    def look(session: Session) -> str | None:
        # Looked at before the address is, which is there once the job has ended, if ever.
        has_ended = session.get_one(Job, job_id).state in FINAL
        invoice = finalized_invoice(session, invoice_id)
        address = page_address(session, invoice, database_now(session))
        return address or (here if has_ended else None)

    return Waiting(engine, look, seconds=OPENED_IN_SECONDS, otherwise=f"{here}/pay")


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
        return go_to(address)
    if since is None:
        return go_to(f"/i/{token}")
    return page(request, "one_moment.html", here=f"/i/{token}", is_long=now - since > TOO_LONG)


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
    return go_to(f"/i/{token}?paid")


def _known(linked: UUID | None) -> UUID:
    if linked is None:
        raise NotFound("page", "of this link")
    return linked


def _not_found() -> Response:
    """The same for a link that nobody signed, a draft's, and one whose invoice is gone."""
    return page_alone("no_such_page.html", 404)
