"""Requests that many tests make, and what they look for in the answers."""

from datetime import date
from typing import Any

from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy import Engine

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


def done(engine: Engine, api: TestClient, accepted: Response) -> dict[str, Any]:
    """The job of an accepted command, after all work was done."""
    assert accepted.status_code == 202, accepted.text
    work(engine)
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
