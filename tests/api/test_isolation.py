"""Nothing of one account is there for another, whatever its scopes."""

from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from tests.api.calls import a_charge, deposit, done, problem
from tests.reconciliations import a_difference
from tests.worlds import work


@pytest.fixture
def mine(engine: Engine, api: TestClient, invoice: dict[str, Any]) -> dict[str, str]:
    """The id of one of everything that the account has."""
    charge = a_charge(api, {"id": invoice["client"]})
    deposit(engine, api, invoice["client"], 300)
    note = {"amount": 1, "to": "credit"}
    accepted = api.post(f"/v1/invoices/{invoice['id']}/credit-notes", json=note)
    work(engine, queues=("billing",))
    noted = api.get(accepted.headers["Location"]).json()
    card = {"stripe_customer": "cus_1", "payment_method": "pm_1"}
    api.put(f"/v1/clients/{invoice['client']}/billing-method", json=card)
    job = done(engine, api, api.post("/v1/billing-runs", json={}))
    api.post("/v1/reconciliations")
    rate = {"name": "VAT", "percent": "20", "inclusive": False, "valid_from": "2026-01-01"}
    return {
        "rate": api.post("/v1/tax-rates", json=rate).json()["id"],
        "client": invoice["client"],
        "charge": charge["id"],
        "invoice": invoice["id"],
        "run": job["subject"]["id"],
        "payment": api.get("/v1/payments").json()["data"][0]["id"],
        "note": noted["result"]["credit_note"],
        "reconciliation": api.get("/v1/reconciliations").json()["data"][0]["id"],
        "difference": str(a_difference(engine)),
        "job": job["id"],
        "key": api.get("/v1/api-keys").json()["data"][0]["id"],
    }


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/v1/clients/{client}", "client_not_found"),
        ("PATCH", "/v1/clients/{client}", "client_not_found"),
        ("GET", "/v1/clients/{client}/billing-periods", "client_not_found"),
        ("GET", "/v1/charges/{charge}", "charge_not_found"),
        ("PATCH", "/v1/charges/{charge}", "charge_not_found"),
        ("DELETE", "/v1/charges/{charge}", "charge_not_found"),
        ("GET", "/v1/invoices/{invoice}", "invoice_not_found"),
        ("DELETE", "/v1/invoices/{invoice}", "invoice_not_found"),
        ("POST", "/v1/invoices/{invoice}/finalize", "invoice_not_found"),
        ("POST", "/v1/invoices/{invoice}/void", "invoice_not_found"),
        ("POST", "/v1/invoices/{invoice}/charge", "invoice_not_found"),
        ("POST", "/v1/invoices/{invoice}/mark-paid", "invoice_not_found"),
        ("POST", "/v1/invoices/{invoice}/apply-credit", "invoice_not_found"),
        ("POST", "/v1/invoices/{invoice}/send", "invoice_not_found"),
        ("GET", "/v1/invoices/{invoice}/pdf", "invoice_not_found"),
        ("POST", "/v1/payments/{payment}/refund", "payment_not_found"),
        ("GET", "/v1/payments/{payment}", "payment_not_found"),
        ("GET", "/v1/credit-notes/{note}", "credit_note_not_found"),
        ("GET", "/v1/credit-notes/{note}/pdf", "credit_note_not_found"),
        ("POST", "/v1/invoices/{invoice}/credit-notes", "invoice_not_found"),
        ("DELETE", "/v1/clients/{client}/billing-method", "client_not_found"),
        ("DELETE", "/v1/clients/{client}/backup-method", "client_not_found"),
        ("POST", "/v1/clients/{client}/portal-link", "client_not_found"),
        ("GET", "/v1/clients/{client}/credit", "client_not_found"),
        ("POST", "/v1/clients/{client}/credit/apply", "client_not_found"),
        ("GET", "/v1/billing-runs/{run}", "billing_run_not_found"),
        ("GET", "/v1/reconciliations/{reconciliation}", "reconciliation_not_found"),
        ("GET", "/v1/reconciliation-differences/{difference}", "difference_not_found"),
        ("POST", "/v1/reconciliation-differences/{difference}/acknowledge", "difference_not_found"),
        (
            "POST",
            "/v1/reconciliation-differences/{difference}/withdraw-acknowledgement",
            "difference_not_found",
        ),
        ("GET", "/v1/jobs/{job}", "job_not_found"),
        ("POST", "/v1/jobs/{job}/retry", "job_not_found"),
        ("POST", "/v1/jobs/{job}/cancel", "job_not_found"),
        ("DELETE", "/v1/api-keys/{key}", "api_key_not_found"),
        ("GET", "/v1/tax-rates/{rate}", "tax_rate_not_found"),
        ("PATCH", "/v1/tax-rates/{rate}", "tax_rate_not_found"),
    ],
)
def test_what_belongs_to_another_account_is_not_found(
    stranger: TestClient, mine: dict[str, str], method: str, path: str, code: str
) -> None:
    body: dict[str, Any] | None = {} if method in ("PATCH", "POST") else None
    if path.endswith(("/refund", "/credit-notes")):
        body = {"amount": 1, "to": "credit"}
    if path.endswith("/acknowledge"):
        body = {"reason": "Refunded by hand"}

    problem(stranger.request(method, path.format(**mine), json=body), 404, code)


def test_what_belongs_to_another_account_cannot_be_used(
    stranger: TestClient, mine: dict[str, str]
) -> None:
    theirs = stranger.post("/v1/clients", json={"name": "Theirs"}).json()
    charge = {"client": mine["client"], "description": "x", "amount": 1}
    selected = {"client": theirs["id"], "charge_ids": [mine["charge"]]}
    many = {"charges": [charge]}
    credit = f"/v1/clients/{mine['client']}/credit"
    money = {"amount": 1, "currency": "usd"}
    card = {"stripe_customer": "cus_2", "payment_method": "pm_2"}

    problem(stranger.post("/v1/charges", json=charge), 404, "client_not_found")
    problem(stranger.post("/v1/charges", json=many), 422, "invalid", "charges[0].client")
    problem(stranger.post("/v1/invoices", json={"client": mine["client"]}), 404, "client_not_found")
    problem(stranger.post("/v1/invoices", json=selected), 404, "charge_not_found")
    problem(
        stranger.post("/v1/billing-runs", json={"client": mine["client"]}), 404, "client_not_found"
    )
    taxed = {"tax_rates": [mine["rate"]]}
    for answer in (
        stranger.post("/v1/clients", json={"name": "Theirs", **taxed}),
        stranger.patch(f"/v1/clients/{theirs['id']}", json=taxed),
        stranger.patch("/v1/account", json=taxed),
        stranger.post("/v1/charges", json={**charge, "client": theirs["id"], **taxed}),
    ):
        problem(answer, 422, "invalid", "tax_rates")
    for answer in (
        stranger.post(f"{credit}/deposits", json={**money, "source": "outside"}),
        stranger.post(f"{credit}/adjustments", json={**money, "note": "x"}),
        stranger.put(f"/v1/clients/{mine['client']}/billing-method", json=card),
    ):
        problem(answer, 404, "client_not_found")


@pytest.mark.parametrize(
    "path",
    [
        *("clients", "charges", "invoices", "jobs", "payments", "credit-notes", "mails"),
        *("tax-rates", "reconciliations", "reconciliation-differences"),
    ],
)
def test_lists_hold_nothing_of_another_account(
    api: TestClient, stranger: TestClient, mine: dict[str, str], path: str
) -> None:
    assert api.get(f"/v1/{path}").json()["data"] != []
    assert stranger.get(f"/v1/{path}").json()["data"] == []
    assert stranger.get(f"/v1/charges?client={mine['client']}").json()["data"] == []
    assert stranger.get(f"/v1/invoices?client={mine['client']}").json()["data"] == []
    for listed in ("payments", "mails"):
        for query in (f"client={mine['client']}", f"invoice={mine['invoice']}"):
            assert stranger.get(f"/v1/{listed}?{query}").json()["data"] == []
    assert stranger.get(f"/v1/jobs?subject={mine['invoice']}").json()["data"] == []


@pytest.mark.usefixtures("mine")
def test_keys_books_and_references_are_an_accounts_own(
    api: TestClient, stranger: TestClient
) -> None:
    same_ref = {"name": "Theirs", "external_ref": "merchant-17"}

    assert stranger.post("/v1/clients", json=same_ref).status_code == 201
    assert len(stranger.get("/v1/api-keys").json()["data"]) == 1
    assert stranger.get("/v1/account").json()["name"] == "Rival Prep"
    assert stranger.get("/v1/ledger/trial-balance").json()["data"] == []
    assert api.get("/v1/ledger/trial-balance").json()["data"] != []
    assert stranger.get("/v1/ledger/entries").json()["data"] == []
    assert api.get("/v1/ledger/entries").json()["data"] != []


def test_numbers_are_an_accounts_own(
    engine: Engine, stranger: TestClient, invoice: dict[str, Any]
) -> None:
    theirs = stranger.post("/v1/clients", json={"name": "Theirs"}).json()
    a_charge(stranger, theirs)
    drafting = done(engine, stranger, stranger.post("/v1/invoices", json={"client": theirs["id"]}))
    url = f"/v1/invoices/{drafting['result']['invoices'][0]}"
    done(engine, stranger, stranger.post(f"{url}/finalize"))

    assert stranger.get(url).json()["number"] == invoice["number"] == "INV-000001"
