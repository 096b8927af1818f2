from datetime import date
from io import BytesIO
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pypdf import PdfReader
from sqlalchemy import Engine, event

from api.statements import days_of
from billing.cycles import Period
from billing.errors import InvalidInput
from gateways.documents import StatementDocument
from tests.api.calls import an_invoice, deposit, done, problem


def test_a_statement_tells_what_moved_and_what_is_open(
    engine: Engine, api: TestClient, invoice: dict[str, Any]
) -> None:
    client = api.get(f"/v1/clients/{invoice['client']}").json()
    some = {"amount": 400, "reference": "wire 8841"}
    done(engine, api, api.post(f"/v1/invoices/{invoice['id']}/mark-paid", json=some))

    told = api.get(f"/v1/clients/{client['id']}/statement").json()

    today = date.fromisoformat(invoice["issued_on"])
    assert told["from"] == today.replace(day=1).isoformat()
    assert (date.fromisoformat(told["to"]) - today).days in range(31)
    assert (told["client"], told["name"], told["currency"]) == (client["id"], client["name"], "usd")
    assert (told["opening_balance"], told["closing_balance"], told["credit"]) == (0, 700, 0)
    assert told["lines"] == [
        {"date": invoice["issued_on"], "kind": "invoice", "reference": invoice["number"],
         "invoice": invoice["id"], "amount": 1100, "balance": 1100},
        {"date": invoice["issued_on"], "kind": "payment", "reference": "wire 8841",
         "invoice": invoice["id"], "amount": -400, "balance": 700},
    ]  # fmt: skip
    assert told["open_items"] == [
        {"invoice": invoice["id"], "number": invoice["number"], "issued_on": invoice["issued_on"],
         "due_on": invoice["due_on"], "amount_due": 700},
    ]  # fmt: skip


def test_both_days_are_in_it_and_what_came_before_opens_it(
    api: TestClient, invoice: dict[str, Any]
) -> None:
    url, day = f"/v1/clients/{invoice['client']}/statement", invoice["issued_on"]

    of_the_day = api.get(url, params={"from": day, "to": day}).json()
    after = api.get(url, params={"from": "2999-01-01", "to": "9999-12-31"}).json()
    before = api.get(url, params={"from": "0001-01-01", "to": "2020-12-31"}).json()

    assert (of_the_day["from"], of_the_day["to"]) == (day, day)
    assert [line["amount"] for line in of_the_day["lines"]] == [1100]
    assert (after["opening_balance"], after["lines"]) == (1100, [])
    assert (before["closing_balance"], before["open_items"]) == (0, [])


def test_each_currency_has_a_statement_of_its_own(
    engine: Engine, api: TestClient, invoice: dict[str, Any]
) -> None:
    an_invoice(engine, api, invoice["client"], currency="eur", unit_price="1.00", quantity="2")
    deposit(engine, api, invoice["client"], 300, currency="gbp")
    url = f"/v1/clients/{invoice['client']}/statement"

    assert api.get(url, params={"currency": "EUR"}).json()["closing_balance"] == 200
    in_hand = api.get(url, params={"currency": "gbp"}).json()
    assert (in_hand["closing_balance"], in_hand["credit"]) == (-300, 300)
    api.patch(f"/v1/clients/{invoice['client']}", json={"currency": "eur"})
    assert api.get(url).json()["currency"] == "eur"


def test_a_statement_comes_as_csv_too(api: TestClient, invoice: dict[str, Any]) -> None:
    url, day = f"/v1/clients/{invoice['client']}/statement", invoice["issued_on"]

    answer = api.get(url, params={"from": day, "to": day}, headers={"Accept": "text/csv"})

    assert answer.text.splitlines() == [
        "date,kind,reference,invoice,amount,balance",
        f"{day},opening_balance,,,,0",
        f"{day},invoice,{invoice['number']},{invoice['id']},1100,1100",
        f"{day},closing_balance,,,,1100",
    ]


def test_what_a_payer_wrote_is_no_formula_in_a_spreadsheet(
    engine: Engine, api: TestClient, invoice: dict[str, Any]
) -> None:
    some = {"reference": '=HYPERLINK("https://evil.example","Refund")'}
    done(engine, api, api.post(f"/v1/invoices/{invoice['id']}/mark-paid", json=some))

    url = f"/v1/clients/{invoice['client']}/statement"
    rows = api.get(url, headers={"Accept": "text/csv"}).text

    assert "\"'=HYPERLINK(" in rows


@pytest.mark.parametrize("suffix", ["", "/pdf"])
def test_a_statement_comes_as_pdf_too(
    api: TestClient, invoice: dict[str, Any], suffix: str
) -> None:
    url = f"/v1/clients/{invoice['client']}/statement{suffix}"

    answer = api.get(url, headers={"Accept": "application/pdf"})

    assert answer.headers["content-type"] == "application/pdf"
    assert answer.headers["content-disposition"].startswith('inline; filename="statement-')
    text = PdfReader(BytesIO(answer.content)).pages[0].extract_text()
    for shown in ("Statement", invoice["number"], "11.00 USD", "Closing balance", "Ada Imports"):
        assert shown in text


def test_a_pdf_is_set_when_no_transaction_is_open_any_more(
    app: FastAPI, engine: Engine, api: TestClient, invoice: dict[str, Any]
) -> None:
    happened = []
    documents = app.state.documents

    class Watched:
        def render_statement_pdf(self, document: StatementDocument) -> bytes:
            happened.append("set")
            pdf: bytes = documents.render_statement_pdf(document)
            return pdf

    app.state.documents = Watched()
    event.listen(engine, "commit", lambda _connection: happened.append("committed"))

    assert api.get(f"/v1/clients/{invoice['client']}/statement/pdf").status_code == 200

    assert happened == ["committed", "set"]


def test_a_wrong_question_is_named(api: TestClient, ada: dict[str, Any]) -> None:
    url = f"/v1/clients/{ada['id']}/statement"
    problem(api.get(f"{url}?from=2026-06-02&to=2026-06-01"), 422, "invalid", "to")
    problem(api.get(f"{url}?from=soon"), 422, "invalid", "from")
    problem(api.get(f"{url}?currency=dollars"), 422, "invalid", "currency")
    problem(api.get(f"{url}?until=2026-06-01"), 422, "invalid", "until")


def test_a_statement_is_for_its_own_account_alone(
    stranger: TestClient, ada: dict[str, Any]
) -> None:
    for suffix in ("", "/pdf"):
        answer = stranger.get(f"/v1/clients/{ada['id']}/statement{suffix}")
        problem(answer, 404, "client_not_found")


@pytest.mark.parametrize(
    ("first", "last", "days"),
    [
        (None, None, ("2026-02-01", "2026-03-01")),
        ("2025-12-15", None, ("2025-12-15", "2026-03-01")),
        (None, "2026-01-15", ("2026-01-01", "2026-01-16")),
        ("2026-01-31", "2026-01-31", ("2026-01-31", "2026-02-01")),
        ("0001-01-01", "9999-12-31", ("0001-01-01", "9999-12-31")),
        ("9999-12-31", "9999-12-31", ("9999-12-30", "9999-12-31")),
    ],
)
def test_what_is_not_named_is_this_month(
    first: str | None, last: str | None, days: tuple[str, str]
) -> None:
    named = [None if day is None else date.fromisoformat(day) for day in (first, last)]

    assert days_of(*named, today=date(2026, 2, 14)) == Period(*map(date.fromisoformat, days))


def test_a_period_begins_before_it_ends() -> None:
    with pytest.raises(InvalidInput, match="must not be before from"):
        days_of(date(2026, 3, 1), None, today=date(2026, 2, 14))
