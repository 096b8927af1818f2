"""A client's bank takes a payment back: for a while, or for good."""

from datetime import datetime, timedelta
from typing import Literal

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from billing.cycles import Period
from models import Account, BillingMethod, Client, Dispute, PaymentAttempt
from tasks.charging import charge_invoice
from tasks.marking_paid import mark_invoice_paid
from tasks.payment_refunds import refund_payment
from tasks.statements import client_statement
from tasks.voiding import void_invoice
from tests.stories.conftest import JUNE, MAY, Till
from tests.worlds import a_charge, audited, tick

DAY = timedelta(days=1)
JULY = JUNE + 30 * DAY


def dispute(till: Till, client: Client, *, now: datetime) -> str:
    """The client's bank takes its only payment back, and we are told."""
    [payment] = till.payments(client)
    with Session(till.engine) as session:
        attempt = session.get_one(PaymentAttempt, payment.attempt_id)
    made = till.stripe.dispute(str(attempt.payment_intent))
    hear(till, now)
    return str(made["id"])


def decide(till: Till, found: str, outcome: Literal["won", "lost"], *, now: datetime) -> Dispute:
    till.stripe.close_dispute(found, outcome)
    hear(till, now)
    with Session(till.engine) as session:
        return session.scalars(select(Dispute).where(Dispute.stripe_dispute == found)).one()


def hear(till: Till, now: datetime) -> None:
    for told in ("created", "updated", "funds_withdrawn", "closed", "funds_reinstated"):
        till.hear(f"charge.dispute.{told}")
    till.work(now)


def bill_june(till: Till, client: Client) -> None:
    a_charge(till.engine, client, (JUNE + 5 * DAY).date(), "20.00")
    tick(till.engine, now=JULY)
    till.work(JULY)
    till.sweep(JULY + timedelta(minutes=1))


def stopped_for(till: Till, client: Client) -> str | None:
    with Session(till.engine) as session:
        return session.get_one(BillingMethod, client.id).stopped_for


def test_a_dispute_is_won_and_what_waited_for_it_is_charged(till: Till) -> None:
    client = till.client("Ada Imports")
    till.bill_may()
    assert till.invoice(client).status == "paid"

    # The client does not know the name on its card's statement, and asks its bank.
    found = dispute(till, client, now=JUNE + 10 * DAY)
    assert till.invoice(client).status == "paid"
    assert stopped_for(till, client) == "disputed"

    # June is billed while the bank thinks: its card is left alone.
    bill_june(till, client)
    assert [one.status for one in till.invoices(client)] == ["paid", "open"]
    assert till.charged(client) == [1000]
    assert audited(till.engine, till.account, now=JULY) == []

    won = decide(till, found, "won", now=JULY + 5 * DAY)

    assert (won.state, won.reopened) == ("won", 0)
    assert [one.status for one in till.invoices(client)] == ["paid", "paid"]
    assert till.charged(client) == [1000, 2000]
    assert audited(till.engine, till.account, now=JULY + 5 * DAY) == []


def test_a_lost_dispute_is_collected_again_by_hand(till: Till) -> None:
    client = till.client("Ada Imports")
    till.bill_may()
    found = dispute(till, client, now=JUNE + 10 * DAY)

    lost = decide(till, found, "lost", now=JUNE + 40 * DAY)

    assert (lost.state, lost.reopened) == ("lost", 1000)
    invoice = till.invoice(client)
    assert (invoice.status, invoice.amount_due, invoice.auto_collect) == ("open", 1000, False)
    till.sweep(JUNE + 60 * DAY)
    assert till.charged(client) == [1000]

    # It was a misunderstanding: the client pays by transfer.
    till.ask(mark_invoice_paid, invoice_id=invoice.id)
    till.work(JUNE + 61 * DAY)

    invoice = till.invoice(client)
    assert (invoice.status, invoice.amount_paid, invoice.amount_refunded) == ("paid", 2000, 1000)
    assert audited(till.engine, till.account, now=JUNE + 61 * DAY) == []


def test_a_lost_dispute_is_borne_by_an_account_that_wants_that(till: Till) -> None:
    with Session(till.engine) as session, session.begin():
        session.get_one(Account, till.account.id).dispute_lost = "write_off"
    client = till.client("Ada Imports")
    till.bill_may()
    found = dispute(till, client, now=JUNE + 10 * DAY)

    lost = decide(till, found, "lost", now=JUNE + 40 * DAY)

    assert (lost.written_off, lost.reopened) == (1000, 0)
    invoice = till.invoice(client)
    assert (invoice.status, invoice.amount_due, invoice.amount_refunded) == ("paid", 0, 0)
    # A new card is charged for what comes; the old debt is nobody's.
    till.put_on_card(client, "pm_card_mastercard", now=JUNE + 41 * DAY)
    bill_june(till, client)
    assert [one.status for one in till.invoices(client)] == ["paid", "paid"]
    assert till.charged(client) == [2000]
    assert audited(till.engine, till.account, now=JULY) == []


@pytest.mark.parametrize("ends", ["voided", "paid"])
def test_a_payment_goes_back_the_debt_is_there_again_and_is_ended(till: Till, ends: str) -> None:
    client = till.client("Ada Imports")
    till.bill_may()
    [payment] = till.payments(client)

    till.ask(refund_payment, payment_id=payment.id, to="card", credit_note=False)
    till.work(JUNE + DAY)
    invoice = till.invoice(client)
    assert (invoice.status, invoice.amount_due, invoice.amount_refunded) == ("open", 1000, 1000)

    # Nothing is kept of it, so it is voided like one that was never paid.
    if ends == "voided":
        till.ask(void_invoice, invoice_id=invoice.id)
    else:
        till.ask(charge_invoice, invoice_id=invoice.id)
    till.work(JUNE + 2 * DAY)

    invoice = till.invoice(client)
    assert (invoice.status, invoice.amount_due) == (
        ("void", 0) if ends == "voided" else ("paid", 0)
    )
    assert till.balance(client) == 0
    [sent_back] = till.stripe.objects("refund")
    assert sent_back["amount"] == 1000
    assert audited(till.engine, till.account, now=JUNE + 2 * DAY) == []


def test_a_statement_tells_what_the_bank_took_back(till: Till) -> None:
    client = till.client("Ada Imports")
    till.bill_may()
    found = dispute(till, client, now=JUNE + 10 * DAY)
    decide(till, found, "lost", now=JUNE + 12 * DAY)

    with Session(till.engine) as session:
        statement = client_statement(
            session,
            session.get_one(Account, till.account.id),
            session.get_one(Client, client.id),
            currency="usd",
            period=Period(MAY.date(), JULY.date()),
        ).statement

    told = [(line.movement.kind, line.movement.amount) for line in statement.lines]
    assert told == [("invoice", 1000), ("payment", -1000), ("refund", 1000)]
    assert statement.closing_balance == 1000
