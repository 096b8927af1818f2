from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text

from tests.api.calls import a_charge, a_draft, done, problem

UNKNOWN = "019ae8a3-5c00-7000-8000-000000000099"


def new(of: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"client": of["id"], "description": "Poly bagging", "unit_price": "1.25", **fields}


def test_a_charge_is_priced_and_shown_with_plain_decimals(
    api: TestClient, ada: dict[str, Any]
) -> None:
    body = new(
        ada,
        quantity="3.000",
        unit_price="0.2500",
        currency="usd",
        charged_on="2026-05-12",
        external_ref="work-order-991",
        category="prep",
        metadata={"sku": "A-1", "units": 3, "fragile": False},
    )

    answer = api.post("/v1/charges", json=body)

    assert answer.status_code == 201
    charge = answer.json()
    assert charge == {
        **body,
        "id": charge["id"],
        "quantity": "3",
        "unit_price": "0.25",
        "amount": 75,
        "tax_rates": None,
        "state": "open",
        "invoice": None,
        "copy_of": None,
        "amends": None,
        "amendments": [],
        "created_at": charge["created_at"],
    }
    assert answer.headers["Location"] == f"/v1/charges/{charge['id']}"
    assert api.get(answer.headers["Location"]).json() == charge


def test_an_amount_may_be_given_outright(api: TestClient, ada: dict[str, Any]) -> None:
    body = {"client": ada["id"], "description": "Rebate", "amount": -500}

    charge = api.post("/v1/charges", json=body).json()

    assert (charge["amount"], charge["unit_price"], charge["quantity"]) == (-500, None, "1")


def test_currency_and_date_default_to_the_clients(api: TestClient) -> None:
    far = {"name": "Kiribati Cargo", "currency": "aud", "time_zone": "Pacific/Kiritimati"}
    client = api.post("/v1/clients", json=far).json()

    charge = api.post("/v1/charges", json=new(client)).json()

    assert charge["currency"] == "aud"
    assert charge["charged_on"] >= datetime.now(UTC).date().isoformat()


def test_currency_defaults_to_the_accounts_where_the_client_has_none(
    api: TestClient, ada: dict[str, Any]
) -> None:
    api.patch("/v1/account", json={"currency": "nzd"})

    assert api.post("/v1/charges", json=new(ada)).json()["currency"] == "nzd"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"unit_price": 1.25}, "unit_price"),
        ({"unit_price": 1}, "unit_price"),
        ({"unit_price": "1e3"}, "unit_price"),
        ({"unit_price": "NaN"}, "unit_price"),
        ({"unit_price": "0.123456789"}, "unit_price"),
        ({"quantity": 2}, "quantity"),
        ({"quantity": "0"}, "quantity"),
        ({"quantity": "-1"}, "quantity"),
        ({"unit_price": None}, "unit_price"),
        ({"amount": 100}, "amount"),
        ({"unit_price": None, "amount": 1.5}, "amount"),
        ({"unit_price": None, "amount": "100"}, "amount"),
        ({"unit_price": None, "amount": 10**15}, "amount"),
        ({"description": " "}, "description"),
        ({"description": "x" * 1001}, "description"),
        ({"charged_on": "2026-5-1"}, "charged_on"),
        ({"charged_on": "1912-05-01"}, "charged_on"),
        ({"currency": "us"}, "currency"),
        ({"external_ref": ""}, "external_ref"),
        ({"metadata": {"a": {"b": 1}}}, "metadata.a"),
        ({"metadata": {"a": 1.5}}, "metadata.a"),
        ({"client": "merchant-17"}, "client"),
        ({"tax_rates": {}}, "tax_rates"),
        ({"tax_rates": [UNKNOWN]}, "tax_rates"),
        ({"tax_rates": [UNKNOWN] * 11}, "tax_rates"),
        ({"tax_rates": ["VAT"]}, "tax_rates[0]"),
        ({"taxes": []}, "taxes"),
    ],
)
def test_a_wrong_value_is_refused_and_named(
    api: TestClient, ada: dict[str, Any], fields: dict[str, Any], named: str
) -> None:
    problem(api.post("/v1/charges", json=new(ada, **fields)), 422, "invalid", named)
    many = {"charges": [new(ada), new(ada, **fields)]}
    problem(api.post("/v1/charges", json=many), 422, "invalid", f"charges[1].{named}")
    assert api.get("/v1/charges").json()["data"] == []


def test_a_bare_number_is_refused_with_what_to_send_instead(
    api: TestClient, ada: dict[str, Any]
) -> None:
    answer = api.post("/v1/charges", json=new(ada, unit_price=0.25))

    (error,) = problem(answer, 422, "invalid", "unit_price")["errors"]
    assert 'decimal in quotes, such as "0.25"' in error["message"]


def test_many_charges_are_recorded_in_their_order(api: TestClient, ada: dict[str, Any]) -> None:
    many = [new(ada, description=f"Box {n}", external_ref=f"box-{n}") for n in range(1000)]

    answer = api.post("/v1/charges", json={"charges": many})

    assert answer.status_code == 201
    assert [charge["description"] for charge in answer.json()["data"]] == [
        charge["description"] for charge in many
    ]


@pytest.mark.parametrize("count", [0, 1001])
def test_none_or_too_many_charges_are_refused(
    api: TestClient, ada: dict[str, Any], count: int
) -> None:
    many = {"charges": [new(ada)] * count}

    problem(api.post("/v1/charges", json=many), 422, "invalid", "charges")


def test_at_most_fifty_errors_are_listed(api: TestClient, ada: dict[str, Any]) -> None:
    wrong = {"charges": [new(ada, quantity="0")] * 60}

    answer = api.post("/v1/charges", json=wrong)

    assert len(answer.json()["errors"]) == 50
    assert "first 50 of 60" in answer.json()["detail"]


def test_a_charge_of_an_unknown_client_is_not_recorded(api: TestClient) -> None:
    unknown = {"id": str(uuid4())}

    problem(api.post("/v1/charges", json=new(unknown)), 404, "client_not_found")


def test_every_unknown_client_of_a_batch_is_named(api: TestClient, ada: dict[str, Any]) -> None:
    unknown = {"id": str(uuid4())}
    many = {"charges": [new(unknown), new(ada), new(unknown)]}

    problem(
        api.post("/v1/charges", json=many),
        422, "invalid", "charges[0].client", "charges[2].client",
    )  # fmt: skip


def test_the_same_content_again_answers_the_existing_charge(
    api: TestClient, ada: dict[str, Any]
) -> None:
    body = new(ada, external_ref="box-1", charged_on="2026-05-12", quantity="2.0")

    first = api.post("/v1/charges", json=body)
    again = api.post("/v1/charges", json={**body, "quantity": "2"})
    mixed = api.post("/v1/charges", json={"charges": [body, new(ada, external_ref="box-2")]})

    assert (first.status_code, again.status_code, mixed.status_code) == (201, 200, 201)
    assert again.json() == first.json() == mixed.json()["data"][0]
    assert len(api.get("/v1/charges").json()["data"]) == 2


def test_a_charge_sent_again_tomorrow_without_its_date_is_the_same_charge(
    api: TestClient, engine: Engine, ada: dict[str, Any]
) -> None:
    body = new(ada, external_ref="box-1")
    body.pop("charged_on", None)
    first = api.post("/v1/charges", json=body)
    with engine.begin() as connection:
        connection.execute(text("UPDATE charges SET charged_on = charged_on - 1"))

    again = api.post("/v1/charges", json=body)

    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["id"] == first.json()["id"]


def test_another_content_under_the_same_external_ref_is_refused(
    api: TestClient, ada: dict[str, Any]
) -> None:
    body = new(ada, external_ref="box-1", charged_on="2026-05-12")
    api.post("/v1/charges", json=body)
    other = {**body, "unit_price": "1.26"}

    refused = problem(
        api.post("/v1/charges", json=other), 409, "external_ref_taken", "external_ref"
    )
    (error,) = refused["errors"]
    assert error["message"].startswith("box-1 belongs to a charge with another ")
    many = {"charges": [new(ada), other]}
    answer = api.post("/v1/charges", json=many)
    problem(answer, 409, "external_ref_taken", "charges[1].external_ref")
    assert len(api.get("/v1/charges").json()["data"]) == 1


def test_charges_are_listed_by_client_and_state(
    engine: Engine, api: TestClient, ada: dict[str, Any], invoice: dict[str, Any]
) -> None:
    drafted = a_charge(api, ada, description="on a draft")
    draft = a_draft(engine, api, ada["id"])
    still_open = a_charge(api, ada, description="open")
    other = api.post("/v1/clients", json={"name": "Other"}).json()
    theirs = a_charge(api, other)

    def ids(query: str) -> set[str]:
        return {charge["id"] for charge in api.get(f"/v1/charges?{query}").json()["data"]}

    locked = invoice["lines"][0]["charge"]
    assert ids(f"client={ada['id']}&state=open") == {still_open["id"]}
    assert ids("state=open") == {still_open["id"], theirs["id"]}
    assert ids("state=invoiced") == {drafted["id"], locked}
    assert ids("state=locked") == {locked}
    assert ids(f"client={other['id']}") == {theirs["id"]}
    on_draft = api.get(f"/v1/charges/{drafted['id']}").json()
    assert (on_draft["state"], on_draft["invoice"]) == ("invoiced", draft["id"])
    assert api.get(f"/v1/charges/{locked}").json()["state"] == "locked"
    problem(api.get("/v1/charges?state=paid"), 422, "invalid", "state")


def test_an_edited_charge_is_priced_again_and_its_draft_follows(
    api: TestClient, draft: dict[str, Any]
) -> None:
    charge_id = draft["lines"][0]["charge"]

    changed = api.patch(f"/v1/charges/{charge_id}", json={"quantity": "80", "category": "prep"})

    assert changed.status_code == 200
    assert (changed.json()["amount"], changed.json()["category"]) == (2200, "prep")
    assert api.get(f"/v1/invoices/{draft['id']}").json()["total"] == 2200


def test_a_price_can_be_replaced_by_an_amount_and_back(
    api: TestClient, charge: dict[str, Any]
) -> None:
    url = f"/v1/charges/{charge['id']}"

    outright = api.patch(url, json={"amount": 999}).json()
    priced = api.patch(url, json={"unit_price": "0.50"}).json()

    assert (outright["amount"], outright["unit_price"]) == (999, None)
    assert (priced["amount"], priced["unit_price"]) == (2000, "0.5")
    both = {"amount": 1, "unit_price": "1"}
    problem(api.patch(url, json=both), 422, "invalid", "amount")
    problem(api.patch(url, json={"client": charge["client"]}), 422, "invalid", "client")


def test_a_charge_is_deleted_and_its_last_draft_with_it(
    api: TestClient, draft: dict[str, Any]
) -> None:
    charge_id = draft["lines"][0]["charge"]

    answer = api.delete(f"/v1/charges/{charge_id}")

    assert answer.status_code == 200
    assert answer.json() == {"id": charge_id, "deleted": True, "amendment": None}
    problem(api.get(f"/v1/charges/{charge_id}"), 404, "charge_not_found")
    problem(api.get(f"/v1/invoices/{draft['id']}"), 404, "invoice_not_found")


def test_a_locked_charge_stays_and_shows_what_amends_it(
    api: TestClient, invoice: dict[str, Any]
) -> None:
    url = f"/v1/charges/{invoice['lines'][0]['charge']}"
    before = api.get(url).json()

    changed = api.patch(url, json={"quantity": "42"}).json()

    pending = {"id": changed["amendment"], "amount": 55, "state": "open", "invoice": None}
    assert changed == {**before, "amendments": [pending], "amendment": pending["id"]}
    assert api.patch(url, json={"quantity": "42"}).json() == changed
    amendment = api.get(f"/v1/charges/{pending['id']}").json()
    assert (amendment["amends"], amendment["amount"]) == (before["id"], 55)
    assert amendment["description"] == "Correction of INV-000001: FNSKU labelling"
    listed = {one["id"]: one for one in api.get("/v1/charges").json()["data"]}
    assert listed == {before["id"]: {**before, "amendments": [pending]}, pending["id"]: amendment}


def test_deleting_a_locked_charge_takes_it_back_by_an_amendment(
    engine: Engine, api: TestClient, invoice: dict[str, Any]
) -> None:
    charge_id = invoice["lines"][0]["charge"]

    answer = api.delete(f"/v1/charges/{charge_id}").json()

    assert (answer["id"], answer["deleted"]) == (charge_id, False)
    [amendment] = api.get(f"/v1/charges/{charge_id}").json()["amendments"]
    assert (amendment["id"], amendment["amount"]) == (answer["amendment"], -1100)
    draft = a_draft(engine, api, invoice["client"])
    [listed] = api.get(f"/v1/charges/{charge_id}").json()["amendments"]
    assert (listed["state"], listed["invoice"]) == ("invoiced", draft["id"])
    url = f"/v1/charges/{amendment['id']}"
    problem(api.patch(url, json={"amount": 1}), 409, "edit_the_original")
    problem(api.delete(url), 409, "edit_the_original")


def test_all_but_the_price_of_a_locked_charge_is_refused(
    engine: Engine, api: TestClient, invoice: dict[str, Any]
) -> None:
    url = f"/v1/charges/{invoice['lines'][0]['charge']}"

    body = problem(api.patch(url, json={"description": "Boxes"}), 409, "charge_locked")
    assert body["detail"] == (
        "The charge is on a finalized invoice, so its description cannot be changed: a new "
        "quantity, unit_price or amount is billed by an amendment."
    )
    problem(api.patch(url, json={"quantity": "0"}), 422, "invalid", "quantity")
    assert api.patch(url, json={}).json()["amendment"] is None

    done(engine, api, api.post(f"/v1/invoices/{invoice['id']}/void"))
    problem(api.patch(url, json={"quantity": "1"}), 409, "charge_voided")
    problem(api.delete(url), 409, "charge_voided")


def test_an_invoice_whose_charge_was_amended_is_not_voided(
    engine: Engine, api: TestClient, invoice: dict[str, Any]
) -> None:
    url, charge = f"/v1/invoices/{invoice['id']}", invoice["lines"][0]["charge"]
    api.patch(f"/v1/charges/{charge}", json={"quantity": "42"})
    later = a_draft(engine, api, invoice["client"])
    done(engine, api, api.post(f"/v1/invoices/{later['id']}/finalize"))

    problem(api.post(f"{url}/void"), 409, "charge_amended")

    done(engine, api, api.post(f"/v1/invoices/{later['id']}/void"))
    # On a void invoice it counts for nothing.
    assert api.get(f"/v1/charges/{charge}").json()["amendments"] == []
    assert done(engine, api, api.post(f"{url}/void"))["state"] == "succeeded"


def test_an_unknown_charge_is_not_found(api: TestClient) -> None:
    url = f"/v1/charges/{uuid4()}"

    problem(api.get(url), 404, "charge_not_found")
    problem(api.patch(url, json={}), 404, "charge_not_found")
    problem(api.delete(url), 404, "charge_not_found")
