from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy import Engine

from gateways.sandbox.sendgrid.client import SendGridControl
from gateways.sandbox.stripe.server import StripeSandbox
from tests.api.calls import a_charge, a_draft, an_invoice, deposit, done, problem
from tests.api.conftest import Finish, PutCard


def test_an_accepted_command_answers_its_job(
    api: TestClient, ada: dict[str, Any], charge: dict[str, Any]
) -> None:
    answer = api.post("/v1/invoices", json={"client": charge["client"]})

    assert answer.status_code == 202
    job = answer.json()
    assert job == {
        "id": job["id"],
        "kind": "draft_invoice",
        "state": "ready",
        "queue": "billing",
        "subject": {"type": "client", "id": ada["id"]},
        "attempt": 0,
        "created_at": job["created_at"],
        "started_at": None,
        "finished_at": None,
        "result": None,
        "reason": None,
        "error": None,
        "links": {"self": f"/v1/jobs/{job['id']}", "subject": f"/v1/clients/{ada['id']}"},
    }
    assert answer.headers["Location"] == f"/v1/jobs/{job['id']}"


def test_drafting_takes_the_selected_charges_only(
    engine: Engine, api: TestClient, ada: dict[str, Any]
) -> None:
    chosen, left = a_charge(api, ada), a_charge(api, ada)
    body = {"client": ada["id"], "charge_ids": [chosen["id"]]}

    job = done(engine, api, api.post("/v1/invoices", json=body))

    assert job["state"] == "succeeded"
    assert api.get(f"/v1/charges/{left['id']}").json()["state"] == "open"
    assert api.get(f"/v1/charges/{chosen['id']}").json()["state"] == "invoiced"
    problem(api.post("/v1/invoices", json=body), 409, "charge_already_invoiced")


def test_what_cannot_be_drafted_is_refused_at_once(api: TestClient, ada: dict[str, Any]) -> None:
    def post(**body: Any) -> Response:
        return api.post("/v1/invoices", json={"client": ada["id"], **body})

    problem(post(), 409, "nothing_to_bill")
    problem(post(client=str(uuid4())), 404, "client_not_found")
    problem(post(charge_ids=[str(uuid4())]), 404, "charge_not_found")
    problem(post(charge_ids=[]), 422, "invalid", "charge_ids")
    problem(post(memo="hello"), 422, "invalid", "memo")
    problem(api.post("/v1/invoices", json={}), 422, "invalid", "client")
    assert api.get("/v1/jobs").json()["data"] == []


def test_what_turns_out_wrong_later_skips_the_job_with_its_reason(
    engine: Engine, api: TestClient, charge: dict[str, Any]
) -> None:
    first, second = (api.post("/v1/invoices", json={"client": charge["client"]}) for _ in range(2))

    assert done(engine, api, first)["state"] == "succeeded"
    job = api.get(second.headers["Location"]).json()
    assert (job["state"], job["reason"]) == ("skipped", "nothing_to_bill")


def test_finalizing_numbers_and_locks_the_draft(
    invoice: dict[str, Any], ada: dict[str, Any]
) -> None:
    assert (invoice["number"], invoice["status"]) == ("INV-000001", "open")
    assert (invoice["total"], invoice["amount_due"]) == (1100, 1100)
    assert invoice["lines"][0]["amount"] == 1100
    assert invoice["bill_from"]["name"] == "Bluebird Prep"
    assert invoice["bill_to"]["name"] == ada["name"]
    assert invoice["finalized_at"].endswith("Z")
    assert invoice["issued_on"] < invoice["due_on"]
    assert invoice["paid_at"] is invoice["voided_at"] is invoice["period_start"] is None


def test_finalizing_twice_is_refused(api: TestClient, invoice: dict[str, Any]) -> None:
    problem(api.post(f"/v1/invoices/{invoice['id']}/finalize"), 409, "invoice_not_draft")


def test_voiding_ends_the_claim_and_keeps_the_number(
    engine: Engine, api: TestClient, invoice: dict[str, Any]
) -> None:
    job = done(engine, api, api.post(f"/v1/invoices/{invoice['id']}/void"))

    assert job["state"] == "succeeded"
    void = api.get(f"/v1/invoices/{invoice['id']}").json()
    assert (void["status"], void["amount_due"], void["number"]) == ("void", 0, "INV-000001")
    assert void["voided_at"].endswith("Z")
    problem(api.post(f"/v1/invoices/{invoice['id']}/void"), 409, "invoice_not_open")


def test_a_void_keeps_what_was_paid_as_credit_and_opens_its_charges_again(
    engine: Engine, api: TestClient, invoice: dict[str, Any]
) -> None:
    url = f"/v1/invoices/{invoice['id']}"
    done(engine, api, api.post(f"{url}/mark-paid", json={"amount": 1}))
    problem(api.post(f"{url}/void"), 409, "invoice_partly_paid")
    problem(api.post(f"{url}/void", json={"settle": "cash"}), 422, "invalid", "settle")
    problem(api.post(f"{url}/reissue"), 409, "invoice_not_void")

    job = done(engine, api, api.post(f"{url}/void", json={"settle": "credit"}))
    assert job["result"]["kept_as_credit"] == 1
    assert api.get(url).json()["reissued_at"] is None
    done(engine, api, api.post(f"{url}/reissue"))
    problem(api.post(f"{url}/reissue"), 409, "invoice_already_reissued")

    void = api.get(url).json()
    assert (void["status"], void["amount_paid"], void["amount_due"]) == ("void", 1, 0)
    assert [one["what"] for one in void["history"]][-3:] == ["voided", "kept_as_credit", "reissued"]
    copies = api.get("/v1/charges", params={"state": "open"}).json()["data"]
    assert {copy["copy_of"] for copy in copies} == {line["charge"] for line in void["lines"]}


def test_a_draft_cannot_be_voided(api: TestClient, draft: dict[str, Any]) -> None:
    problem(api.post(f"/v1/invoices/{draft['id']}/void"), 409, "invoice_not_open")


def test_deleting_a_draft_opens_its_charges(
    engine: Engine, api: TestClient, draft: dict[str, Any]
) -> None:
    job = done(engine, api, api.delete(f"/v1/invoices/{draft['id']}"))

    assert job["state"] == "succeeded"
    problem(api.get(f"/v1/invoices/{draft['id']}"), 404, "invoice_not_found")
    charge = api.get(f"/v1/charges/{draft['lines'][0]['charge']}").json()
    assert (charge["state"], charge["invoice"]) == ("open", None)


def test_a_finalized_invoice_cannot_be_deleted(api: TestClient, invoice: dict[str, Any]) -> None:
    problem(api.delete(f"/v1/invoices/{invoice['id']}"), 409, "invoice_not_draft")


@pytest.mark.parametrize("command", ["reissue", "charge", "send"])
def test_a_command_without_options_takes_an_empty_object_and_nothing_else(
    api: TestClient, invoice: dict[str, Any], command: str
) -> None:
    url = f"/v1/invoices/{invoice['id']}/{command}"

    problem(api.post(url, json={"settle": "credit"}), 422, "invalid", "settle")
    problem(api.post(url, json=[]), 422, "invalid", "body")
    assert api.post(url, json={}).status_code == (202 if command == "send" else 409)


def test_a_draft_made_by_hand_is_charged_by_itself_only_if_finalizing_says_so(
    engine: Engine,
    api: TestClient,
    ada: dict[str, Any],
    put_card: PutCard,
    finish: Finish,
) -> None:
    put_card(ada["id"])
    statuses = []
    for options in (None, {}, {"collect": False}, {"collect": True}):
        a_charge(api, ada)
        url = f"/v1/invoices/{a_draft(engine, api, ada['id'])['id']}"
        finish(api.post(f"{url}/finalize", json=options))
        invoice = api.get(url).json()
        statuses.append((invoice["status"], invoice["auto_collect"], invoice["collection"]))

    assert statuses == [("open", False, "manual")] * 3 + [("paid", True, "none")]


def test_a_draft_is_finalized_as_it_was_looked_at_or_not_at_all(
    engine: Engine, api: TestClient, draft: dict[str, Any]
) -> None:
    url = f"/v1/invoices/{draft['id']}/finalize"

    problem(api.post(url, json={"expected_total": draft["total"] + 1}), 409, "total_changed")
    assert api.get(f"/v1/invoices/{draft['id']}").json() == draft
    done(engine, api, api.post(url, json={"expected_total": draft["total"]}))
    assert api.get(f"/v1/invoices/{draft['id']}").json()["status"] == "open"


def test_a_draft_that_is_edited_while_its_finalizing_waits_is_not_finalized(
    engine: Engine, api: TestClient, draft: dict[str, Any]
) -> None:
    waiting = api.post(
        f"/v1/invoices/{draft['id']}/finalize", json={"expected_total": draft["total"]}
    )
    api.patch(f"/v1/charges/{draft['lines'][0]['charge']}", json={"amount": 1})

    job = done(engine, api, waiting)
    assert (job["state"], job["reason"]) == ("skipped", "total_changed")
    left = api.get(f"/v1/invoices/{draft['id']}").json()
    assert (left["status"], left["total"], left["number"]) == ("draft", 1, None)


def test_finalizing_names_a_wrong_option(api: TestClient, draft: dict[str, Any]) -> None:
    url = f"/v1/invoices/{draft['id']}/finalize"

    problem(api.post(url, json={"expected_total": "1"}), 422, "invalid", "expected_total")
    problem(api.post(url, json={"collect": "yes"}), 422, "invalid", "collect")


def test_a_card_is_charged_on_demand_for_what_is_due(
    api: TestClient,
    invoice: dict[str, Any],
    stripe_sandbox: StripeSandbox,
    put_card: PutCard,
    finish: Finish,
) -> None:
    put_card(invoice["client"])
    url = f"/v1/invoices/{invoice['id']}"

    job = finish(api.post(f"{url}/charge"))

    paid = api.get(url).json()
    assert (job["kind"], job["queue"], job["state"]) == ("charge_invoice", "payments", "succeeded")
    assert (paid["status"], paid["amount_paid"], paid["amount_due"]) == ("paid", 1100, 0)
    (charged,) = stripe_sandbox.control.charges()
    assert charged["amount"] == 1100
    problem(api.post(f"{url}/charge"), 409, "invoice_not_open")


def test_a_declined_card_is_the_result_of_the_job_and_no_error(
    api: TestClient,
    invoice: dict[str, Any],
    put_card: PutCard,
    finish: Finish,
) -> None:
    put_card(invoice["client"], "pm_card_chargeDeclinedInsufficientFunds")

    job = finish(api.post(f"/v1/invoices/{invoice['id']}/charge"))

    assert (job["state"], job["result"]["state"]) == ("succeeded", "declined")
    assert job["result"]["decline_code"] == "insufficient_funds"


def test_what_is_given_up_is_told_and_may_be_paid_after_all(
    engine: Engine, api: TestClient, invoice: dict[str, Any]
) -> None:
    url = f"/v1/invoices/{invoice['id']}"
    assert (invoice["amount_written_off"], invoice["written_off_at"]) == (0, None)

    job = done(engine, api, api.post(f"{url}/write-off"))

    assert job["result"] == {"invoice": invoice["id"], "written_off": 1100}
    gone = api.get(url).json()
    assert (gone["status"], gone["collection"]) == ("uncollectible", "none")
    assert (gone["amount_due"], gone["amount_written_off"]) == (0, 1100)
    assert gone["written_off_at"].endswith("Z")
    assert gone["next"] == {
        "what": "nothing",
        "at": None,
        "why": "It was given up: nothing is charged any more. 11.00 USD can still be paid: record "
        "what comes.",
    }
    assert gone["history"][-1] == {
        "at": gone["history"][-1]["at"],
        "what": "written_off",
        "detail": "11.00 USD",
    }
    problem(api.post(f"{url}/write-off"), 409, "invoice_not_open")
    problem(api.post(f"{url}/write-off", json={"amount": 1}), 422, "invalid", "amount")
    more = {"amount": 1101}
    problem(api.post(f"{url}/mark-paid", json=more), 422, "amount_exceeds_due", "amount")

    done(engine, api, api.post(f"{url}/mark-paid", json={"amount": 100}))
    assert api.get(url).json()["amount_written_off"] == 1000
    done(engine, api, api.post(f"{url}/mark-paid"))
    paid = api.get(url).json()
    assert (paid["status"], paid["amount_paid"], paid["amount_written_off"]) == ("paid", 1100, 0)
    assert [item["what"] for item in paid["history"]].count("written_off") == 1
    problem(api.post(f"{url}/write-off"), 409, "invoice_not_open")


def test_what_was_given_up_can_be_voided(
    engine: Engine, api: TestClient, invoice: dict[str, Any]
) -> None:
    url = f"/v1/invoices/{invoice['id']}"
    done(engine, api, api.post(f"{url}/write-off"))

    assert done(engine, api, api.post(f"{url}/void"))["state"] == "succeeded"

    void = api.get(url).json()
    assert (void["status"], void["amount_due"], void["amount_written_off"]) == ("void", 0, 0)


def test_what_is_certain_of_a_charge_is_refused_at_once(
    api: TestClient, invoice: dict[str, Any]
) -> None:
    problem(api.post(f"/v1/invoices/{invoice['id']}/charge"), 409, "no_billing_method")


@pytest.mark.parametrize(
    ("command", "verb"),
    [("charge", "charge"), ("mark-paid", "mark as paid"), ("apply-credit", "apply credit to")],
)
def test_only_an_open_invoice_can_be_paid(
    api: TestClient, draft: dict[str, Any], command: str, verb: str
) -> None:
    body = problem(api.post(f"/v1/invoices/{draft['id']}/{command}"), 409, "invoice_not_open")

    assert body["detail"] == f"Cannot {verb} an invoice that is draft."


def test_nothing_else_is_done_while_money_may_be_moving(
    engine: Engine,
    api: TestClient,
    invoice: dict[str, Any],
    put_card: PutCard,
    finish: Finish,
) -> None:
    put_card(invoice["client"], "pm_usBankAccount_processing")
    url = f"/v1/invoices/{invoice['id']}"
    job = finish(api.post(f"{url}/charge"))
    assert job["result"]["state"] == "processing"
    deposit(engine, api, invoice["client"], 500, apply=False)

    for command in ("charge", "mark-paid", "apply-credit", "void", "write-off"):
        problem(api.post(f"{url}/{command}"), 409, "payment_in_flight")
    told = api.get(url).json()["next"]
    assert told["what"] == "wait_for_answer"
    assert "bank" in told["why"]
    assert told["at"] is not None


def test_an_outside_payment_needs_no_words(
    engine: Engine, api: TestClient, invoice: dict[str, Any]
) -> None:
    job = done(engine, api, api.post(f"/v1/invoices/{invoice['id']}/mark-paid"))

    paid = api.get(f"/v1/invoices/{invoice['id']}").json()
    assert job["state"] == "succeeded"
    assert (paid["status"], paid["amount_paid"], paid["amount_due"]) == ("paid", 1100, 0)
    (payment,) = paid["payments"]
    assert (payment["source"], payment["method"], payment["amount"]) == ("outside", "other", 1100)


def test_an_outside_payment_of_a_part_keeps_what_is_said_of_it(
    engine: Engine, api: TestClient, invoice: dict[str, Any]
) -> None:
    said = {
        "amount": 400,
        "method": "bank_transfer",
        "reference": "wire 8841",
        "paid_on": invoice["issued_on"],
        "note": "The rest comes on Monday.",
    }
    url = f"/v1/invoices/{invoice['id']}"

    done(engine, api, api.post(f"{url}/mark-paid", json=said))

    part = api.get(url).json()
    assert (part["status"], part["amount_paid"], part["amount_due"]) == ("open", 400, 700)
    assert {name: part["payments"][0][name] for name in said} == said
    problem(api.post(f"{url}/void"), 409, "invoice_partly_paid")


def test_more_than_is_due_becomes_credit_only_if_that_was_said(
    engine: Engine, api: TestClient, invoice: dict[str, Any]
) -> None:
    url = f"/v1/invoices/{invoice['id']}/mark-paid"

    problem(api.post(url, json={"amount": 1500}), 422, "amount_exceeds_due", "amount")
    done(engine, api, api.post(url, json={"amount": 1500, "overpayment": "credit"}))

    credit = api.get(f"/v1/clients/{invoice['client']}/credit").json()
    assert [one["balance"] for one in credit["balances"]] == [400]
    assert [entry["kind"] for entry in credit["entries"]] == ["overpayment"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"amount": 0}, "amount"),
        ({"amount": -1}, "amount"),
        ({"amount": 11.0}, "amount"),
        ({"method": "barter"}, "method"),
        ({"paid_on": "2999-01-01"}, "paid_on"),
        ({"paid_on": "yesterday"}, "paid_on"),
        ({"overpayment": "refund"}, "overpayment"),
        ({"note": " "}, "note"),
        ({"settle": "credit"}, "settle"),
    ],
)
def test_a_wrong_word_about_an_outside_payment_is_named(
    api: TestClient, invoice: dict[str, Any], body: dict[str, Any], field: str
) -> None:
    url = f"/v1/invoices/{invoice['id']}/mark-paid"

    problem(api.post(url, json=body), 422, "invalid", field)
    assert api.get("/v1/payments").json()["data"] == []


def test_credit_is_used_for_one_invoice_as_far_as_is_asked(
    engine: Engine, api: TestClient, invoice: dict[str, Any]
) -> None:
    url = f"/v1/invoices/{invoice['id']}"
    problem(api.post(f"{url}/apply-credit"), 409, "insufficient_credit")
    deposit(engine, api, invoice["client"], 900, apply=False)
    assert api.get(url).json()["amount_due"] == 1100

    done(engine, api, api.post(f"{url}/apply-credit", json={"amount": 300}))
    assert api.get(url).json()["credit_applied"] == 300
    problem(
        api.post(f"{url}/apply-credit", json={"amount": 801}), 422, "amount_exceeds_due", "amount"
    )
    problem(api.post(f"{url}/apply-credit", json={"amount": 700}), 409, "insufficient_credit")

    done(engine, api, api.post(f"{url}/apply-credit"))
    assert api.get(url).json()["credit_applied"] == 900


def test_an_invoice_is_mailed_again_on_demand(
    api: TestClient,
    invoice: dict[str, Any],
    finish: Finish,
    sendgrid_control: SendGridControl,
) -> None:
    api.patch("/v1/account", json={"notifications": {"invoice_ready": False}})

    for _ in range(2):
        finish(api.post(f"/v1/invoices/{invoice['id']}/send"))

    told = [mail.recipients for mail in sendgrid_control.mails()]
    assert told == [["ada@imports.example"]] * 3  # Finalizing it told the client first.


def test_nothing_is_sent_to_nobody_and_nothing_of_a_draft(
    engine: Engine, api: TestClient, invoice: dict[str, Any]
) -> None:
    a_charge(api, {"id": invoice["client"]})
    draft = a_draft(engine, api, invoice["client"])
    free = an_invoice(engine, api, invoice["client"], unit_price="0")
    problem(api.post(f"/v1/invoices/{free['id']}/send"), 409, "nothing_to_send")
    api.patch(f"/v1/clients/{invoice['client']}", json={"email": None})

    problem(api.post(f"/v1/invoices/{invoice['id']}/send"), 409, "no_email")
    problem(api.post(f"/v1/invoices/{draft['id']}/send"), 409, "invoice_not_open")


def test_credit_that_an_invoice_used_comes_back_when_it_is_voided(
    engine: Engine, api: TestClient, invoice: dict[str, Any]
) -> None:
    deposit(engine, api, invoice["client"], 500)
    url = f"/v1/invoices/{invoice['id']}"

    done(engine, api, api.post(f"{url}/void"))

    credit = api.get(f"/v1/clients/{invoice['client']}/credit").json()
    assert [one["balance"] for one in credit["balances"]] == [500]
    assert [entry["kind"] for entry in api.get(url).json()["credit"]] == ["applied", "returned"]


def test_a_command_repeated_under_its_key_is_done_once(
    engine: Engine, api: TestClient, invoice: dict[str, Any]
) -> None:
    url = f"/v1/invoices/{invoice['id']}"
    headers = {"Idempotency-Key": "monday-1"}

    first, again = (
        api.post(f"{url}/mark-paid", json={"amount": 100}, headers=headers) for _ in range(2)
    )

    assert first.json() == again.json()
    done(engine, api, first)
    assert api.get(url).json()["amount_paid"] == 100


def test_what_turns_out_wrong_when_the_job_runs_ends_it_with_the_same_code(
    engine: Engine, api: TestClient, invoice: dict[str, Any]
) -> None:
    url = f"/v1/invoices/{invoice['id']}"
    first = api.post(f"{url}/mark-paid")
    second = api.post(f"{url}/mark-paid")

    done(engine, api, first)

    job = api.get(second.headers["Location"]).json()
    assert (job["state"], job["reason"]) == ("skipped", "invoice_not_open")


@pytest.mark.parametrize(
    "command", ["finalize", "void", "charge", "mark-paid", "apply-credit", "send", "write-off"]
)
def test_an_unknown_invoice_is_not_found(api: TestClient, command: str) -> None:
    url = f"/v1/invoices/{uuid4()}"

    problem(api.post(f"{url}/{command}"), 404, "invoice_not_found")
    problem(api.delete(url), 404, "invoice_not_found")
