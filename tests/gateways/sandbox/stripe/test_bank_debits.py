from collections.abc import Callable

import pytest
import stripe

from gateways.sandbox.processes import LocalServerError
from gateways.sandbox.stripe.control import StripeSandboxControl
from tests.gateways.sandbox.stripe.paying import card, pay


def debit(client: stripe.StripeClient, customer: str, name: str) -> stripe.PaymentIntent:
    return pay(client, customer, card(client, customer, f"pm_usBankAccount_{name}"))


def test_a_debit_is_processing_until_it_settles(
    client: stripe.StripeClient, customer: str, control: StripeSandboxControl
) -> None:
    intent = debit(client, customer, "success")
    assert intent.status == "processing"
    charge = client.v1.charges.retrieve(str(intent.latest_charge))
    assert (charge.status, charge.paid) == ("pending", False)
    assert control.settle(intent.id)["status"] == "succeeded"
    charge = client.v1.charges.retrieve(charge.id)
    assert (charge.status, charge.paid) == ("succeeded", True)
    events = [
        event["type"]
        for event in control.events()
        if event["data"]["object"]["id"] in {intent.id, charge.id}
    ]
    assert events == [
        "payment_intent.created",
        "charge.pending",
        "payment_intent.processing",
        "charge.succeeded",
        "payment_intent.succeeded",
    ]


def test_a_debit_can_come_back_days_later(
    client: stripe.StripeClient, customer: str, control: StripeSandboxControl
) -> None:
    intent = debit(client, customer, "success")
    failed = control.settle(intent.id, "insufficient_funds")
    assert failed["status"] == "requires_payment_method"
    assert failed["last_payment_error"]["code"] == "payment_intent_payment_attempt_failed"
    charge = client.v1.charges.retrieve(str(intent.latest_charge))
    assert (charge.status, charge.failure_code) == ("failed", "insufficient_funds")


@pytest.mark.parametrize(
    ("name", "status"), [("success", "succeeded"), ("accountClosed", "requires_payment_method")]
)
@pytest.mark.usefixtures("settling_at_once")
def test_it_settles_by_itself_after_a_while(
    client: stripe.StripeClient,
    customer: str,
    eventually: Callable[[Callable[[], bool]], None],
    name: str,
    status: str,
) -> None:
    intent = debit(client, customer, name)
    eventually(lambda: client.v1.payment_intents.retrieve(intent.id).status == status)


def test_one_that_never_settles_can_be_cancelled(
    client: stripe.StripeClient, customer: str, control: StripeSandboxControl
) -> None:
    control.set(settle_after=0)
    intent = debit(client, customer, "processing")
    assert client.v1.payment_intents.cancel(intent.id).status == "canceled"
    control.set(settle_after=None)
    settling = debit(client, customer, "success")
    with pytest.raises(stripe.InvalidRequestError, match="status of processing"):
        client.v1.payment_intents.cancel(settling.id)


def test_only_dollars_are_debited(client: stripe.StripeClient, customer: str) -> None:
    method = card(client, customer, "pm_usBankAccount_success")
    with pytest.raises(stripe.InvalidRequestError, match="cannot be used with the currency eur"):
        pay(client, customer, method, currency="eur")


def test_only_what_is_processing_settles(
    client: stripe.StripeClient, customer: str, control: StripeSandboxControl
) -> None:
    paid = pay(client, customer, card(client, customer))
    with pytest.raises(LocalServerError, match="status of succeeded"):
        control.settle(paid.id)
    with pytest.raises(LocalServerError, match="outcome must be"):
        control.settle(paid.id, "bounced")
