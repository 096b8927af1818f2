"""The control side, under /_sandbox/: what SendGrid has not, and tests and demos need."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateways.sandbox.sendgrid.events import EventKind, events_of
from gateways.sandbox.sendgrid.faults import Fault, FaultKind
from gateways.sandbox.sendgrid.folders import Folders
from gateways.sandbox.sendgrid.postman import NoWebhook, Postman
from gateways.sandbox.sendgrid.signing import SigningKey
from gateways.sandbox.sendgrid.store import KeptMail, Store, Webhook


@dataclass(frozen=True, slots=True)
class Control:
    """The endpoints, with what they look at. A wrong request is answered 422 with ``error``."""

    store: Store
    folders: Folders
    postman: Postman
    key: SigningKey

    def routes(self) -> list[Route]:
        """Every endpoint of the control side."""
        return [
            Route("/health", self.health),
            Route("/public-key", self.public_key),
            Route("/mails", self.mails),
            Route("/requests", self.requests),
            Route("/faults", self.faults),
            Route("/faults", self.add_fault, methods=["POST"]),
            Route("/faults", self.clear_faults, methods=["DELETE"]),
            Route("/webhook", self.set_webhook, methods=["PUT"]),
            Route("/events", self.deliver, methods=["POST"]),
            Route("/deliveries", self.deliveries),
            Route("/deliveries/{number:int}/again", self.redeliver, methods=["POST"]),
        ]

    async def health(self, _request: Request) -> Response:
        """Which process answers."""
        return JSONResponse({"pid": os.getpid()})

    async def public_key(self, _request: Request) -> Response:
        """The key that verifies the webhook's signatures."""
        return JSONResponse({"public_key": self.key.public_key})

    async def mails(self, request: Request) -> Response:
        """The kept mails; each parameter but ``message_id`` is a custom argument they must have."""
        wanted = dict(request.query_params)
        message_id = wanted.pop("message_id", None)
        found = self.store.mails(message_id=message_id, custom_args=wanted)
        return JSONResponse([self._as_json(mail) for mail in found])

    async def requests(self, _request: Request) -> Response:
        """The log of requests to send."""
        return JSONResponse([asdict(request) for request in self.store.requests()])

    async def faults(self, _request: Request) -> Response:
        """The faults in line."""
        return JSONResponse([asdict(fault) for fault in self.store.faults()])

    async def add_fault(self, request: Request) -> Response:
        """Put one more in line."""
        try:
            fields = await request.json()
            fault = Fault(**{**fields, "kind": FaultKind(fields["kind"])})
        except (KeyError, TypeError, ValueError) as error:
            return _wrong(error)
        self.store.add_fault(fault)
        return Response(status_code=204)

    async def clear_faults(self, _request: Request) -> Response:
        """Empty the line."""
        self.store.clear_faults()
        return Response(status_code=204)

    async def set_webhook(self, request: Request) -> Response:
        """Say where events go, and which follow by themselves."""
        try:
            webhook = Webhook(**await request.json())
            for kind in webhook.automatic:
                EventKind(kind)
        except (TypeError, ValueError) as error:
            return _wrong(error)
        self.store.webhook = webhook
        return Response(status_code=204)

    async def deliver(self, request: Request) -> Response:
        """Make events of one kind for a mail's recipients, and post them now."""
        try:
            asked = await request.json()
            kind = EventKind(asked.pop("kind"))
            number, at, reason = asked.pop("mail"), asked.pop("at"), asked.pop("reason")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            return _wrong(error)
        mail = next((mail for mail in self.store.mails() if mail.number == number), None)
        if mail is None:
            return _wrong(LookupError(f"there is no mail {number}"))
        events = events_of(
            self.store.letter(mail), kind, message_id=mail.message_id, at=at, reason=reason
        )
        try:
            return JSONResponse(asdict(await self.postman.deliver(events, **asked)))
        except (NoWebhook, TypeError) as error:
            return _wrong(error)

    async def deliveries(self, _request: Request) -> Response:
        """Every batch of events, and what became of it."""
        return JSONResponse([asdict(delivery) for delivery in self.store.deliveries()])

    async def redeliver(self, request: Request) -> Response:
        """Post a batch once more."""
        try:
            delivery = await self.postman.redeliver(request.path_params["number"])
        except (KeyError, NoWebhook) as error:
            return _wrong(error)
        return JSONResponse(asdict(delivery))

    def _as_json(self, mail: KeptMail) -> Mapping[str, Any]:
        return {**asdict(mail), "folder": str(self.folders.path(mail.number, mail.subject))}


def _wrong(error: Exception) -> Response:
    return JSONResponse({"error": f"{type(error).__name__}: {error}"}, 422)
