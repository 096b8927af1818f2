"""Requests that many tests make, and what they look for in the answers."""

from datetime import date
from typing import Any

from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy import Engine

from gateways.sandbox.stripe.cardholders import make_cardholder
from gateways.sandbox.stripe.server import StripeSandbox
from tasks.calls import Gateways
from tests.worlds import work


def a_charge(api: TestClient, client: dict[str, Any], **fields: Any) -> dict[str, Any]:
    new = {
        "client": client["id"],
        "description": "FNSKU labelling",
        "quantity": "40",
        "unit_price": "0.2750",
        "charged_on": date(2026, 5, 12).isoformat(),
        **fields,
    }
    answer = api.post("/v1/charges", json={k: v for k, v in new.items() if v is not None})
    assert answer.status_code == 201, answer.text
    recorded: dict[str, Any] = answer.json()
    return recorded


def a_draft(engine: Engine, api: TestClient, client_id: str) -> dict[str, Any]:
    job = done(engine, api, api.post("/v1/invoices", json={"client": client_id}))
    found: dict[str, Any] = api.get(f"/v1/invoices/{job['result']['invoices'][0]}").json()
    return found


def an_invoice(engine: Engine, api: TestClient, client_id: str, **fields: Any) -> dict[str, Any]:
    """A finalized invoice of a new charge, which has these fields."""
    a_charge(api, {"id": client_id}, **fields)
    draft = a_draft(engine, api, client_id)
    done(engine, api, api.post(f"/v1/invoices/{draft['id']}/finalize"))
    found: dict[str, Any] = api.get(f"/v1/invoices/{draft['id']}").json()
    return found


def a_card(
    api: TestClient, sandbox: StripeSandbox, client_id: str, payment_method: str = "pm_card_visa"
) -> dict[str, Any]:
    """A card of the sandbox's, which the client is put on."""
    holder = make_cardholder(sandbox.url, payment_method=payment_method)
    card = {"stripe_customer": holder.customer, "payment_method": holder.payment_method}
    answer = api.put(f"/v1/clients/{client_id}/billing-method", json=card)
    assert answer.status_code == 200, answer.text
    method: dict[str, Any] = answer.json()
    return method


def deposit(
    engine: Engine, api: TestClient, client_id: str, amount: int, **fields: Any
) -> dict[str, Any]:
    """The finished job of a deposit in usd."""
    new = {"amount": amount, "currency": "usd", "source": "outside", **fields}
    url = f"/v1/clients/{client_id}/credit/deposits"
    job = done(engine, api, api.post(url, json=new))
    assert job["state"] == "succeeded", job
    return job


def done(
    engine: Engine, api: TestClient, accepted: Response, gateways: Gateways | None = None
) -> dict[str, Any]:
    """The job of an accepted command, after all work was done.

    Cards are charged, and mails sent, only through ``gateways``.
    """
    assert accepted.status_code == 202, accepted.text
    work(engine, gateways=gateways)
    job: dict[str, Any] = api.get(accepted.headers["Location"]).json()
    return job


def problem(answer: Response, status: int, code: str, *fields: str) -> dict[str, Any]:
    """Check that an answer is this problem, with exactly these fields named."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body.keys() == {"type", "title", "status", "code", "detail", "errors"}
    assert (body["status"], body["code"]) == (status, code)
    assert body["detail"]
    assert {error["field"] for error in body["errors"]} == set(fields)
    return body
