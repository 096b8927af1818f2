from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.api.calls import problem


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


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"name": None},
        {"time_zone": "Mars/Base"},
        {"currency": None},
        {"net_days": 366},
        {"tax_ids": "GB1"},
        {"auto_collect": True},
        {"review_hours": 0},
        {"books_closed_through": "2026-01-01"},
    ],
)
def test_a_wrong_or_unknown_field_is_refused(api: TestClient, change: dict[str, Any]) -> None:
    problem(api.patch("/v1/account", json=change), 422, "invalid", *change)


def test_two_businesses_may_bear_the_same_name(stranger: TestClient) -> None:
    answer = stranger.patch("/v1/account", json={"name": "Bluebird Prep"})

    assert (answer.status_code, answer.json()["name"]) == (200, "Bluebird Prep")
