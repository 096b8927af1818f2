from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from models import Scope
from tests.api.calls import a_charge, a_draft, done, problem
from tests.api.conftest import Caller

NEW = {"name": "VAT", "percent": "7.70", "inclusive": False, "valid_from": "2026-01-01"}
UNKNOWN = "019ae8a3-5c00-7000-8000-000000000099"


def a_rate(api: TestClient, **fields: Any) -> dict[str, Any]:
    answer = api.post("/v1/tax-rates", json={**NEW, **fields})
    assert answer.status_code == 201, answer.text
    rate: dict[str, Any] = answer.json()
    return rate


def test_a_rate_is_made_and_shown(api: TestClient) -> None:
    answer = api.post("/v1/tax-rates", json=NEW)

    assert answer.status_code == 201
    rate = answer.json()
    assert rate == {
        **NEW,
        "id": rate["id"],
        "percent": "7.7",
        "valid_to": None,
        "created_at": rate["created_at"],
    }
    assert answer.headers["Location"] == f"/v1/tax-rates/{rate['id']}"
    assert api.get(answer.headers["Location"]).json() == rate


def test_a_rate_is_made_once_however_often_it_is_sent(api: TestClient) -> None:
    key = {"Idempotency-Key": "vat-2026"}

    first = api.post("/v1/tax-rates", json=NEW, headers=key)

    assert api.post("/v1/tax-rates", json=NEW, headers=key).json() == first.json()
    assert len(api.get("/v1/tax-rates").json()["data"]) == 1


def test_rates_are_listed_newest_first_in_pages(api: TestClient) -> None:
    rates = [a_rate(api, name=str(number)) for number in range(3)]

    page = api.get("/v1/tax-rates?limit=2").json()
    rest = api.get(f"/v1/tax-rates?limit=2&cursor={page['next_cursor']}").json()

    assert page["data"] + rest["data"] == rates[::-1]
    assert rest["next_cursor"] is None


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"percent": 20}, "percent"),
        ({"percent": "100.0001"}, "percent"),
        ({"percent": "-1"}, "percent"),
        ({"percent": "0.00001"}, "percent"),
        ({"inclusive": "no"}, "inclusive"),
        ({"name": " "}, "name"),
        ({"valid_from": "2026"}, "valid_from"),
        ({"valid_to": "2026-01-01"}, "valid_to"),
        ({"country": "CH"}, "country"),
    ],
)
def test_a_wrong_value_is_named(api: TestClient, fields: dict[str, Any], named: str) -> None:
    problem(api.post("/v1/tax-rates", json={**NEW, **fields}), 422, "invalid", named)


def test_only_the_end_of_a_rate_changes(api: TestClient) -> None:
    rate = a_rate(api)
    url = f"/v1/tax-rates/{rate['id']}"

    ended = api.patch(url, json={"valid_to": "2026-07-01"})

    assert ended.json() == {**rate, "valid_to": "2026-07-01"}
    assert api.patch(url, json={}).json() == ended.json()
    problem(api.patch(url, json={"percent": "8"}), 422, "invalid", "percent")
    problem(api.patch(url, json={"valid_to": "2026-01-01"}), 422, "invalid", "valid_to")
    assert api.patch(url, json={"valid_to": None}).json() == rate


def test_an_unknown_rate_is_not_found(api: TestClient) -> None:
    url = f"/v1/tax-rates/{UNKNOWN}"

    problem(api.get(url), 404, "tax_rate_not_found")
    problem(api.patch(url, json={}), 404, "tax_rate_not_found")


def test_rates_are_changed_by_writers_alone(api: TestClient, caller: Caller) -> None:
    rate = a_rate(api)
    reader = caller(Scope.READ)

    assert reader.get("/v1/tax-rates").json()["data"] == [rate]
    problem(reader.post("/v1/tax-rates", json=NEW), 403, "scope_missing")
    problem(reader.patch(f"/v1/tax-rates/{rate['id']}", json={}), 403, "scope_missing")


def test_the_account_clients_and_charges_name_their_rates(
    api: TestClient, ada: dict[str, Any]
) -> None:
    rates = [a_rate(api)["id"]]
    url = f"/v1/clients/{ada['id']}"
    assert (ada["tax_rates"], ada["tax_exempt"]) == (None, False)

    assert api.patch("/v1/account", json={"tax_rates": rates}).json()["tax_rates"] == rates
    new = {"name": "B", "tax_rates": rates, "tax_exempt": True}
    made = api.post("/v1/clients", json=new).json()
    assert (made["tax_rates"], made["tax_exempt"]) == (rates, True)
    for own in (rates, [], None):
        assert api.patch(url, json={"tax_rates": own}).json()["tax_rates"] == own
        assert a_charge(api, ada)["tax_rates"] is None
    charge = a_charge(api, ada, tax_rates=rates)
    assert charge["tax_rates"] == rates
    changed = api.patch(f"/v1/charges/{charge['id']}", json={"tax_rates": []}).json()
    assert changed["tax_rates"] == []


def test_rates_that_are_not_there_are_named_by_field_and_charge(
    api: TestClient, ada: dict[str, Any]
) -> None:
    rate = a_rate(api)["id"]
    good = {"client": ada["id"], "description": "x", "amount": 1, "tax_rates": [rate]}
    bad = {**good, "tax_rates": [rate, UNKNOWN]}
    own = {"tax_rates": [UNKNOWN]}

    problem(api.post("/v1/charges", json=bad), 422, "invalid", "tax_rates")
    many = {"charges": [good, bad, good, {**good, "tax_rates": [rate, rate]}]}
    problem(
        api.post("/v1/charges", json=many),
        422,
        "invalid",
        "charges[1].tax_rates",
        "charges[3].tax_rates",
    )
    assert api.get("/v1/charges").json()["data"] == []
    charge = a_charge(api, ada)
    problem(api.patch(f"/v1/charges/{charge['id']}", json=own), 422, "invalid", "tax_rates")
    problem(api.patch("/v1/account", json=own), 422, "invalid", "tax_rates")
    problem(api.post("/v1/clients", json={"name": "B", **own}), 422, "invalid", "tax_rates")
    problem(api.patch(f"/v1/clients/{ada['id']}", json=own), 422, "invalid", "tax_rates")


def test_the_same_charge_with_other_rates_is_refused(api: TestClient, ada: dict[str, Any]) -> None:
    rate = a_rate(api)["id"]
    same = {
        "client": ada["id"],
        "description": "x",
        "amount": 1,
        "external_ref": "order-1",
        "tax_rates": [rate],
    }

    assert api.post("/v1/charges", json=same).status_code == 201
    assert api.post("/v1/charges", json=same).status_code == 200
    other = {**same, "tax_rates": []}
    problem(api.post("/v1/charges", json=other), 409, "external_ref_taken", "external_ref")


def test_an_invoice_shows_its_taxes_as_a_draft_and_as_it_was_finalized(
    engine: Engine, api: TestClient, ada: dict[str, Any]
) -> None:
    vat = a_rate(api, percent="20")["id"]
    city = a_rate(api, name="City", percent="5.25", inclusive=True)["id"]
    api.patch(f"/v1/clients/{ada['id']}", json={"tax_rates": [vat]})
    a_charge(api, ada)
    a_charge(api, ada, unit_price=None, amount=1052, tax_rates=[vat, city])
    url = f"/v1/invoices/{a_draft(engine, api, ada['id'])['id']}"

    draft = api.get(url).json()
    done(engine, api, api.post(f"{url}/finalize", json={"expected_total": draft["total"]}))
    invoice = api.get(url).json()

    assert (draft["subtotal"], draft["tax"], draft["total"]) == (2100, 472, 2572)
    assert [(line["amount"], line["net"], line["tax"]) for line in draft["lines"]] == [
        (1100, 1100, 220),
        (1052, 1000, 252),
    ]
    assert draft["taxes"] == [
        {"tax_rate": vat, "name": "VAT", "percent": "20", "inclusive": False, "net": 2100,
         "tax": 420},
        {"tax_rate": city, "name": "City", "percent": "5.25", "inclusive": True, "net": 1000,
         "tax": 52},
    ]  # fmt: skip
    for same in ("lines", "taxes", "subtotal", "tax", "total"):
        assert invoice[same] == draft[same]
    balances = api.get("/v1/ledger/trial-balance").json()
    assert [
        (one["tax_rate"], one["tax_rate_name"], one["balance"])
        for one in balances["data"]
        if one["account"] == "tax"
    ] == [(vat, "VAT", -420), (city, "City", -52)]
    assert balances["balanced"]
    assert api.get("/v1/audit").json()["ok"]
