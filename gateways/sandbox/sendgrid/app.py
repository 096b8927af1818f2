"""The server: SendGrid's side, and ours."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from gateways.sandbox.sendgrid.control import Control
from gateways.sandbox.sendgrid.folders import Folders
from gateways.sandbox.sendgrid.mail_send import MailSend, errors
from gateways.sandbox.sendgrid.postman import Postman
from gateways.sandbox.sendgrid.signing import SigningKey
from gateways.sandbox.sendgrid.store import Store


def create_app(directory: Path) -> Starlette:
    """The application whose memory and mails are in ``directory``, which exists."""
    store = Store(directory / "sendgrid.sqlite3")
    folders = Folders(directory / "mails")
    key = SigningKey(directory / "webhook-key.pem")
    postman = Postman(store, key)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        folders.write_missing(store)
        rounds = asyncio.create_task(postman.run())
        try:
            yield
        finally:
            rounds.cancel()
            with suppress(asyncio.CancelledError):
                await rounds
            store.close()

    send = MailSend(store, folders)
    control = Control(store, folders, postman, key)
    return Starlette(
        lifespan=lifespan,
        routes=[
            Route("/v3/mail/send", send.__call__, methods=["POST"]),
            Mount("/_sandbox", routes=control.routes()),
        ],
        exception_handlers={HTTPException: _refused},
    )


async def _refused(_request: Request, error: Exception) -> Response:
    return errors(error.status_code if isinstance(error, HTTPException) else 500)
