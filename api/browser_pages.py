"""Pages for clients' browsers: drawn, kept private, and waited for.

The token in such an address is all the right there is, so it is kept: nothing is loaded from
elsewhere, and no other site is told where the client came from.
"""

import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import structlog
from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from api.client_links import links_of

LOOK_EVERY_SECONDS = 0.1

PRIVATE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Robots-Tag": "noindex, nofollow",
}

_log = structlog.get_logger(__name__)
_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent.parent / "templates" / "pages"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def page(request: Request, name: str, *, status: int = 200, **facts: object) -> HTMLResponse:
    """A page whose buttons lead here, and from here to Stripe, under a name of the account's too."""
    links = links_of(request)
    is_secure = links is not None and links.is_secure
    targets = "'self' https:" if is_secure else "'self' https: http:"
    return _drawn(name, status, targets, **facts)


def page_alone(name: str, status: int) -> HTMLResponse:
    """A page without a way on."""
    return _drawn(name, status, "'none'")


def _drawn(name: str, status: int, form_targets: str, **facts: object) -> HTMLResponse:
    headers = {
        **PRIVATE,
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
        f"base-uri 'none'; form-action {form_targets}; frame-ancestors 'none'",
        "X-Frame-Options": "DENY",
    }
    text = _templates.get_template(name).render(**facts)
    return HTMLResponse(text, status_code=status, headers=headers)


def go_to(address: str) -> RedirectResponse:
    """Send the browser on, which asks for the address anew."""
    return RedirectResponse(address, status_code=303, headers=PRIVATE)


def is_asked_here(request: Request) -> bool:
    """Whether a form was sent from a page of ours, as far as the browser tells.

    Another site knows no token, so this only keeps one that was passed on from being used unseen.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in {"same-origin", "none"}
    origin = request.headers.get("origin", "null")
    # What a browser says that was told not to say where it comes from.
    return origin == "null" or urlsplit(origin).netloc == request.headers.get("host")


class Waiting(Response):
    """Goes on as soon as it is known where to, else to a page where the client waits.

    It holds neither a thread nor a connection between two looks.

    Args:
        engine: Gives a connection for each look.
        look: Where to go, in a transaction of its own; ``None`` while that is not known.
        seconds: How long it is looked.
        otherwise: Where to go then.
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
        await go_to(address or self._otherwise)(scope, receive, send)

    def _look(self) -> str | None:
        try:
            with Session(self._engine) as session, session.begin():
                return self._look_in(session)
        except SQLAlchemyError as error:
            _log.warning("could not look for the page", error=str(error).split("\n", 1)[0])
            return None
