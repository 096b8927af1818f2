from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from tests.api.calls import a_charge, a_draft, done, problem

ID = "019ae8a3-5c00-7000-8000-000000000001"


def patch(api: TestClient, draft: dict[str, Any], **changes: Any) -> dict[str, Any]:
    answer = api.patch(f"/v1/invoices/{draft['id']}", json=changes)
    assert answer.status_code == 200, answer.text
    changed: dict[str, Any] = answer.json()
    return changed


def test_a_draft_takes_up_charges_and_gives_them_back(
    api: TestClient, draft: dict[str, Any]
) -> None:
    new = a_charge(api, {"id": draft["client"]}, quantity="10")

    changed = patch(api, draft, add_charges=[new["id"]])

    assert changed == api.get(f"/v1/invoices/{draft['id']}").json()
    assert [line["charge"] for line in changed["lines"]] == [
        draft["lines"][0]["charge"],
        new["id"],
    ]
    assert (changed["total"], changed["amount_due"]) == (1375, 1375)
    assert api.get(f"/v1/charges/{new['id']}").json()["invoice"] == draft["id"]

    assert patch(api, draft, remove_charges=[new["id"]])["lines"] == draft["lines"]
    assert api.get(f"/v1/charges/{new['id']}").json()["state"] == "open"


def test_what_is_written_on_it_stays_when_it_is_finalized(
    engine: Engine, api: TestClient, draft: dict[str, Any]
) -> None:
    assert [draft[name] for name in ("memo", "po_number", "due_on")] == [None] * 3
    written = {"memo": "Use dock 5.", "po_number": "PO-7781", "due_on": "2199-01-31"}

    assert patch(api, draft, **written).items() >= written.items()
    assert patch(api, draft).items() >= written.items()
    assert patch(api, draft, memo=None)["memo"] is None
    patch(api, draft, memo="Use dock 5.")

    done(engine, api, api.post(f"/v1/invoices/{draft['id']}/finalize"))
    final = api.get(f"/v1/invoices/{draft['id']}").json()
    assert final.items() >= written.items()
    [listed] = api.get("/v1/invoices").json()["data"]
    assert listed.items() >= written.items()
    refused = api.patch(f"/v1/invoices/{draft['id']}", json={"memo": None})
    problem(refused, 409, "invoice_not_draft")


def test_a_draft_whose_last_charge_is_removed_is_deleted_and_the_answer_says_so(
    api: TestClient, draft: dict[str, Any], charge: dict[str, Any]
) -> None:
    assert patch(api, draft, remove_charges=[charge["id"]]) == {"id": draft["id"], "deleted": True}

    problem(api.get(f"/v1/invoices/{draft['id']}"), 404, "invoice_not_found")
    assert api.get(f"/v1/charges/{charge['id']}").json()["state"] == "open"


def test_one_charge_may_take_the_place_of_another(
    api: TestClient, draft: dict[str, Any], charge: dict[str, Any]
) -> None:
    new = a_charge(api, {"id": draft["client"]})

    changed = patch(api, draft, add_charges=[new["id"]], remove_charges=[charge["id"]])

    assert [line["charge"] for line in changed["lines"]] == [new["id"]]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"memo": ""}, "memo"),
        ({"memo": 1}, "memo"),
        ({"po_number": "x" * 256}, "po_number"),
        ({"due_on": "soon"}, "due_on"),
        ({"due_on": "2020-01-01"}, "due_on"),
        ({"add_charges": None}, "add_charges"),
        ({"add_charges": ["x"]}, "add_charges[0]"),
        ({"remove_charges": [ID] * 1001}, "remove_charges"),
        ({"number": "INV-1"}, "number"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(
    api: TestClient, draft: dict[str, Any], changes: dict[str, Any], field: str
) -> None:
    problem(api.patch(f"/v1/invoices/{draft['id']}", json=changes), 422, "invalid", field)


def test_charges_that_do_not_belong_on_it_are_refused(
    engine: Engine, api: TestClient, draft: dict[str, Any], charge: dict[str, Any]
) -> None:
    url = f"/v1/invoices/{draft['id']}"
    other = api.post("/v1/clients", json={"name": "Eve Imports"}).json()
    theirs = a_charge(api, other)
    euros = a_charge(api, {"id": draft["client"]}, currency="eur")
    elsewhere = a_draft(engine, api, other["id"])

    problem(api.patch(url, json={"add_charges": [ID]}), 404, "charge_not_found")
    problem(api.patch(url, json={"remove_charges": [ID]}), 404, "charge_not_found")
    wrong = {"add_charges": [euros["id"]]}
    problem(api.patch(url, json=wrong), 422, "invalid", "add_charges[0]")
    wrong = {"add_charges": [theirs["id"]]}
    problem(api.patch(url, json=wrong), 422, "invalid", "add_charges[0]")
    wrong = {"remove_charges": [charge["id"], euros["id"]]}
    problem(api.patch(url, json=wrong), 422, "invalid", "remove_charges[1]")
    wrong = {"add_charges": [charge["id"]]}
    problem(api.patch(url, json=wrong), 409, "charge_already_invoiced")
    assert elsewhere["total"] == 1100
    assert api.get(url).json()["total"] == 1100


def test_another_accounts_draft_is_not_found(stranger: TestClient, draft: dict[str, Any]) -> None:
    refused = stranger.patch(f"/v1/invoices/{draft['id']}", json={"memo": "mine"})

    problem(refused, 404, "invoice_not_found")
    problem(stranger.patch("/v1/invoices/x", json={}), 404, "invoice_not_found")
