"""The control side, under ``/_sandbox``: plain JSON, for tests, the demo and people with curl.

A refusal is 400 with ``{"error": "..."}``.
"""

import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateways.sandbox.stripe import (
    customers,
    disputes,
    intents,
    payment_methods,
    refunds,
    sessions,
)
from gateways.sandbox.stripe.behaviours import BANK_FAILURES
from gateways.sandbox.stripe.books import PLATFORM, Books
from gateways.sandbox.stripe.errors import ApiError, JsonObject
from gateways.sandbox.stripe.faults import Fault
from gateways.sandbox.stripe.settings import Settings
from gateways.sandbox.stripe.store import Store


@dataclass(frozen=True, slots=True)
class Steering:
    """The control side's answers.

    Args:
        store: Where everything is kept.
        wake: Called when there may be something to deliver.
    """

    store: Store
    wake: Callable[[], None]

    def routes(self) -> list[Route]:
        """All of it."""
        readers: dict[str, Callable[[], object]] = {
            "health": lambda: {"sandbox": "stripe", "pid": os.getpid()},
            "settings": lambda: Settings.of(self.store.settings()).as_json(),
            "faults": lambda: [{"id": number, **body} for number, body in self.store.faults()],
            "requests": self.store.requests,
            "deliveries": self.store.deliveries,
        }
        actions: dict[str, Callable[[JsonObject], object]] = {
            "settings": self._set,
            "faults": self._add_fault,
            "clear_faults": self._clear_faults,
            "expire_keys": self._expire_keys,
            "settle": self._settle,
            "settle_refund": self._settle_refund,
            "dispute": self._dispute,
            "escalate_dispute": self._escalate_dispute,
            "close_dispute": self._close_dispute,
            "authenticate": self._authenticate,
            "use_session": self._use_session,
            "expire_session": self._expire_session,
            "update_card": self._update_card,
            "delete_customer": self._delete_customer,
            "set_webhook": self._set_webhook,
            "redeliver": self._redeliver,
            "emit": self._emit,
            "objects": self._objects,
        }
        return [
            *(_reading(f"/_sandbox/{name}", read) for name, read in readers.items()),
            *(_acting(f"/_sandbox/{name}", act) for name, act in actions.items()),
        ]

    def _set(self, given: JsonObject) -> JsonObject:
        settings = Settings.of({**self.store.settings(), **given})
        self.store.set(given)
        self.wake()
        return settings.as_json()

    def _add_fault(self, given: JsonObject) -> JsonObject:
        fault = Fault.of(given)
        return {"id": self.store.add_fault(fault.as_json(), fault.times)}

    def _clear_faults(self, given: JsonObject) -> JsonObject:
        self.store.clear_faults()
        return {}

    def _expire_keys(self, given: JsonObject) -> JsonObject:
        saved_until = time.time() - float(given.get("older_than_seconds", 0))
        return {"expired": self.store.forget_keys(saved_until)}

    def _settle(self, given: JsonObject) -> JsonObject:
        outcome = given["outcome"]
        if outcome not in {"succeeded", *BANK_FAILURES}:
            raise ValueError(f"outcome must be succeeded or one of {', '.join(BANK_FAILURES)}")
        return self._changed(
            given["payment_intent"],
            lambda books: intents.settle(
                books,
                given["payment_intent"],
                failure_code=None if outcome == "succeeded" else outcome,
            ),
        )

    def _settle_refund(self, given: JsonObject) -> JsonObject:
        if given["outcome"] not in {"succeeded", "failed"}:
            raise ValueError("outcome must be succeeded or failed")
        return self._changed(
            given["refund"],
            lambda books: refunds.settle(
                books, given["refund"], is_successful=given["outcome"] == "succeeded"
            ),
        )

    def _dispute(self, given: JsonObject) -> JsonObject:
        return self._changed(
            given["charge"],
            lambda books: disputes.create(
                books,
                disputes.charge_of(books, given["charge"]),
                reason=given["reason"],
                amount=given.get("amount"),
                is_inquiry=given.get("inquiry") is True,
            ),
        )

    def _escalate_dispute(self, given: JsonObject) -> JsonObject:
        return self._changed(
            given["dispute"], lambda books: disputes.escalate(books, given["dispute"])
        )

    def _close_dispute(self, given: JsonObject) -> JsonObject:
        return self._changed(
            given["dispute"],
            lambda books: disputes.end(books, given["dispute"], given["outcome"]),
        )

    def _authenticate(self, given: JsonObject) -> JsonObject:
        return self._changed(
            given["payment_intent"],
            lambda books: intents.authenticate(
                books, given["payment_intent"], is_successful=given["successful"] is True
            ),
        )

    def _use_session(self, given: JsonObject) -> JsonObject:
        return self._changed(given["session"], lambda books: _used(books, given))

    def _expire_session(self, given: JsonObject) -> JsonObject:
        session = given["session"]
        return self._changed(session, lambda books: sessions.expire_in_time(books, session))

    def _update_card(self, given: JsonObject) -> JsonObject:
        method, changes = given["payment_method"], given["changes"]
        return self._changed(
            method, lambda books: payment_methods.updated_by_network(books, method, changes)
        )

    def _delete_customer(self, given: JsonObject) -> JsonObject:
        customer = given["customer"]
        return self._changed(customer, lambda books: customers.deleted(books, customer))

    def _set_webhook(self, given: JsonObject) -> JsonObject:
        secret = given.get("secret") or f"whsec_{secrets.token_urlsafe(24)}"
        account = given.get("account")
        if account is None:
            self.store.set({"webhook_url": given["url"], "webhook_secret": secret})
        else:
            own = Settings.of(self.store.settings()).own_webhooks
            self._set({"own_webhooks": {**own, account: {"url": given["url"], "secret": secret}}})
        self.wake()
        return {"secret": secret}

    def _redeliver(self, given: JsonObject) -> JsonObject:
        event = self.store.find(given["event"])
        if event is None or event.body["object"] != "event":
            raise ValueError(f"no event {given['event']}")
        self.store.add_deliveries(given["event"], time.time(), int(given.get("copies", 1)))
        self.wake()
        return {}

    def _emit(self, given: JsonObject) -> JsonObject:
        """An event that the sandbox does not make by itself, such as a payout's."""
        with self.store.transaction():
            event = self._books(given.get("account", PLATFORM)).record(
                given["type"], given["object"]
            )
        self.wake()
        return event

    def _objects(self, given: JsonObject) -> list[JsonObject]:
        found = self.store.select(given["kind"], account=given.get("account"), oldest_first=True)
        return [stored.body for stored in found]

    def _changed(self, object_id: str, change: Callable[[Books], JsonObject]) -> JsonObject:
        found = self.store.find(object_id)
        books = self._books(found.account if found else PLATFORM)
        with self.store.transaction():
            try:
                body = change(books)
            except ApiError as error:
                if not error.keeps_effects:
                    raise
                body = error.body["error"]["payment_intent"]  # Declined, once authenticated.
        self.wake()
        return body

    def _books(self, account: str) -> Books:
        return Books(self.store, Settings.of(self.store.settings()), account, time.time())


def _used(books: Books, given: JsonObject) -> JsonObject:
    session = sessions.use(books, given["session"], given["card"])
    if given["mode"] != session["mode"]:
        raise ValueError(f"the session's mode is {session['mode']}")
    if given["authenticates"] is None or not sessions.waits_for_holder(books, session):
        return session
    return sessions.authenticate(books, session["id"], is_successful=given["authenticates"] is True)


def _reading(path: str, read: Callable[[], object]) -> Route:
    async def answer(_: Request) -> Response:
        return JSONResponse(read())

    return Route(path, answer, methods=["GET"])


def _acting(path: str, act: Callable[[JsonObject], object]) -> Route:
    async def answer(request: Request) -> Response:
        try:
            given: Any = await request.json()
            return JSONResponse(act(given))
        except KeyError as error:
            return _refused(f"{error.args[0]} is missing")
        except (ValueError, TypeError, ApiError) as error:
            return _refused(str(error))

    return Route(path, answer, methods=["POST"])


def _refused(reason: str) -> Response:
    return JSONResponse({"error": reason}, status_code=400)
