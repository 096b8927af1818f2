from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from models import job_ledger
from tests.api.calls import a_charge, done, problem


@pytest.fixture
def monthly(api: TestClient) -> dict[str, Any]:
    """A client with a charge in April 2026, on a monthly cycle since then."""
    new = {"name": "Ada", "billing_cycle": "monthly", "billing_starts_on": "2026-04-01"}
    client: dict[str, Any] = api.post("/v1/clients", json=new).json()
    a_charge(api, client, charged_on="2026-04-10")
    return client


def test_a_run_bills_what_is_due_and_shows_its_progress(
    engine: Engine, api: TestClient, monthly: dict[str, Any]
) -> None:
    accepted = api.post("/v1/billing-runs", json={"as_of": "2026-06-01"})
    url = accepted.json()["links"]["subject"]
    before = api.get(url).json()

    job = done(engine, api, accepted)

    run = api.get(url).json()
    assert (before["state"], before["progress"]["due"], before["finished_at"]) == (
        "running", 2, None
    )  # fmt: skip
    assert job["subject"] == {"type": "billing_run", "id": run["id"]}
    assert run == {
        "id": run["id"],
        "state": "finished",
        "as_of": "2026-06-01",
        "client": None,
        "dry_run": False,
        "created_at": run["created_at"],
        "finished_at": run["finished_at"],
        "progress": {
            "due": 0,
            "periods": {"billed": 1, "empty": 1},
            "failures": [],
            "invoiced": {"usd": {"invoices": 1, "total": 1100}},
            "drafted": {},
        },
        "preview": None,
        "links": {"self": url, "job": job["links"]["self"]},
    }
    (invoice,) = api.get(f"/v1/invoices?client={monthly['id']}").json()["data"]
    assert (invoice["status"], invoice["period_end"]) == ("open", "2026-05-01")


def test_a_run_may_be_for_one_client_up_to_an_instant(
    engine: Engine, api: TestClient, monthly: dict[str, Any]
) -> None:
    body = {"as_of": "2026-05-01T02:00:00+02:00", "client": monthly["id"]}

    accepted = api.post("/v1/billing-runs", json=body)
    done(engine, api, accepted)

    run = api.get(accepted.json()["links"]["subject"]).json()
    assert (run["as_of"], run["client"]) == ("2026-05-01T00:00:00Z", monthly["id"])
    assert run["progress"]["periods"] == {"billed": 1}


def test_a_dry_run_shows_the_invoices_and_moves_nothing(
    engine: Engine, api: TestClient, monthly: dict[str, Any]
) -> None:
    ahead = (datetime.now(UTC) + timedelta(days=60)).date().isoformat()

    accepted = api.post("/v1/billing-runs", json={"as_of": ahead, "dry_run": True})
    done(engine, api, accepted)

    run = api.get(accepted.json()["links"]["subject"]).json()
    (invoice,) = run["preview"]["invoices"]
    assert (run["state"], run["dry_run"]) == ("finished", True)
    assert (invoice["client"], invoice["total"]) == (monthly["id"], 1100)
    assert api.get("/v1/invoices").json()["data"] == []


@pytest.mark.parametrize(
    "as_of", [5, "tomorrow", "2026-06-01T00:00:00", "2026-13-01", "0001-01-01", "2999-01-01", "1e9"]
)
def test_an_as_of_that_is_no_time_is_refused(api: TestClient, as_of: object) -> None:
    problem(api.post("/v1/billing-runs", json={"as_of": as_of}), 422, "invalid", "as_of")


def test_the_future_is_only_for_dry_runs(api: TestClient) -> None:
    ahead = (datetime.now(UTC) + timedelta(days=3)).isoformat()

    problem(api.post("/v1/billing-runs", json={"as_of": ahead}), 422, "invalid", "as_of")


def test_an_unknown_client_or_run_is_not_found(api: TestClient) -> None:
    body = {"client": str(uuid4())}

    problem(api.post("/v1/billing-runs", json=body), 404, "client_not_found")
    problem(api.get(f"/v1/billing-runs/{uuid4()}"), 404, "billing_run_not_found")
    problem(api.post("/v1/billing-runs", json={"dry_run": 1}), 422, "invalid", "dry_run")


def test_a_run_whose_job_was_cancelled_has_failed(engine: Engine, api: TestClient) -> None:
    job = api.post("/v1/billing-runs", json={}).json()
    with engine.begin() as connection:
        assert job_ledger.cancel(connection, UUID(job["id"]))

    assert api.get(job["links"]["subject"]).json()["state"] == "failed"
