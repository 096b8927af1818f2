from typing import Any
from uuid import uuid4

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx2 import Response

from models import Scope
from tests.api.calls import problem
from tests.api.conftest import Caller


def use(app: FastAPI, key: str) -> Response:
    with TestClient(app) as client:
        return client.get("/v1/account", headers={"Authorization": f"Bearer {key}"})


def test_an_issued_key_works_and_its_secret_is_shown_once(app: FastAPI, api: TestClient) -> None:
    answer = api.post("/v1/api-keys", json={"scopes": ["write", "read"]})

    assert answer.status_code == 201
    key = answer.json()
    assert key["scopes"] == ["read", "write"]
    assert key["key"].startswith(f"dck_{key['prefix']}_")
    assert use(app, key["key"]).status_code == 200
    listed = api.get("/v1/api-keys").json()["data"][0]
    assert listed == {name: value for name, value in key.items() if name != "key"}


def test_a_revoked_key_is_refused_at_once(app: FastAPI, api: TestClient) -> None:
    key = api.post("/v1/api-keys", json={"scopes": ["read"]}).json()

    revoked = api.delete(f"/v1/api-keys/{key['id']}")

    assert revoked.json()["revoked_at"].endswith("Z")
    assert api.delete(f"/v1/api-keys/{key['id']}").json() == revoked.json()
    problem(use(app, key["key"]), 401, "unauthenticated")


def test_a_repeated_request_does_not_show_the_secret_again(api: TestClient) -> None:
    body, headers = {"scopes": ["read"]}, {"Idempotency-Key": "k1"}

    first = api.post("/v1/api-keys", json=body, headers=headers)
    again = api.post("/v1/api-keys", json=body, headers=headers)

    assert (again.status_code, again.json()) == (201, {**first.json(), "key": None})
    assert len(api.get("/v1/api-keys").json()["data"]) == 2


def test_a_key_issues_no_scope_that_it_lacks(caller: Caller) -> None:
    operator = caller(Scope.OPS)

    problem(operator.post("/v1/api-keys", json={"scopes": ["write"]}), 403, "scope_missing")
    assert operator.post("/v1/api-keys", json={"scopes": ["ops"]}).status_code == 201


@pytest.mark.parametrize(
    ("body", "field"),
    [({}, "scopes"), ({"scopes": []}, "scopes"), ({"scopes": ["root"]}, "scopes[0]")],
)
def test_a_key_has_known_scopes(api: TestClient, body: dict[str, Any], field: str) -> None:
    problem(api.post("/v1/api-keys", json=body), 422, "invalid", field)


def test_an_unknown_key_is_not_found(api: TestClient) -> None:
    problem(api.delete(f"/v1/api-keys/{uuid4()}"), 404, "api_key_not_found")
