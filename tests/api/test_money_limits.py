"""Amounts beyond all sense are refused by the name of their field; the largest go all the way."""

from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from billing.money import MAX_AMOUNT
from tests.api.calls import a_charge, a_draft, deposit, done, problem

ABSURD = [MAX_AMOUNT + 1, -MAX_AMOUNT - 1, 2**63, -(2**63) - 1, 10**30, 1.5, "12", True, [1]]


@pytest.mark.parametrize("amount", ABSURD, ids=str)
def test_an_absurd_amount_is_refused_wherever_one_is_taken(
    api: TestClient, invoice: dict[str, Any], amount: object
) -> None:
    client = invoice["client"]
    money = {"amount": amount, "currency": "usd"}
    for path, body in (
        ("charges", {**money, "client": client, "description": "Labelling"}),
        (f"clients/{client}/credit/deposits", {**money, "source": "outside"}),
        (f"clients/{client}/credit/adjustments", {**money, "note": "a miscount"}),
        (f"clients/{client}/credit/apply", money),
        (f"invoices/{invoice['id']}/mark-paid", {"amount": amount, "overpayment": "credit"}),
        (f"invoices/{invoice['id']}/apply-credit", {"amount": amount}),
    ):
        answer = api.post(f"/v1/{path}", json=body)

        problem(answer, 422, answer.json()["code"], "amount")
        assert answer.json()["code"] in {"invalid", "amount_exceeds_due"}


@pytest.mark.parametrize(
    ("price", "quantity", "field"),
    [
        ("1" + "0" * 12 + ".01", "1", "unit_price"),
        ("10000000000.01", "1", "unit_price"),
        ("10", "1000000001", "quantity"),
        ("-9999999999", "1000", "unit_price"),
        ("9" * 21, "1", "unit_price"),
        ("1e30", "1", "unit_price"),
        ("1", "NaN", "quantity"),
    ],
)
def test_an_absurd_price_is_refused(
    api: TestClient, ada: dict[str, Any], price: str, quantity: str, field: str
) -> None:
    new = {"client": ada["id"], "description": "Labelling", "unit_price": price}

    problem(api.post("/v1/charges", json={**new, "quantity": quantity}), 422, "invalid", field)


def test_the_largest_amounts_are_billed_paid_and_told(
    engine: Engine, api: TestClient, ada: dict[str, Any]
) -> None:
    for _ in range(3):
        a_charge(api, ada, amount=MAX_AMOUNT, quantity=None, unit_price=None)
    draft = a_draft(engine, api, ada["id"])
    done(engine, api, api.post(f"/v1/invoices/{draft['id']}/finalize"))
    for _ in range(2):
        deposit(engine, api, ada["id"], MAX_AMOUNT)
    url = f"/v1/clients/{ada['id']}/statement"

    told = api.get(url).json()
    assert (told["closing_balance"], told["credit"]) == (MAX_AMOUNT, 0)
    assert api.get(f"{url}/pdf").status_code == 200
    paid = done(engine, api, api.post(f"/v1/invoices/{draft['id']}/mark-paid"))
    assert paid["state"] == "succeeded"
    assert api.get(url).json()["closing_balance"] == 0
    books = api.get("/v1/ledger/trial-balance").json()
    assert {one["account"]: one["balance"] for one in books["data"]} == {
        "credit": 0,
        "outside": 3 * MAX_AMOUNT,
        "receivable": 0,
        "revenue": -3 * MAX_AMOUNT,
    }
    assert api.get("/v1/audit").json()["ok"]
