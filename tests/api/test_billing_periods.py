from typing import Any

from fastapi.testclient import TestClient
from sqlalchemy import Engine, update
from sqlalchemy.orm import Session

from models import BillingPeriod
from tests.api.calls import a_charge, done


def monthly(api: TestClient, **fields: Any) -> dict[str, Any]:
    new = {
        "name": "Ada Imports",
        "billing_cycle": "monthly",
        "billing_starts_on": "2026-03-01",
        "time_zone": "America/Chicago",
    }
    client: dict[str, Any] = api.post("/v1/clients", json={**new, **fields}).json()
    return client


def test_a_client_on_no_cycle_has_no_periods(api: TestClient, ada: dict[str, Any]) -> None:
    assert api.get(f"/v1/clients/{ada['id']}/billing-periods").json()["data"] == []


def test_periods_are_listed_newest_first_with_their_dates_and_instants(api: TestClient) -> None:
    client = monthly(api)

    periods = api.get(f"/v1/clients/{client['id']}/billing-periods").json()["data"]

    starts = [period["period_start"] for period in periods]
    assert starts == sorted(starts, reverse=True)
    assert periods[-1] == {
        "id": periods[-1]["id"],
        "client": client["id"],
        "period_start": "2026-03-01",
        "period_end": "2026-04-01",
        "starts_at": "2026-03-01T06:00:00Z",
        "ends_at": "2026-04-01T05:00:00Z",
        "state": "open",
        "reason": "before_activation",
        "invoices": [],
    }


def test_periods_come_in_pages(api: TestClient) -> None:
    url = f"/v1/clients/{monthly(api)['id']}/billing-periods"
    everything = api.get(url).json()["data"]

    first = api.get(f"{url}?limit=2").json()
    second = api.get(f"{url}?limit=200&cursor={first['next_cursor']}").json()

    assert first["data"] + second["data"] == everything
    assert second["next_cursor"] is None


def test_a_billed_period_names_its_invoices_one_for_each_currency(
    engine: Engine, api: TestClient
) -> None:
    client = monthly(api)
    for currency in ("usd", "gbp"):
        a_charge(api, client, charged_on="2026-03-10", currency=currency)

    done(engine, api, api.post("/v1/billing-runs", json={"as_of": "2026-04-01"}))

    period = api.get(f"/v1/clients/{client['id']}/billing-periods").json()["data"][-1]
    invoices = [api.get(f"/v1/invoices/{id_}").json() for id_ in period["invoices"]]
    assert (period["state"], period["reason"]) == ("billed", None)
    assert {invoice["currency"] for invoice in invoices} == {"usd", "gbp"}
    assert {invoice["period_start"] for invoice in invoices} == {"2026-03-01"}
    assert {invoice["period_end"] for invoice in invoices} == {"2026-04-01"}


def test_a_failed_period_says_why(engine: Engine, api: TestClient) -> None:
    client = monthly(api, billing_starts_on=None)
    with Session(engine) as session, session.begin():
        session.execute(update(BillingPeriod).values(state="failed", error="KeyError: 'x'"))

    (period,) = api.get(f"/v1/clients/{client['id']}/billing-periods").json()["data"]

    assert (period["state"], period["reason"]) == ("failed", "KeyError: 'x'")


def test_periods_in_review_held_by_a_pause_and_skipped_say_so(
    engine: Engine, api: TestClient
) -> None:
    client = monthly(api, review_hours=48)
    url, periods = f"/v1/clients/{client['id']}", f"/v1/clients/{client['id']}/billing-periods"
    a_charge(api, client, charged_on="2026-03-10")
    a_charge(api, client, charged_on="2026-04-10")

    def bill(as_of: str, **whom: str) -> dict[str, Any]:
        done(engine, api, api.post("/v1/billing-runs", json={"as_of": as_of, **whom}))
        shown = api.get(f"{periods}?limit=200").json()["data"]
        return {period["period_start"]: period for period in shown}

    drafted = bill("2026-04-01")["2026-03-01"]
    assert (drafted["state"], drafted["reason"]) == ("drafted", None)
    invoice = api.get(f"/v1/invoices/{drafted['invoices'][0]}").json()
    assert (invoice["status"], invoice["next"]["what"]) == ("draft", "finalize")
    assert invoice["review_ends_at"] is not None
    assert invoice["review_ends_at"] == invoice["next"]["at"]

    api.patch(url, json={"paused": {"billing": True}})
    assert api.get(f"/v1/invoices/{invoice['id']}").json()["next"]["what"] == "resume"
    held = bill("2026-05-01")["2026-04-01"]
    assert (held["state"], held["reason"], held["invoices"]) == ("held", "paused", [])
    assert bill("2026-05-01", client=client["id"])["2026-04-01"]["state"] == "drafted"

    done(engine, api, api.post(f"/v1/invoices/{invoice['id']}/finalize"))
    api.patch(url, json={"billing_cycle": "manual"})
    states = {one["period_start"]: one["state"] for one in api.get(periods).json()["data"]}
    assert (states["2026-03-01"], states["2026-04-01"]) == ("billed", "drafted")
    assert {*states.values()} == {"billed", "drafted", "skipped"}
