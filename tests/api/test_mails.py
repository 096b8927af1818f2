from typing import Any
from uuid import uuid4

from fastapi.testclient import TestClient
from sqlalchemy import Engine

from gateways.sandbox.sendgrid.client import SendGridControl
from tasks.calls import Gateways
from tests.api.calls import an_invoice, problem
from tests.worlds import work


def test_what_a_client_was_told_is_listed_by_client_invoice_and_state(
    engine: Engine, api: TestClient, ada: dict[str, Any]
) -> None:
    first = an_invoice(engine, api, ada["id"])
    api.patch(f"/v1/clients/{ada['id']}", json={"notifications": {"invoice_ready": False}})
    second = an_invoice(engine, api, ada["id"])

    def invoices(query: str) -> list[list[str]]:
        return [mail["invoices"] for mail in api.get(f"/v1/mails?{query}").json()["data"]]

    assert invoices("") == invoices(f"client={ada['id']}") == [[second["id"]], [first["id"]]]
    assert invoices("state=suppressed") == invoices(f"invoice={second['id']}") == [[second["id"]]]
    assert invoices("state=queued") == [[first["id"]]]
    assert invoices(f"invoice={uuid4()}") == invoices(f"client={uuid4()}") == []
    problem(api.get("/v1/mails?state=lost"), 422, "invalid", "state")


def test_a_mail_tells_whom_it_went_to_and_when(
    engine: Engine,
    api: TestClient,
    invoice: dict[str, Any],
    vendors: Gateways,
    sendgrid_control: SendGridControl,
) -> None:
    work(engine, gateways=vendors)

    (mail,) = api.get("/v1/mails").json()["data"]

    assert mail == {
        "id": mail["id"],
        "client": invoice["client"],
        "invoices": [invoice["id"]],
        "payment": None,
        "kind": "invoice_ready",
        "state": "accepted",
        "reason": None,
        "recipient": "ada@imports.example",
        "created_at": mail["created_at"],
        "sent_at": mail["sent_at"],
        "delivered_at": None,
    }
    assert mail["sent_at"] > mail["created_at"]
    (sent,) = sendgrid_control.mails()
    assert sent.custom_args["mail"] == mail["id"]
