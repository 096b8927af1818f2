from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from gateways.sandbox.stripe.server import StripeSandbox
from models import Account, Client, Job, Mail
from tasks.calls import Gateways
from tasks.charging import charge_invoice
from tasks.drafting import draft_invoice
from tasks.finalizing import finalize_invoice
from tasks.mailing import announce_invoice, announcement
from tasks.marking_paid import mark_invoice_paid
from tests.cards import AUTHENTICATED, HARD, SOFT, do, give_card
from tests.mailbox import MAY_5, mails_of, monthly, switch
from tests.money import an_invoice, deposit, with_a_card
from tests.worlds import (
    NOW,
    a_charge,
    a_client,
    change,
    invoices_of,
    perform,
    tick,
    together,
    work,
)


def addressed(engine: Engine, account: Account, **fields: Any) -> Client:
    return a_client(engine, account, **{"email": "ada@maple.example", **fields})


def written(engine: Engine, client: Client) -> list[tuple[str, str, str | None]]:
    return [(mail.kind, mail.state, mail.reason) for mail in mails_of(engine, client)]


def sendings(engine: Engine) -> int:
    with Session(engine) as session:
        jobs = select(func.count()).select_from(Job).where(Job.kind == "send_mail")
        return session.scalars(jobs).one()


def test_an_invoice_finalized_by_hand_is_announced_once_with_what_is_due(
    engine: Engine, account: Account
) -> None:
    client = addressed(engine, account)
    invoice = an_invoice(engine, account, client)

    [mail] = mails_of(engine, client)
    assert (mail.kind, mail.state, mail.subject_key) == (
        "invoice_ready",
        "queued",
        f"invoice:{invoice.id}",
    )
    assert mail.told == {
        "due": {str(invoice.id): {"amount_due": 1000, "credit_applied": 0}},
        "charged": [],
        "carried": [],
    }
    assert sendings(engine) == 1
    with Session(engine) as session, session.begin():
        owner = session.get_one(Account, account.id)
        assert announce_invoice(session, owner, invoice.id, requested_by="test") == []
    assert len(mails_of(engine, client)) == sendings(engine) == 1


def test_it_says_that_the_card_will_be_charged_only_where_it_will_be(
    engine: Engine, account: Account
) -> None:
    client = addressed(engine, account)
    with_a_card(engine, account, client)
    by_hand = an_invoice(engine, account, client)
    by_itself = an_invoice(engine, account, client, collect=True)
    too_little = an_invoice(engine, account, client, "0.30", collect=True)
    # Nor does Stripe charge in North Korean won.
    elsewhere = an_invoice(engine, account, client, "90", currency="kpw", collect=True)
    # Of the dinar's three decimals it takes two.
    uneven = an_invoice(engine, account, client, "9.001", currency="kwd", collect=True)

    told = {mail.invoice_ids[0]: mail.told for mail in mails_of(engine, client)}
    assert {key: (len(one["charged"]), len(one["carried"])) for key, one in told.items()} == {
        by_hand.id: (0, 0),
        by_itself.id: (1, 0),
        too_little.id: (0, 1),
        elsewhere.id: (0, 0),
        uneven.id: (0, 0),
    }


@pytest.mark.parametrize(
    ("of_account", "of_client", "state"),
    [
        ({}, {}, "queued"),
        ({"invoice_ready": False}, {}, "suppressed"),
        ({}, {"invoice_ready": False}, "suppressed"),
        ({"invoice_ready": False}, {"invoice_ready": True}, "queued"),
        ({"receipt": False}, {"payment_failed": False}, "queued"),
    ],
)
def test_a_switch_keeps_a_mail_back_which_is_written_down_all_the_same(
    engine: Engine,
    account: Account,
    of_account: dict[str, bool],
    of_client: dict[str, bool],
    state: str,
) -> None:
    client = monthly(engine, account, "10.00")
    switch(engine, account, **of_account)
    switch(engine, client, **of_client)

    tick(engine, now=NOW)

    reason = None if state == "queued" else "switched_off"
    assert written(engine, client) == [("invoice_ready", state, reason)]
    assert sendings(engine) == (state == "queued")


def test_a_client_without_an_address_is_written_down_as_not_told(
    engine: Engine, account: Account
) -> None:
    nowhere = monthly(engine, account, "10.00", email=None)
    silent = monthly(engine, account, "10.00", email=None)
    switch(engine, silent, invoice_ready=False)

    tick(engine, now=NOW)

    assert written(engine, nowhere) == [("invoice_ready", "suppressed", "no_email")]
    assert written(engine, silent) == [("invoice_ready", "suppressed", "switched_off")]
    assert mails_of(engine, nowhere)[0].recipient == ""
    assert sendings(engine) == 0


def test_two_clients_with_one_address_are_told_one_by_one(engine: Engine, account: Account) -> None:
    clients = [monthly(engine, account, "10.00") for _ in range(2)]

    tick(engine, now=NOW)

    for client in clients:
        assert written(engine, client) == [("invoice_ready", "queued", None)]


def test_an_outside_payment_has_a_receipt_for_each_part(engine: Engine, account: Account) -> None:
    client = addressed(engine, account)
    invoice = an_invoice(engine, account, client)
    perform(engine, mark_invoice_paid, account, invoice_id=invoice.id, amount=400)
    perform(engine, mark_invoice_paid, account, invoice_id=invoice.id)

    _, *receipts = mails_of(engine, client)
    assert [mail.kind for mail in receipts] == ["receipt"] * 2
    assert [mail.invoice_ids for mail in receipts] == [[invoice.id]] * 2
    assert len({mail.payment_id for mail in receipts}) == 2


def test_a_deposit_has_a_receipt_that_names_no_invoice(engine: Engine, account: Account) -> None:
    client = addressed(engine, account)
    deposit(engine, account, client, 1000)

    [mail] = mails_of(engine, client)
    assert (mail.kind, mail.invoice_ids, mail.told) == ("receipt", [], {})


def test_a_card_has_a_receipt_whoever_charged_it(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = addressed(engine, account)
    give_card(engine, stripe_sandbox, client)
    by_staff = an_invoice(engine, account, client)
    do(engine, vendors, charge_invoice, account, invoice_id=by_staff.id)
    by_itself = an_invoice(engine, account, client, collect=True)
    work(engine, now=NOW, gateways=vendors, queues=["payments"])

    receipts = [mail for mail in mails_of(engine, client) if mail.kind == "receipt"]
    assert [mail.invoice_ids for mail in receipts] == [[by_staff.id], [by_itself.id]]
    assert all(mail.payment_id for mail in receipts)


@pytest.mark.parametrize(
    ("card", "kind"),
    [
        (SOFT, "payment_failed"),
        (HARD, "payment_failed"),
        (AUTHENTICATED, "authentication_needed"),
    ],
)
def test_a_declined_card_is_told_once_for_each_automatic_try(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    card: str,
    kind: str,
) -> None:
    client = addressed(engine, account)
    give_card(engine, stripe_sandbox, client, card)
    invoice = an_invoice(engine, account, client, collect=True)
    work(engine, now=NOW, gateways=vendors, queues=["payments"])
    work(engine, now=NOW, gateways=vendors, queues=["payments"])

    [_, failed] = mails_of(engine, client)
    assert (failed.kind, failed.invoice_ids) == (kind, [invoice.id])
    assert failed.subject_key == f"attempt:{failed.attempt_id}"


def test_staff_see_a_decline_themselves_so_that_the_client_is_not_told(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = addressed(engine, account)
    give_card(engine, stripe_sandbox, client, SOFT)
    invoice = an_invoice(engine, account, client)
    do(engine, vendors, charge_invoice, account, invoice_id=invoice.id)

    assert [mail.kind for mail in mails_of(engine, client)] == ["invoice_ready"]


def test_nothing_is_announced_of_a_draft(engine: Engine, account: Account) -> None:
    client = addressed(engine, account)
    a_charge(engine, client, MAY_5)
    perform(engine, draft_invoice, account, client_id=client.id)
    [draft] = invoices_of(engine, client)

    assert announcement(client, [draft], None, subject_key="x", wanted_by_staff=True) is None


def test_an_invoice_finalized_twice_at_once_is_announced_once(
    engine: Engine, account: Account
) -> None:
    client = addressed(engine, account)
    a_charge(engine, client, MAY_5)
    perform(engine, draft_invoice, account, client_id=client.id)
    [draft] = invoices_of(engine, client)

    together(*[partial(perform, engine, finalize_invoice, account, invoice_id=draft.id)] * 3)

    assert written(engine, client) == [("invoice_ready", "queued", None)]


def test_a_mail_goes_where_the_client_was_when_it_was_written(
    engine: Engine, account: Account
) -> None:
    client = monthly(engine, account, "10.00")
    tick(engine, now=NOW)
    change(engine, client, email="new@maple.example")
    a_charge(engine, client, NOW.date())
    tick(engine, now=NOW + timedelta(days=30))

    recipients = [mail.recipient for mail in mails_of(engine, client)]
    assert recipients == ["ada@maple.example", "new@maple.example"]


def test_every_mail_knows_who_asked(engine: Engine, account: Account) -> None:
    client = monthly(engine, account, "10.00")
    tick(engine, now=NOW)

    with Session(engine) as session:
        job_id = session.scalars(select(Job.id).where(Job.kind == "bill_due_periods")).one()
        sent = session.scalars(select(Job).where(Job.kind == "send_mail")).one()
        mail = session.scalars(select(Mail).where(Mail.client_id == client.id)).one()
    assert mail.requested_by == sent.requested_by == f"job:{job_id}"
    assert (sent.account_id, sent.args) == (account.id, {"mail_id": str(mail.id)})
