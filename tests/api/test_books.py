from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text

from tasks.audits import RULES
from tests.api.calls import problem


def test_the_trial_balance_balances(api: TestClient, invoice: dict[str, Any]) -> None:
    answer = api.get("/v1/ledger/trial-balance").json()

    total = invoice["total"]
    of_no_rate = {"tax_rate": None, "tax_rate_name": None}
    assert answer == {
        "data": [
            {"account": "receivable", "currency": "usd", "debits": total, "credits": 0,
             "balance": total, **of_no_rate},
            {"account": "revenue", "currency": "usd", "debits": 0, "credits": total,
             "balance": -total, **of_no_rate},
        ],
        "balanced": True,
    }  # fmt: skip


@pytest.mark.usefixtures("invoice")
def test_the_trial_balance_comes_as_csv_too(api: TestClient) -> None:
    answer = api.get("/v1/ledger/trial-balance", headers={"Accept": "text/csv"})

    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.text.splitlines() == [
        "account,currency,debits,credits,balance,tax_rate,tax_rate_name",
        "receivable,usd,1100,0,1100,,",
        "revenue,usd,0,1100,-1100,,",
    ]


def test_the_trial_balance_is_of_the_days_that_are_asked_for(
    api: TestClient, invoice: dict[str, Any]
) -> None:
    url, day = "/v1/ledger/trial-balance", invoice["issued_on"]

    assert api.get(url, params={"to": "2020-12-31"}).json() == {"data": [], "balanced": True}
    assert api.get(url, params={"from": day, "to": day}).json() == api.get(url).json()
    problem(api.get(f"{url}?from=2026-06-02&to=2026-06-01"), 422, "invalid", "to")


@pytest.mark.usefixtures("invoice")
def test_sound_books_have_no_differences(api: TestClient) -> None:
    assert api.get("/v1/audit").json() == {"ok": True, "rules": list(RULES), "differences": []}


def test_the_audit_names_what_is_wrong(
    engine: Engine, api: TestClient, draft: dict[str, Any]
) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE invoices SET subtotal = 1, total = 1"))

    answer = api.get("/v1/audit").json()

    assert answer["ok"] is False
    assert [(one["rule"], one["subject"]) for one in answer["differences"]] == [
        ("draft_totals_match_charges", draft["id"])
    ]
    rows = api.get("/v1/audit", headers={"Accept": "text/csv"}).text.splitlines()
    assert rows[0] == "rule,subject,found"
    assert rows[1].startswith(f"draft_totals_match_charges,{draft['id']},")
