from typing import Any
from uuid import uuid4

from fastapi.testclient import TestClient

from tests.api.calls import problem
from tests.api.conftest import Finish, PutCard


def test_a_reconciliation_is_asked_for_shown_and_listed(
    api: TestClient, invoice: dict[str, Any], put_card: PutCard, finish: Finish
) -> None:
    put_card(invoice["client"])
    finish(api.post(f"/v1/invoices/{invoice['id']}/charge"))

    accepted = api.post("/v1/reconciliations", json={"since": "2026-01-01T00:00:00Z"})
    before = api.get("/v1/reconciliations").json()["data"]
    job = finish(accepted)

    assert job["state"] == "succeeded"
    assert [one["finished_at"] for one in before] == [None]
    shown = api.get(f"/v1/reconciliations/{job['result']['reconciliation']}").json()
    assert (shown["payments"], shown["refunds"], shown["differences"]) == (1, 0, [])
    assert (shown["since"], shown["job"]) == ("2026-01-01T00:00:00Z", job["id"])
    [listed] = api.get("/v1/reconciliations").json()["data"]
    assert listed == {name: shown[name] for name in listed}


def test_without_a_beginning_the_last_days_are_compared(api: TestClient, finish: Finish) -> None:
    job = finish(api.post("/v1/reconciliations"))
    assert job["result"]["payments"] == 0


def test_a_beginning_in_the_future_is_refused(api: TestClient) -> None:
    answer = api.post("/v1/reconciliations", json={"since": "2199-01-01T00:00:00Z"})
    problem(answer, 422, "invalid", "since")


def test_one_that_is_not_there_is_not_found(api: TestClient) -> None:
    problem(api.get(f"/v1/reconciliations/{uuid4()}"), 404, "reconciliation_not_found")
