from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from tests.api.calls import problem
from tests.worlds import work


def test_queues_show_their_jobs_by_state(api: TestClient, charge: dict[str, Any]) -> None:
    api.post("/v1/invoices", json={"client": charge["client"]})

    queues = {queue["name"]: queue for queue in api.get("/v1/queues").json()["data"]}

    assert queues.keys() == {"billing", "mail", "ops", "payments"}
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


@pytest.mark.parametrize("name", ["letters", "%00", "Billing"])
def test_an_unknown_queue_is_not_found(api: TestClient, name: str) -> None:
    problem(api.post(f"/v1/queues/{name}/pause"), 404, "queue_not_found")
    problem(api.post(f"/v1/queues/{name}/resume"), 404, "queue_not_found")


def test_queues_are_listed_in_pages_by_name(api: TestClient) -> None:
    everyone = [queue["name"] for queue in api.get("/v1/queues").json()["data"]]

    page = api.get("/v1/queues?limit=1").json()
    read = [queue["name"] for queue in page["data"]]
    while page["next_cursor"] is not None:
        page = api.get(f"/v1/queues?limit=1&cursor={page['next_cursor']}").json()
        read += [queue["name"] for queue in page["data"]]

    assert len(everyone) > 1
    assert read == everyone == sorted(everyone)


@pytest.mark.parametrize("query", ["limit=0", "cursor=zz", "cursor=", "cursor=QUJD", "foo=1"])
def test_a_wrong_parameter_of_the_list_is_refused(api: TestClient, query: str) -> None:
    problem(api.get(f"/v1/queues?{query}"), 422, "invalid", query.partition("=")[0])


@pytest.mark.parametrize("command", ["pause", "resume"])
def test_a_command_on_a_queue_takes_no_options(api: TestClient, command: str) -> None:
    url = f"/v1/queues/billing/{command}"

    problem(api.post(url, json={"reason": "x"}), 422, "invalid", "reason")
    assert not any(queue["paused"] for queue in api.get("/v1/queues").json()["data"])
    assert api.post(url, json={}).status_code == 200
