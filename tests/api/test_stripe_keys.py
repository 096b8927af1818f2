"""An account's own Stripe key, and what its Stripe account tells us."""

import json
import time
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from gateways.sandbox.stripe.webhooks import signature
from models import Account, Scope, StripeMerchant, WebhookEvent
from tasks.accounts import create_account
from tests.api.calls import problem
from tests.api.conftest import Caller

KEY, SECRET = "sk_test_acct_own_4242", "whsec_of_the_own_account"
OWN = {"secret_key": KEY, "webhook_secret": SECRET}
EVENT = {
    "id": "evt_own",
    "object": "event",
    "type": "customer.updated",
    "created": 1_795_000_000,
    "data": {"object": {"id": "cus_1", "object": "customer"}},
}


def post_event(api: TestClient, account_id: object, secret: str = SECRET) -> Any:  # noqa: ANN401
    body = json.dumps(EVENT).encode()
    headers = {"Stripe-Signature": signature(body, secret, int(time.time()))}
    return api.post(f"/webhooks/stripe/{account_id}", content=body, headers=headers)


def test_a_key_is_kept_sealed_and_shown_only_by_its_end(
    engine: Engine, account: Account, api: TestClient
) -> None:
    kept = api.put("/v1/account/stripe-key", json=OWN)

    assert kept.status_code == 200, kept.text
    assert kept.json()["ends_with"] == "4242"
    assert kept.json()["webhook"] == f"/webhooks/stripe/{account.id}"
    shown = api.get("/v1/account")
    assert (shown.json()["stripe_key"], shown.json()["stripe_account"]) == ("4242", None)
    for secret in (KEY, SECRET):
        assert secret not in kept.text + shown.text
    with Session(engine) as session:
        [row] = session.scalars(select(StripeMerchant))
    assert {KEY, SECRET}.isdisjoint({row.sealed_key, row.sealed_webhook_secret})


def test_without_it_the_deployments_stripe_account_is_charged_through_again(
    api: TestClient,
) -> None:
    problem(api.delete("/v1/account/stripe-key"), 404, "stripe_key_not_found")
    api.put("/v1/account/stripe-key", json=OWN)

    gone = api.delete("/v1/account/stripe-key")

    assert gone.json()["deleted"] is True
    assert api.get("/v1/account").json()["stripe_key"] is None


def test_a_connected_account_is_set_and_taken_back(api: TestClient) -> None:
    changed = api.patch("/v1/account", json={"stripe_account": "acct_ada"})
    assert changed.json()["stripe_account"] == "acct_ada"

    assert api.patch("/v1/account", json={"net_days": 7}).json()["stripe_account"] == "acct_ada"
    back = api.patch("/v1/account", json={"stripe_account": None})
    assert back.json()["stripe_account"] is None


def test_a_connected_account_of_another_account_is_refused(
    engine: Engine, api: TestClient, caller: Caller
) -> None:
    with Session(engine, expire_on_commit=False) as session, session.begin():
        other = create_account(session, "Cardinal Prep")
    caller(of=other).patch("/v1/account", json={"stripe_account": "acct_ada"})

    refused = api.patch("/v1/account", json={"stripe_account": "acct_ada"})

    problem(refused, 409, "stripe_account_taken")


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"secret_key": "pk_test_12345678"}, "secret_key"),
        ({"secret_key": "sk_test_with space"}, "secret_key"),
        ({"secret_key": 7}, "secret_key"),
        ({"webhook_secret": "secret"}, "webhook_secret"),
        ({"webhook_secret": None}, "webhook_secret"),
        ({"same_stripe_account": True}, "same_stripe_account"),
        ({"other": 1}, "other"),
    ],
)
def test_a_wrong_key_is_refused_and_not_repeated(
    api: TestClient, wrong: dict[str, Any], field: str
) -> None:
    answer = api.put("/v1/account/stripe-key", json=OWN | wrong)

    problem(answer, 422, "invalid", field)
    assert KEY not in answer.text


def test_a_reader_cannot_set_a_key(caller: Caller) -> None:
    problem(caller(Scope.READ).put("/v1/account/stripe-key", json=OWN), 403, "scope_missing")


def test_events_of_the_own_stripe_account_are_kept_as_its_own(
    engine: Engine, account: Account, api: TestClient
) -> None:
    api.put("/v1/account/stripe-key", json=OWN)
    new = {"secret_key": "sk_test_acct_own_new", "webhook_secret": "whsec_the_new_one"}
    api.put("/v1/account/stripe-key", json={**new, "same_stripe_account": True})

    # While one secret replaces the other, both sign.
    assert post_event(api, account.id).json() == {"received": 1}
    assert post_event(api, account.id, "whsec_the_new_one").json() == {"received": 0}

    with Session(engine) as session:
        [event] = session.scalars(select(WebhookEvent))
        assert event.merchant_id == session.get_one(Account, account.id).merchant_id


def test_nobody_elses_signature_is_trusted(
    engine: Engine, account: Account, api: TestClient
) -> None:
    with Session(engine, expire_on_commit=False) as session, session.begin():
        other = create_account(session, "Cardinal Prep")
    api.put("/v1/account/stripe-key", json=OWN)

    problem(post_event(api, account.id, "whsec_nobodys"), 401, "untrusted_events")
    problem(post_event(api, other.id), 401, "untrusted_events")
    problem(post_event(api, "nobody"), 404, "account_not_found")
    with Session(engine) as session:
        assert session.scalars(select(WebhookEvent)).all() == []


def test_an_invoice_says_that_its_clients_card_is_elsewhere(
    api: TestClient, invoice: dict[str, Any]
) -> None:
    card = {"stripe_customer": "cus_1", "payment_method": "pm_1"}
    url = f"/v1/clients/{invoice['client']}/billing-method"
    api.put(url, json=card)
    assert api.get(f"/v1/invoices/{invoice['id']}").json()["next"]["what"] == "pay"

    api.patch("/v1/account", json={"stripe_account": "acct_ada"})

    shown = api.get(f"/v1/invoices/{invoice['id']}").json()["next"]
    assert shown["what"] == "add_card"
    assert "another Stripe account" in shown["why"]
    charged = api.post(f"/v1/invoices/{invoice['id']}/charge")
    assert "another Stripe account" in problem(charged, 409, "no_billing_method")["detail"]
    api.put(url, json=card)
    assert api.get(f"/v1/invoices/{invoice['id']}").json()["next"]["what"] == "pay"
