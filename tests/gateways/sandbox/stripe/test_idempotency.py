import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import stripe

from gateways.sandbox.stripe.control import StripeSandboxControl
from tests.gateways.sandbox.stripe.paying import card, header, pay, problem


def test_the_same_request_under_the_same_key_is_answered_again_and_done_once(
    client: stripe.StripeClient, customer: str, account: str, control: StripeSandboxControl
) -> None:
    method = card(client, customer)
    first = pay(client, customer, method, key=f"{account}-1")
    again = pay(client, customer, method, key=f"{account}-1")
    assert again.to_dict() == first.to_dict()
    assert again.last_response is not None
    assert again.last_response.headers["idempotent-replayed"] == "true"
    assert first.last_response is not None
    assert "idempotent-replayed" not in first.last_response.headers
    assert (
        again.last_response.headers["original-request"] == first.last_response.headers["request-id"]
    )
    assert len(control.charges(account=account)) == 1
    logged = control.requests(idempotency_key=f"{account}-1")
    assert [(entry.object_id, entry.replayed) for entry in logged] == [
        (first.id, False),
        (first.id, True),
    ]


def test_a_decline_is_answered_again_too(
    client: stripe.StripeClient, customer: str, account: str, control: StripeSandboxControl
) -> None:
    method = card(client, customer, "pm_card_chargeDeclinedLostCard")
    found = set()
    for _ in range(2):
        with pytest.raises(stripe.CardError) as decline:
            pay(client, customer, method, key=f"{account}-1")
        found.add(problem(decline.value).payment_intent.id)
    assert len(found) == 1
    assert len(control.charges(account=account)) == 1


def test_other_parameters_under_a_key_are_an_error(
    client: stripe.StripeClient, customer: str, account: str
) -> None:
    method = card(client, customer)
    pay(client, customer, method, key=f"{account}-1")
    with pytest.raises(stripe.IdempotencyError, match="same parameters") as refusal:
        pay(client, customer, method, key=f"{account}-1", amount=1300)
    assert (refusal.value.http_status, problem(refusal.value).type) == (400, "idempotency_error")
    with pytest.raises(stripe.IdempotencyError):
        client.v1.customers.create({}, {"idempotency_key": f"{account}-1"})
    assert pay(client, customer, method, key=f"{account}-1").status == "succeeded"


def test_a_key_whose_request_is_under_way_is_in_use(
    client: stripe.StripeClient,
    customer: str,
    account: str,
    control: StripeSandboxControl,
    eventually: Callable[[Callable[[], bool]], None],
) -> None:
    method = card(client, customer)
    control.add_fault("delay", seconds=1.0)
    key, slow = f"{account}-1", list[stripe.PaymentIntent]()
    thread = threading.Thread(target=lambda: slow.append(pay(client, customer, method, key=key)))
    thread.start()
    eventually(lambda: len(control.requests(idempotency_key=key)) == 1)
    with pytest.raises(stripe.APIError) as refusal:
        pay(client, customer, method, key=key)
    assert refusal.value.http_status == 409
    assert problem(refusal.value).code == "idempotency_key_in_use"
    thread.join()
    assert pay(client, customer, method, key=key).id == slow[0].id
    assert len(control.charges(account=account)) == 1


def test_many_at_once_under_one_key_charge_once(
    client: stripe.StripeClient, customer: str, account: str, control: StripeSandboxControl
) -> None:
    method = card(client, customer)
    control.add_fault("delay", seconds=0.2)

    def try_it(_: int) -> str | None:
        try:
            return pay(client, customer, method, key=f"{account}-1").id
        except stripe.APIError as refusal:
            return problem(refusal).code  # type: ignore[no-any-return]

    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(try_it, range(24)))
    (charge,) = control.charges(account=account)
    assert set(outcomes) == {charge["payment_intent"], "idempotency_key_in_use"}


def test_an_expired_key_charges_again(
    client: stripe.StripeClient, customer: str, account: str, control: StripeSandboxControl
) -> None:
    method = card(client, customer)
    first = pay(client, customer, method, key=f"{account}-1")
    assert control.expire_keys(older_than_seconds=3600) == 0
    assert control.expire_keys() > 0
    again = pay(client, customer, method, key=f"{account}-1")
    assert again.id != first.id
    control.set(key_lifetime=0)
    assert pay(client, customer, method, key=f"{account}-1").id not in {first.id, again.id}
    assert len(control.charges(account=account)) == 3


def test_what_was_refused_before_it_began_leaves_the_key_free(
    client: stripe.StripeClient, customer: str, account: str
) -> None:
    method = card(client, customer)
    with pytest.raises(stripe.InvalidRequestError, match="unknown parameter"):
        pay(client, customer, method, key=f"{account}-1", colour="red")
    assert pay(client, customer, method, key=f"{account}-1").status == "succeeded"


def test_what_an_endpoint_refused_is_kept(
    client: stripe.StripeClient, customer: str, account: str
) -> None:
    for replayed in (None, "true"):
        with pytest.raises(stripe.InvalidRequestError) as refusal:
            pay(client, customer, "pm_x", key=f"{account}-1")
        assert refusal.value.code == "resource_missing"
        assert header(refusal.value, "idempotent-replayed") == replayed


def test_what_an_endpoint_refused_has_had_no_effect(
    client: stripe.StripeClient, customer: str, account: str, control: StripeSandboxControl
) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        pay(client, customer, card(client, customer), expand=["colour"])
    assert control.charges(account=account) == []


def test_accounts_have_keys_of_their_own(client: stripe.StripeClient, account: str) -> None:
    key: stripe.RequestOptions = {"idempotency_key": f"{account}-1"}
    mine = client.v1.customers.create({}, key)
    other = client.v1.customers.create({}, {**key, "stripe_account": f"{account}x"})
    assert mine.id != other.id


def test_a_key_has_its_length(client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="255 characters"):
        client.v1.customers.create({}, {"idempotency_key": "k" * 256})
