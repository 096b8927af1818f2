import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from api.app import create_app
from api.body_limit import MAX_BODY_BYTES
from api.webhooks import EventReaders
from gateways.sandbox.sendgrid.client import SendGridControl
from gateways.sandbox.sendgrid.events import EventKind
from gateways.sandbox.stripe.server import StripeSandbox
from gateways.sandbox.stripe.webhooks import signature
from gateways.sendgrid_events import SendGridEvents
from gateways.stripe_events import StripeEvents
from models import WebhookEvent
from tasks.calls import Gateways
from tests.api.calls import problem
from tests.api.conftest import Finish, PutCard
from tests.waiting import wait_for
from tests.worlds import work

SECRET = "whsec_tests"
JSON = {"Content-Type": "application/json"}


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The address at which the application answers for real."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def trusting(engine: Engine, sendgrid_control: SendGridControl) -> FastAPI:
    """An application that knows what the test's own Stripe and SendGrid sign with."""
    return create_app(
        engine,
        event_readers=EventReaders(
            payments=StripeEvents(SECRET), mails=SendGridEvents(sendgrid_control.public_key())
        ),
    )


def events(engine: Engine) -> list[WebhookEvent]:
    with Session(engine) as session:
        return list(session.scalars(select(WebhookEvent).order_by(WebhookEvent.id)))


def delivered(stripe: StripeSandbox, count: int) -> Callable[[], bool]:
    def all_of_them() -> bool:
        states = [delivery["state"] for delivery in stripe.control.deliveries()]
        return states.count("delivered") == len(states) >= count

    return all_of_them


@pytest.fixture
def debited(
    api: TestClient,
    invoice: dict[str, Any],
    stripe_sandbox: StripeSandbox,
    put_card: PutCard,
    finish: Finish,
) -> dict[str, Any]:
    """An invoice whose client's bank was asked to pay it, and takes its time."""
    stripe_sandbox.control.set(settle_after=None)
    put_card(invoice["client"], "pm_usBankAccount_success")
    finish(api.post(f"/v1/invoices/{invoice['id']}/charge"))
    shown: dict[str, Any] = api.get(f"/v1/invoices/{invoice['id']}").json()
    return shown


def test_what_stripe_tells_of_a_bank_debit_pays_the_invoice(
    api: TestClient,
    trusting: FastAPI,
    debited: dict[str, Any],
    stripe_sandbox: StripeSandbox,
    finish: Finish,
) -> None:
    engine, stripe = trusting.state.engine, stripe_sandbox.control
    (attempt,) = debited["attempts"]
    assert attempt["state"] == "processing"

    with served(trusting) as address:
        stripe.set_webhook(f"{address}/webhooks/stripe", SECRET)
        stripe.settle(attempt["payment_intent"])
        wait_for(delivered(stripe_sandbox, 1), what="delivered")
        (told,) = [one for one in events(engine) if one.type == "payment_intent.succeeded"]
        kept = len(events(engine))
        stripe.redeliver(told.event_id, copies=2)
        wait_for(delivered(stripe_sandbox, kept + 2), what="delivered again")

    assert len(events(engine)) == kept
    finish(api.post(f"/v1/invoices/{debited['id']}/send"))
    paid = api.get(f"/v1/invoices/{debited['id']}").json()
    assert (paid["status"], len(paid["payments"])) == ("paid", 1)


def test_what_sendgrid_tells_of_a_mail_is_seen_on_the_invoice(
    api: TestClient,
    trusting: FastAPI,
    invoice: dict[str, Any],
    vendors: Gateways,
    sendgrid_control: SendGridControl,
) -> None:
    engine = trusting.state.engine
    work(engine, gateways=vendors)
    (mail,) = sendgrid_control.mails()

    with served(trusting) as address:
        sendgrid_control.set_webhook(f"{address}/webhooks/sendgrid")
        taken = sendgrid_control.deliver(mail, EventKind.DELIVERED, copies=3)
        forged = sendgrid_control.deliver(mail, EventKind.BOUNCE, forged=True)
        old = sendgrid_control.deliver(mail, EventKind.BOUNCE, age_seconds=48 * 3600)

    assert (taken.status, forged.status, old.status) == (200, 401, 401)
    assert len(events(engine)) == 1
    work(engine, gateways=vendors)
    (shown,) = api.get(f"/v1/invoices/{invoice['id']}").json()["mails"]
    assert (shown["state"], shown["delivered_at"] is not None) == ("delivered", True)


@pytest.mark.parametrize("vendor", ["stripe", "sendgrid"])
def test_what_nobody_signed_is_refused_and_not_kept(
    engine: Engine, app: FastAPI, vendor: str
) -> None:
    with TestClient(app) as anybody:
        for headers in (
            {},
            {"Stripe-Signature": "t=1,v1=00"},
            {
                "X-Twilio-Email-Event-Webhook-Signature": "AAAA",
                "X-Twilio-Email-Event-Webhook-Timestamp": "1",
            },
        ):
            answer = anybody.post(f"/webhooks/{vendor}", content=b"{}", headers={**JSON, **headers})
            problem(answer, 401, "untrusted_events")
    assert events(engine) == []


def test_what_is_signed_and_holds_no_event_is_malformed(engine: Engine) -> None:
    app = create_app(engine, event_readers=EventReaders(payments=StripeEvents(SECRET)))
    with TestClient(app) as stripe:
        for body in (b"[]", b"{", b'{"id": "evt_1"}'):
            signed = {"Stripe-Signature": signature(body, SECRET, int(time.time()))}
            answer = stripe.post("/webhooks/stripe", content=body, headers={**JSON, **signed})
            problem(answer, 400, "malformed")
    assert events(engine) == []


@pytest.mark.parametrize(
    ("vendor", "setting"),
    [("stripe", "STRIPE_WEBHOOK_SECRET"), ("sendgrid", "SENDGRID_WEBHOOK_KEY")],
)
def test_without_its_setting_a_webhook_is_refused_for_now(
    engine: Engine, vendor: str, setting: str
) -> None:
    with TestClient(create_app(engine)) as anybody:
        answer = anybody.post(f"/webhooks/{vendor}", content=b"{}", headers=JSON)

    assert setting in problem(answer, 503, "webhooks_not_configured")["detail"]


@pytest.mark.parametrize("vendor", ["stripe", "sendgrid"])
def test_a_webhook_reads_no_more_than_any_request(app: FastAPI, vendor: str) -> None:
    with TestClient(app) as anybody:
        answer = anybody.post(
            f"/webhooks/{vendor}", content=b" " * (MAX_BODY_BYTES + 1), headers=JSON
        )

    problem(answer, 413, "too_large")
