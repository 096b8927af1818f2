from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from billing.errors import NotFound, RuleViolation
from gateways.sandbox.sendgrid.client import SendGridControl
from models import Account, Client
from tasks.accounts import create_account
from tasks.announcing import send_invoice
from tasks.calls import Gateways
from tasks.charging import charge_invoice
from tasks.marking_paid import mark_invoice_paid
from tasks.voiding import void_invoice
from tests.mailbox import inbox, mails_of, send, switch
from tests.money import a_draft, an_invoice, deposit, with_a_card
from tests.worlds import NOW, a_client, change, perform, together


def addressed(engine: Engine, account: Account, **fields: Any) -> Client:
    return a_client(engine, account, **{"email": "ada@maple.example", **fields})


def sent(engine: Engine, client: Client) -> list[tuple[str, int, str]]:
    return [(mail.kind, mail.sending, mail.state) for mail in mails_of(engine, client)]


def test_staff_send_an_invoice_again_as_often_as_they_ask_whatever_is_switched_off(
    engine: Engine, account: Account, vendors: Gateways, sendgrid_control: SendGridControl
) -> None:
    client = addressed(engine, account)
    for owner in (account, client):
        switch(engine, owner, invoice_ready=False)
    invoice = an_invoice(engine, account, client)
    for _ in range(2):
        perform(engine, send_invoice, account, invoice_id=invoice.id)

    assert sent(engine, client) == [
        ("invoice_ready", 1, "suppressed"),
        ("invoice_ready", 2, "queued"),
        ("invoice_ready", 3, "queued"),
    ]
    send(engine, vendors)
    assert [mail.subject for mail in inbox(sendgrid_control)] == [
        "Invoice Ready For Payment: INV-000001 from Bluebird Prep"
    ] * 2


def test_it_goes_to_the_clients_address_of_now(engine: Engine, account: Account) -> None:
    client = addressed(engine, account)
    invoice = an_invoice(engine, account, client)
    change(engine, client, email="new@maple.example")

    perform(engine, send_invoice, account, invoice_id=invoice.id)

    assert [mail.recipient for mail in mails_of(engine, client)] == [
        "ada@maple.example",
        "new@maple.example",
    ]


def test_staff_who_ask_at_once_each_send_one(engine: Engine, account: Account) -> None:
    client = addressed(engine, account)
    invoice = an_invoice(engine, account, client)

    together(*[partial(perform, engine, send_invoice, account, invoice_id=invoice.id)] * 4)

    assert [mail.sending for mail in mails_of(engine, client)] == [1, 2, 3, 4, 5]


def test_a_paid_invoice_is_sent_as_a_receipt_that_names_what_paid_it(
    engine: Engine, account: Account, vendors: Gateways, sendgrid_control: SendGridControl
) -> None:
    client = addressed(engine, account)
    by_money = an_invoice(engine, account, client)
    perform(engine, mark_invoice_paid, account, invoice_id=by_money.id)
    deposit(engine, account, client, 1000)
    by_credit = an_invoice(engine, account, client)
    with_a_card(engine, account, client)
    carried = an_invoice(engine, account, client, "0.30")
    perform(engine, charge_invoice, account, invoice_id=carried.id)
    send(engine, vendors)
    before = len(inbox(sendgrid_control))

    for invoice in (by_money, by_credit, carried):
        perform(engine, send_invoice, account, invoice_id=invoice.id)
    send(engine, vendors)

    paid, settled, left = inbox(sendgrid_control)[before:]
    assert paid.subject == left.subject == "Receipt from Bluebird Prep"
    assert settled.subject == "Receipt: INV-000002 from Bluebird Prep paid from your credit"
    for mail in (paid, left):
        assert mail.says("Status: Paid", "There is nothing left to pay on this invoice.")
        assert not mail.says("credit balance")
    assert [*left.attached] == ["INV-000003.pdf"]


@pytest.mark.parametrize(
    ("price", "code"), [("0.00", "nothing_to_send"), ("-5.00", "nothing_to_send")]
)
def test_what_asks_for_nothing_is_not_sent(
    engine: Engine, account: Account, price: str, code: str
) -> None:
    client = addressed(engine, account)
    invoice = an_invoice(engine, account, client, price)

    with pytest.raises(RuleViolation) as refused:
        perform(engine, send_invoice, account, invoice_id=invoice.id)
    assert refused.value.code == code
    assert mails_of(engine, client) == []


def test_a_draft_and_a_void_invoice_are_not_sent(engine: Engine, account: Account) -> None:
    client = addressed(engine, account)
    void = an_invoice(engine, account, client)
    perform(engine, void_invoice, account, invoice_id=void.id)
    for invoice in (void, a_draft(engine, account, client)):
        with pytest.raises(RuleViolation) as refused:
            perform(engine, send_invoice, account, invoice_id=invoice.id)
        assert refused.value.code == "invoice_not_open"


def test_a_client_without_an_address_cannot_be_sent_anything(
    engine: Engine, account: Account
) -> None:
    client = addressed(engine, account, email=None)
    invoice = an_invoice(engine, account, client)

    with pytest.raises(RuleViolation) as refused:
        perform(engine, send_invoice, account, invoice_id=invoice.id)
    assert refused.value.code == "no_email"


def test_another_accounts_invoice_is_not_there(engine: Engine, account: Account) -> None:
    invoice = an_invoice(engine, account, addressed(engine, account))
    with Session(engine, expire_on_commit=False) as session, session.begin():
        other = create_account(session, "Other")

    for owner, invoice_id in ((other, invoice.id), (account, uuid4())):
        with pytest.raises(NotFound):
            perform(engine, send_invoice, owner, invoice_id=invoice_id, now=NOW)
