from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from tests.api.calls import problem
from tests.worlds import work


def test_queues_show_their_jobs_by_state(api: TestClient, charge: dict[str, Any]) -> None:
    api.post("/v1/invoices", json={"client": charge["client"]})

    queues = {queue["name"]: queue for queue in api.get("/v1/queues").json()["data"]}

    assert queues.keys() == {"billing", "ops"}
    assert queues["billing"]["jobs"]["ready"] == 1
    assert sum(queues["billing"]["jobs"].values()) == 1
    assert queues["billing"]["oldest_ready_age_seconds"] > 0
    assert queues["ops"]["oldest_ready_age_seconds"] == 0


def test_a_paused_queue_starts_nothing_until_it_is_resumed(
    engine: Engine, api: TestClient, charge: dict[str, Any]
) -> None:
    paused = api.post("/v1/queues/billing/pause").json()
    api.post("/v1/invoices", json={"client": charge["client"]})

    assert (paused["paused"], paused["paused_by"][:4]) == (True, "api:")
    assert api.post("/v1/queues/billing/pause").json()["paused_at"] == paused["paused_at"]
    assert work(engine) == 0

    resumed = api.post("/v1/queues/billing/resume").json()
    assert (resumed["paused"], resumed["paused_at"], resumed["paused_by"]) == (False, None, None)
    assert work(engine) == 1


@pytest.mark.parametrize("name", ["mail", "%00", "Billing"])
def test_an_unknown_queue_is_not_found(api: TestClient, name: str) -> None:
    problem(api.post(f"/v1/queues/{name}/pause"), 404, "queue_not_found")
    problem(api.post(f"/v1/queues/{name}/resume"), 404, "queue_not_found")
