"""Words that the sandbox's tests share."""

import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self, cast

import stripe
from stripe.params import PaymentIntentCreateParams


def client_of(
    url: str, account: str | None = None, *, max_network_retries: int = 0, timeout: float = 10
) -> stripe.StripeClient:
    return stripe.StripeClient(
        "sk_test_local",
        base_addresses={"api": url},
        stripe_account=account,
        max_network_retries=max_network_retries,
        http_client=stripe.RequestsClient(timeout=timeout),
    )


def payment(customer: str, method: str, **changes: object) -> PaymentIntentCreateParams:
    """An off-session payment of 12 dollars, with changes."""
    params = {
        "amount": 1200,
        "currency": "usd",
        "customer": customer,
        "payment_method": method,
        "confirm": True,
        "off_session": True,
        **changes,
    }
    return cast("PaymentIntentCreateParams", params)


def card(client: stripe.StripeClient, customer: str, name: str = "pm_card_visa") -> str:
    """A test card that became the customer's."""
    return client.v1.payment_methods.attach(name, {"customer": customer}).id


def pay(
    client: stripe.StripeClient,
    customer: str,
    method: str,
    *,
    key: str | None = None,
    **changes: object,
) -> stripe.PaymentIntent:
    return client.v1.payment_intents.create(
        payment(customer, method, **changes), {"idempotency_key": key} if key else {}
    )


def problem(error: stripe.StripeError) -> Any:  # noqa: ANN401 - its members depend on the error.
    """The error object of an answer."""
    assert error.error is not None
    return error.error


def header(error: stripe.StripeError, name: str) -> str | None:
    """A header of an answer."""
    return (error.headers or {}).get(name)


def types(events: Sequence[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


class Receiver:
    """A web server that takes webhooks, or refuses the first few."""

    def __init__(self) -> None:
        self.taken: list[tuple[bytes, str]] = []
        self.refusals = 0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                payload = self.rfile.read(int(self.headers["Content-Length"]))
                refused = receiver.refusals > 0
                if refused:
                    receiver.refusals -= 1
                else:
                    receiver.taken.append((payload, self.headers["Stripe-Signature"]))
                self.send_response(503 if refused else 200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing is said."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/webhooks/stripe"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def events(self, secret: str) -> list[stripe.Event]:
        """What was taken, each signature checked by the real SDK."""
        return [
            stripe.Webhook.construct_event(payload, signed, secret)
            for payload, signed in self.taken
        ]
