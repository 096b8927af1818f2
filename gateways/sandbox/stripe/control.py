"""A client of the sandbox's control side."""

import http.client
import json
from dataclasses import dataclass
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from gateways.sandbox.processes import LocalServerError
from gateways.sandbox.stripe.errors import JsonObject
from gateways.sandbox.stripe.faults import Fault, FaultKind, LimitCode

ANSWER_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedRequest:
    """One request that reached the sandbox.

    Attributes:
        at: When, in seconds.
        parameters: The form's or query's names and values, as sent: ``metadata[invoice]``.
        account: Of the Stripe-Account header, else of the key; ``acct_sandbox`` for most.
        status: ``None`` while it is worked on, and when the caller got no answer.
        object_id: What it made or was about.
        fault: What went wrong on purpose.
        replayed: Whether the answer was one kept under the idempotency key.
    """

    sequence: int
    request_id: str
    at: float
    method: str
    path: str
    parameters: dict[str, str]
    idempotency_key: str | None
    account: str
    status: int | None
    object_id: str | None
    fault: str | None
    replayed: bool


class StripeSandboxControl:
    """Steers a sandbox, and shows what is in it.

    Every method raises LocalServerError when the sandbox refuses or cannot be reached. Each call is
    a connection of its own, so any thread may use it.

    Args:
        url: The sandbox's base URL.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def add_fault(
        self,
        kind: FaultKind,
        *,
        times: int | None = 1,
        method: str | None = "POST",
        path: str = "*",
        parameters: dict[str, str] | None = None,
        seconds: float = 0.0,
        after_effect: bool = False,
        retry_after: int | None = None,
        code: LimitCode = "rate_limit",
        is_saved: bool = False,
    ) -> int:
        """Have something go wrong, as ``faults.Fault`` describes; returns its number."""
        fault = Fault(
            kind=kind,
            times=times,
            method=method,
            path=path,
            parameters=parameters or {},
            seconds=seconds,
            after_effect=after_effect,
            retry_after=retry_after,
            code=code,
            is_saved=is_saved,
        )
        return int(self._act("faults", fault.as_json())["id"])

    def faults(self) -> list[JsonObject]:
        """Those that can still strike; ``times`` is how often."""
        return cast("list[JsonObject]", self._read("faults"))

    def clear_faults(self) -> None:
        """Nothing goes wrong any more."""
        self._act("clear_faults", {})

    def settings(self) -> JsonObject:
        """Every setting by its name in ``settings.Settings``."""
        return cast("JsonObject", self._read("settings"))

    def set(self, **settings: object) -> JsonObject:
        """Change settings, named as in ``settings.Settings``; returns all."""
        return cast("JsonObject", self._act("settings", settings))

    def expire_keys(self, *, older_than_seconds: float = 0.0) -> int:
        """Forget saved answers, as Stripe may after a day; returns how many."""
        expired = self._act("expire_keys", {"older_than_seconds": older_than_seconds})
        return int(expired["expired"])

    def settle(self, payment_intent: str, outcome: str = "succeeded") -> JsonObject:
        """End a bank debit that is processing; returns the intent.

        Args:
            payment_intent: Its id.
            outcome: ``succeeded``, or why the bank returned it: ``insufficient_funds``,
                ``account_closed``, ``no_account``, ``debit_not_authorized``.
        """
        given = {"payment_intent": payment_intent, "outcome": outcome}
        return cast("JsonObject", self._act("settle", given))

    def settle_refund(
        self, refund: str, outcome: Literal["succeeded", "failed"] = "succeeded"
    ) -> JsonObject:
        """End a refund; also one that had succeeded can fail. Returns it."""
        return cast(
            "JsonObject", self._act("settle_refund", {"refund": refund, "outcome": outcome})
        )

    def dispute(
        self,
        charge: str,
        amount: int | None = None,
        *,
        reason: str = "fraudulent",
        inquiry: bool = False,
    ) -> JsonObject:
        """Have a payment disputed, or its bank ask about it first; returns the dispute.

        Args:
            charge: Its id, or its payment intent's.
            amount: In Stripe's units; all that was not refunded when ``None``.
            reason: Stripe's word for what the client says.
            inquiry: Whether the bank only asks.
        """
        given = {"charge": charge, "amount": amount, "reason": reason, "inquiry": inquiry}
        return cast("JsonObject", self._act("dispute", given))

    def escalate_dispute(self, dispute: str) -> JsonObject:
        """Have an inquiry become a dispute; returns it."""
        return cast("JsonObject", self._act("escalate_dispute", {"dispute": dispute}))

    def close_dispute(
        self, dispute: str, outcome: Literal["won", "lost", "warning_closed"]
    ) -> JsonObject:
        """Let the bank decide; an inquiry ends as ``warning_closed``. Returns the dispute."""
        return cast(
            "JsonObject", self._act("close_dispute", {"dispute": dispute, "outcome": outcome})
        )

    def authenticate(self, payment_intent: str, *, successful: bool = True) -> JsonObject:
        """Answer the bank's question in the cardholder's place; returns the intent."""
        given = {"payment_intent": payment_intent, "successful": successful}
        return cast("JsonObject", self._act("authenticate", given))

    def pay_session(
        self, session: str, card: str = "pm_card_visa", *, authenticates: bool | None = True
    ) -> JsonObject:
        """Pay on a checkout session's page, in the client's place; returns the session.

        A card that is declined leaves it open.

        Args:
            session: Its id.
            card: A test payment method's name, or the id of one of the customer's.
            authenticates: Whether a client who is asked by the bank passes; ``None`` to leave the
                bank waiting.
        """
        given = {"card": card, "authenticates": authenticates}
        return self._use_session(session, {"mode": "payment", **given})

    def save_card(
        self, session: str, card: str = "pm_card_visa", *, authenticates: bool | None = True
    ) -> JsonObject:
        """Leave a card on the page of a session in setup mode; otherwise as ``pay_session``."""
        given = {"card": card, "authenticates": authenticates}
        return self._use_session(session, {"mode": "setup", **given})

    def expire_session(self, session: str) -> JsonObject:
        """Have the time of an open checkout session be over; returns it."""
        return cast("JsonObject", self._act("expire_session", {"session": session}))

    def update_card(
        self,
        payment_method: str,
        *,
        exp_month: int | None = None,
        exp_year: int | None = None,
        last4: str | None = None,
    ) -> JsonObject:
        """Have a card's bank renew it, as Stripe then tells by itself; returns it."""
        given = {"exp_month": exp_month, "exp_year": exp_year, "last4": last4}
        changes = {name: value for name, value in given.items() if value is not None}
        return cast(
            "JsonObject",
            self._act("update_card", {"payment_method": payment_method, "changes": changes}),
        )

    def delete_customer(self, customer: str) -> JsonObject:
        """Delete a customer as someone at Stripe's dashboard might; returns what is left."""
        return cast("JsonObject", self._act("delete_customer", {"customer": customer}))

    def requests(
        self,
        *,
        method: str | None = None,
        path: str | None = None,
        idempotency_key: str | None = None,
    ) -> list[LoggedRequest]:
        """The request log, oldest first; all of it, or those that are the given."""
        wanted = {"method": method, "path": path, "idempotency_key": idempotency_key}
        return [
            LoggedRequest(**entry)
            for entry in self._read("requests")
            if all(value is None or entry[name] == value for name, value in wanted.items())
        ]

    def charges(self, *, account: str | None = None) -> list[JsonObject]:
        """Every charge, also failed ones, oldest first."""
        return self.objects("charge", account=account)

    def payment_intents(self, *, account: str | None = None) -> list[JsonObject]:
        """Every payment intent, oldest first."""
        return self.objects("payment_intent", account=account)

    def events(
        self, event_type: str | None = None, *, account: str | None = None
    ) -> list[JsonObject]:
        """Every event, oldest first; all, or of a type or an account."""
        events = self.objects("event", account=account)
        return [event for event in events if event_type in {None, event["type"]}]

    def objects(self, kind: str, *, account: str | None = None) -> list[JsonObject]:
        """Every object of a kind (Stripe's ``object``), of everyone or one account."""
        return cast("list[JsonObject]", self._act("objects", {"kind": kind, "account": account}))

    def set_webhook(
        self, url: str, secret: str | None = None, *, account: str | None = None
    ) -> str:
        """Deliver events from now on to ``url``; returns the secret, a new one if none is given.

        All of them, or those of an ``account`` that has a webhook of its own: they go only there,
        once there is one for the others.
        """
        given = {"url": url, "secret": secret, "account": account}
        return str(self._act("set_webhook", given)["secret"])

    def remove_webhook(self) -> None:
        """Deliver nothing."""
        self.set(webhook_url=None)

    def redeliver(self, event: str, *, copies: int = 1) -> None:
        """Deliver an event by its id, again or for the first time."""
        self._act("redeliver", {"event": event, "copies": copies})

    def emit(self, event_type: str, about: JsonObject, *, account: str | None = None) -> JsonObject:
        """Make and deliver an event that the sandbox makes of nothing itself; returns it."""
        given = {"type": event_type, "object": about}
        return cast(
            "JsonObject", self._act("emit", given | ({"account": account} if account else {}))
        )

    def deliveries(self) -> list[JsonObject]:
        """Every delivery, oldest first: event, state, attempts, last_status, last_error, due_at."""
        return cast("list[JsonObject]", self._read("deliveries"))

    def _use_session(self, session: str, given: JsonObject) -> JsonObject:
        return cast("JsonObject", self._act("use_session", {"session": session, **given}))

    def _read(self, name: str) -> Any:  # noqa: ANN401 - JSON; each caller knows its shape.
        return self._call("GET", name, None)

    def _act(self, name: str, given: JsonObject) -> Any:  # noqa: ANN401 - JSON, as above.
        return self._call("POST", name, json.dumps(given))

    def _call(self, method: str, name: str, body: str | None) -> Any:  # noqa: ANN401 - as above.
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=ANSWER_SECONDS)
        try:
            connection.request(method, f"/_sandbox/{name}", body)
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise LocalServerError(f"the Stripe sandbox does not answer: {error}") from error
        finally:
            connection.close()
        if response.status != 200:
            raise LocalServerError(f"the Stripe sandbox refused {name}: {answer.decode()}")
        return json.loads(answer)
