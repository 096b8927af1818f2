import re
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.api.calls import problem


def names(page: dict[str, list[dict[str, str]]]) -> list[str]:
    return [client["name"] for client in page["data"]]


@pytest.fixture
def _seven(api: TestClient) -> None:
    for number in range(7):
        api.post("/v1/clients", json={"name": f"Client {number}"})


@pytest.mark.usefixtures("_seven")
def test_a_list_is_read_page_by_page_newest_first(api: TestClient) -> None:
    first = api.get("/v1/clients?limit=3").json()
    second = api.get(f"/v1/clients?limit=3&cursor={first['next_cursor']}").json()
    third = api.get(f"/v1/clients?limit=3&cursor={second['next_cursor']}").json()

    assert names(first) == ["Client 6", "Client 5", "Client 4"]
    assert names(second) == ["Client 3", "Client 2", "Client 1"]
    assert names(third) == ["Client 0"]
    assert third["next_cursor"] is None


@pytest.mark.usefixtures("_seven")
def test_a_page_stays_right_while_objects_are_added(api: TestClient) -> None:
    first = api.get("/v1/clients?limit=3").json()
    api.post("/v1/clients", json={"name": "New"})

    second = api.get(f"/v1/clients?limit=3&cursor={first['next_cursor']}").json()

    assert names(second) == ["Client 3", "Client 2", "Client 1"]


@pytest.mark.usefixtures("_seven")
def test_a_last_page_that_is_full_has_no_next_one(api: TestClient) -> None:
    assert api.get("/v1/clients?limit=7").json()["next_cursor"] is None


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=201", "limit=x", "cursor=x", "cursor=%00", "cursor=_-_-", "cursor=é",
     "page=2", "sort=name"],
)  # fmt: skip
def test_a_wrong_or_unknown_parameter_is_refused(api: TestClient, query: str) -> None:
    problem(api.get(f"/v1/clients?{query}"), 422, "invalid", query.partition("=")[0])


UNKNOWN_ID = "019ae8a3-5c00-7000-8000-000000000001"


def test_no_operation_takes_a_parameter_that_it_does_not_declare(
    app: FastAPI, api: TestClient
) -> None:
    checked = 0
    for path, operations in app.openapi()["paths"].items():
        for method in operations if path.startswith("/v1/") else []:
            url = re.sub(r"{\w+_name}", "billing", re.sub(r"{\w+_id}", UNKNOWN_ID, path))
            answer = api.request(method, f"{url}?foo=1&dry_run=true")
            problem(answer, 422, "invalid", "foo", "dry_run")
            checked += 1
    assert checked > 25


def test_a_charge_sent_with_an_unknown_parameter_is_not_recorded(
    api: TestClient, ada: dict[str, Any]
) -> None:
    body = {"client": ada["id"], "description": "Boxes", "amount": 100}

    answer = api.post("/v1/charges?dry_run=true", json=body, headers={"Idempotency-Key": "k"})

    (error,) = problem(answer, 422, "invalid", "dry_run")["errors"]
    assert error["message"] == "is not known here: remove it"
    assert api.get("/v1/charges").json()["data"] == []


def test_whoever_has_no_key_is_not_told_which_parameters_there_are(app: FastAPI) -> None:
    with TestClient(app) as nobody:
        problem(nobody.get("/v1/account?x=1"), 401, "unauthenticated")
