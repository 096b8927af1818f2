from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.api.calls import a_charge, problem
from tests.api.conftest import Finish, PutCard

COLUMNS = "currency,outcome,invoices,amount,rate"


@pytest.fixture
def declined(api: TestClient, put_card: PutCard, finish: Finish) -> dict[str, Any]:
    """An invoice whose first automatic try was declined just now."""
    start = (datetime.now(UTC).date().replace(day=1) - timedelta(days=1)).replace(day=1)
    new = {
        "name": "Bob Goods",
        "billing_cycle": "monthly",
        "billing_starts_on": start.isoformat(),
    }
    client = api.post("/v1/clients", json=new).json()
    a_charge(api, client, charged_on=start.isoformat())
    put_card(client["id"], "pm_card_chargeDeclinedInsufficientFunds")
    finish(api.post("/v1/billing-runs", json={"client": client["id"]}))
    (invoice,) = api.get(f"/v1/invoices?client={client['id']}").json()["data"]
    assert invoice["attempt_count"] == 1
    return dict(invoice)


def test_the_recovery_report_tells_what_each_step_brought(
    api: TestClient, declined: dict[str, Any], finish: Finish
) -> None:
    due = declined["amount_due"]
    finish(api.post(f"/v1/invoices/{declined['id']}/mark-paid", json={"amount": due // 2}))

    report = api.get("/v1/reports/recovery").json()

    today = datetime.now(UTC).date()
    assert report["from"] == (today - timedelta(days=89)).isoformat()
    assert report["to"] == today.isoformat()
    assert {one["outcome"]: (one["invoices"], one["amount"]) for one in report["data"]} == {
        "failed": (1, due),
        "recovered": (0, due // 2),
        "outside": (1, due // 2),
        "open": (1, due - due // 2),
        "given_up": (0, 0),
        "withdrawn": (0, 0),
    }
    assert {one["currency"] for one in report["data"]} == {"usd"}
    assert report["data"][0]["rate"] == "1.0000"


@pytest.mark.usefixtures("declined")
def test_other_days_have_nothing(api: TestClient) -> None:
    days = {"from": "2026-01-01", "to": "2026-01-31"}

    assert api.get("/v1/reports/recovery", params=days).json() == {**days, "data": []}


def test_the_recovery_report_comes_as_csv_too(api: TestClient, declined: dict[str, Any]) -> None:
    answer = api.get("/v1/reports/recovery", headers={"Accept": "text/csv"})

    header, failed, *_ = answer.text.splitlines()
    assert header == COLUMNS
    assert failed == f"usd,failed,1,{declined['amount_due']},1.0000"


def test_days_in_the_wrong_order_are_refused(api: TestClient) -> None:
    answer = api.get("/v1/reports/recovery?from=2026-02-01&to=2026-01-01")
    problem(answer, 422, "invalid", "to")
    problem(api.get("/v1/reports/recovery?from=soon"), 422, "invalid", "from")


@pytest.mark.parametrize(
    ("days", "field"),
    [("to=9999-12-31", "to"), ("to=0001-01-01", "to"), ("from=0001-01-01", "from")],
)
def test_days_that_nobody_bills_on_are_refused(api: TestClient, days: str, field: str) -> None:
    problem(api.get(f"/v1/reports/recovery?{days}"), 422, "invalid", field)
