import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import stripe

from gateways.sandbox.processes import LocalServerError
from gateways.sandbox.stripe.control import StripeSandboxControl
from gateways.sandbox.stripe.server import StripeSandbox
from tests.gateways.sandbox.stripe.paying import Receiver, card, client_of, pay

Eventually = Callable[[Callable[[], bool]], None]


def test_everything_outlives_a_kill(
    directory: Path, receiver: Receiver, eventually: Eventually
) -> None:
    with StripeSandbox(directory) as sandbox:
        url, control, client = sandbox.url, sandbox.control, client_of(sandbox.url)
        customer = client.v1.customers.create().id
        method = card(client, customer)
        first = pay(client, customer, method, key="one")
        debit = pay(client, customer, card(client, customer, "pm_usBankAccount_success"))
        control.add_fault("rate_limit", times=None, path="/v1/refunds")
        control.set(webhooks_paused=True)
        secret = control.set_webhook(receiver.url)
        client.v1.customers.update(customer, {"name": "Kestrel"})
        log = control.requests()
        sandbox.kill()
        assert not sandbox.is_running
        assert sandbox.start() == url
        assert pay(client, customer, method, key="one").to_dict() == first.to_dict()
        assert control.requests()[: len(log)] == log
        assert len(control.charges()) == 2
        with pytest.raises(stripe.RateLimitError):
            client.v1.refunds.create({"payment_intent": first.id})
        assert control.settle(debit.id)["status"] == "succeeded"
        control.set(webhooks_paused=False)
        eventually(lambda: len(receiver.taken) == 3)
        assert {event.type for event in receiver.events(secret)} == {
            "customer.updated",
            "charge.succeeded",
            "payment_intent.succeeded",
        }


def test_a_request_under_way_when_it_is_killed_has_had_no_effect_and_its_key_is_free(
    directory: Path, eventually: Eventually
) -> None:
    with StripeSandbox(directory) as sandbox:
        control, client = sandbox.control, client_of(sandbox.url)
        customer = client.v1.customers.create().id
        method = card(client, customer)
        control.add_fault("delay", seconds=60)
        lost = list[Exception]()

        def give_up() -> None:
            with pytest.raises(stripe.APIConnectionError) as failure:
                pay(client, customer, method, key="one")
            lost.append(failure.value)

        thread = threading.Thread(target=give_up)
        thread.start()
        eventually(lambda: len(control.requests(idempotency_key="one")) == 1)
        sandbox.kill()
        thread.join()
        assert len(lost) == 1
        sandbox.start()
        assert control.charges() == []
        assert [entry.status for entry in control.requests(idempotency_key="one")] == [None]
        assert pay(client, customer, method, key="one").status == "succeeded"


def test_a_debit_due_while_it_was_down_settles_when_it_is_back(
    directory: Path, eventually: Eventually
) -> None:
    with StripeSandbox(directory) as sandbox:
        client = client_of(sandbox.url)
        sandbox.control.set(settle_after=0.5)
        customer = client.v1.customers.create().id
        debit = pay(client, customer, card(client, customer, "pm_usBankAccount_success"))
        sandbox.stop()
        sandbox.start()
        client = client_of(sandbox.url)
        eventually(lambda: client.v1.payment_intents.retrieve(debit.id).status == "succeeded")


def test_two_run_side_by_side_and_a_taken_port_is_given_up(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with StripeSandbox(directory / "one") as one:
        two = StripeSandbox(directory / "two")
        monkeypatch.setattr(two, "_port", one._port)
        with two:
            assert two.url != one.url
            client_of(one.url).v1.customers.create()
            assert len(one.control.objects("customer")) == 1
            assert two.control.objects("customer") == []


def test_stopping_is_clean_and_leaves_an_empty_log(directory: Path) -> None:
    with StripeSandbox(directory) as sandbox:
        client_of(sandbox.url).v1.customers.create()
        control = sandbox.control
    assert sandbox.log.read_text() == ""
    with pytest.raises(LocalServerError, match="does not answer"):
        control.requests()


def test_one_not_started_has_no_control_side(directory: Path) -> None:
    with pytest.raises(LocalServerError, match="Stripe is not running"):
        _ = StripeSandbox(directory).control


def test_the_log_keeps_every_request_with_what_was_sent(
    client: stripe.StripeClient, account: str, control: StripeSandboxControl
) -> None:
    made = client.v1.customers.create(
        {"name": "Bluebird", "metadata": {"client": "7"}}, {"idempotency_key": account}
    )
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.charges.retrieve("ch_x")
    create, retrieve = (entry for entry in control.requests() if entry.account == account)
    assert (create.method, create.path, create.status) == ("POST", "/v1/customers", 200)
    assert create.parameters == {"name": "Bluebird", "metadata[client]": "7"}
    assert (create.idempotency_key, create.object_id) == (account, made.id)
    assert (retrieve.path, retrieve.status) == ("/v1/charges/ch_x", 404)
    assert made.last_response is not None
    assert create.request_id == made.last_response.headers["request-id"]
