from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy import Engine, event
from sqlalchemy.orm import Session

from billing.credit import CreditEntryKind
from models import Client
from tasks.credit_balances import CreditMove, move_credit
from tests.api.calls import an_invoice, deposit, done, problem
from tests.api.conftest import Finish, PutCard
from tests.cards import AUTHENTICATED, BANK, HARD, SOFT


def credit_of(api: TestClient, client: dict[str, Any], query: str = "") -> dict[str, Any]:
    answer = api.get(f"/v1/clients/{client['id']}/credit{query}")
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


def paid_in(currency: str, amount: int) -> dict[str, Any]:
    """A balance of which nothing was granted."""
    return {"currency": currency, "balance": amount, "promotional": 0, "expiring": []}


def test_a_new_client_has_no_credit(api: TestClient, ada: dict[str, Any]) -> None:
    assert credit_of(api, ada) == {
        "balances": [],
        "entries": [],
        "under_way": [],
        "next_cursor": None,
    }


def test_a_deposit_is_in_hand_with_what_was_said_of_it(
    engine: Engine, api: TestClient, ada: dict[str, Any]
) -> None:
    job = deposit(engine, api, ada["id"], 50_000, reference="wire 1", note="For June", apply=False)

    shown = credit_of(api, ada)
    assert (job["kind"], job["subject"]) == ("deposit_credit", {"type": "client", "id": ada["id"]})
    assert shown["balances"] == [paid_in("usd", 50_000)]
    (entry,) = shown["entries"]
    assert entry.keys() == {
        "id", "currency", "kind", "amount", "invoice", "payment", "grant", "refund", "note",
        "created_at",
    }  # fmt: skip
    assert (entry["kind"], entry["amount"], entry["note"]) == ("deposit", 50_000, "For June")
    (payment,) = api.get(f"/v1/payments?client={ada['id']}").json()["data"]
    assert (payment["id"], payment["reference"]) == (entry["payment"], "wire 1")


def test_a_deposit_pays_what_is_open_unless_told_to_wait(
    engine: Engine, api: TestClient, ada: dict[str, Any]
) -> None:
    invoice = an_invoice(engine, api, ada["id"])
    url = f"/v1/invoices/{invoice['id']}"

    deposit(engine, api, ada["id"], 400, apply=False)
    assert api.get(url).json()["amount_due"] == 1100

    deposit(engine, api, ada["id"], 200)
    assert api.get(url).json()["amount_due"] == 500


def test_entries_come_newest_first_in_pages_whatever_their_currency(
    engine: Engine, api: TestClient, ada: dict[str, Any]
) -> None:
    for amount, currency in [(1, "usd"), (2, "eur"), (3, "usd")]:
        deposit(engine, api, ada["id"], amount, currency=currency)

    page = credit_of(api, ada, "?limit=2")
    rest = credit_of(api, ada, f"?limit=2&cursor={page['next_cursor']}")

    assert [entry["amount"] for entry in page["entries"] + rest["entries"]] == [3, 2, 1]
    assert page["balances"] == rest["balances"] == [
        paid_in("eur", 2),
        paid_in("usd", 4),
    ]  # fmt: skip
    assert rest["next_cursor"] is None


def test_a_balance_is_corrected_up_and_down_but_never_below_zero(
    engine: Engine, api: TestClient, ada: dict[str, Any]
) -> None:
    url = f"/v1/clients/{ada['id']}/credit/adjustments"

    def adjust(amount: int) -> dict[str, Any]:
        return {"amount": amount, "currency": "usd", "note": "Counted again"}

    done(engine, api, api.post(url, json=adjust(500)))
    done(engine, api, api.post(url, json=adjust(-200)))

    problem(api.post(url, json=adjust(-301)), 409, "insufficient_credit")
    assert credit_of(api, ada)["balances"] == [paid_in("usd", 300)]
    problem(api.post(url, json={**adjust(-1), "currency": "eur"}), 409, "insufficient_credit")


def test_credit_is_used_for_what_is_open_as_far_as_is_asked(
    engine: Engine, api: TestClient, ada: dict[str, Any]
) -> None:
    first, second = (an_invoice(engine, api, ada["id"]) for _ in range(2))
    deposit(engine, api, ada["id"], 2000, apply=False)
    url = f"/v1/clients/{ada['id']}/credit/apply"

    job = done(engine, api, api.post(url, json={"amount": 1500, "currency": "usd"}))
    assert job["result"]["applied"] == {first["id"]: 1100, second["id"]: 400}

    job = done(engine, api, api.post(url, json={"currency": "eur"}))
    assert job["result"]["applied"] == {}

    job = done(engine, api, api.post(url))
    assert job["result"]["applied"] == {second["id"]: 500}
    assert credit_of(api, ada)["balances"] == [paid_in("usd", 0)]


def by_card(api: TestClient, client: dict[str, Any], **fields: Any) -> Response:
    new = {"amount": 5_000, "currency": "usd", "source": "card", **fields}
    return api.post(f"/v1/clients/{client['id']}/credit/deposits", json=new)


def test_a_deposit_by_card_is_charged_and_pays_what_is_open(
    engine: Engine, api: TestClient, ada: dict[str, Any], *, put_card: PutCard, finish: Finish
) -> None:
    put_card(ada["id"])
    invoice = an_invoice(engine, api, ada["id"])

    job = finish(by_card(api, ada, reference="order 7", note="For June"))

    assert (job["kind"], job["queue"], job["state"]) == ("deposit_by_card", "payments", "succeeded")
    (payment,) = api.get(f"/v1/payments?client={ada['id']}").json()["data"]
    assert (payment["source"], payment["amount"], payment["invoice"]) == ("card", 5_000, None)
    assert (payment["reference"], payment["note"]) == ("order 7", "For June")
    assert job["result"] == {
        "client": ada["id"],
        "purpose": "deposit",
        "attempt": payment["attempt"],
        "state": "succeeded",
        "decline_code": None,
        "payment": payment["id"],
        "balance": 3_900,
    }
    assert api.get(f"/v1/invoices/{invoice['id']}").json()["status"] == "paid"
    shown = credit_of(api, ada)
    assert shown["balances"] == [paid_in("usd", 3_900)]
    assert shown["under_way"] == []


def test_a_deposit_that_waits_for_the_client_is_shown(
    api: TestClient, ada: dict[str, Any], put_card: PutCard, finish: Finish
) -> None:
    put_card(ada["id"], AUTHENTICATED)

    job = finish(by_card(api, ada))

    assert job["result"]["state"] == "needs_action"
    (waiting,) = credit_of(api, ada)["under_way"]
    assert (waiting["id"], waiting["state"]) == (job["result"]["attempt"], "needs_action")
    assert (waiting["purpose"], waiting["amount"]) == ("deposit", 5_000)


def test_a_deposit_by_card_that_is_certain_to_be_refused_is_refused_at_once(
    api: TestClient, ada: dict[str, Any], put_card: PutCard, finish: Finish
) -> None:
    refused = problem(by_card(api, ada, amount=49), 422, "invalid", "amount")
    assert (
        refused["errors"][0]["message"] == "must be at least 50: a card is charged 50 USD or more"
    )
    problem(by_card(api, ada), 409, "no_billing_method")
    put_card(ada["id"], BANK)
    assert finish(by_card(api, ada))["result"]["state"] == "processing"

    problem(by_card(api, ada), 409, "payment_in_flight")


def test_top_ups_that_are_paused_or_off_say_so(
    api: TestClient, ada: dict[str, Any], put_card: PutCard, finish: Finish
) -> None:
    url = f"/v1/clients/{ada['id']}"
    put_card(ada["id"], SOFT)
    setting = {"threshold": 5_000, "target": 20_000, "currency": "usd"}
    api.patch(url, json={"auto_top_up": setting})
    # Works off what that enqueued as well.
    finish(api.post(f"{url}/credit/apply"))

    shown = api.get(url).json()["auto_top_up"]
    assert (shown["declines"], shown["off"]) == (1, False)
    assert shown["paused_until"] > api.get(url).json()["created_at"]
    put_card(ada["id"], HARD)
    finish(api.post(f"{url}/credit/apply"))

    shown = api.get(url).json()["auto_top_up"]
    assert (shown["declines"], shown["paused_until"], shown["off"]) == (1, None, True)


DEPOSIT = {"amount": 1, "currency": "usd", "source": "outside"}
ADJUSTMENT = {"amount": 1, "currency": "usd", "note": "x"}


@pytest.mark.parametrize(
    ("command", "body", "field"),
    [
        ("deposits", {**DEPOSIT, "amount": 0}, "amount"),
        ("deposits", {**DEPOSIT, "amount": -5}, "amount"),
        ("deposits", {**DEPOSIT, "amount": 1.5}, "amount"),
        ("deposits", {**DEPOSIT, "amount": 10**13}, "amount"),
        ("deposits", {**DEPOSIT, "currency": "zzz"}, "currency"),
        ("deposits", {**DEPOSIT, "source": "cash"}, "source"),
        ("deposits", {**DEPOSIT, "source": "card", "amount": 49}, "amount"),
        ("deposits", {**DEPOSIT, "source": "card", "amount": 9, "currency": "kwd"}, "amount"),
        ("deposits", {**DEPOSIT, "source": "card", "amount": 1_005, "currency": "kwd"}, "amount"),
        ("deposits", {**DEPOSIT, "source": "card", "currency": "irr"}, "currency"),
        ("deposits", {**DEPOSIT, "apply": 1}, "apply"),
        ("deposits", {"amount": 1, "source": "outside"}, "currency"),
        ("deposits", {"amount": 1, "currency": "usd"}, "source"),
        ("adjustments", {**ADJUSTMENT, "amount": 0}, "amount"),
        ("adjustments", {**ADJUSTMENT, "note": ""}, "note"),
        ("adjustments", {"amount": 1, "currency": "usd"}, "note"),
        ("adjustments", {**ADJUSTMENT, "expires_on": "2027-01-01"}, "expires_on"),
        ("apply", {"amount": 0}, "amount"),
        ("apply", {"currency": "dollars"}, "currency"),
    ],
)
def test_a_wrong_word_about_credit_is_named(
    api: TestClient, ada: dict[str, Any], command: str, body: dict[str, Any], field: str
) -> None:
    problem(api.post(f"/v1/clients/{ada['id']}/credit/{command}", json=body), 422, "invalid", field)


def test_credit_of_an_unknown_client_is_not_found(api: TestClient) -> None:
    url = f"/v1/clients/{uuid4()}/credit"

    problem(api.get(url), 404, "client_not_found")
    problem(api.post(f"{url}/deposits", json=DEPOSIT), 404, "client_not_found")
    problem(api.post(f"{url}/adjustments", json=ADJUSTMENT), 404, "client_not_found")
    problem(api.post(f"{url}/apply"), 404, "client_not_found")


def test_what_is_shown_is_of_one_instant(
    engine: Engine, api: TestClient, ada: dict[str, Any]
) -> None:
    deposit(engine, api, ada["id"], 500)
    client_id = UUID(ada["id"])
    more: list[CreditMove] = []

    def meanwhile(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if "FROM credit_entries" in statement and not more:
            with Session(engine) as session, session.begin():
                more.append(
                    CreditMove(
                        account_id=session.get_one(Client, client_id).account_id,
                        client_id=client_id,
                        currency="usd",
                        kind=CreditEntryKind.ADJUSTMENT,
                        amount=30,
                        requested_by="test",
                    )
                )
                move_credit(session, more)

    event.listen(engine, "before_cursor_execute", meanwhile)
    shown = credit_of(api, ada)
    event.remove(engine, "before_cursor_execute", meanwhile)

    assert len(more) == 1
    assert (shown["balances"], len(shown["entries"])) == ([paid_in("usd", 500)], 1)
    assert credit_of(api, ada)["balances"] == [paid_in("usd", 530)]
