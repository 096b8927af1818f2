from typing import cast

import pytest
import stripe

from gateways.sandbox.processes import LocalServerError
from gateways.sandbox.stripe.control import StripeSandboxControl
from gateways.sandbox.stripe.faults import FaultKind, LimitCode
from gateways.sandbox.stripe.settings import Settings
from tests.gateways.sandbox.stripe.paying import card, client_of, header, pay, problem


def test_a_lost_answer_was_a_success_and_the_key_gives_it(
    client: stripe.StripeClient, customer: str, account: str, control: StripeSandboxControl
) -> None:
    method = card(client, customer)
    control.add_fault("lost_answer")
    with pytest.raises(stripe.APIConnectionError):
        pay(client, customer, method, key=f"{account}-1")
    (charge,) = control.charges(account=account)
    assert charge["paid"]
    (logged,) = control.requests(idempotency_key=f"{account}-1")
    assert (logged.status, logged.fault) == (None, "lost_answer")
    assert logged.object_id == charge["payment_intent"]
    assert pay(client, customer, method, key=f"{account}-1").id == charge["payment_intent"]
    assert len(control.charges(account=account)) == 1


def test_a_connection_reset_before_the_effect_has_had_none(
    client: stripe.StripeClient, customer: str, account: str, control: StripeSandboxControl
) -> None:
    method = card(client, customer)
    control.add_fault("reset")
    with pytest.raises(stripe.APIConnectionError):
        pay(client, customer, method, key=f"{account}-1")
    assert control.charges(account=account) == []
    assert pay(client, customer, method, key=f"{account}-1").status == "succeeded"


RECOVERABLE: list[FaultKind] = ["lost_answer", "reset", "server_error", "conflict"]


@pytest.mark.parametrize("kind", RECOVERABLE)
def test_the_sdk_gets_over_it_by_itself_and_charges_once(
    patient: stripe.StripeClient,
    customer: str,
    account: str,
    control: StripeSandboxControl,
    kind: FaultKind,
) -> None:
    method = card(patient, customer)
    control.add_fault(kind)
    assert pay(patient, customer, method).status == "succeeded"
    assert len(control.charges(account=account)) == 1


def test_a_server_error_before_the_effect_leaves_the_key_free(
    client: stripe.StripeClient, customer: str, account: str, control: StripeSandboxControl
) -> None:
    method = card(client, customer)
    control.add_fault("server_error")
    with pytest.raises(stripe.APIError) as failure:
        pay(client, customer, method, key=f"{account}-1")
    assert (failure.value.http_status, problem(failure.value).type) == (500, "api_error")
    assert control.charges(account=account) == []
    assert pay(client, customer, method, key=f"{account}-1").status == "succeeded"


def test_a_kept_server_error_is_the_keys_answer_for_good(
    client: stripe.StripeClient, customer: str, account: str, control: StripeSandboxControl
) -> None:
    method = card(client, customer)
    control.add_fault("server_error", is_saved=True)
    for replayed in (None, "true"):
        with pytest.raises(stripe.APIError) as failure:
            pay(client, customer, method, key=f"{account}-1")
        assert failure.value.http_status == 500
        assert header(failure.value, "idempotent-replayed") == replayed
    assert control.charges(account=account) == []


def test_a_server_error_after_the_effect_is_kept_and_the_charge_stands(
    patient: stripe.StripeClient, customer: str, account: str, control: StripeSandboxControl
) -> None:
    method = card(patient, customer)
    control.add_fault("server_error_after")
    for _ in range(2):
        with pytest.raises(stripe.APIError) as failure:
            pay(patient, customer, method, key=f"{account}-1", metadata={"invoice": "in_9"})
        assert header(failure.value, "stripe-should-retry") == "false"
    (charge,) = control.charges(account=account)
    assert charge["paid"]
    found = patient.v1.payment_intents.search({"query": "metadata['invoice']:'in_9'"})
    assert [intent.id for intent in found.data] == [charge["payment_intent"]]


CODES: list[LimitCode] = ["rate_limit", "lock_timeout"]


@pytest.mark.parametrize("code", CODES)
def test_a_rate_limit_is_not_tried_again_by_the_sdk(
    patient: stripe.StripeClient, account: str, control: StripeSandboxControl, code: LimitCode
) -> None:
    control.add_fault("rate_limit", retry_after=7, code=code)
    with pytest.raises(stripe.RateLimitError) as refusal:
        patient.v1.customers.create()
    assert header(refusal.value, "retry-after") == "7"
    assert problem(refusal.value).code == code
    assert [entry.status for entry in control.requests() if entry.account == account] == [429]
    control.add_fault("rate_limit")
    with pytest.raises(stripe.RateLimitError) as refusal:
        patient.v1.customers.create()
    assert header(refusal.value, "retry-after") is None


def test_a_conflict_is_409(client: stripe.StripeClient, control: StripeSandboxControl) -> None:
    control.add_fault("conflict")
    with pytest.raises(stripe.APIError) as refusal:
        client.v1.customers.create()
    assert refusal.value.http_status == 409


@pytest.mark.parametrize("after_effect", [False, True])
def test_an_answer_can_take_longer_than_the_caller_waits(
    client: stripe.StripeClient,
    customer: str,
    account: str,
    control: StripeSandboxControl,
    after_effect: bool,  # noqa: FBT001 - pytest passes it by name.
) -> None:
    method = card(client, customer)
    hasty = client_of(control.url, account, timeout=0.3)
    control.add_fault("delay", seconds=8, after_effect=after_effect)
    with pytest.raises(stripe.APIConnectionError):
        pay(hasty, customer, method, key=f"{account}-1")
    assert len(control.charges(account=account)) == (1 if after_effect else 0)
    with pytest.raises(stripe.APIError) as refusal:
        pay(client, customer, method, key=f"{account}-1")
    assert refusal.value.http_status == 409


def test_a_fault_strikes_as_often_as_it_was_told_and_where_it_was_told(
    client: stripe.StripeClient, customer: str, control: StripeSandboxControl
) -> None:
    control.add_fault("conflict", times=2, path="/v1/payment_intents*")
    control.add_fault("rate_limit", times=None, parameters={"metadata[invoice]": "in_1"})
    assert client.v1.customers.create().id
    for _ in range(2):
        with pytest.raises(stripe.APIError):
            pay(client, customer, "pm_card_visa")
    assert [fault["kind"] for fault in control.faults()] == ["rate_limit"]
    assert pay(client, customer, "pm_card_visa").status == "succeeded"
    for _ in range(3):
        with pytest.raises(stripe.RateLimitError):
            pay(client, customer, "pm_card_visa", metadata={"invoice": "in_1"})
    assert pay(client, customer, "pm_card_visa", metadata={"invoice": "in_2"}).id
    control.clear_faults()
    assert pay(client, customer, "pm_card_visa", metadata={"invoice": "in_1"}).id


def test_reading_is_struck_only_where_that_is_asked(
    client: stripe.StripeClient, control: StripeSandboxControl
) -> None:
    control.add_fault("server_error", method="GET")
    client.v1.customers.create()
    with pytest.raises(stripe.APIError):
        client.v1.customers.list()
    assert control.faults() == []


def test_an_account_may_create_so_many_a_second(
    client: stripe.StripeClient, customer: str, account: str, control: StripeSandboxControl
) -> None:
    control.set(creates_per_second=3)

    def create_many() -> None:
        for _ in range(100):
            client.v1.customers.create()

    with pytest.raises(stripe.RateLimitError) as refusal:
        create_many()
    assert problem(refusal.value).code == "rate_limit"
    assert client.v1.customers.retrieve(customer).id == customer
    assert client.v1.customers.create({}, {"stripe_account": f"{account}x"}).id


def test_what_is_no_fault_or_setting_is_refused(control: StripeSandboxControl) -> None:
    with pytest.raises(LocalServerError, match="kind must be one of"):
        control.add_fault(cast("FaultKind", "earthquake"))
    for wrong in ({"colour": 1}, {"webhook_order": "alphabetical"}, {"webhook_copies": "2"}):
        with pytest.raises(LocalServerError, match="refused settings"):
            control.set(**wrong)
    assert control.settings() == Settings().as_json()
