import ast
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy.exc import IntegrityError
from structlog.testing import capture_logs

from api.body_limit import MAX_BODY_BYTES
from api.problems import STATUSES
from billing.errors import InvalidInput, NotFound, RuleViolation
from tests.api.calls import problem
from tests.api.conftest import Caller

ROOT = Path(__file__).resolve().parents[2]
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b"[" * 100_000, b'{"name": 1' + b"0" * 5000])
def test_a_body_that_is_no_json_is_malformed(api: TestClient, body: bytes) -> None:
    problem(api.post("/v1/clients", content=body, headers=JSON), 400, "malformed")


@pytest.mark.parametrize("body", ["[]", '"text"', "null", "1"])
def test_a_body_that_is_no_object_is_refused(api: TestClient, body: str) -> None:
    for url in ("/v1/clients", "/v1/charges", "/v1/billing-runs"):
        answer = api.post(url, content=body, headers=JSON)
        (error,) = problem(answer, 422, "invalid", "body")["errors"]
        assert error["message"] in (
            "must be a JSON object, sent as application/json",
            "is required",
        )


def test_a_body_of_another_type_is_refused(api: TestClient) -> None:
    form = api.post("/v1/clients", data={"name": "Ada"})

    problem(form, 422, "invalid", "body")
    problem(api.patch("/v1/account", data={"name": "Ada"}), 422, "invalid", "body")


def test_text_that_no_database_can_store_is_refused(api: TestClient) -> None:
    for text in ("A\\u0000", "A\\ud800"):
        body = f'{{"name": "{text}", "tax_ids": ["{text}"]}}'
        answer = api.post("/v1/clients", content=body, headers=JSON)
        problem(answer, 422, "invalid", "name", "tax_ids[0]")


def test_a_body_too_large_is_not_read(api: TestClient) -> None:
    declared = api.post("/v1/clients", content=b" " * (MAX_BODY_BYTES + 1), headers=JSON)
    chunks = (b" " * 2**16 for _ in range(MAX_BODY_BYTES // 2**16 + 1))

    chunked = api.post("/v1/clients", content=chunks, headers=JSON)
    for answer in (declared, chunked):
        detail = problem(answer, 413, "too_large")["detail"]
        assert detail == "The body must be at most 2,097,152 bytes."


def test_a_body_of_the_largest_size_is_read(api: TestClient) -> None:
    body = json.dumps({"name": "Ada"}).encode().ljust(MAX_BODY_BYTES)

    assert api.post("/v1/clients", content=body, headers=JSON).status_code == 201


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1/clients/", "/docs", "/redoc", "/v1/payouts"])
def test_an_unknown_address_is_not_found(api: TestClient, path: str) -> None:
    problem(api.get(path), 404, "not_found")


def test_a_method_that_an_address_does_not_take_is_refused(api: TestClient) -> None:
    for url, methods in {
        "/v1/clients": "GET, POST",
        "/v1/account": "GET, PATCH",
        "/v1/charges/17": "DELETE, GET, PATCH",
        "/v1/billing-runs": "POST",
        "/livez": "GET, HEAD",
    }.items():
        answer = api.put(url, json={})
        problem(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == methods


@pytest.mark.parametrize(
    ("url", "detail"),
    [
        ("/v1/clients/abc", "There is no client with that id."),
        ("/v1/billing-runs/abc", "There is no billing run with that id."),
        ("/v1/queues/Tea%20time/pause", "There is no queue of that name."),
        ("/v1/schedules/Tea%20time/pause", "There is no schedule of that name."),
    ],
)
def test_what_cannot_be_an_id_or_a_name_is_not_found(
    api: TestClient, url: str, detail: str
) -> None:
    answer = api.post(url) if url.endswith("pause") else api.get(url)

    assert problem(answer, 404, answer.json()["code"])["detail"] == detail


ID = "019ae8a3-5c00-7000-8000-000000000001"


@pytest.mark.parametrize(
    ("method", "url", "body", "message"),
    [
        ("POST", "/v1/clients", {"name": 1}, "must be a text"),
        ("POST", "/v1/clients", {"name": ""}, "must not be empty"),
        ("POST", "/v1/clients", {"name": "x" * 256}, "must have at most 255 characters"),
        ("PATCH", "/v1/account", {"tax_ids": "x"}, "must be a list"),
        ("PATCH", "/v1/account", {"tax_ids": ["x"] * 11}, "must have at most 10 entries"),
        ("PATCH", "/v1/account", {"net_days": "1"}, "must be an integer"),
        ("PATCH", "/v1/account", {"net_days": 1.0}, "must be an integer"),
        ("PATCH", "/v1/account", {"net_days": 10**40}, "must be at most 365"),
        ("PATCH", "/v1/account", {"net_days": -1}, "must be at least 0"),
        ("PATCH", "/v1/account", {"address": "x"}, "must be a JSON object"),
        (
            "PATCH", f"/v1/clients/{ID}", {"email": "ada"},
            "must be an email address, such as ada@example.com",
        ),
        (
            "PATCH", f"/v1/clients/{ID}", {"email": "a@" + "b" * 300},
            "must have at most 254 characters",
        ),
        ("PATCH", f"/v1/clients/{ID}", {"email": "a@\ud800"}, "must be a text of whole characters"),
        (
            "PATCH", f"/v1/clients/{ID}", {"billing_cycle": "daily"},
            "must be 'manual', 'monthly', 'semimonthly' or 'weekly'",
        ),
        ("POST", "/v1/invoices", {"client": "abc"}, f"must be an id, such as {ID}"),
        ("POST", "/v1/invoices", {"client": 17}, f"must be an id, such as {ID}"),
        ("POST", "/v1/invoices", {"client": ID, "charge_ids": []}, "must not be empty"),
        ("POST", "/v1/billing-runs", {"dry_run": "no"}, "must be true or false"),
        ("POST", "/v1/api-keys", {"scopes": []}, "must not be empty"),
        ("POST", "/v1/api-keys", {"scopes": ["all"]}, "must be 'read', 'write' or 'ops'"),
        ("POST", "/v1/charges", {"charges": []}, "must not be empty"),
        ("POST", "/v1/charges", {"charges": {}}, "must be a list"),
        ("POST", "/v1/charges", {"charges": [1]}, "must be a JSON object"),
        ("GET", "/v1/jobs?limit=x", None, "must be an integer"),
        ("GET", "/v1/jobs?limit=" + "9" * 5000, None, "must be an integer of fewer digits"),
        ("GET", "/v1/jobs?limit=201", None, "must be at most 200"),
        ("GET", "/v1/jobs?subject=x", None, f"must be an id, such as {ID}"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_to_do_in_plain_words(
    api: TestClient, method: str, url: str, body: object, message: str
) -> None:
    content = b"" if body is None else json.dumps(body).encode()
    answer = api.request(method, url, content=content, headers=JSON)

    messages = [error["message"] for error in answer.json()["errors"]]
    assert answer.status_code == 422
    assert any(one.startswith(message) for one in messages), messages


def raising(app: FastAPI, error: Exception) -> None:
    """Give the application an address that fails."""

    @app.get("/broken")
    def broken() -> None:
        raise error


def test_an_unexpected_error_tells_nothing_of_the_inside(app: FastAPI, caller: Caller) -> None:
    raising(app, RuntimeError("password=hunter2"))

    with capture_logs() as logs:
        answer = caller().get("/broken")

    (log,) = logs
    assert (log["event"], str(log["exc_info"])) == ("request failed", "password=hunter2")
    problem(answer, 500, "internal_error")
    assert "hunter2" not in answer.text
    assert "RuntimeError" not in answer.text


def refused_by(constraint: str) -> IntegrityError:
    """What the driver raises when a row breaks a constraint."""
    error = Exception(constraint)
    error.diag = SimpleNamespace(constraint_name=constraint)  # type: ignore[attr-defined]  # psycopg's.
    return IntegrityError("", {}, error)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InvalidInput("due_on", "must be later"), (422, "invalid", "due_on")),
        (
            InvalidInput("amount", "is too much", "amount_exceeds_due"),
            (422, "amount_exceeds_due", "amount"),
        ),
        (NotFound("invoice", "17"), (404, "invoice_not_found")),
        (RuleViolation("invoice_not_open", "it is paid"), (409, "invoice_not_open")),
        (refused_by("uq_clients_external_ref"), (409, "external_ref_taken")),
        (refused_by("uq_charges_external_ref"), (409, "external_ref_taken")),
        (refused_by("ck_charges_amount"), (500, "internal_error")),
    ],
)
def test_every_error_of_the_rules_has_its_problem(
    app: FastAPI, caller: Caller, error: Exception, expected: tuple[int, str]
) -> None:
    raising(app, error)

    with capture_logs():
        problem(caller().get("/broken"), *expected)


OF_JOBS_ALONE = {
    "card_setup_not_found",
    "mail_not_found",
    "not_chargeable",
    "payment_attempt_not_found",
    "refund_not_found",
    "refund_settled",
    "too_many_tries",
    "webhook_event_not_found",
}
"""Codes that a job may end with, and that no request is refused with."""

OF_PAGES_ALONE = {"page_not_found"}
"""Codes that are answered with a page for people."""


def codes_raised() -> set[str]:
    """The codes of every refusal that the use cases raise, but for plain invalid input."""
    codes = set()
    for path in [*ROOT.glob("tasks/*.py"), *ROOT.glob("billing/*.py"), *ROOT.glob("api/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Name(id="RuleViolation" | "NotFound" | "Refusal" as error),
                    args=[ast.Constant(value=str(code)), *_],
                ):
                    codes.add(f"{code}_not_found" if error == "NotFound" else code)
                case (
                    ast.Call(
                        func=ast.Name(id="InvalidInput"), args=[_, _, ast.Constant(value=str(code))]
                    )
                    | ast.Call(
                        func=ast.Name(id="InvalidInput"),
                        keywords=[ast.keyword(arg="code", value=ast.Constant(value=str(code)))],
                    )
                ):
                    codes.add(code)
    return codes


def test_every_code_that_is_raised_has_a_status() -> None:
    assert codes_raised() >= {"invoice_not_found", "charge_locked", "amount_exceeds_due"}
    assert codes_raised() - OF_JOBS_ALONE - OF_PAGES_ALONE <= set(STATUSES)
    assert OF_JOBS_ALONE.isdisjoint(STATUSES)


def test_every_code_that_can_be_answered_is_documented(app: FastAPI) -> None:
    documented: dict[str, Any] = app.openapi()["paths"]
    text = json.dumps(documented)
    nowhere = {code for code in STATUSES if f"`{code}`" not in text}
    # The router's own answers belong to no operation.
    assert nowhere == {"method_not_allowed", "not_found"}
