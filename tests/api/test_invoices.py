from collections.abc import Callable
from datetime import date, timedelta
from io import BytesIO
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pypdf import PdfReader
from sqlalchemy import Engine, event
from sqlalchemy.orm import Session

from gateways.documents import InvoiceDocument
from models import Mail
from tests.api.calls import a_charge, a_draft, an_invoice, deposit, done, problem
from tests.api.conftest import Finish, PutCard
from tests.worlds import counted

SUMMARY = {
    "id", "client", "number", "status", "collection", "auto_collect", "next_attempt_at",
    "attempt_count", "disputed", "hosted_url", "currency", "subtotal", "tax", "total", "credit_applied",
    "amount_paid", "amount_credited", "amount_refunded", "amount_written_off", "amount_due",
    "period_start", "period_end", "issued_on", "due_on", "finalized_at", "paid_at", "voided_at",
    "written_off_at", "reissued_at", "created_at", "review_ends_at", "memo", "po_number",
    "bill_from", "bill_to", "links",
}  # fmt: skip
STORY = {
    "lines", "taxes", "payments", "attempts", "disputes", "credit", "mails", "next", "history",
}  # fmt: skip


def whats(invoice: dict[str, Any]) -> list[str]:
    return [item["what"] for item in invoice["history"]]


def test_a_draft_shows_its_charges_in_the_order_of_their_dates(
    engine: Engine, api: TestClient, ada: dict[str, Any]
) -> None:
    charges = [a_charge(api, ada, charged_on=f"2026-05-0{day}") for day in (3, 1, 2)]

    draft = a_draft(engine, api, ada["id"])

    assert draft.keys() == SUMMARY | STORY
    assert (draft["status"], draft["number"], draft["total"]) == ("draft", None, 3300)
    assert (draft["collection"], draft["auto_collect"]) == ("none", None)
    assert [line["charge"] for line in draft["lines"]] == [
        charges[1]["id"], charges[2]["id"], charges[0]["id"]
    ]  # fmt: skip
    assert draft["lines"][0] == {
        "charge": charges[1]["id"],
        "charged_on": "2026-05-01",
        "description": "FNSKU labelling",
        "quantity": "40",
        "unit_price": "0.275",
        "amount": 1100,
        "net": 1100,
        "tax": 0,
    }
    assert draft["taxes"] == []
    assert draft["links"] == {
        "self": f"/v1/invoices/{draft['id']}",
        "client": f"/v1/clients/{ada['id']}",
    }
    assert draft["next"]["what"] == "finalize"
    assert whats(draft) == ["drafted"]


def test_invoices_are_listed_by_client_and_status_without_their_stories(
    engine: Engine, api: TestClient, ada: dict[str, Any], invoice: dict[str, Any]
) -> None:
    a_charge(api, ada)
    draft = a_draft(engine, api, ada["id"])

    both = api.get(f"/v1/invoices?client={ada['id']}").json()["data"]

    assert [one["id"] for one in both] == [draft["id"], invoice["id"]]
    assert both[0].keys() == SUMMARY
    (only,) = api.get("/v1/invoices?status=open").json()["data"]
    assert only == {name: value for name, value in invoice.items() if name not in STORY}
    assert api.get(f"/v1/invoices?client={uuid4()}").json()["data"] == []


def test_a_list_takes_as_many_statements_for_one_invoice_as_for_many(
    engine: Engine, api: TestClient, ada: dict[str, Any]
) -> None:
    took = []
    for more in (1, 3):
        for _ in range(more):
            an_invoice(engine, api, ada["id"])
        with counted(engine) as statements:
            api.get("/v1/invoices")
        took.append(len(statements))

    assert len(api.get("/v1/invoices").json()["data"]) == 4
    assert took[0] == took[1]


def test_an_invoice_that_waits_for_a_person_says_so(invoice: dict[str, Any]) -> None:
    assert (invoice["collection"], invoice["auto_collect"]) == ("manual", False)
    assert (invoice["next_attempt_at"], invoice["attempt_count"]) == (None, 0)
    assert (invoice["next"]["what"], invoice["next"]["at"]) == ("pay", None)
    assert whats(invoice) == ["drafted", "finalized", "mail_waiting"]
    assert invoice["history"][1]["detail"].startswith("INV-000001: 11.00 USD, due on ")


def test_an_invoice_tells_how_credit_and_money_paid_it(
    engine: Engine, api: TestClient, invoice: dict[str, Any]
) -> None:
    url = f"/v1/invoices/{invoice['id']}"
    deposit(engine, api, invoice["client"], 300)
    done(engine, api, api.post(f"{url}/mark-paid", json={"reference": "wire 7"}))

    paid = api.get(url).json()

    assert (paid["credit_applied"], paid["amount_paid"], paid["amount_due"]) == (300, 800, 0)
    assert [(entry["kind"], entry["amount"]) for entry in paid["credit"]] == [("applied", -300)]
    assert [payment["applied"] for payment in paid["payments"]] == [800]
    assert paid["next"] == {"what": "nothing", "at": None, "why": "Nothing is due any more."}
    told = [what for what in whats(paid) if not what.startswith("mail")]
    assert told == ["drafted", "finalized", "credit_applied", "payment_received", "paid"]
    details = {item["what"]: item["detail"] for item in paid["history"]}
    assert details["credit_applied"] == "3.00 USD"
    assert details["payment_received"] == "8.00 USD, other, wire 7"


def test_an_invoice_that_credit_pays_as_it_is_finalized_tells_that_in_order(
    engine: Engine, api: TestClient, ada: dict[str, Any]
) -> None:
    deposit(engine, api, ada["id"], 5000)

    paid = an_invoice(engine, api, ada["id"])

    told = [what for what in whats(paid) if not what.startswith("mail")]
    assert told == ["drafted", "finalized", "credit_applied", "paid"]
    assert [item["at"] for item in paid["history"]] == sorted(i["at"] for i in paid["history"])


def test_a_negative_invoice_tells_that_it_gave_credit_and_the_next_that_it_used_it(
    engine: Engine, api: TestClient, ada: dict[str, Any]
) -> None:
    negative = an_invoice(engine, api, ada["id"], unit_price="-1")
    used = an_invoice(engine, api, ada["id"], unit_price="2")

    assert whats(negative) == ["drafted", "finalized", "credit_given", "paid"]
    assert negative["next"]["why"] == "It gave the client credit, and asks for nothing."
    assert (used["credit_applied"], used["amount_due"]) == (4000, 4000)


def test_a_voided_invoice_tells_what_came_back(
    engine: Engine, api: TestClient, invoice: dict[str, Any]
) -> None:
    url = f"/v1/invoices/{invoice['id']}"
    deposit(engine, api, invoice["client"], 300)
    done(engine, api, api.post(f"{url}/void"))

    void = api.get(url).json()

    told = [what for what in whats(void) if not what.startswith("mail")]
    assert told == ["drafted", "finalized", "credit_applied", "voided", "credit_returned"]
    assert void["next"]["why"] == "It is void and asks for nothing."


Bill = Callable[[str | None], dict[str, Any]]


@pytest.fixture
def bill(api: TestClient, put_card: PutCard, finish: Finish) -> Bill:
    """Bills the last month of a new client on such a card, if any; the invoice, all work done."""

    def run(card: str | None) -> dict[str, Any]:
        client = on_a_cycle(api)
        if card is not None:
            put_card(client["id"], card)
        finish(api.post("/v1/billing-runs", json={"client": client["id"]}))
        (listed,) = api.get(f"/v1/invoices?client={client['id']}").json()["data"]
        shown: dict[str, Any] = api.get(f"/v1/invoices/{listed['id']}").json()
        assert {name: shown[name] for name in SUMMARY} == listed
        return shown

    return run


def on_a_cycle(api: TestClient) -> dict[str, Any]:
    """A client whose last month is to be billed, and charged by itself."""
    start = (date.today().replace(day=1) - timedelta(days=1)).replace(day=1)  # noqa: DTZ011
    new = {
        "name": "Bob Goods",
        "email": "bob@goods.example",
        "billing_cycle": "monthly",
        "billing_starts_on": start.isoformat(),
    }
    client: dict[str, Any] = api.post("/v1/clients", json=new).json()
    a_charge(api, client, charged_on=start.isoformat())
    return client


def test_a_card_that_is_charged_tells_try_payment_and_receipt(bill: Bill) -> None:
    invoice = bill("pm_card_visa")

    assert (invoice["status"], invoice["collection"]) == ("paid", "none")
    assert (invoice["attempt_count"], invoice["auto_collect"]) == (1, True)
    (attempt,) = invoice["attempts"]
    assert (attempt["ordinal"], attempt["origin"]) == (1, "automatic")
    assert (attempt["state"], attempt["amount"]) == ("succeeded", 1100)
    assert attempt["payment_intent"].startswith("pi_")
    (payment,) = invoice["payments"]
    assert (payment["source"], payment["attempt"]) == ("card", attempt["id"])
    assert {mail["kind"]: mail["state"] for mail in invoice["mails"]} == {
        "invoice_ready": "accepted",
        "receipt": "accepted",
    }
    told = [what for what in whats(invoice) if not what.startswith("mail")]
    assert told == [
        "drafted", "finalized", "attempt_started", "attempt_succeeded", "payment_received", "paid"
    ]  # fmt: skip
    assert whats(invoice).count("mail_sent") == 2


@pytest.mark.parametrize(
    ("card", "collection", "what", "why"),
    [
        (
            "pm_card_chargeDeclinedInsufficientFunds",
            "scheduled",
            "charge",
            "charged by itself. The last try was declined (insufficient_funds).",
        ),
        (
            "pm_card_chargeDeclinedStolenCard",
            "exhausted",
            "add_card",
            "not tried again by itself (stolen_card). Another one is charged at once.",
        ),
        (
            "pm_card_authenticationRequired",
            "needs_action",
            "authenticate",
            "approve the charge; until then nothing is charged.",
        ),
        (
            "pm_usBankAccount_processing",
            "in_flight",
            "wait_for_answer",
            "The bank has taken the charge and will say later; it can take days.",
        ),
        (
            None,
            "no_billing_method",
            "add_card",
            "The client has no card. One that is added is charged at once.",
        ),
    ],
)
def test_every_way_of_not_being_paid_says_what_comes_next_and_why(
    bill: Bill, card: str | None, collection: str, what: str, why: str
) -> None:
    invoice = bill(card)

    assert (invoice["status"], invoice["collection"]) == ("open", collection)
    assert invoice["next"]["what"] == what
    assert invoice["next"]["why"].endswith(why)
    assert invoice["attempt_count"] == len(invoice["attempts"]) == (0 if card is None else 1)
    assert (invoice["next_attempt_at"] is not None) is (collection == "scheduled")
    if collection == "scheduled":
        assert invoice["next"]["at"] == invoice["next_attempt_at"]
    else:
        assert (invoice["next"]["at"] is not None) is (collection == "in_flight")


def test_what_a_pause_keeps_from_being_charged_says_so(api: TestClient, bill: Bill) -> None:
    api.patch("/v1/account", json={"paused": {"collection": True}})

    invoice = bill("pm_card_visa")

    assert (invoice["collection"], invoice["next_attempt_at"]) == ("paused", None)
    assert invoice["next"] == {
        "what": "resume",
        "at": None,
        "why": "Collection is paused; the card is charged when it goes on.",
    }


def test_a_schedule_that_is_used_up_leaves_the_invoice_to_people(
    api: TestClient, bill: Bill
) -> None:
    api.patch("/v1/account", json={"dunning": {"days": []}})

    invoice = bill("pm_card_chargeDeclinedInsufficientFunds")

    assert (invoice["collection"], invoice["next"]["what"]) == ("exhausted", "pay")
    assert "The last try was declined (insufficient_funds)." in invoice["next"]["why"]
    declined = next(item for item in invoice["history"] if item["what"] == "attempt_declined")
    assert declined["detail"].startswith("insufficient_funds: ")


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"state": "suppressed", "reason": "switched_off"}, ["mail_not_sent"]),
        ({"state": "claimed"}, ["mail_waiting"]),
        ({"state": "unknown"}, ["mail_unknown"]),
        ({"state": "accepted", "sent_at": 1}, ["mail_sent"]),
        ({"state": "delivered", "sent_at": 1, "delivered_at": 2}, ["mail_sent", "mail_delivered"]),
        ({"state": "delivered", "sent_at": 2, "delivered_at": 1}, ["mail_sent", "mail_delivered"]),
        (
            {"state": "bounced", "sent_at": 1, "delivered_at": 2, "reason": "550 no such user"},
            ["mail_sent", "mail_delivered", "mail_returned"],
        ),
        ({"state": "refused", "reason": "the address is none"}, ["mail_not_sent"]),
    ],
)
def test_the_history_tells_what_became_of_a_mail(
    engine: Engine, api: TestClient, invoice: dict[str, Any], facts: dict[str, Any], told: list[str]
) -> None:
    with Session(engine) as session, session.begin():
        mail = session.get_one(Mail, UUID(invoice["mails"][0]["id"]))
        for name, value in facts.items():
            after = timedelta(seconds=value) if isinstance(value, int) else None
            setattr(mail, name, value if after is None else mail.created_at + after)

    shown = api.get(f"/v1/invoices/{invoice['id']}").json()

    mails = [item for item in shown["history"] if item["what"].startswith("mail")]
    assert [item["what"] for item in mails] == told
    assert mails[-1]["detail"].startswith("invoice_ready to ada@imports.example")
    assert mails[-1]["detail"].endswith(facts.get("reason", ""))


def test_an_unknown_invoice_is_not_found(api: TestClient) -> None:
    problem(api.get(f"/v1/invoices/{uuid4()}"), 404, "invoice_not_found")
    problem(api.get(f"/v1/invoices/{uuid4()}/pdf"), 404, "invoice_not_found")


def test_an_invoice_is_shown_as_a_pdf_that_is_called_by_its_number(
    api: TestClient, invoice: dict[str, Any]
) -> None:
    answer = api.get(invoice["links"]["pdf"])

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/pdf"
    assert answer.headers["content-disposition"] == 'inline; filename="INV-000001.pdf"'
    text = "\n".join(page.extract_text() for page in PdfReader(BytesIO(answer.content)).pages)
    assert "INV-000001" in text
    assert "FNSKU labelling" in text
    assert "11.00 USD" in text


def test_a_draft_has_no_pdf(api: TestClient, draft: dict[str, Any]) -> None:
    assert "pdf" not in draft["links"]
    problem(api.get(f"/v1/invoices/{draft['id']}/pdf"), 409, "invoice_not_finalized")


def test_a_pdf_is_set_when_no_transaction_is_open_any_more(
    app: FastAPI, engine: Engine, api: TestClient, invoice: dict[str, Any]
) -> None:
    happened = []
    documents = app.state.documents

    class Watched:
        def render_invoice_pdf(self, document: InvoiceDocument) -> bytes:
            happened.append("set")
            pdf: bytes = documents.render_invoice_pdf(document)
            return pdf

    app.state.documents = Watched()
    event.listen(engine, "commit", lambda _connection: happened.append("committed"))

    assert api.get(invoice["links"]["pdf"]).status_code == 200

    assert happened == ["committed", "set"]
