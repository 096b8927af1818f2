"""The OpenAPI document says what the API does, and the API does what it says."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from models import Dispute, Payment
from models.database import database_now
from scheduler.firing import write_schedules
from scheduler.schedules import SCHEDULES
from tests.api.calls import a_charge, a_draft, done
from tests.reconciliations import a_difference

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
EXAMPLES = 6
PUBLIC = {
    *("/livez", "/readyz", "/metrics"),
    *("/webhooks/stripe", "/webhooks/stripe/{account_id}", "/webhooks/sendgrid"),
}


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def has_example(document: dict[str, Any], media: dict[str, Any]) -> bool:
    """Whether a body shows an example: its own, or its shape's."""
    if "example" in media or "examples" in media:
        return True
    schema = media.get("schema", {})
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if "examples" in schema:
        return True
    variants = [*schema.get("anyOf", []), *schema.get("oneOf", [])]
    return any(has_example(document, {"schema": one}) for one in variants)


def test_the_document_is_served_without_a_key(app: FastAPI) -> None:
    with TestClient(app) as client:
        document = client.get("/openapi.json").json()

    assert document["info"]["title"] == "Duecourse"
    assert document == app.openapi()


def test_every_operation_is_summed_up_shown_by_example_and_lists_its_problems(
    app: FastAPI,
) -> None:
    document = app.openapi()
    for name, operation in operations(document):
        assert operation["summary"], name
        success = [code for code in operation["responses"] if code.startswith("2")]
        assert success, name
        bodies = [operation["responses"][code]["content"] for code in success]
        if "requestBody" in operation:
            bodies.append(operation["requestBody"]["content"])
        for content in bodies:
            for media in content.values():
                assert "schema" in media, name
                assert has_example(document, media), (name, media)
        if name.partition(" ")[2] in PUBLIC:
            continue
        assert operation["security"] == [{"bearer": []}], name
        assert set(operation["responses"]) >= {"401", "403", "422", "500", "503"}, name
        for code, response in operation["responses"].items():
            if code >= "400":
                assert list(response["content"]) == ["application/problem+json"], (name, code)


def test_the_example_of_a_list_is_a_page_of_what_it_lists(app: FastAPI) -> None:
    schemas = app.openapi()["components"]["schemas"]
    pages = {name: schema for name, schema in schemas.items() if name.startswith("Page_")}

    assert pages
    for name, page in pages.items():
        item = schemas[name.removeprefix("Page_").removesuffix("_")]
        assert [example["data"] for example in page["examples"]] == [item["examples"]]


def test_every_post_takes_an_idempotency_key(app: FastAPI) -> None:
    for name, operation in operations(app.openapi()):
        headers = [one["name"] for one in operation.get("parameters", []) if one["in"] == "header"]
        is_ours = name.startswith("POST") and name.partition(" ")[2] not in PUBLIC
        assert ("Idempotency-Key" in headers) is is_ours, name
        commands = "202" in operation["responses"]
        assert ("Prefer" in headers) is commands, name


def a_dispute(engine: Engine) -> str:
    """The id of an inquiry about the newest payment."""
    with Session(engine) as session, session.begin():
        payment = session.scalars(select(Payment).order_by(Payment.id.desc()).limit(1)).one()
        dispute = Dispute(
            account_id=payment.account_id,
            client_id=payment.client_id,
            payment_id=payment.id,
            invoice_id=payment.invoice_id,
            stripe_dispute="du_1",
            currency=payment.currency,
            amount=payment.amount,
            state="inquiry",
            status="warning_needs_response",
            reason="general",
            disputed_at=payment.created_at,
            told_at=payment.created_at,
        )
        session.add(dispute)
        session.flush()
        return str(dispute.id)


@pytest.fixture
def known(engine: Engine, api: TestClient, invoice: dict[str, Any]) -> dict[str, str]:
    """An id or name for every parameter of a path, so that not all is about nothing."""
    with Session(engine) as session, session.begin():
        write_schedules(session, SCHEDULES, now=database_now(session))
    new = {"name": "B", "billing_cycle": "monthly", "billing_starts_on": "2026-04-01"}
    client = api.post("/v1/clients", json=new).json()
    a_charge(api, client, charged_on=date(2026, 4, 5).isoformat())
    job = done(engine, api, api.post("/v1/billing-runs", json={}))
    charge = a_charge(api, {"id": invoice["client"]})
    a_charge(api, {"id": invoice["client"]}, currency="gbp")
    draft = a_draft(engine, api, invoice["client"])
    done(engine, api, api.post(f"/v1/invoices/{invoice['id']}/mark-paid", json={"amount": 500}))
    credited = {"amount": 100, "to": "credit"}
    url = f"/v1/invoices/{invoice['id']}/credit-notes"
    noted = done(engine, api, api.post(url, json=credited))
    api.post("/v1/reconciliations")
    difference_id = str(a_difference(engine))
    key = api.post("/v1/api-keys", json={"scopes": ["read"]}).json()
    rate = {"name": "VAT", "percent": "20", "inclusive": False, "valid_from": "2026-01-01"}
    return {
        "tax_rate_id": api.post("/v1/tax-rates", json=rate).json()["id"],
        "account_id": api.get("/v1/account").json()["id"],
        "client_id": client["id"],
        "charge_id": charge["id"],
        "invoice_id": draft["id"],
        "payment_id": api.get("/v1/payments").json()["data"][0]["id"],
        "credit_note_id": noted["result"]["credit_note"],
        "dispute_id": a_dispute(engine),
        "difference_id": difference_id,
        "billing_run_id": job["subject"]["id"],
        "reconciliation_id": api.get("/v1/reconciliations").json()["data"][0]["id"],
        "job_id": job["id"],
        "api_key_id": key["id"],
        "queue_name": "billing",
        "schedule_name": "prune",
    }


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("mode", GenerationMode)
def test_whatever_is_sent_is_answered_as_documented(
    app: FastAPI, api: TestClient, known: dict[str, str], mode: GenerationMode
) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    headers = dict(api.headers)
    statuses: set[int] = set()
    for result in schema.get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()
        names = {parameter.name for parameter in operation.path_parameters}
        for path_parameters in [None, {name: known[name] for name in names}][: 1 + bool(names)]:
            strategy = operation.as_strategy(mode, path_parameters=path_parameters)

            @settings(
                max_examples=EXAMPLES,
                derandomize=True,
                database=None,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            )
            @given(case=strategy)
            def answered(case: Case[Any]) -> None:
                response = case.call(headers={"Authorization": headers["authorization"]})
                statuses.add(response.status_code)
                case.validate_response(response, checks=CHECKS)

            with suppress(Unsatisfiable):  # In some operations there is nothing to get wrong.
                answered()
    assert statuses >= ({200, 201, 202, 404} if mode is GenerationMode.POSITIVE else {404, 422})
