import json
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from billing.collection import AttemptState
from gateways.sandbox.stripe.server import StripeSandbox
from gateways.stripe_events import StripeEvents, event_from
from gateways.webhooks import UntrustedEvents
from models import Account, WebhookEvent
from models.client import clients_for_update
from tasks.calls import Gateways
from tasks.due_collections import collect_due
from tasks.voiding import void_invoice
from tasks.webhooks import handle_payment_event, store_payment_event
from tests.cards import (
    AUTHENTICATED,
    BANK,
    QUEUES,
    SOFT,
    Killed,
    a_client_with,
    an_open_invoice,
    ask,
    assert_books_agree,
    attempt_states,
    attempts_of,
    charged,
    credit_of,
    die,
    do,
    invoice_of,
    jobs_of,
    mails,
    pay_waiting_intents,
    payments,
    restart,
    sweep,
    watched,
)
from tests.waiting import wait_for
from tests.worlds import NOW, audited, work

SECRET = "whsec_test_receiver"
SUCCEEDED, FAILED = "payment_intent.succeeded", "payment_intent.payment_failed"


class Receiver:
    """Takes deliveries as the API does: believed when signed, stored, and answered then."""

    def __init__(self, engine: Engine, secret: str = SECRET) -> None:
        events = StripeEvents(secret)
        self.stored: list[int] = []
        self.refused = 0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                try:
                    event = events.read(body, dict(self.headers), now=datetime.now(UTC))
                except UntrustedEvents:
                    receiver.refused += 1
                    self.send_response(400)
                else:
                    with Session(engine) as session, session.begin():
                        new = store_payment_event(session, event, requested_by="webhook:stripe")
                    receiver.stored.append(new)
                    self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/webhooks/stripe"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver(engine: Engine) -> Iterator[Receiver]:
    receiver = Receiver(engine)
    yield receiver
    receiver.close()


def deliveries_are_done(stripe: StripeSandbox) -> bool:
    return all(one["state"] == "delivered" for one in stripe.control.deliveries())


def deliver(engine: Engine, payload: Mapping[str, Any]) -> int:
    """One event stored, as it comes to us; how many are new."""
    with Session(engine) as session, session.begin():
        return store_payment_event(session, event_from(payload), requested_by="webhook:stripe")


def handle(
    engine: Engine, vendors: Gateways, *payloads: Mapping[str, Any], now: datetime = NOW
) -> None:
    """Each event stored and worked before the next one comes."""
    for payload in payloads:
        deliver(engine, payload)
        work(engine, now=now, gateways=vendors, queues=QUEUES)


def told_by(stripe: StripeSandbox, event_type: str) -> Mapping[str, Any]:
    """The newest event of a type."""
    return stripe.control.events(event_type)[-1]


def outcomes(engine: Engine) -> list[tuple[str, str | None]]:
    """The type of each stored event, and what came of it."""
    with Session(engine) as session:
        found = session.execute(
            select(WebhookEvent.type, WebhookEvent.outcome).order_by(WebhookEvent.id)
        )
        return [(event_type, outcome) for event_type, outcome in found]


def test_a_bank_debit_is_settled_by_stripes_signed_word(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    receiver: Receiver,
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, BANK)
    invoice_id = an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    stripe_sandbox.control.set_webhook(receiver.url, SECRET)
    [intent] = stripe_sandbox.control.payment_intents()

    stripe_sandbox.control.settle(intent["id"])
    wait_for(lambda: len(receiver.stored) == 2, what="both events came")
    work(engine, now=NOW, gateways=vendors, queues=QUEUES)

    assert invoice_of(engine, invoice_id).status == "paid"
    assert dict(outcomes(engine)) == {"charge.succeeded": "not_needed", SUCCEEDED: "succeeded"}
    assert mails(engine) == ["receipt"]
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


@pytest.mark.parametrize(
    "returned",
    [
        ("insufficient_funds", "soft", True),
        ("account_closed", "needs_new_card", False),
        ("no_account", "needs_new_card", False),
        ("debit_not_authorized", "hard", False),
    ],
)
def test_why_a_bank_debit_came_back_decides_whether_it_is_tried_again(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    returned: tuple[str, str, bool],
) -> None:
    code, kind, is_tried_again = returned
    client = a_client_with(engine, account, stripe_sandbox, BANK)
    invoice_id = an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    [intent] = stripe_sandbox.control.payment_intents()
    stripe_sandbox.control.settle(intent["id"], code)

    handle(engine, vendors, told_by(stripe_sandbox, FAILED))

    [attempt] = attempts_of(engine)
    assert (attempt.state, attempt.decline_code, attempt.decline_class) == ("declined", code, kind)
    assert (invoice_of(engine, invoice_id).next_attempt_at is not None) == is_tried_again
    assert outcomes(engine) == [(FAILED, "asked")]
    assert mails(engine) == ["payment_failed"]


def test_an_event_is_stored_and_handled_once_however_often_it_is_delivered(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    receiver: Receiver,
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    stripe_sandbox.control.set_webhook(receiver.url, SECRET)
    event = told_by(stripe_sandbox, SUCCEEDED)

    stripe_sandbox.control.redeliver(event["id"], copies=5)
    wait_for(lambda: len(receiver.stored) == 5, what="five deliveries")
    wait_for(lambda: deliveries_are_done(stripe_sandbox))
    work(engine, now=NOW, gateways=vendors, queues=QUEUES)

    assert sorted(receiver.stored) == [0, 0, 0, 0, 1]
    assert len(jobs_of(engine, handle_payment_event)) == 1
    assert outcomes(engine) == [(SUCCEEDED, "succeeded")]
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_what_somebody_else_signed_is_not_stored(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    receiver: Receiver,
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    stripe_sandbox.control.set_webhook(receiver.url, "whsec_of_somebody_else")

    stripe_sandbox.control.redeliver(told_by(stripe_sandbox, SUCCEEDED)["id"])
    wait_for(lambda: receiver.refused, what="a refused delivery")

    assert outcomes(engine) == []


def test_a_handled_event_is_not_handled_again(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    handle(engine, vendors, told_by(stripe_sandbox, SUCCEEDED))
    with Session(engine) as session:
        event_id = session.scalars(select(WebhookEvent.id)).one()

    job = do(engine, vendors, handle_payment_event, account, event_id=event_id)

    assert (job.state, job.reason) == ("skipped", "event_handled")
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_an_event_that_comes_before_our_own_record_settles_and_ours_changes_nothing(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    first = an_open_invoice(engine, account, client)
    second = an_open_invoice(engine, account, client, "20.00")

    def hear_of_it() -> None:
        handle(engine, vendors, told_by(stripe_sandbox, SUCCEEDED))
        assert attempt_states(engine)[-1] == "succeeded"

    work(engine, now=NOW, gateways=watched(vendors, after=hear_of_it), queues=QUEUES)

    assert [invoice_of(engine, one).status for one in (first, second)] == ["paid", "paid"]
    assert mails(engine) == ["receipt", "receipt"]
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000, 2000])


def test_an_event_that_tells_nothing_new_waits_for_no_lock(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    an_open_invoice(engine, account, client)
    sweep(engine, vendors)

    with Session(engine) as busy, busy.begin():
        busy.scalars(clients_for_update([client.id])).one()
        handle(engine, vendors, told_by(stripe_sandbox, SUCCEEDED))

    assert outcomes(engine) == [(SUCCEEDED, "succeeded")]
    assert mails(engine) == ["receipt"]
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_a_decline_that_is_heard_of_before_our_own_record_counts_once(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, SOFT)
    invoice_id = an_open_invoice(engine, account, client)
    work(engine, now=NOW, gateways=vendors, queues=QUEUES)

    handle(engine, vendors, told_by(stripe_sandbox, FAILED))

    assert invoice_of(engine, invoice_id).failures == 1
    assert attempt_states(engine) == ["declined"]
    assert mails(engine) == ["payment_failed"]


def test_a_worker_that_died_after_the_call_is_made_up_for_by_the_event(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client)
    with pytest.raises(Killed):
        work(engine, now=NOW, gateways=watched(vendors, after=die), queues=QUEUES)

    handle(engine, vendors, told_by(stripe_sandbox, SUCCEEDED))
    assert invoice_of(engine, invoice_id).status == "paid"
    restart(engine)
    work(engine, now=NOW, gateways=vendors, queues=QUEUES)

    assert attempt_states(engine) == ["succeeded"]
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_a_failure_told_after_the_success_moves_nothing_backwards(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, AUTHENTICATED)
    invoice_id = an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    failed = told_by(stripe_sandbox, FAILED)
    pay_waiting_intents(stripe_sandbox)

    handle(engine, vendors, told_by(stripe_sandbox, SUCCEEDED), failed)

    assert invoice_of(engine, invoice_id).status == "paid"
    assert outcomes(engine) == [(SUCCEEDED, "succeeded"), (FAILED, "succeeded")]
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_a_client_that_authenticates_is_written_down_and_the_rest_goes_on(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, AUTHENTICATED)
    invoice_id = an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    pay_waiting_intents(stripe_sandbox)

    waits = told_by(stripe_sandbox, "payment_intent.requires_action")
    handle(engine, vendors, waits, told_by(stripe_sandbox, SUCCEEDED))

    assert invoice_of(engine, invoice_id).status == "paid"
    assert mails(engine) == ["authentication_needed", "receipt"]
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_a_success_that_comes_after_the_void_is_credit_and_flagged(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client)
    # The charge reaches Stripe, and for a day nothing that is asked finds it.
    stripe_sandbox.control.add_fault("lost_answer", times=None, path="/v1/payment_intents")
    sweep(engine, vendors)
    stripe_sandbox.control.clear_faults()
    give_up(engine)
    job = do(engine, vendors, void_invoice, account, invoice_id=invoice_id)
    assert job.state == "succeeded"

    handle(engine, vendors, told_by(stripe_sandbox, SUCCEEDED))

    assert invoice_of(engine, invoice_id).status == "void"
    [payment] = payments(engine)
    assert (payment.applied, payment.flagged) == (0, "invoice_void")
    assert credit_of(engine, client) == 1000
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_the_cancelling_that_we_asked_for_is_no_news(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, AUTHENTICATED)
    invoice_id = an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    do(engine, vendors, void_invoice, account, invoice_id=invoice_id)

    handle(engine, vendors, told_by(stripe_sandbox, "payment_intent.canceled"))

    assert attempt_states(engine) == ["canceled"]
    assert audited(engine, account) == []


def test_a_payment_that_is_not_ours_is_kept_and_left_alone(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    event = json.loads(json.dumps(told_by(stripe_sandbox, SUCCEEDED)))
    strangers = []
    for number, metadata in enumerate([{}, {"attempt": "7"}, {"attempt": str(uuid4())}]):
        stranger = json.loads(json.dumps(event))
        stranger["id"] = f"evt_stranger_{number}"
        stranger["data"]["object"] |= {"id": f"pi_stranger_{number}", "metadata": metadata}
        strangers.append(stranger)

    handle(engine, vendors, *strangers)

    assert outcomes(engine) == [(SUCCEEDED, "not_ours")] * 3
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_what_no_database_can_hold_is_left_out_of_an_event(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, SOFT)
    invoice_id = an_open_invoice(engine, account, client)
    ask(engine, collect_due, None)
    with pytest.raises(Killed):
        work(engine, now=NOW, gateways=watched(vendors, after=die), queues=QUEUES)
    event = json.loads(json.dumps(told_by(stripe_sandbox, FAILED)))
    intent = event["data"]["object"]
    intent["last_payment_error"]["message"] = "No\x00 money\ud800."
    intent["notes"] = [{"a\x00": ["b\udfff", 1, None, True, 0.5]}]

    handle(engine, vendors, event)

    [attempt] = attempts_of(engine, invoice_id)
    assert (attempt.state, attempt.message) == ("declined", "No money.")
    with Session(engine) as session:
        stored = session.scalars(select(WebhookEvent)).one()
    assert stored.payload["data"]["object"]["notes"] == [{"a": ["b", 1, None, True, 0.5]}]


def test_an_event_about_something_else_is_kept_and_left_alone(
    engine: Engine, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    event = stripe_sandbox.control.emit("account.updated", {"id": "acct_1", "object": "account"})

    handle(engine, vendors, event)

    assert outcomes(engine) == [("account.updated", "not_needed")]


def test_an_event_lets_what_waited_go_on(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, BANK)
    first = an_open_invoice(engine, account, client)
    second = an_open_invoice(engine, account, client, "20.00")
    sweep(engine, vendors)
    [intent] = stripe_sandbox.control.payment_intents()
    stripe_sandbox.control.settle(intent["id"])

    handle(engine, vendors, told_by(stripe_sandbox, SUCCEEDED), now=NOW + timedelta(days=3))

    assert invoice_of(engine, first).status == "paid"
    assert attempt_states(engine, second) == ["processing"]
    assert charged(stripe_sandbox) == [1000]


def test_an_event_that_is_gone_is_a_skipped_job(engine: Engine, vendors: Gateways) -> None:
    job_id = ask(engine, handle_payment_event, None, event_id=uuid4())
    work(engine, now=NOW, gateways=vendors, queues=QUEUES)
    [job] = jobs_of(engine, handle_payment_event)
    assert (job.id, job.state, job.reason) == (job_id, "skipped", "webhook_event_not_found")


def give_up(engine: Engine) -> None:
    """The attempt under way is believed never to have arrived, as after a day of asking."""
    [attempt] = attempts_of(engine)
    with Session(engine) as session, session.begin():
        session.add(attempt)
        attempt.move(AttemptState.CANCELED, NOW)


def test_why_a_debit_came_back_is_asked_also_where_its_answer_was_lost(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, BANK)
    an_open_invoice(engine, account, client)
    stripe_sandbox.control.add_fault(
        "lost_answer", times=None, path="/v1/payment_intents", after_effect=True
    )
    sweep(engine, vendors)
    assert attempt_states(engine) == ["unknown"]
    stripe_sandbox.control.clear_faults()
    [intent] = stripe_sandbox.control.payment_intents()
    stripe_sandbox.control.settle(intent["id"], "debit_not_authorized")
    # Events come in any order: the failure before what told that it was under way.
    told = [event_from(one) for one in stripe_sandbox.control.events()]
    [failed] = [one for one in told if one.type == "payment_intent.payment_failed"]
    with Session(engine) as session, session.begin():
        store_payment_event(session, failed, requested_by="webhook:stripe")
    work(engine, now=NOW, gateways=vendors, queues=["billing", "payments"])

    [attempt] = attempts_of(engine)
    assert (attempt.state, attempt.decline_code, attempt.decline_class) == (
        "declined",
        "debit_not_authorized",
        "hard",
    )
