from datetime import date, timedelta
from typing import Any

from fastapi.testclient import TestClient

from tests.api.calls import problem


def test_the_aging_report_shows_who_owes_what_and_since_when(
    api: TestClient, invoice: dict[str, Any]
) -> None:
    later = (date.fromisoformat(invoice["due_on"]) + timedelta(days=31)).isoformat()

    today = api.get("/v1/reports/aging").json()
    aged = api.get("/v1/reports/aging", params={"as_of": later}).json()

    amounts = {"currency": "usd", "days_1_30": 0, "days_61_90": 0, "days_over_90": 0, "total": 1100}
    of_client = {"client": invoice["client"], "name": today["data"][0]["name"]}
    current = {**amounts, "current": 1100, "days_31_60": 0}
    assert (today["data"], today["totals"]) == ([{**of_client, **current}], [current])
    past_due = {**amounts, "current": 0, "days_31_60": 1100}
    assert aged == {"as_of": later, "data": [{**of_client, **past_due}], "totals": [past_due]}


def test_the_aging_report_comes_as_csv_too(api: TestClient, invoice: dict[str, Any]) -> None:
    answer = api.get("/v1/reports/aging", headers={"Accept": "text/csv"})

    header, row = answer.text.splitlines()
    assert (
        header == "client,name,currency,current,days_1_30,days_31_60,days_61_90,days_over_90,total"
    )
    assert row.startswith(invoice["client"])
    assert row.endswith(",usd,1100,0,0,0,0,1100")


def test_a_wrong_day_is_named(api: TestClient) -> None:
    problem(api.get("/v1/reports/aging?as_of=soon"), 422, "invalid", "as_of")
