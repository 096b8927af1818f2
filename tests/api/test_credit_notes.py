from io import BytesIO
from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient
from pypdf import PdfReader
from sqlalchemy import Engine

from tests.api.calls import a_charge, a_draft, done, problem
from tests.api.conftest import Finish


@pytest.fixture
def two_lines(
    engine: Engine, api: TestClient, finish: Finish, ada: dict[str, Any]
) -> dict[str, Any]:
    """An invoice of 11.00 and 5.00 usd."""
    a_charge(api, ada)
    a_charge(api, ada, description="Pallet storage", quantity="1", unit_price="5.00")
    draft = a_draft(engine, api, ada["id"])
    finish(api.post(f"/v1/invoices/{draft['id']}/finalize"))
    found: dict[str, Any] = api.get(f"/v1/invoices/{draft['id']}").json()
    return found


def url_of(invoice: dict[str, Any]) -> str:
    return f"/v1/invoices/{invoice['id']}/credit-notes"


def test_a_credit_note_is_written_shown_and_listed(
    api: TestClient, finish: Finish, two_lines: dict[str, Any]
) -> None:
    line = next(one for one in two_lines["lines"] if one["amount"] == 500)
    said = {"lines": [line["charge"]], "to": "credit", "reason": "Never arrived"}

    accepted = api.post(url_of(two_lines), json=said)
    assert accepted.json()["subject"] == {"type": "invoice", "id": two_lines["id"]}
    job = finish(accepted)

    assert job["result"]["number"] == "CN-000001"
    note = api.get(f"/v1/credit-notes/{job['result']['credit_note']}").json()
    assert note == {
        "id": job["result"]["credit_note"],
        "client": two_lines["client"],
        "invoice": two_lines["id"],
        "number": "CN-000001",
        "currency": "usd",
        "amount": 500,
        "net": 500,
        "tax": 0,
        "taxes": [],
        "lines": [line["charge"]],
        "lowered_due": 500,
        "returned": 0,
        "returned_to": None,
        "voids": False,
        "reason": "Never arrived",
        "issued_on": note["issued_on"],
        "created_at": note["created_at"],
        "bill_from": two_lines["bill_from"],
        "bill_to": two_lines["bill_to"],
        "links": {
            "self": f"/v1/credit-notes/{note['id']}",
            "invoice": f"/v1/invoices/{two_lines['id']}",
            "pdf": f"/v1/credit-notes/{note['id']}/pdf",
        },
    }
    finish(api.post(url_of(two_lines), json={"amount": 100, "to": "outside"}))
    for query, numbers in (
        ("", ["CN-000002", "CN-000001"]),
        (f"?invoice={two_lines['id']}&limit=1", ["CN-000002"]),
        (f"?client={two_lines['client']}", ["CN-000002", "CN-000001"]),
        (f"?client={uuid4()}", []),
        (f"?invoice={uuid4()}", []),
    ):
        listed = api.get(f"/v1/credit-notes{query}").json()["data"]
        assert [one["number"] for one in listed] == numbers, query


def test_an_invoice_tells_what_was_credited(
    api: TestClient, finish: Finish, two_lines: dict[str, Any]
) -> None:
    finish(api.post(url_of(two_lines), json={"amount": 600, "to": "credit", "reason": "Late"}))

    shown = api.get(f"/v1/invoices/{two_lines['id']}").json()

    assert (shown["amount_credited"], shown["amount_refunded"], shown["amount_due"]) == (
        600,
        0,
        1000,
    )
    assert shown["status"] == "open"
    [told] = [item for item in shown["history"] if item["what"] == "credited"]
    assert told["detail"] == "CN-000001: 6.00 USD, Late"
    listed = api.get("/v1/invoices").json()["data"][0]
    assert listed["amount_credited"] == 600


def test_what_cannot_be_credited_is_refused_at_once(
    engine: Engine, api: TestClient, finish: Finish, two_lines: dict[str, Any]
) -> None:
    url = url_of(two_lines)
    to = {"to": "credit"}
    problem(api.post(url, json={"amount": 1601, **to}), 422, "amount_exceeds_invoice", "amount")
    for field, body in (
        ("amount", to),
        ("amount", {**to, "amount": 1, "lines": [two_lines["lines"][0]["charge"]]}),
        ("amount", {**to, "amount": 0}),
        ("lines", {**to, "lines": [str(uuid4())]}),
        ("lines", {**to, "lines": []}),
        ("to", {"amount": 1}),
        ("to", {"amount": 1, "to": "cash"}),
        ("memo", {**to, "amount": 1, "memo": "x"}),
    ):
        problem(api.post(url, json=body), 422, "invalid", field)
    line = two_lines["lines"][0]["charge"]
    finish(api.post(url, json={"lines": [line], **to}))
    problem(api.post(url, json={"lines": [line], **to}), 409, "line_already_credited")
    problem(api.post(f"/v1/invoices/{two_lines['id']}/void"), 409, "invoice_credited")
    left = api.get(f"/v1/invoices/{two_lines['id']}").json()["amount_due"]
    finish(api.post(url, json={"amount": left, **to}))
    problem(api.post(url, json={"amount": 1, **to}), 409, "nothing_to_credit")
    problem(api.post(f"/v1/invoices/{uuid4()}/credit-notes", json=to), 404, "invoice_not_found")
    a_charge(api, {"id": two_lines["client"]})
    draft = a_draft(engine, api, two_lines["client"])
    problem(api.post(url_of(draft), json={"amount": 1, **to}), 409, "invoice_not_finalized")


def test_more_than_was_paid_by_card_does_not_go_back_to_one(
    engine: Engine, api: TestClient, two_lines: dict[str, Any]
) -> None:
    done(engine, api, api.post(f"/v1/invoices/{two_lines['id']}/mark-paid"))

    answer = api.post(url_of(two_lines), json={"amount": 1, "to": "card"})

    problem(answer, 422, "amount_exceeds_paid", "to")


def text_of(pdf: bytes) -> str:
    return " ".join(" ".join(page.extract_text().split()) for page in PdfReader(BytesIO(pdf)).pages)


def test_the_pdf_of_a_credit_note_says_what_it_takes_back_and_where_it_went(
    engine: Engine, api: TestClient, finish: Finish, two_lines: dict[str, Any]
) -> None:
    done(engine, api, api.post(f"/v1/invoices/{two_lines['id']}/mark-paid", json={"amount": 1500}))
    line = next(one for one in two_lines["lines"] if one["amount"] == 500)
    for body in (
        {"lines": [line["charge"]], "to": "outside", "reason": "Never arrived"},
        {"amount": 50, "to": "credit"},
    ):
        finish(api.post(url_of(two_lines), json=body))
    second, first = api.get("/v1/credit-notes").json()["data"]

    answer = api.get(first["links"]["pdf"])

    assert answer.headers["content-type"] == "application/pdf"
    assert 'filename="CN-000001.pdf"' in answer.headers["content-disposition"]
    text = text_of(answer.content)
    for said in (
        "Credit note",
        "CN-000001",
        "INV-000001",
        "Pallet storage",
        "Total credited 5.00 USD",
        "Taken off what is due 1.00 USD",
        "Refunded 4.00 USD",
        "Reason: Never arrived",
        "Bluebird Prep",
        "Ada Imports",
    ):
        assert said in text, (said, text)
    text = text_of(api.get(second["links"]["pdf"]).content)
    assert "Part of invoice INV-000001" in text
    assert "Added to your credit 0.50 USD" in text
    invoice = text_of(api.get(two_lines["links"]["pdf"]).content)
    assert "Credit notes -5.50 USD" in invoice
    assert "Refunded 4.50 USD" in invoice
    problem(api.get(f"/v1/credit-notes/{uuid4()}/pdf"), 404, "credit_note_not_found")


def test_an_account_may_have_its_voids_write_a_credit_note(
    engine: Engine, api: TestClient, two_lines: dict[str, Any]
) -> None:
    assert api.get("/v1/account").json()["void_makes_credit_note"] is False
    changed = api.patch("/v1/account", json={"void_makes_credit_note": True})
    assert changed.json()["void_makes_credit_note"] is True
    problem(
        api.patch("/v1/account", json={"void_makes_credit_note": None}),
        422,
        "invalid",
        "void_makes_credit_note",
    )

    job = done(engine, api, api.post(f"/v1/invoices/{two_lines['id']}/void"))

    note = api.get(f"/v1/credit-notes/{job['result']['credit_note']}").json()
    assert (note["amount"], note["voids"], note["number"]) == (1600, True, "CN-000001")
    assert (note["lowered_due"], note["returned"], note["returned_to"]) == (0, 0, None)
    void = api.get(f"/v1/invoices/{two_lines['id']}").json()
    assert (void["status"], void["amount_credited"], void["amount_due"]) == ("void", 0, 0)
    text = text_of(api.get(note["links"]["pdf"]).content)
    assert "Invoice INV-000001 is void" in text
    assert "All of invoice INV-000001" in text
