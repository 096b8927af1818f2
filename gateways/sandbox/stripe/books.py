"""One account's objects and events, as one request sees and changes them."""

import secrets
import string
from dataclasses import dataclass, field
from typing import Any

from gateways.sandbox.stripe.errors import JsonObject, no_such
from gateways.sandbox.stripe.settings import Settings
from gateways.sandbox.stripe.store import Store

API_VERSION = "2026-10-28.endive"
PLATFORM = "acct_sandbox"
"""Whose objects are made without a ``Stripe-Account`` header."""

_LETTERS = string.ascii_letters + string.digits


def new_id(prefix: str, length: int = 24) -> str:
    """An id as Stripe's look: ``pi_`` and random letters and digits."""
    return f"{prefix}_" + "".join(secrets.choice(_LETTERS) for _ in range(length))


@dataclass(slots=True)
class Call:
    """One request, understood: the ids in its path, its checked values, and where it found us."""

    ids: dict[str, str]
    parameters: dict[str, Any]
    path: str
    origin: str = ""


@dataclass(slots=True)
class Books:
    """What operations read and write.

    Attributes:
        now: When the request came, in seconds; everything it makes carries it.
        events: How many events it made.
    """

    store: Store
    settings: Settings
    account: str
    now: float
    request_id: str | None = None
    idempotency_key: str | None = None
    events: int = field(default=0, init=False)

    @property
    def created(self) -> int:
        """The time as Stripe's objects carry it."""
        return int(self.now)

    def get(
        self,
        kind: str,
        object_id: str,
        *,
        param: str,
        in_path: bool = False,
        or_deleted: bool = False,
    ) -> JsonObject:
        """An object of this account; of a deleted one, if that will do, what is left of it.

        Raises:
            ApiError: There is none by that id: 404, or 400 when a parameter named it.
        """
        found = self.store.find(object_id)
        if found is None or found.account != self.account or found.body["object"] != kind:
            raise no_such(kind, object_id, param, in_path=in_path)
        if "deleted" in found.body and not or_deleted:
            raise no_such(kind, object_id, param, in_path=in_path)
        return found.body

    def hidden(self, object_id: str) -> JsonObject:
        """What Stripe knows of an object and does not show."""
        found = self.store.find(object_id)
        return found.hidden if found else {}

    def put(self, body: JsonObject, **hidden: object) -> JsonObject:
        """Write an object; ``hidden`` is added to what was hidden before."""
        self.store.put(self.account, body, {**self.hidden(body["id"]), **hidden}, self.now)
        return body

    def record(
        self, event_type: str, body: JsonObject, previous: JsonObject | None = None
    ) -> JsonObject:
        """Make an event of an object as it is now, and have it delivered."""
        event: JsonObject = {
            "id": new_id("evt"),
            "object": "event",
            "api_version": API_VERSION,
            "created": self.created,
            "data": {"object": body} | ({"previous_attributes": previous} if previous else {}),
            "livemode": False,
            "pending_webhooks": 1 if self.settings.delivers(event_type) else 0,
            "request": {"id": self.request_id, "idempotency_key": self.idempotency_key},
            "type": event_type,
        }
        if self.account != PLATFORM:
            event["account"] = self.account
        self.put(event)
        self.events += 1
        if self.settings.delivers(event_type):
            self.store.add_deliveries(
                event["id"],
                self.now + self.settings.webhook_delay,
                self.settings.webhook_copies,
            )
        return event
