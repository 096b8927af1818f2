"""The ASGI application: Stripe's side, the control side, and what runs in the background."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gateways.sandbox.stripe.answering import Answer, Answers, Incoming
from gateways.sandbox.stripe.connections import Connection
from gateways.sandbox.stripe.errors import ApiError, unrecognized_url
from gateways.sandbox.stripe.forms import pairs
from gateways.sandbox.stripe.hosted_pages import HostedPages
from gateways.sandbox.stripe.settling import settle_what_is_due
from gateways.sandbox.stripe.steering import Steering
from gateways.sandbox.stripe.store import Store
from gateways.sandbox.stripe.webhooks import Deliverer

DATABASE = "stripe.sqlite3"


def application(directory: Path) -> Starlette:
    """The sandbox, with its data in ``directory``."""
    store = Store(directory / DATABASE)
    deliverer = Deliverer(store)
    answers = Answers(store, deliverer.wake)

    async def api(request: Request) -> Response:
        try:
            incoming = await _incoming(request)
        except ApiError as error:
            return JSONResponse(error.body, error.status)
        return _Reply(await answers.answer(incoming))

    @asynccontextmanager
    async def running(_: Starlette) -> AsyncIterator[None]:
        background = [
            asyncio.create_task(deliverer.run()),
            asyncio.create_task(settle_what_is_due(store, deliverer.wake)),
        ]
        try:
            yield
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            store.close()

    return Starlette(
        routes=[
            *Steering(store, deliverer.wake).routes(),
            *HostedPages(store, deliverer.wake).routes(),
            Route("/v1/{rest:path}", api, methods=["GET", "POST", "DELETE"]),
            Route("/{rest:path}", _nothing_here, methods=["GET", "POST", "DELETE"]),
        ],
        lifespan=running,
    )


class _Reply(JSONResponse):
    """An answer, or the end of the connection in its place."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.body, answer.status or 500, answer.headers)
        self._is_sent = answer.is_sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._is_sent:
            await super().__call__(scope, receive, send)
            return
        host, port = scope["client"]
        Connection.reset((host, port))
        while (await receive())["type"] != "http.disconnect":
            pass


async def _incoming(request: Request) -> Incoming:
    is_form = request.method == "POST"
    encoded = await request.body() if is_form else request.url.query.encode()
    return Incoming(
        method=request.method,
        path=request.url.path,
        flat=tuple(pairs(encoded)),
        authorization=request.headers.get("authorization"),
        idempotency_key=request.headers.get("idempotency-key") or None,
        account=request.headers.get("stripe-account"),
        origin=str(request.base_url).rstrip("/"),
    )


async def _nothing_here(request: Request) -> Response:
    error = unrecognized_url(request.method, request.url.path)
    return JSONResponse(error.body, error.status)
