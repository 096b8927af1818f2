from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, update
from sqlalchemy.orm import Session

from models import Job, Scope
from tasks.audits import audit_books
from tasks.enqueueing import enqueue
from tests.api.calls import a_charge, done, problem
from tests.api.conftest import Caller


@pytest.fixture
def ready(api: TestClient, charge: dict[str, Any]) -> dict[str, Any]:
    """A job that waits to be run."""
    job: dict[str, Any] = api.post("/v1/invoices", json={"client": charge["client"]}).json()
    return job


def put_in_state(engine: Engine, job: dict[str, Any], **columns: Any) -> None:
    with Session(engine) as session, session.begin():
        session.execute(update(Job).where(Job.id == UUID(job["id"])).values(**columns))


def system_job(engine: Engine) -> UUID:
    with Session(engine) as session, session.begin():
        return enqueue(session, audit_books, account_id=None, requested_by="schedule:audit").id


def test_a_finished_job_shows_its_attempts_and_children(engine: Engine, api: TestClient) -> None:
    new = {"name": "B", "billing_cycle": "monthly", "billing_starts_on": "2026-04-01"}
    a_charge(api, api.post("/v1/clients", json=new).json(), charged_on="2026-04-02")

    job = done(engine, api, api.post("/v1/billing-runs", json={"as_of": "2026-05-01"}))

    assert [attempt["outcome"] for attempt in job["attempts"]] == ["awaiting_children", "succeeded"]
    assert {attempt["worker"] for attempt in job["attempts"]} == {"test"}
    (child,) = job["children"]
    assert (child["kind"], child["state"]) == ("bill_page", "succeeded")
    assert api.get(child["links"]["self"]).json()["children"] == []


def test_jobs_are_listed_newest_first_by_what_is_asked(
    api: TestClient, draft: dict[str, Any]
) -> None:
    before = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    finalizing = api.post(f"/v1/invoices/{draft['id']}/finalize").json()

    def kinds(query: str) -> list[str]:
        return [job["kind"] for job in api.get(f"/v1/jobs?{query}").json()["data"]]

    assert kinds("") == ["finalize_invoice", "draft_invoice"]
    assert kinds("state=ready") == ["finalize_invoice"]
    assert kinds("kind=draft_invoice") == ["draft_invoice"]
    assert kinds("queue=billing") == ["finalize_invoice", "draft_invoice"]
    assert kinds("queue=ops") == []
    assert kinds(f"subject={draft['id']}") == ["finalize_invoice"]
    assert kinds(f"since={before}") == ["finalize_invoice"]
    assert finalizing["subject"] == {"type": "invoice", "id": draft["id"]}


@pytest.mark.parametrize("query", ["state=lost", "subject=x", "since=2026-06-01", "color=red"])
def test_a_filter_that_is_wrong_or_unknown_is_refused(api: TestClient, query: str) -> None:
    problem(api.get(f"/v1/jobs?{query}"), 422, "invalid", query.partition("=")[0])


def test_a_ready_job_is_cancelled_and_retried(api: TestClient, ready: dict[str, Any]) -> None:
    url = ready["links"]["self"]

    cancelled = api.post(f"{url}/cancel")
    retried = api.post(f"{url}/retry")

    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    assert cancelled.json()["finished_at"].endswith("Z")
    assert (retried.status_code, retried.json()["state"]) == (200, "ready")
    assert retried.json()["finished_at"] is None


@pytest.mark.parametrize("command", ["cancel", "retry"])
def test_a_command_on_a_job_takes_no_options(
    api: TestClient, ready: dict[str, Any], command: str
) -> None:
    url = ready["links"]["self"]

    problem(api.post(f"{url}/{command}", json={"reason": "x"}), 422, "invalid", "reason")
    assert api.get(url).json()["state"] == "ready"


def test_a_dead_job_shows_its_error_and_can_be_retried(
    engine: Engine, api: TestClient, ready: dict[str, Any]
) -> None:
    put_in_state(
        engine,
        ready,
        state="dead",
        finished_at=datetime.now(UTC),
        reason="attempts_exhausted",
        error={"type": "KeyError", "message": "'x'"},
    )
    url = ready["links"]["self"]

    dead = api.get(url).json()

    assert (dead["state"], dead["reason"]) == ("dead", "attempts_exhausted")
    assert dead["error"] == {"type": "KeyError", "message": "'x'"}
    problem(api.post(f"{url}/cancel"), 409, "job_not_cancellable")
    assert api.post(f"{url}/retry").json()["error"] is None


@pytest.mark.usefixtures("draft")
def test_a_job_that_waits_or_has_succeeded_cannot_be_retried(
    api: TestClient, ada: dict[str, Any]
) -> None:
    a_charge(api, ada)
    waits = api.post("/v1/invoices", json={"client": ada["id"]}).json()
    succeeded = api.get("/v1/jobs?state=succeeded").json()["data"][0]

    problem(api.post(f"{waits['links']['self']}/retry"), 409, "job_not_retryable")
    problem(api.post(f"{succeeded['links']['self']}/retry"), 409, "job_not_retryable")
    problem(api.post(f"{succeeded['links']['self']}/cancel"), 409, "job_not_cancellable")


def test_the_systems_own_jobs_are_for_operators(engine: Engine, caller: Caller) -> None:
    url = f"/v1/jobs/{system_job(engine)}"
    operator, reader = caller(Scope.READ, Scope.OPS), caller(Scope.READ)

    assert operator.get(url).json()["subject"] is None
    assert [job["kind"] for job in operator.get("/v1/jobs").json()["data"]] == ["audit_books"]
    problem(reader.get(url), 404, "job_not_found")
    assert reader.get("/v1/jobs").json()["data"] == []


def test_an_unknown_job_is_not_found(api: TestClient) -> None:
    for url in (f"/v1/jobs/{uuid4()}", "/v1/jobs/17"):
        problem(api.get(url), 404, "job_not_found")
        problem(api.post(f"{url}/retry"), 404, "job_not_found")
        problem(api.post(f"{url}/cancel"), 404, "job_not_found")


def dead(engine: Engine, job: dict[str, Any], reason: str) -> None:
    put_in_state(engine, job, state="dead", reason=reason, finished_at=datetime.now(UTC))


def test_dead_jobs_are_counted_and_then_replayed_once(
    engine: Engine, api: TestClient, ready: dict[str, Any]
) -> None:
    dead(engine, ready, "poison")

    counted = api.post("/v1/jobs/replay", json={"filter": {"reason": "poison"}, "dry_run": True})
    assert counted.json() == {"jobs": 1, "dry_run": True}
    assert api.get(f"/v1/jobs/{ready['id']}").json()["state"] == "dead"

    assert api.post("/v1/jobs/replay", json={}).json() == {"jobs": 1, "dry_run": False}
    assert api.get(f"/v1/jobs/{ready['id']}").json()["state"] == "ready"
    assert api.post("/v1/jobs/replay", json={}).json()["jobs"] == 0


def test_only_the_dead_jobs_that_fit_the_filter_are_replayed(
    engine: Engine, api: TestClient, ready: dict[str, Any]
) -> None:
    dead(engine, ready, "unknown_kind")

    for other in ({"reason": "poison"}, {"kind": "prune"}, {"queue": "ops"}):
        assert api.post("/v1/jobs/replay", json={"filter": other}).json()["jobs"] == 0
    fits = {"kind": "draft_invoice", "queue": "billing", "since": "2026-01-01T00:00:00Z"}
    assert api.post("/v1/jobs/replay", json={"filter": fits}).json()["jobs"] == 1


def test_another_account_s_dead_jobs_are_not_replayed(
    engine: Engine, stranger: TestClient, ready: dict[str, Any]
) -> None:
    dead(engine, ready, "poison")

    assert stranger.post("/v1/jobs/replay", json={}).json()["jobs"] == 0
