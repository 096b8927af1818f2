from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy import Engine

from tests.api.calls import a_charge, a_draft, done, problem

SUMMARY = {
    "id", "client", "number", "status", "currency", "subtotal", "tax", "total", "credit_applied",
    "amount_paid", "amount_due", "period_start", "period_end", "issued_on", "due_on",
    "finalized_at", "paid_at", "voided_at", "created_at", "bill_from", "bill_to", "links",
}  # fmt: skip


def test_drafting_takes_all_open_charges(
    engine: Engine, api: TestClient, ada: dict[str, Any]
) -> None:
    charges = [a_charge(api, ada, charged_on=f"2026-05-0{day}") for day in (3, 1, 2)]

    draft = a_draft(engine, api, ada["id"])

    assert draft.keys() == SUMMARY | {"lines"}
    assert (draft["status"], draft["number"], draft["total"]) == ("draft", None, 3300)
    assert [line["charge"] for line in draft["lines"]] == [
        charges[1]["id"], charges[2]["id"], charges[0]["id"]
    ]  # fmt: skip
    assert draft["lines"][0] == {
        "charge": charges[1]["id"],
        "charged_on": "2026-05-01",
        "description": "FNSKU labelling",
        "quantity": "40",
        "unit_price": "0.275",
        "amount": 1100,
    }
    assert draft["links"] == {
        "self": f"/v1/invoices/{draft['id']}",
        "client": f"/v1/clients/{ada['id']}",
    }


def test_an_accepted_command_answers_its_job(
    api: TestClient, ada: dict[str, Any], charge: dict[str, Any]
) -> None:
    answer = api.post("/v1/invoices", json={"client": charge["client"]})

    assert answer.status_code == 202
    job = answer.json()
    assert job == {
        "id": job["id"],
        "kind": "draft_invoice",
        "state": "ready",
        "queue": "billing",
        "subject": {"type": "client", "id": ada["id"]},
        "attempt": 0,
        "created_at": job["created_at"],
        "started_at": None,
        "finished_at": None,
        "result": None,
        "reason": None,
        "error": None,
        "links": {"self": f"/v1/jobs/{job['id']}", "subject": f"/v1/clients/{ada['id']}"},
    }
    assert answer.headers["Location"] == f"/v1/jobs/{job['id']}"


def test_drafting_takes_the_selected_charges_only(
    engine: Engine, api: TestClient, ada: dict[str, Any]
) -> None:
    chosen, left = a_charge(api, ada), a_charge(api, ada)
    body = {"client": ada["id"], "charge_ids": [chosen["id"]]}

    job = done(engine, api, api.post("/v1/invoices", json=body))

    assert job["state"] == "succeeded"
    assert api.get(f"/v1/charges/{left['id']}").json()["state"] == "open"
    assert api.get(f"/v1/charges/{chosen['id']}").json()["state"] == "invoiced"
    problem(api.post("/v1/invoices", json=body), 409, "charge_already_invoiced")


def test_what_cannot_be_drafted_is_refused_at_once(api: TestClient, ada: dict[str, Any]) -> None:
    def post(**body: Any) -> Response:
        return api.post("/v1/invoices", json={"client": ada["id"], **body})

    problem(post(), 409, "nothing_to_bill")
    problem(post(client=str(uuid4())), 404, "client_not_found")
    problem(post(charge_ids=[str(uuid4())]), 404, "charge_not_found")
    problem(post(charge_ids=[]), 422, "invalid", "charge_ids")
    problem(post(memo="hello"), 422, "invalid", "memo")
    problem(api.post("/v1/invoices", json={}), 422, "invalid", "client")
    assert api.get("/v1/jobs").json()["data"] == []


def test_what_turns_out_wrong_later_skips_the_job_with_its_reason(
    engine: Engine, api: TestClient, charge: dict[str, Any]
) -> None:
    first, second = (api.post("/v1/invoices", json={"client": charge["client"]}) for _ in range(2))

    assert done(engine, api, first)["state"] == "succeeded"
    job = api.get(second.headers["Location"]).json()
    assert (job["state"], job["reason"]) == ("skipped", "nothing_to_bill")


def test_finalizing_numbers_and_locks_the_draft(
    invoice: dict[str, Any], ada: dict[str, Any]
) -> None:
    assert (invoice["number"], invoice["status"]) == ("INV-000001", "open")
    assert (invoice["total"], invoice["amount_due"]) == (1100, 1100)
    assert invoice["lines"][0]["amount"] == 1100
    assert invoice["bill_from"]["name"] == "Bluebird Prep"
    assert invoice["bill_to"]["name"] == ada["name"]
    assert invoice["finalized_at"].endswith("Z")
    assert invoice["issued_on"] < invoice["due_on"]
    assert invoice["paid_at"] is invoice["voided_at"] is invoice["period_start"] is None


def test_finalizing_twice_is_refused(api: TestClient, invoice: dict[str, Any]) -> None:
    problem(api.post(f"/v1/invoices/{invoice['id']}/finalize"), 409, "invoice_not_draft")


@pytest.mark.parametrize("command", ["finalize", "void"])
def test_a_command_without_options_takes_an_empty_object_and_nothing_else(
    api: TestClient, draft: dict[str, Any], command: str
) -> None:
    url = f"/v1/invoices/{draft['id']}/{command}"

    assert api.post(url, json={}).status_code == (202 if command == "finalize" else 409)
    problem(api.post(url, json={"collect": True}), 422, "invalid", "collect")
    problem(api.post(url, json=[]), 422, "invalid", "body")


def test_voiding_ends_the_claim_and_keeps_the_number(
    engine: Engine, api: TestClient, invoice: dict[str, Any]
) -> None:
    job = done(engine, api, api.post(f"/v1/invoices/{invoice['id']}/void"))

    assert job["state"] == "succeeded"
    void = api.get(f"/v1/invoices/{invoice['id']}").json()
    assert (void["status"], void["amount_due"], void["number"]) == ("void", 0, "INV-000001")
    assert void["voided_at"].endswith("Z")
    problem(api.post(f"/v1/invoices/{invoice['id']}/void"), 409, "invoice_not_open")


def test_a_draft_cannot_be_voided(api: TestClient, draft: dict[str, Any]) -> None:
    problem(api.post(f"/v1/invoices/{draft['id']}/void"), 409, "invoice_not_open")


def test_deleting_a_draft_opens_its_charges(
    engine: Engine, api: TestClient, draft: dict[str, Any]
) -> None:
    job = done(engine, api, api.delete(f"/v1/invoices/{draft['id']}"))

    assert job["state"] == "succeeded"
    problem(api.get(f"/v1/invoices/{draft['id']}"), 404, "invoice_not_found")
    charge = api.get(f"/v1/charges/{draft['lines'][0]['charge']}").json()
    assert (charge["state"], charge["invoice"]) == ("open", None)


def test_a_finalized_invoice_cannot_be_deleted(api: TestClient, invoice: dict[str, Any]) -> None:
    problem(api.delete(f"/v1/invoices/{invoice['id']}"), 409, "invoice_not_draft")


def test_invoices_are_listed_by_client_and_status_without_lines(
    engine: Engine, api: TestClient, ada: dict[str, Any], invoice: dict[str, Any]
) -> None:
    a_charge(api, ada)
    draft = a_draft(engine, api, ada["id"])

    both = api.get(f"/v1/invoices?client={ada['id']}").json()["data"]

    assert [one["id"] for one in both] == [draft["id"], invoice["id"]]
    assert both[0].keys() == SUMMARY
    (only,) = api.get("/v1/invoices?status=open").json()["data"]
    assert only == {name: value for name, value in invoice.items() if name != "lines"}
    assert api.get(f"/v1/invoices?client={uuid4()}").json()["data"] == []


def test_an_unknown_invoice_is_not_found(api: TestClient) -> None:
    url = f"/v1/invoices/{uuid4()}"

    problem(api.get(url), 404, "invoice_not_found")
    problem(api.delete(url), 404, "invoice_not_found")
    problem(api.post(f"{url}/finalize"), 404, "invoice_not_found")
    problem(api.post(f"{url}/void"), 404, "invoice_not_found")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "pdf"),
        ("POST", "reissue"),
        ("POST", "charge"),
        ("POST", "apply-credit"),
        ("POST", "send"),
        ("POST", "write-off"),
        ("POST", "mark-paid"),
        ("POST", "credit-notes"),
    ],
)
def test_what_this_version_cannot_do_is_not_there(
    api: TestClient, invoice: dict[str, Any], method: str, path: str
) -> None:
    problem(api.request(method, f"/v1/invoices/{invoice['id']}/{path}"), 404, "not_found")
