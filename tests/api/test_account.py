from datetime import date, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from tests.api.calls import an_invoice, problem


def test_the_account_of_the_key_is_shown(api: TestClient) -> None:
    account = api.get("/v1/account").json()

    assert (account["name"], account["currency"], account["net_days"]) == (
        "Bluebird Prep", "usd", 14
    )  # fmt: skip


def test_a_change_tells_absent_from_null(api: TestClient) -> None:
    address = {"line1": "1 Dock Street", "city": "Reno"}
    api.patch("/v1/account", json={"legal_name": "Bluebird Prep LLC", "address": address})

    changed = api.patch("/v1/account", json={"legal_name": None, "time_zone": "America/Chicago"})

    assert changed.status_code == 200
    assert changed.json() == api.get("/v1/account").json()
    assert changed.json()["legal_name"] is None
    assert changed.json()["address"] == address
    assert changed.json()["time_zone"] == "America/Chicago"


def test_a_new_account_charges_and_tells_its_clients_by_itself(api: TestClient) -> None:
    account = api.get("/v1/account").json()

    assert account["auto_collect"] is True
    assert account["dunning"] == {"days": [3, 5, 7, 7], "final": "open"}
    assert account["notifications"] == {
        "invoice_ready": True,
        "receipt": True,
        "payment_failed": True,
        "authentication_needed": True,
        "card_expiring": True,
    }


def test_mails_are_switched_one_by_one_and_set_back_by_null(api: TestClient) -> None:
    def switch(**switches: bool | None) -> dict[str, bool]:
        answer = api.patch("/v1/account", json={"notifications": switches})
        assert answer.status_code == 200, answer.text
        shown: dict[str, bool] = answer.json()["notifications"]
        assert api.get("/v1/account").json()["notifications"] == shown
        return shown

    on = dict.fromkeys(
        ("invoice_ready", "receipt", "payment_failed", "authentication_needed", "card_expiring"),
        True,
    )
    assert switch(receipt=False) == {**on, "receipt": False}
    assert switch(payment_failed=False) == {**on, "receipt": False, "payment_failed": False}
    assert switch(receipt=None) == {**on, "payment_failed": False}
    assert switch() == {**on, "payment_failed": False}


def test_collection_and_its_schedule_are_the_accounts_to_choose(api: TestClient) -> None:
    changed = api.patch("/v1/account", json={"auto_collect": False, "dunning": {"days": [1, 2]}})

    assert changed.status_code == 200
    assert changed.json()["auto_collect"] is False
    assert changed.json()["dunning"] == {"days": [1, 2], "final": "open"}
    ends = {"dunning": {"days": [1], "final": "uncollectible"}}
    assert api.patch("/v1/account", json=ends).json()["dunning"] == ends["dunning"]
    kept = api.patch("/v1/account", json={"dunning": {"days": [2]}}).json()["dunning"]
    assert kept == {"days": [2], "final": "uncollectible"}
    assert api.patch("/v1/account", json={"dunning": {"days": []}}).json()["dunning"]["days"] == []


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"auto_collect": None}, "auto_collect"),
        ({"auto_collect": "yes"}, "auto_collect"),
        ({"dunning": None}, "dunning"),
        ({"dunning": {}}, "dunning.days"),
        ({"dunning": {"days": [0]}}, "dunning.days[0]"),
        ({"dunning": {"days": [3, 366]}}, "dunning.days[1]"),
        ({"dunning": {"days": [1] * 21}}, "dunning.days"),
        ({"dunning": {"days": [1.5]}}, "dunning.days[0]"),
        ({"dunning": {"days": [3], "final": "paid"}}, "dunning.final"),
        ({"dunning": {"days": [3], "last": "open"}}, "dunning.last"),
        ({"notifications": None}, "notifications"),
        ({"notifications": {"receipt": 0}}, "notifications.receipt"),
        ({"notifications": {"newsletter": True}}, "notifications.newsletter"),
    ],
)
def test_a_wrong_word_about_collection_or_mails_is_named(
    api: TestClient, change: dict[str, Any], field: str
) -> None:
    problem(api.patch("/v1/account", json=change), 422, "invalid", field)


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"name": None},
        {"time_zone": "Mars/Base"},
        {"currency": None},
        {"net_days": 366},
        {"tax_ids": "GB1"},
        {"tax_rates": None},
        {"tax_rates": ["019ae8a3-5c00-7000-8000-000000000099"]},
        {"review_hours": 2161},
        {"review_hours": -1},
        {"review_hours": "person"},
        {"review_hours": True},
        {"invoice_date": "today"},
        {"invoice_date": None},
        {"paused": None},
        {"books_closed_through": "2999-01-01"},
    ],
)
def test_a_wrong_or_unknown_field_is_refused(api: TestClient, change: dict[str, Any]) -> None:
    problem(api.patch("/v1/account", json=change), 422, "invalid", *change)


def test_how_far_automation_goes_is_the_accounts_to_choose(api: TestClient) -> None:
    new = api.get("/v1/account").json()
    assert (new["review_hours"], new["invoice_date"]) == (0, "boundary")
    assert new["paused"] == {"billing": False, "collection": False}

    for changes in (
        {"review_hours": 2160, "invoice_date": "finalization"},
        {"review_hours": None, "invoice_date": "boundary"},
    ):
        changed = api.patch("/v1/account", json=changes).json()
        assert {name: changed[name] for name in changes} == changes
        assert api.get("/v1/account").json() == changed


def test_billing_and_collection_are_paused_one_by_one(api: TestClient) -> None:
    def pause(**switches: bool) -> dict[str, bool]:
        answer = api.patch("/v1/account", json={"paused": switches})
        assert answer.status_code == 200, answer.text
        shown: dict[str, bool] = answer.json()["paused"]
        return shown

    assert pause(billing=True) == {"billing": True, "collection": False}
    assert pause(collection=True) == {"billing": True, "collection": True}
    assert pause(billing=False) == {"billing": False, "collection": True}
    assert pause() == {"billing": False, "collection": True}
    wrong = {"paused": {"billing": None, "mail": True}}
    problem(api.patch("/v1/account", json=wrong), 422, "invalid", "paused.billing", "paused.mail")


def test_two_businesses_may_bear_the_same_name(stranger: TestClient) -> None:
    answer = stranger.patch("/v1/account", json={"name": "Bluebird Prep"})

    assert (answer.status_code, answer.json()["name"]) == (200, "Bluebird Prep")


def test_invoices_are_numbered_as_the_account_chooses(api: TestClient) -> None:
    shown = api.get("/v1/account").json()
    numbers = ("number_format", "credit_note_format", "number_reset", "next_number")
    assert [shown[name] for name in numbers] == ["INV-{seq:06}", "CN-{seq:06}", "never", 1]

    chosen = {"number_format": "{year}-{seq:04}", "number_reset": "yearly", "next_number": 812}
    changed = api.patch("/v1/account", json=chosen)

    assert changed.status_code == 200, changed.text
    assert changed.json() == api.get("/v1/account").json()
    assert {name: changed.json()[name] for name in chosen} == chosen


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"number_format": "INV"}, "number_format"),
        ({"number_format": None}, "number_format"),
        ({"number_reset": "yearly"}, "number_format"),
        ({"number_reset": "monthly"}, "number_reset"),
        ({"credit_note_format": "{year}"}, "credit_note_format"),
        ({"next_number": 0}, "next_number"),
        ({"next_number": 10**11}, "next_number"),
        ({"next_number": "7"}, "next_number"),
    ],
)
def test_a_wrong_number_setting_is_refused_by_its_name(
    api: TestClient, body: dict[str, Any], field: str
) -> None:
    problem(api.patch("/v1/account", json=body), 422, "invalid", field)


def test_numbers_that_were_given_are_not_given_again(
    engine: Engine, api: TestClient, ada: dict[str, Any]
) -> None:
    api.patch("/v1/account", json={"number_format": "1{seq}"})
    assert an_invoice(engine, api, ada["id"])["number"] == "11"

    problem(api.patch("/v1/account", json={"next_number": 7}), 409, "number_series_used")
    refused = api.patch("/v1/account", json={"number_format": "{seq}"})

    assert "come to 11" in problem(refused, 409, "number_format_taken")["detail"]


def test_books_are_closed_forward_and_a_payment_of_a_closed_day_is_refused(
    api: TestClient, invoice: dict[str, Any]
) -> None:
    day = date.fromisoformat(invoice["issued_on"])
    yesterday, before = (str(day - timedelta(days=days)) for days in (1, 2))
    url = f"/v1/invoices/{invoice['id']}/mark-paid"
    assert api.get("/v1/account").json()["books_closed_through"] is None

    closed = api.patch("/v1/account", json={"books_closed_through": yesterday})
    assert closed.json()["books_closed_through"] == yesterday

    for wrong, code in (
        (before, "books_closed"),
        (None, "books_closed"),
        (str(day + timedelta(days=1)), "invalid"),
        ("soon", "invalid"),
    ):
        answer = api.patch("/v1/account", json={"books_closed_through": wrong})
        problem(answer, 422, code, "books_closed_through")
    problem(api.post(url, json={"paid_on": yesterday}), 422, "books_closed", "paid_on")
    assert api.post(url, json={"paid_on": invoice["issued_on"]}).status_code == 202
