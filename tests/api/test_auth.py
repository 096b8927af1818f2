import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from models import Scope
from tests.api.calls import problem
from tests.api.conftest import Caller

OPEN = {
    "/livez",
    "/readyz",
    "/metrics",
    "/webhooks/stripe",
    "/webhooks/stripe/{account_id}",
    "/webhooks/sendgrid",
}
NOBODY = "019ae8a3-5c00-7000-8000-000000000001"


def operations(app: FastAPI) -> list[tuple[str, str]]:
    """Method and path of every operation, with some id or name filled in."""
    return [
        (
            method.upper(),
            path.replace("{queue_name}", "billing").replace("{schedule_name}", "prune"),
        )
        for path, methods in app.openapi()["paths"].items()
        for method in methods
    ]


def filled(path: str) -> str:
    head, brace, tail = path.partition("{")
    return head + NOBODY + tail.partition("}")[2] if brace else head


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer dck_",
        "Bearer dck_0123456789ab_nothing",
        "Bearer dck_\xe9\xe9_secret",
        "Basic dXNlcjpwYXNz",
        "dck_0123456789ab_nothing",
    ],
)
def test_no_operation_is_open_to_whoever_has_no_valid_key(app: FastAPI, header: str | None) -> None:
    with TestClient(app) as client:
        for method, path in operations(app):
            if path in OPEN:
                continue
            headers = {} if header is None else {b"Authorization": header.encode("latin-1")}
            answer = client.request(method, filled(path), headers=headers, json={})
            problem(answer, 401, "unauthenticated")
            assert answer.headers["www-authenticate"] == "Bearer"


def test_a_key_with_another_keys_secret_is_refused(app: FastAPI, caller: Caller) -> None:
    first, second = (caller().headers["Authorization"] for _ in range(2))
    mixed = first.rpartition("_")[0] + "_" + second.rpartition("_")[2]

    with TestClient(app) as client:
        answer = client.get("/v1/account", headers={"Authorization": mixed})

    problem(answer, 401, "unauthenticated")


def needed(method: str, path: str) -> Scope:
    resource = path.split("/")[2]
    if resource in ("queues", "schedules", "api-keys") or path.endswith(
        ("/retry", "/cancel", "/replay")
    ):
        return Scope.OPS
    return Scope.READ if method == "GET" else Scope.WRITE


def test_every_operation_needs_its_scope_and_no_other(app: FastAPI, caller: Caller) -> None:
    with_only = {scope: caller(scope) for scope in Scope}
    for method, path in operations(app):
        if path in OPEN:
            continue
        for scope, client in with_only.items():
            answer = client.request(method, filled(path), json={})
            allowed = answer.status_code != 403
            assert allowed is (scope == needed(method, path)), (method, path, scope)
            if not allowed:
                problem(answer, 403, "scope_missing")
