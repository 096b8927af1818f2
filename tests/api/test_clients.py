from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

from tests.api.calls import problem

FIELDS = {
    "id", "name", "email", "external_ref", "currency", "time_zone", "billing_cycle", "anchor_day",
    "billing_starts_on", "legal_name", "address", "tax_ids", "tax_rates", "tax_exempt", "net_days",
    "auto_collect", "review_hours", "paused", "notifications", "billing_method", "archived",
    "auto_top_up", "created_at", "backup_method", "use_backup_card",
}  # fmt: skip
TOP_UP = {"threshold": 5_000, "target": 20_000, "currency": "usd"}


def test_a_client_is_created_with_the_fields_that_were_sent(api: TestClient) -> None:
    new = {
        "name": "Ada Imports",
        "email": "billing@ada-imports.example",
        "external_ref": "merchant-17",
        "currency": "GBP",
        "time_zone": "Europe/London",
        "billing_cycle": "monthly",
        "anchor_day": 15,
        "billing_starts_on": "2026-05-15",
        "legal_name": "Ada Imports Ltd",
        "address": {"line1": "1 Dock Street", "city": "Hull", "country": "GB"},
        "tax_ids": ["GB123456789"],
        "net_days": 30,
        "auto_collect": False,
        "review_hours": 48,
        "paused": {"billing": False, "collection": True},
        "notifications": {
            "invoice_ready": None,
            "receipt": False,
            "payment_failed": True,
            "authentication_needed": None,
            "card_expiring": False,
        },
        "use_backup_card": True,
    }

    answer = api.post("/v1/clients", json=new)

    assert answer.status_code == 201
    client = answer.json()
    assert client.keys() == FIELDS
    assert {name: client[name] for name in new} == {**new, "currency": "gbp"}
    assert answer.headers["Location"] == f"/v1/clients/{client['id']}"
    assert client["created_at"].endswith("Z")
    assert api.get(f"/v1/clients/{client['id']}").json() == client


def test_a_new_client_is_billed_by_hand_and_takes_the_accounts_defaults(api: TestClient) -> None:
    client = api.post("/v1/clients", json={"name": "Ada Imports"}).json()

    assert (client["billing_cycle"], client["anchor_day"]) == ("manual", 1)
    assert client["currency"] is client["time_zone"] is client["net_days"] is None
    assert client["auto_collect"] is client["billing_method"] is None
    assert set(client["notifications"].values()) == {None}
    assert client["review_hours"] is None
    assert client["paused"] == {"billing": False, "collection": False}


def test_a_cycle_and_its_anchor_fit_together_also_when_one_of_them_changes(
    api: TestClient,
) -> None:
    monthly = {"name": "Ada", "billing_cycle": "monthly", "anchor_day": 15}
    client = api.post("/v1/clients", json=monthly).json()

    refused = api.patch(f"/v1/clients/{client['id']}", json={"billing_cycle": "weekly"})
    assert refused.status_code == 422
    assert [error["field"] for error in refused.json()["errors"]] == ["anchor_day"]
    assert api.get(f"/v1/clients/{client['id']}").json() == client

    weekly = {"billing_cycle": "weekly", "anchor_day": 5}
    changed = api.patch(f"/v1/clients/{client['id']}", json=weekly).json()
    assert (changed["billing_cycle"], changed["anchor_day"]) == ("weekly", 5)


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, ["name"]),
        ({"name": "  "}, ["name"]),
        ({"name": "Ada\x00"}, ["name"]),
        ({"name": "A", "email": "nobody"}, ["email"]),
        ({"name": "A", "currency": "zzz", "time_zone": "Mars/Base"}, ["currency", "time_zone"]),
        ({"name": "A", "billing_cycle": "hourly"}, ["billing_cycle"]),
        ({"name": "A", "billing_cycle": "weekly", "anchor_day": 8}, ["anchor_day"]),
        ({"name": "A", "anchor_day": 32}, ["anchor_day"]),
        ({"name": "A", "anchor_day": "15"}, ["anchor_day"]),
        ({"name": "A", "anchor_day": True}, ["anchor_day"]),
        ({"name": "A", "net_days": -1}, ["net_days"]),
        ({"name": "A", "billing_starts_on": 0}, ["billing_starts_on"]),
        ({"name": "A", "billing_starts_on": "2026-02-30"}, ["billing_starts_on"]),
        ({"name": "A", "billing_starts_on": "1969-12-31"}, ["billing_starts_on"]),
        ({"name": "A", "address": {"planet": "Mars"}}, ["address.planet"]),
        ({"name": "A", "tax_ids": ["x", ""]}, ["tax_ids[1]"]),
        ({"name": "A", "tax_rates": ["x"], "tax_exempt": 1}, ["tax_rates[0]", "tax_exempt"]),
        ({"name": "A", "auto_collect": "no"}, ["auto_collect"]),
        ({"name": "A", "auto_top_up": True}, ["auto_top_up"]),
        (
            {"name": "A", "auto_top_up": {"target": 2}},
            ["auto_top_up.threshold", "auto_top_up.currency"],
        ),
        ({"name": "A", "auto_top_up": {**TOP_UP, "threshold": 0}}, ["auto_top_up.threshold"]),
        ({"name": "A", "auto_top_up": {**TOP_UP, "target": 5_000}}, ["auto_top_up.target"]),
        ({"name": "A", "auto_top_up": {**TOP_UP, "target": 5_048}}, ["auto_top_up.target"]),
        ({"name": "A", "auto_top_up": {**TOP_UP, "currency": "irr"}}, ["auto_top_up.currency"]),
        ({"name": "A", "auto_top_up": {**TOP_UP, "off": True}}, ["auto_top_up.off"]),
        ({"name": "A", "review_hours": 2161}, ["review_hours"]),
        ({"name": "A", "review_hours": -1}, ["review_hours"]),
        ({"name": "A", "review_hours": "48"}, ["review_hours"]),
        ({"name": "A", "review_hours": True}, ["review_hours"]),
        ({"name": "A", "review_hours": []}, ["review_hours"]),
        ({"name": "A", "paused": None}, ["paused"]),
        ({"name": "A", "paused": {"billing": "yes"}}, ["paused.billing"]),
        ({"name": "A", "paused": {"mails": True}}, ["paused.mails"]),
        ({"name": "A", "notifications": None}, ["notifications"]),
        ({"name": "A", "notifications": {"receipt": "on"}}, ["notifications.receipt"]),
        ({"name": "A", "notifications": {"reminders": True}}, ["notifications.reminders"]),
    ],
)
def test_every_wrong_field_is_named(
    api: TestClient, body: dict[str, Any], fields: list[str]
) -> None:
    problem(api.post("/v1/clients", json=body), 422, "invalid", *fields)


@pytest.mark.parametrize(
    "field",
    ["balance", "billing_method", "id"],
)
def test_a_field_of_no_client_is_refused_and_never_ignored(api: TestClient, field: str) -> None:
    body = problem(api.post("/v1/clients", json={"name": "A", field: True}), 422, "invalid", field)

    assert body["errors"][0]["message"] == "is not known here: remove it"


def test_two_clients_never_share_an_external_ref(api: TestClient, ada: dict[str, Any]) -> None:
    same = {"name": "Another", "external_ref": ada["external_ref"]}

    problem(api.post("/v1/clients", json=same), 409, "external_ref_taken")


def test_a_change_tells_absent_from_null(api: TestClient) -> None:
    new = {"name": "Ada", "email": "ada@example.org", "currency": "eur", "external_ref": "a"}
    url = f"/v1/clients/{api.post('/v1/clients', json=new).json()['id']}"

    changed = api.patch(url, json={"email": None, "name": "Ada & Co"}).json()

    assert (changed["name"], changed["email"]) == ("Ada & Co", None)
    assert (changed["currency"], changed["external_ref"]) == ("eur", "a")
    assert api.patch(url, json={}).json() == changed
    assert api.patch(url, json={"external_ref": "a"}).json() == changed


def test_a_clients_own_switches_are_set_one_by_one_and_left_to_the_account_again(
    api: TestClient, ada: dict[str, Any]
) -> None:
    url = f"/v1/clients/{ada['id']}"
    kinds = (
        "invoice_ready",
        "receipt",
        "payment_failed",
        "authentication_needed",
        "card_expiring",
    )
    unset: dict[str, bool | None] = dict.fromkeys(kinds)

    def switch(**switches: bool | None) -> dict[str, bool | None]:
        shown: dict[str, bool | None] = api.patch(url, json={"notifications": switches}).json()[
            "notifications"
        ]
        return shown

    assert switch(receipt=False) == {**unset, "receipt": False}
    assert switch(invoice_ready=True) == {**unset, "receipt": False, "invoice_ready": True}
    assert switch(receipt=None, invoice_ready=None) == unset
    assert api.patch(url, json={"auto_collect": False}).json()["auto_collect"] is False
    assert api.patch(url, json={"auto_collect": None}).json()["auto_collect"] is None


def test_a_review_is_of_hours_a_persons_or_the_accounts(
    api: TestClient, ada: dict[str, Any]
) -> None:
    url = f"/v1/clients/{ada['id']}"
    for hours in (48, "person", 0, None, "person", None):
        assert api.patch(url, json={"review_hours": hours}).json()["review_hours"] == hours
        assert api.get(url).json()["review_hours"] == hours
    api.patch(url, json={"review_hours": "person"})
    assert api.patch(url, json={"name": "Ada"}).json()["review_hours"] == "person"


def test_a_client_is_paused_switch_by_switch(api: TestClient, ada: dict[str, Any]) -> None:
    url = f"/v1/clients/{ada['id']}"
    api.patch(url, json={"paused": {"billing": True}})

    changed = api.patch(url, json={"paused": {"collection": True}}).json()

    assert changed["paused"] == {"billing": True, "collection": True}
    assert api.get(url).json() == changed


@pytest.mark.parametrize(
    "field", ["name", "billing_cycle", "anchor_day", "tax_ids", "tax_exempt", "paused"]
)
def test_what_every_client_has_cannot_be_cleared(
    api: TestClient, ada: dict[str, Any], field: str
) -> None:
    problem(api.patch(f"/v1/clients/{ada['id']}", json={field: None}), 422, "invalid", field)


def test_a_client_goes_on_a_cycle_and_off_again(api: TestClient, ada: dict[str, Any]) -> None:
    url = f"/v1/clients/{ada['id']}"

    on = api.patch(url, json={"billing_cycle": "monthly"})
    off = api.patch(url, json={"billing_cycle": "manual"})

    assert on.json()["billing_cycle"] == "monthly"
    assert on.json()["billing_starts_on"] is not None
    assert off.json()["billing_cycle"] == "manual"


def test_a_client_is_found_by_its_external_ref(api: TestClient, ada: dict[str, Any]) -> None:
    api.post("/v1/clients", json={"name": "Someone else"})

    assert api.get("/v1/clients?external_ref=merchant-17").json()["data"] == [ada]
    assert api.get("/v1/clients?external_ref=nobody").json() == {"data": [], "next_cursor": None}


@pytest.mark.parametrize("client_id", [str(UUID(int=7)), "17", "%00"])
def test_an_unknown_client_is_not_found(api: TestClient, client_id: str) -> None:
    problem(api.get(f"/v1/clients/{client_id}"), 404, "client_not_found")
    problem(api.patch(f"/v1/clients/{client_id}", json={}), 404, "client_not_found")


def test_an_automatic_top_up_is_set_changed_shown_and_switched_off(api: TestClient) -> None:
    fresh = {"declines": 0, "paused_until": None, "off": False}
    new = {"name": "Ada", "auto_top_up": {**TOP_UP, "currency": "USD"}}

    client = api.post("/v1/clients", json=new).json()
    url = f"/v1/clients/{client['id']}"

    assert client["auto_top_up"] == {**TOP_UP, **fresh}
    assert api.get(url).json() == client
    assert api.get("/v1/clients").json()["data"] == [client]
    other = {**TOP_UP, "target": 30_000}
    changed = api.patch(url, json={"auto_top_up": other}).json()
    assert changed["auto_top_up"] == {**other, **fresh}
    assert api.patch(url, json={"name": "Ada & Co"}).json()["auto_top_up"] == {**other, **fresh}
    assert api.patch(url, json={"auto_top_up": None}).json()["auto_top_up"] is None
    assert api.get(url).json()["auto_top_up"] is None
