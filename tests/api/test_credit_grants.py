from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text

from tests.api.calls import an_invoice, deposit, done, problem
from tests.api.conftest import Finish, PutCard

TODAY = datetime.now(UTC).date()
SOON, LATER = ((TODAY + timedelta(days=days)).isoformat() for days in (10, 90))


def grant(
    engine: Engine, api: TestClient, client: dict[str, Any], amount: int, **fields: Any
) -> dict[str, Any]:
    """The finished job of a grant in usd."""
    new = {"amount": amount, "currency": "usd", **fields}
    job = done(engine, api, api.post(f"/v1/clients/{client['id']}/credit/grants", json=new))
    assert job["state"] == "succeeded", job
    return job


def test_a_grant_is_a_part_of_the_balance_that_says_when_it_expires(
    engine: Engine, api: TestClient, ada: dict[str, Any]
) -> None:
    deposit(engine, api, ada["id"], 500)
    job = grant(engine, api, ada, 200, expires_on=LATER, note="Welcome")
    grant(engine, api, ada, 40, expires_on=SOON)
    grant(engine, api, ada, 60, expires_on=LATER)
    grant(engine, api, ada, 1000)
    grant(engine, api, ada, 7, currency="eur", expires_on=SOON)

    shown = api.get(f"/v1/clients/{ada['id']}/credit").json()

    assert (job["kind"], job["subject"]) == ("grant_credit", {"type": "client", "id": ada["id"]})
    assert shown["balances"] == [
        {
            "currency": "eur",
            "balance": 7,
            "promotional": 7,
            "expiring": [{"amount": 7, "expires_on": SOON}],
        },
        {
            "currency": "usd",
            "balance": 1800,
            "promotional": 1300,
            "expiring": [{"amount": 40, "expires_on": SOON}, {"amount": 260, "expires_on": LATER}],
        },
    ]
    first = shown["entries"][-2]
    assert (first["kind"], first["amount"], first["note"]) == ("granted", 200, "Welcome")
    assert first["grant"] == job["result"]["grant"]


def test_a_grant_pays_what_is_open_unless_told_to_wait(
    engine: Engine, api: TestClient, ada: dict[str, Any]
) -> None:
    invoice = an_invoice(engine, api, ada["id"])
    url = f"/v1/invoices/{invoice['id']}"

    grant(engine, api, ada, 400, apply=False)
    assert api.get(url).json()["amount_due"] == 1100
    grant(engine, api, ada, 200)
    assert api.get(url).json()["amount_due"] == 500


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"amount": 0}, "amount"),
        ({"amount": -5}, "amount"),
        ({"currency": "dollars"}, "currency"),
        ({"expires_on": (TODAY - timedelta(days=1)).isoformat()}, "expires_on"),
        ({"expires_on": TODAY.isoformat()}, "expires_on"),
        ({"expires_on": "soon"}, "expires_on"),
        ({"expires_on": 20270101}, "expires_on"),
        ({"note": ""}, "note"),
        ({"apply": "yes"}, "apply"),
        ({"source": "outside"}, "source"),
    ],
)
def test_a_wrong_word_about_a_grant_is_named(
    api: TestClient, ada: dict[str, Any], fields: dict[str, Any], field: str
) -> None:
    new = {"amount": 100, "currency": "usd", **fields}
    problem(api.post(f"/v1/clients/{ada['id']}/credit/grants", json=new), 422, "invalid", field)


def test_what_has_expired_is_no_credit_to_use_before_anybody_wrote_it_down(
    engine: Engine, api: TestClient, ada: dict[str, Any]
) -> None:
    invoice = an_invoice(engine, api, ada["id"])
    grant(engine, api, ada, 400, expires_on=SOON, apply=False)
    with engine.begin() as connection:
        connection.execute(text("UPDATE credit_grants SET expires_on = now()::date"))
    credit = f"/v1/clients/{ada['id']}/credit"

    for url, body in (
        (f"/v1/invoices/{invoice['id']}/apply-credit", {}),
        (f"{credit}/adjustments", {"amount": -1, "currency": "usd", "note": "x"}),
        (f"{credit}/refunds", {"amount": 1, "currency": "usd", "to": "outside"}),
    ):
        problem(api.post(url, json=body), 409, "insufficient_credit")


# Paying out


def test_what_was_paid_in_and_is_not_used_is_paid_out(
    engine: Engine, api: TestClient, ada: dict[str, Any]
) -> None:
    deposit(engine, api, ada["id"], 500)
    grant(engine, api, ada, 300)
    url = f"/v1/clients/{ada['id']}/credit/refunds"
    out = {"amount": 500, "currency": "usd", "to": "outside"}

    refusal = problem(api.post(url, json={**out, "amount": 501}), 409, "insufficient_credit")
    assert "300 are promotional" in refusal["detail"]
    job = done(engine, api, api.post(url, json={**out, "reason": "Has left", "reference": "w 1"}))

    assert job["kind"] == "refund_credit"
    shown = api.get(f"/v1/clients/{ada['id']}/credit").json()
    assert [(one["balance"], one["promotional"]) for one in shown["balances"]] == [(300, 300)]
    entry = shown["entries"][0]
    assert (entry["kind"], entry["amount"], entry["note"]) == ("paid_out", -500, "Has left")
    assert entry["refund"] == job["result"]["refund"]


def test_what_was_paid_in_by_card_is_sent_back_to_it(
    engine: Engine, api: TestClient, finish: Finish, put_card: PutCard, ada: dict[str, Any]
) -> None:
    put_card(ada["id"])
    credit = f"/v1/clients/{ada['id']}/credit"
    paid_in = {"amount": 500, "currency": "usd", "source": "card"}
    finish(api.post(f"{credit}/deposits", json=paid_in))
    deposit(engine, api, ada["id"], 500)
    out = {"amount": 400, "currency": "usd", "to": "card", "reason": "Has left"}

    refusal = api.post(f"{credit}/refunds", json={**out, "amount": 501})
    problem(refusal, 422, "amount_exceeds_paid", "amount")
    problem(api.post(f"{credit}/refunds", json={**out, "amount": 1001}), 409, "insufficient_credit")
    job = finish(api.post(f"{credit}/refunds", json=out))

    assert (job["kind"], job["queue"]) == ("refund_credit_to_card", "payments")
    assert (job["state"], job["result"]["state"]) == ("succeeded", "succeeded")
    shown = api.get(credit).json()
    assert [one["balance"] for one in shown["balances"]] == [600]
    assert (shown["entries"][0]["kind"], shown["entries"][0]["amount"]) == ("paid_out", -400)
    payment = api.get(f"/v1/payments?client={ada['id']}").json()["data"][-1]
    assert payment["amount_refunded"] == 400
    [told] = payment["refunds"]
    assert (told["id"], told["invoice"], told["to"]) == (job["result"]["refund"], None, "card")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"amount": 0}, "amount"),
        ({"to": "credit"}, "to"),
        ({"reason": ""}, "reason"),
        ({"reference": ""}, "reference"),
        ({"payment": "x"}, "payment"),
    ],
)
def test_a_wrong_word_about_paying_out_is_named(
    engine: Engine, api: TestClient, ada: dict[str, Any], fields: dict[str, Any], field: str
) -> None:
    deposit(engine, api, ada["id"], 500)
    out = {"amount": 1, "currency": "usd", "to": "outside", **fields}
    problem(api.post(f"/v1/clients/{ada['id']}/credit/refunds", json=out), 422, "invalid", field)


def test_credit_of_an_unknown_client_is_neither_granted_nor_paid_out(
    api: TestClient, stranger: TestClient, ada: dict[str, Any]
) -> None:
    some = {"amount": 1, "currency": "usd"}
    for caller, client_id in ((api, uuid4()), (stranger, ada["id"])):
        url = f"/v1/clients/{client_id}/credit"
        problem(caller.post(f"{url}/grants", json=some), 404, "client_not_found")
        problem(
            caller.post(f"{url}/refunds", json={**some, "to": "outside"}), 404, "client_not_found"
        )
