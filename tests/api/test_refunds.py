from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from gateways.sandbox.stripe.server import StripeSandbox
from tests.api.calls import done, problem
from tests.api.conftest import Finish, PutCard


@pytest.fixture
def paid(
    api: TestClient, finish: Finish, put_card: PutCard, invoice: dict[str, Any]
) -> dict[str, Any]:
    """A card's payment of 11.00 usd."""
    put_card(invoice["client"])
    finish(api.post(f"/v1/invoices/{invoice['id']}/charge"))
    payment: dict[str, Any] = api.get("/v1/payments").json()["data"][0]
    return payment


def test_a_refund_is_told_by_its_payment_and_its_invoice(
    api: TestClient, finish: Finish, paid: dict[str, Any]
) -> None:
    said = {"amount": 400, "to": "card", "reason": "Two boxes arrived damaged"}

    accepted = api.post(f"/v1/payments/{paid['id']}/refund", json=said)
    assert accepted.json()["subject"] == {"type": "payment", "id": paid["id"]}
    job = finish(accepted)

    assert job["links"]["subject"] == f"/v1/payments/{paid['id']}"
    payment = api.get(job["links"]["subject"]).json()
    assert payment["amount_refunded"] == 400
    [refund] = payment["refunds"]
    assert refund == {
        "id": job["result"]["refund"],
        "client": paid["client"],
        "payment": paid["id"],
        "invoice": paid["invoice"],
        "credit_note": job["result"]["credit_note"],
        "currency": "usd",
        "amount": 400,
        "to": "card",
        "state": "succeeded",
        "reason": "Two boxes arrived damaged",
        "message": None,
        "flagged": None,
        "stripe_refund": refund["stripe_refund"],
        "created_at": refund["created_at"],
        "succeeded_at": refund["succeeded_at"],
        "settled_at": refund["settled_at"],
    }
    invoice = api.get(f"/v1/invoices/{paid['invoice']}").json()
    assert (invoice["amount_credited"], invoice["amount_refunded"]) == (400, 400)
    assert invoice["payments"] == [payment]
    assert [item["what"] for item in invoice["history"]][-2:] == ["refunded", "credited"]


def test_a_refund_without_a_note_opens_the_debt_again(
    api: TestClient, finish: Finish, paid: dict[str, Any]
) -> None:
    finish(
        api.post(f"/v1/payments/{paid['id']}/refund", json={"to": "outside", "credit_note": False})
    )

    invoice = api.get(f"/v1/invoices/{paid['invoice']}").json()
    assert (invoice["status"], invoice["collection"], invoice["amount_due"]) == (
        "open",
        "manual",
        1100,
    )
    assert invoice["paid_at"] is None


def test_what_cannot_be_refunded_is_refused_at_once(
    engine: Engine, api: TestClient, finish: Finish, paid: dict[str, Any]
) -> None:
    url = f"/v1/payments/{paid['id']}/refund"
    problem(
        api.post(url, json={"to": "card", "amount": 1101}), 422, "amount_exceeds_paid", "amount"
    )
    for field, body in (
        ("to", {}),
        ("to", {"to": "cash"}),
        ("amount", {"to": "card", "amount": 0}),
        ("credit_note", {"to": "card", "credit_note": "no"}),
    ):
        problem(api.post(url, json=body), 422, "invalid", field)
    problem(
        api.post(f"/v1/payments/{uuid4()}/refund", json={"to": "card"}), 404, "payment_not_found"
    )
    finish(api.post(url, json={"to": "card"}))
    problem(api.post(url, json={"to": "card"}), 409, "nothing_to_refund")
    deposit = {"amount": 500, "currency": "usd", "source": "outside"}
    done(engine, api, api.post(f"/v1/clients/{paid['client']}/credit/deposits", json=deposit))
    ahead = api.get("/v1/payments").json()["data"][0]
    problem(
        api.post(f"/v1/payments/{ahead['id']}/refund", json={"to": "outside"}),
        409,
        "nothing_to_refund",
    )


def test_while_a_refund_is_out_its_invoice_waits(
    api: TestClient, finish: Finish, stripe_sandbox: StripeSandbox, paid: dict[str, Any]
) -> None:
    stripe_sandbox.control.add_fault("lost_answer", times=None, path="/v1/refunds")
    url = f"/v1/payments/{paid['id']}/refund"
    job = finish(api.post(url, json={"to": "card", "amount": 100, "credit_note": False}))
    assert job["result"]["state"] == "unknown"

    problem(api.post(url, json={"to": "outside"}), 409, "refund_in_flight")
    notes = f"/v1/invoices/{paid['invoice']}/credit-notes"
    problem(api.post(notes, json={"to": "credit", "amount": 1}), 409, "refund_in_flight")
    [refund] = api.get(f"/v1/payments/{paid['id']}").json()["refunds"]
    assert (refund["state"], refund["succeeded_at"]) == ("unknown", None)
    history = api.get(f"/v1/invoices/{paid['invoice']}").json()["history"]
    assert history[-1]["what"] in ("refund_started", "mail_waiting", "mail_sent")


def test_a_card_that_paid_nothing_gets_nothing_back(
    engine: Engine, api: TestClient, invoice: dict[str, Any]
) -> None:
    done(engine, api, api.post(f"/v1/invoices/{invoice['id']}/mark-paid"))
    [payment] = api.get("/v1/payments").json()["data"]

    problem(
        api.post(f"/v1/payments/{payment['id']}/refund", json={"to": "card"}), 422, "invalid", "to"
    )


@pytest.mark.parametrize(
    ("to", "queue"), [("card", "payments"), ("credit", "billing"), ("outside", "billing")]
)
def test_only_what_goes_to_the_card_waits_for_a_worker_of_payments(
    api: TestClient, finish: Finish, paid: dict[str, Any], to: str, queue: str
) -> None:
    for url in (
        f"/v1/payments/{paid['id']}/refund",
        f"/v1/invoices/{paid['invoice']}/credit-notes",
    ):
        accepted = api.post(url, json={"amount": 100, "to": to})

        assert accepted.json()["queue"] == queue
        assert finish(accepted)["state"] == "succeeded"
