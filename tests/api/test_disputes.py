from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from gateways.sandbox.stripe.server import StripeSandbox
from models import Account, Payment
from tasks.calls import Gateways
from tests.api.calls import problem
from tests.disputes import decided, disputed
from tests.refunds import a_card_payment


@pytest.fixture
def payment(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> Payment:
    """What a card paid for an invoice of 10.00 usd."""
    return a_card_payment(engine, account, vendors, stripe_sandbox)


def listed(api: TestClient, **filters: Any) -> list[str]:
    answer = api.get("/v1/disputes", params=filters)
    assert answer.status_code == 200, answer.text
    return [one["stripe_dispute"] for one in answer.json()["data"]]


def test_a_dispute_is_shown_by_itself_and_with_its_invoice(
    engine: Engine,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    api: TestClient,
    payment: Payment,
) -> None:
    found = disputed(engine, vendors, stripe_sandbox, payment)
    [shown] = api.get("/v1/disputes").json()["data"]
    assert shown["stripe_dispute"] == found
    assert (shown["payment"], shown["invoice"]) == (str(payment.id), str(payment.invoice_id))
    assert (shown["state"], shown["status"], shown["amount"]) == ("open", "needs_response", 1000)
    assert api.get(f"/v1/disputes/{shown['id']}").json() == shown

    invoice = api.get(f"/v1/invoices/{payment.invoice_id}").json()
    assert (invoice["status"], invoice["disputed"], invoice["disputes"]) == ("paid", True, [shown])
    [summary] = api.get("/v1/invoices").json()["data"]
    assert summary["disputed"] is True

    decided(engine, vendors, stripe_sandbox, found, "lost")

    invoice = api.get(f"/v1/invoices/{payment.invoice_id}").json()
    assert (invoice["status"], invoice["disputed"], invoice["collection"]) == (
        "open",
        False,
        "manual",
    )
    happened = {item["what"]: item["detail"] for item in invoice["history"]}
    assert happened["dispute_opened"] == "10.00 USD, fraudulent"
    assert happened["dispute_lost"] == "10.00 USD is due again"
    client = api.get(f"/v1/clients/{invoice['client']}").json()
    assert client["billing_method"]["stopped_for"] == "disputed"


def test_an_inquiry_flags_its_invoice_until_it_is_closed(
    engine: Engine,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    api: TestClient,
    payment: Payment,
) -> None:
    found = disputed(engine, vendors, stripe_sandbox, payment, inquiry=True)
    assert api.get(f"/v1/invoices/{payment.invoice_id}").json()["disputed"] is True

    decided(engine, vendors, stripe_sandbox, found, "warning_closed")

    invoice = api.get(f"/v1/invoices/{payment.invoice_id}").json()
    assert invoice["disputed"] is False
    happened = [item["what"] for item in invoice["history"]]
    assert [what for what in happened if what in {"questioned", "dispute_closed"}] == [
        "questioned",
        "dispute_closed",
    ]


def test_disputes_are_listed_by_client_invoice_and_state(
    engine: Engine,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    account: Account,
    api: TestClient,
    payment: Payment,
) -> None:
    first = disputed(engine, vendors, stripe_sandbox, payment)
    other = a_card_payment(engine, account, vendors, stripe_sandbox)
    second = disputed(engine, vendors, stripe_sandbox, other)
    decided(engine, vendors, stripe_sandbox, second, "won")

    assert listed(api) == [second, first]
    assert listed(api, client=payment.client_id) == [first]
    assert listed(api, invoice=other.invoice_id) == [second]
    assert listed(api, state="won") == [second]
    problem(api.get("/v1/disputes", params={"state": "settled"}), 422, "invalid", "state")


def test_another_accounts_dispute_is_not_there(
    engine: Engine,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    api: TestClient,
    stranger: TestClient,
    payment: Payment,
) -> None:
    disputed(engine, vendors, stripe_sandbox, payment)
    [shown] = api.get("/v1/disputes").json()["data"]

    assert listed(stranger) == []
    problem(stranger.get(f"/v1/disputes/{shown['id']}"), 404, "dispute_not_found")


def test_refunds_and_notes_of_what_is_disputed_are_refused_at_once(
    engine: Engine,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    api: TestClient,
    payment: Payment,
) -> None:
    disputed(engine, vendors, stripe_sandbox, payment)

    refund = api.post(f"/v1/payments/{payment.id}/refund", json={"to": "card"})
    problem(refund, 409, "payment_disputed")
    note = api.post(
        f"/v1/invoices/{payment.invoice_id}/credit-notes",
        json={"amount": 100, "to": "card", "reason": "late"},
    )
    problem(note, 409, "payment_disputed")


def test_the_account_says_what_becomes_of_a_lost_dispute(api: TestClient) -> None:
    assert api.get("/v1/account").json()["dispute_lost"] == "reopen"

    assert api.patch("/v1/account", json={"dispute_lost": "write_off"}).status_code == 200

    assert api.get("/v1/account").json()["dispute_lost"] == "write_off"
    wrong = api.patch("/v1/account", json={"dispute_lost": "ignore"})
    problem(wrong, 422, "invalid", "dispute_lost")
