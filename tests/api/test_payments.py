from typing import Any
from uuid import uuid4

from fastapi.testclient import TestClient
from sqlalchemy import Engine

from tests.api.calls import deposit, done, problem


def test_payments_are_listed_newest_first_by_invoice_and_client(
    engine: Engine, api: TestClient, invoice: dict[str, Any]
) -> None:
    url = f"/v1/invoices/{invoice['id']}/mark-paid"
    for amount in (100, 200):
        done(engine, api, api.post(url, json={"amount": amount, "method": "cash"}))
    deposit(engine, api, invoice["client"], 50, apply=False)

    def amounts(query: str) -> list[int]:
        return [one["amount"] for one in api.get(f"/v1/payments?{query}").json()["data"]]

    assert amounts("") == amounts(f"client={invoice['client']}") == [50, 200, 100]
    assert amounts(f"invoice={invoice['id']}") == [200, 100]
    assert amounts(f"invoice={uuid4()}") == amounts(f"client={uuid4()}") == []


def test_a_payment_tells_how_it_came_and_where_it_went(
    engine: Engine, api: TestClient, invoice: dict[str, Any]
) -> None:
    said = {"amount": 1500, "method": "check", "reference": "no. 88", "overpayment": "credit"}
    done(engine, api, api.post(f"/v1/invoices/{invoice['id']}/mark-paid", json=said))

    (payment,) = api.get("/v1/payments").json()["data"]

    assert payment == {
        "id": payment["id"],
        "client": invoice["client"],
        "invoice": invoice["id"],
        "attempt": None,
        "source": "outside",
        "method": "check",
        "currency": "usd",
        "amount": 1500,
        "applied": 1100,
        "amount_refunded": 0,
        "refunds": [],
        "paid_on": invoice["issued_on"],
        "reference": "no. 88",
        "note": None,
        "flagged": None,
        "created_at": payment["created_at"],
    }
    assert api.get(f"/v1/payments/{payment['id']}").json() == payment
    problem(api.get(f"/v1/payments/{uuid4()}"), 404, "payment_not_found")


def test_pages_of_payments_follow_each_other(
    engine: Engine, api: TestClient, ada: dict[str, Any]
) -> None:
    for amount in (1, 2, 3):
        deposit(engine, api, ada["id"], amount)

    page = api.get("/v1/payments?limit=2").json()
    rest = api.get(f"/v1/payments?limit=2&cursor={page['next_cursor']}").json()

    assert [one["amount"] for one in page["data"] + rest["data"]] == [3, 2, 1]
    assert rest["next_cursor"] is None
    problem(api.get("/v1/payments?status=paid"), 422, "invalid", "status")
