from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from tasks.calls import Gateways
from tests.api.calls import a_charge, a_draft, problem
from tests.api.conftest import Finish, PutCard
from tests.worlds import work

DETAILS = ["kind", "brand", "last4", "exp_month", "exp_year", "checked_at"]
CARD = {"stripe_customer": "cus_1", "payment_method": "pm_1"}


def test_a_client_is_put_on_a_card_and_shows_it(api: TestClient, ada: dict[str, Any]) -> None:
    url = f"/v1/clients/{ada['id']}"
    assert ada["billing_method"] is None

    answer = api.put(f"{url}/billing-method", json=CARD)

    assert answer.status_code == 200
    method = answer.json()
    assert method == {
        **CARD,
        **dict.fromkeys(["stopped_for", *DETAILS]),
        "created_at": method["created_at"],
    }
    assert api.get(url).json()["billing_method"] == method
    assert api.patch(url, json={}).json()["billing_method"] == method
    api.post("/v1/clients", json={"name": "No card"})
    listed = api.get("/v1/clients").json()["data"]
    assert [client["billing_method"] for client in listed] == [None, method]


def test_the_same_card_again_changes_nothing_and_another_one_replaces_it(
    api: TestClient, ada: dict[str, Any]
) -> None:
    url = f"/v1/clients/{ada['id']}/billing-method"
    first = api.put(url, json=CARD).json()

    assert api.put(url, json=CARD).json() == first
    other = api.put(url, json={**CARD, "payment_method": "pm_2"}).json()
    assert (other["payment_method"], other["created_at"] > first["created_at"]) == ("pm_2", True)


def test_another_accounts_customer_is_refused_and_ones_own_clients_may_share_one(
    api: TestClient, stranger: TestClient, ada: dict[str, Any]
) -> None:
    bea = api.post("/v1/clients", json={"name": "Bea"}).json()
    theirs = stranger.post("/v1/clients", json={"name": "Theirs"}).json()
    for client in (ada, bea):
        assert api.put(f"/v1/clients/{client['id']}/billing-method", json=CARD).status_code == 200
    url = f"/v1/clients/{theirs['id']}"

    other_card = {**CARD, "payment_method": "pm_2"}
    body = problem(
        stranger.put(f"{url}/billing-method", json=other_card), 409, "stripe_customer_taken"
    )

    assert body["detail"] == "The Stripe customer cus_1 is not this account's."
    assert stranger.get(url).json()["billing_method"] is None


def test_a_card_is_removed_once(api: TestClient, ada: dict[str, Any]) -> None:
    url = f"/v1/clients/{ada['id']}"
    api.put(f"{url}/billing-method", json=CARD)

    answer = api.delete(f"{url}/billing-method")

    assert (answer.status_code, answer.json()) == (200, {"client": ada["id"], "deleted": True})
    assert api.get(url).json()["billing_method"] is None
    body = problem(api.delete(f"{url}/billing-method"), 404, "billing_method_not_found")
    assert body["detail"] == f"There is no billing method of client {ada['id']}."


def test_a_card_that_must_not_be_tried_again_says_why_and_a_new_one_goes_on(
    engine: Engine,
    api: TestClient,
    ada: dict[str, Any],
    put_card: PutCard,
    finish: Finish,
) -> None:
    url = f"/v1/clients/{ada['id']}"
    put_card(ada["id"], "pm_card_chargeDeclinedStolenCard")
    a_charge(api, ada)
    draft = a_draft(engine, api, ada["id"])
    finalize = f"/v1/invoices/{draft['id']}/finalize"
    finish(api.post(finalize, json={"collect": True}))
    assert api.get(url).json()["billing_method"]["stopped_for"] == "stolen_card"

    assert put_card(ada["id"])["stopped_for"] is None

    (job,) = api.get("/v1/jobs?kind=collect_client&state=ready").json()["data"]
    assert job["subject"] == {"type": "client", "id": ada["id"]}


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, ["stripe_customer", "payment_method"]),
        ({**CARD, "payment_method": ""}, ["payment_method"]),
        ({**CARD, "stripe_customer": None}, ["stripe_customer"]),
        ({**CARD, "number": "4242424242424242"}, ["number"]),
    ],
)
def test_a_card_is_named_as_stripe_does_and_never_by_its_number(
    api: TestClient, ada: dict[str, Any], body: dict[str, Any], fields: list[str]
) -> None:
    url = f"/v1/clients/{ada['id']}/billing-method"

    problem(api.put(url, json=body), 422, "invalid", *fields)


def test_the_card_of_an_unknown_client_is_not_found(api: TestClient) -> None:
    url = f"/v1/clients/{uuid4()}/billing-method"

    problem(api.put(url, json=CARD), 404, "client_not_found")
    problem(api.delete(url), 404, "client_not_found")


def test_a_second_card_is_set_shown_and_removed(api: TestClient, ada: dict[str, Any]) -> None:
    url = f"/v1/clients/{ada['id']}"
    assert (ada["backup_method"], ada["use_backup_card"]) == (None, False)
    other = {**CARD, "payment_method": "pm_2"}
    api.put(f"{url}/billing-method", json=CARD)

    answer = api.put(f"{url}/backup-method", json=other)

    assert answer.status_code == 200
    backup = answer.json()
    assert backup == {
        **other,
        **dict.fromkeys(["stopped_for", *DETAILS]),
        "created_at": backup["created_at"],
    }
    assert api.put(f"{url}/backup-method", json=other).json() == backup
    changed = api.patch(url, json={"use_backup_card": True}).json()
    assert (changed["backup_method"], changed["use_backup_card"]) == (backup, True)
    (listed,) = api.get("/v1/clients").json()["data"]
    assert listed["backup_method"] == backup
    removed = api.delete(f"{url}/backup-method")
    assert (removed.status_code, removed.json()) == (200, {"client": ada["id"], "deleted": True})
    problem(api.delete(f"{url}/backup-method"), 404, "backup_method_not_found")
    assert api.get(url).json()["backup_method"] is None


def test_the_card_that_is_charged_is_no_second_card(
    api: TestClient, stranger: TestClient, ada: dict[str, Any]
) -> None:
    url = f"/v1/clients/{ada['id']}"
    api.put(f"{url}/billing-method", json=CARD)

    problem(api.put(f"{url}/backup-method", json=CARD), 422, "invalid", "payment_method")

    theirs = stranger.post("/v1/clients", json={"name": "Theirs"}).json()
    other = {**CARD, "payment_method": "pm_2"}
    answer = stranger.put(f"/v1/clients/{theirs['id']}/backup-method", json=other)
    problem(answer, 409, "stripe_customer_taken")
    problem(stranger.put(f"{url}/backup-method", json=other), 404, "client_not_found")
    problem(stranger.delete(f"{url}/backup-method"), 404, "client_not_found")


def test_a_first_card_that_is_removed_leaves_its_place_to_the_second(
    api: TestClient, ada: dict[str, Any]
) -> None:
    url = f"/v1/clients/{ada['id']}"
    api.put(f"{url}/billing-method", json=CARD)
    api.put(f"{url}/backup-method", json={**CARD, "payment_method": "pm_2"})

    assert api.delete(f"{url}/billing-method").status_code == 200

    shown = api.get(url).json()
    assert shown["billing_method"]["payment_method"] == "pm_2"
    assert shown["backup_method"] is None


def test_what_a_card_is_is_shown_once_stripe_was_asked(
    engine: Engine,
    api: TestClient,
    ada: dict[str, Any],
    *,
    put_card: PutCard,
    vendors: Gateways,
) -> None:
    put_card(ada["id"])

    work(engine, gateways=vendors)

    shown = api.get(f"/v1/clients/{ada['id']}").json()["billing_method"]
    assert (shown["kind"], shown["brand"], shown["last4"]) == ("card", "visa", "4242")
    assert shown["checked_at"].endswith("Z")


def test_a_card_that_stripe_does_not_know_says_so(
    engine: Engine, api: TestClient, ada: dict[str, Any], vendors: Gateways
) -> None:
    api.put(f"/v1/clients/{ada['id']}/billing-method", json=CARD)

    work(engine, gateways=vendors)

    shown = api.get(f"/v1/clients/{ada['id']}").json()["billing_method"]
    assert shown["stopped_for"] == "resource_missing"
