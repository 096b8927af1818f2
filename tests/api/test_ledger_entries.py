import csv
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from api import ledger_entries
from tests.api.calls import deposit, done, problem

URL = "/v1/ledger/entries"


@pytest.fixture
def paid(engine: Engine, api: TestClient, invoice: dict[str, Any]) -> dict[str, Any]:
    """The payment of a part of the invoice; then there was a deposit, which pays another part."""
    done(engine, api, api.post(f"/v1/invoices/{invoice['id']}/mark-paid", json={"amount": 400}))
    deposit(engine, api, invoice["client"], 100)
    [payment] = api.get(f"/v1/payments?invoice={invoice['id']}").json()["data"]
    found: dict[str, Any] = payment
    return found


def events(api: TestClient, **filters: str) -> list[str]:
    return [one["event"] for one in api.get(URL, params=filters).json()["data"]]


def test_entries_are_listed_newest_first_with_both_their_sides(
    api: TestClient, invoice: dict[str, Any], paid: dict[str, Any]
) -> None:
    listed = api.get(URL).json()["data"]

    assert [one["event"] for one in listed] == [
        "apply_credit",
        "deposit",
        "outside_payment",
        "finalize",
    ]
    payment = listed[2]
    posted = datetime.fromisoformat(payment.pop("posted_at"))
    assert posted.date() == datetime.now(UTC).date()
    assert payment.pop("id") > listed[3]["id"]
    assert payment == {
        "effective_on": paid["paid_on"],
        "event": "outside_payment",
        "client": invoice["client"],
        "invoice": invoice["id"],
        "payment": paid["id"],
        "credit_note": None,
        "refund": None,
        "grant": None,
        "postings": [
            {"account": "outside", "amount": 400, "currency": "usd", "tax_rate": None},
            {"account": "receivable", "amount": -400, "currency": "usd", "tax_rate": None},
        ],
    }


@pytest.mark.usefixtures("paid")
def test_entries_are_found_by_what_they_are_about(api: TestClient, invoice: dict[str, Any]) -> None:
    day = invoice["issued_on"]
    nobody = "019ae8a3-5c00-7000-8000-000000000001"

    assert len(events(api, client=invoice["client"])) == 4
    assert events(api, client=nobody) == events(api, invoice=nobody) == []
    assert events(api, invoice=invoice["id"]) == ["apply_credit", "outside_payment", "finalize"]
    assert events(api, event="deposit") == ["deposit"]
    assert len(events(api, **{"from": day, "to": day})) == 4
    assert events(api, to="2020-12-31") == events(api, **{"from": "2999-01-01"}) == []


@pytest.mark.usefixtures("paid")
def test_entries_come_in_pages(api: TestClient) -> None:
    first = api.get(URL, params={"limit": 3}).json()
    second = api.get(URL, params={"limit": 3, "cursor": first["next_cursor"]}).json()

    assert [len(first["data"]), len(second["data"])] == [3, 1]
    assert second["next_cursor"] is None
    assert [*first["data"], *second["data"]] == api.get(URL).json()["data"]


@pytest.mark.usefixtures("paid")
def test_a_csv_has_a_row_for_every_posting_of_all_that_match(api: TestClient) -> None:
    answer = api.get(URL, params={"limit": 1}, headers={"Accept": "text/csv"})

    rows = list(csv.DictReader(answer.text.splitlines()))
    listed = api.get(URL).json()["data"]
    assert [(row["id"], row["account"], int(row["amount"])) for row in rows] == [
        (entry["id"], side["account"], side["amount"])
        for entry in listed
        for side in entry["postings"]
    ]
    assert sum(int(row["amount"]) for row in rows) == 0
    assert rows[0]["event"] == "apply_credit"
    assert rows[0]["payment"] == ""


@pytest.mark.usefixtures("paid")
def test_a_csv_of_too_many_is_asked_for_by_fewer_days(
    api: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_entries, "MAX_ENTRIES_OF_CSV", 3)

    problem(api.get(URL, headers={"Accept": "text/csv"}), 422, "invalid", "from")
    fewer = api.get(URL, params={"event": "finalize"}, headers={"Accept": "text/csv"})
    assert fewer.status_code == 200


def test_a_wrong_filter_is_named(api: TestClient) -> None:
    problem(api.get(f"{URL}?event=theft"), 422, "invalid", "event")
    problem(api.get(f"{URL}?from=2026-06-02&to=2026-06-01"), 422, "invalid", "to")
    problem(api.get(f"{URL}?client=ada"), 422, "invalid", "client")
