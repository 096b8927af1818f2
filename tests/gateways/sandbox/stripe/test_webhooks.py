from collections.abc import Callable

import pytest
import stripe

from gateways.sandbox.processes import LocalServerError
from gateways.sandbox.stripe.control import StripeSandboxControl
from tests.gateways.sandbox.stripe.paying import Receiver, card, pay

Eventually = Callable[[Callable[[], bool]], None]


def test_events_arrive_signed_as_stripe_signs(
    client: stripe.StripeClient,
    control: StripeSandboxControl,
    receiver: Receiver,
    eventually: Eventually,
) -> None:
    secret = control.set_webhook(receiver.url)
    made = client.v1.customers.create({"name": "Ærlig"})
    eventually(lambda: len(receiver.taken) == 1)
    (event,) = receiver.events(secret)
    assert (event.type, event.data.object["id"]) == ("customer.created", made.id)
    assert event.data.object["name"] == "Ærlig"
    with pytest.raises(stripe.SignatureVerificationError):
        receiver.events("whsec_another")


def test_only_the_wanted_types_of_event_are_delivered(
    client: stripe.StripeClient,
    control: StripeSandboxControl,
    receiver: Receiver,
    eventually: Eventually,
) -> None:
    control.set(webhook_events="payment_intent.succeeded,customer.updated")
    secret = control.set_webhook(receiver.url)
    made = client.v1.customers.create()
    client.v1.customers.update(made.id, {"name": "Ada"})
    eventually(lambda: len(receiver.taken) == 1)
    (event,) = receiver.events(secret)
    assert event.type == "customer.updated"
    unwanted = control.events("customer.created")[-1]
    assert unwanted["data"]["object"]["id"] == made.id
    assert unwanted["id"] not in {one["event"] for one in control.deliveries()}


def test_an_event_is_tried_until_it_is_taken(
    client: stripe.StripeClient,
    control: StripeSandboxControl,
    receiver: Receiver,
    eventually: Eventually,
) -> None:
    control.set(webhook_retry=0.01)
    control.set_webhook(receiver.url, "whsec_mine")
    receiver.refusals = 3
    client.v1.customers.create()
    eventually(lambda: len(receiver.taken) == 1)
    assert len(receiver.events("whsec_mine")) == 1
    eventually(lambda: control.deliveries()[-1]["state"] == "delivered")
    assert control.deliveries()[-1]["attempts"] == 4


def test_a_receiver_that_is_down_is_tried_again(
    client: stripe.StripeClient,
    control: StripeSandboxControl,
    receiver: Receiver,
    eventually: Eventually,
) -> None:
    control.set(webhook_retry=0.05)
    control.set_webhook("http://127.0.0.1:9/nobody")
    client.v1.customers.create()
    eventually(lambda: control.deliveries()[-1]["attempts"] >= 2)
    assert "Connection refused" in control.deliveries()[-1]["last_error"]
    control.set_webhook(receiver.url)
    eventually(lambda: len(receiver.taken) == 1)


def test_paused_events_collect_and_can_come_in_another_order(
    client: stripe.StripeClient,
    customer: str,
    control: StripeSandboxControl,
    receiver: Receiver,
    eventually: Eventually,
) -> None:
    method = card(client, customer)
    control.set(webhooks_paused=True, webhook_order="newest", webhook_parallel=1)
    secret = control.set_webhook(receiver.url)
    pay(client, customer, method)
    assert [delivery["state"] for delivery in control.deliveries()[-3:]] == ["pending"] * 3
    assert receiver.taken == []
    control.set(webhooks_paused=False)
    eventually(lambda: len(receiver.taken) == 3)
    assert [event.type for event in receiver.events(secret)] == [
        "payment_intent.succeeded",
        "charge.succeeded",
        "payment_intent.created",
    ]


def test_an_event_can_come_twice_and_again_later(
    client: stripe.StripeClient,
    control: StripeSandboxControl,
    receiver: Receiver,
    eventually: Eventually,
) -> None:
    control.set(webhook_copies=2)
    secret = control.set_webhook(receiver.url)
    client.v1.customers.create()
    eventually(lambda: len(receiver.taken) == 2)
    first, second = receiver.events(secret)
    assert first.id == second.id
    control.redeliver(first.id)
    eventually(lambda: len(receiver.taken) == 3)
    assert receiver.events(secret)[-1].id == first.id
    with pytest.raises(LocalServerError, match="no event evt_x"):
        control.redeliver("evt_x")


def test_a_delayed_event_comes_after_its_time(
    client: stripe.StripeClient,
    control: StripeSandboxControl,
    receiver: Receiver,
    eventually: Eventually,
) -> None:
    control.set(webhook_delay=3600)
    secret = control.set_webhook(receiver.url)
    client.v1.customers.create({"name": "late"})
    control.set(webhook_delay=0.0)
    client.v1.customers.create({"name": "soon"})
    eventually(lambda: len(receiver.taken) == 1)
    (event,) = receiver.events(secret)
    assert event.data.object["name"] == "soon"


def test_an_event_that_the_sandbox_never_makes_can_be_made(
    account: str,
    control: StripeSandboxControl,
    receiver: Receiver,
    eventually: Eventually,
) -> None:
    secret = control.set_webhook(receiver.url)
    dispute = {"id": "du_1", "object": "dispute", "charge": "ch_1", "status": "needs_response"}
    made = control.emit("charge.dispute.created", dispute, account=account)
    eventually(lambda: len(receiver.taken) == 1)
    (event,) = receiver.events(secret)
    assert (event.id, event.account) == (made["id"], account)
    assert event.data.object["charge"] == "ch_1"


def test_an_account_can_have_a_webhook_of_its_own(
    client: stripe.StripeClient,
    control: StripeSandboxControl,
    receiver: Receiver,
    account: str,
    eventually: Eventually,
) -> None:
    control.set_webhook("http://127.0.0.1:9/nobody")
    secret = control.set_webhook(receiver.url, account=account)
    client.v1.customers.create(options={"stripe_account": f"{account}other"})
    made = client.v1.customers.create()
    eventually(lambda: len(receiver.taken) == 1)
    (event,) = receiver.events(secret)
    assert event.data.object["id"] == made.id
    assert "account" not in event


def test_without_an_address_nothing_is_delivered(
    client: stripe.StripeClient, control: StripeSandboxControl, receiver: Receiver
) -> None:
    control.set_webhook(receiver.url)
    control.remove_webhook()
    before = len(control.deliveries())
    client.v1.customers.create()
    assert len(control.deliveries()) == before
