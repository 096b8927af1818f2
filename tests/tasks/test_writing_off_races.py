"""Invoices that are given up while something else is done with them."""

from functools import partial

from sqlalchemy import Engine

from billing.errors import RuleViolation
from gateways.sandbox.stripe.server import StripeSandbox
from models import Account
from tasks.calls import Gateways
from tasks.charging import charge_invoice
from tasks.marking_paid import mark_invoice_paid
from tasks.outcomes import Done
from tasks.voiding import void_invoice
from tasks.writing_off import write_off_invoice
from tests.cards import (
    QUEUES,
    a_client_with,
    an_open_invoice,
    ask,
    assert_books_agree,
    attempts_of,
    charged,
)
from tests.jobs import job_of
from tests.money import an_invoice, assert_no_money_is_lost, balances, deposit, invoice_of
from tests.worlds import NOW, a_client, perform, together, work

ROUNDS = 15


def test_two_presses_write_off_once(engine: Engine, account: Account) -> None:
    client = a_client(engine, account)
    for _ in range(ROUNDS):
        invoice = an_invoice(engine, account, client)
        write_off = partial(perform, engine, write_off_invoice, account, invoice_id=invoice.id)

        outcomes = together(write_off, write_off)

        assert [isinstance(one, Done) for one in outcomes].count(True) == 1, outcomes
        assert invoice_of(engine, invoice.id).amount_written_off == 1000

    assert_no_money_is_lost(engine, account)


def test_a_part_that_is_paid_meanwhile_is_not_written_off_or_is_recovered(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    for _ in range(ROUNDS):
        invoice = an_invoice(engine, account, client)

        outcomes = together(
            partial(perform, engine, write_off_invoice, account, invoice_id=invoice.id),
            partial(perform, engine, mark_invoice_paid, account, invoice_id=invoice.id, amount=300),
        )

        assert all(isinstance(one, Done) for one in outcomes), outcomes
        after = invoice_of(engine, invoice.id)
        assert (after.status, after.amount_paid, after.amount_written_off) == (
            "uncollectible",
            300,
            700,
        )

    assert_no_money_is_lost(engine, account)


def test_two_that_pay_what_was_given_up_at_once_pay_it_once(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    for _ in range(ROUNDS):
        invoice = an_invoice(engine, account, client)
        perform(engine, write_off_invoice, account, invoice_id=invoice.id)
        pay = partial(perform, engine, mark_invoice_paid, account, invoice_id=invoice.id)

        outcomes = together(pay, pay)

        assert [isinstance(one, Done) for one in outcomes].count(True) == 1, outcomes
        after = invoice_of(engine, invoice.id)
        assert (after.status, after.amount_paid) == ("paid", 1000)

    assert balances(engine, client) == {}
    assert_no_money_is_lost(engine, account)


def test_what_was_given_up_is_either_voided_or_paid(engine: Engine, account: Account) -> None:
    client = a_client(engine, account)
    for _ in range(ROUNDS):
        invoice = an_invoice(engine, account, client)
        perform(engine, write_off_invoice, account, invoice_id=invoice.id)

        outcomes = together(
            partial(perform, engine, void_invoice, account, invoice_id=invoice.id),
            partial(perform, engine, mark_invoice_paid, account, invoice_id=invoice.id),
        )

        [loser] = [one for one in outcomes if isinstance(one, Exception)]
        assert isinstance(loser, RuleViolation), loser
        assert invoice_of(engine, invoice.id).status == (
            "void" if isinstance(outcomes[0], Done) else "paid"
        )

    assert_no_money_is_lost(engine, account)


def test_credit_that_comes_meanwhile_pays_a_debt_or_stays_with_the_client(
    engine: Engine, account: Account
) -> None:
    for _ in range(ROUNDS):
        client = a_client(engine, account)
        invoice = an_invoice(engine, account, client)

        together(
            partial(perform, engine, write_off_invoice, account, invoice_id=invoice.id),
            partial(deposit, engine, account, client, 400),
        )

        after = invoice_of(engine, invoice.id)
        kept = balances(engine, client).get("usd", 0)
        assert (after.status, after.credit_applied + kept) == ("uncollectible", 400)
        assert after.amount_written_off == 1000 - after.credit_applied

    assert_no_money_is_lost(engine, account)


def test_of_a_write_off_and_a_charge_at_once_one_is_refused(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    for _ in range(6):
        invoice_id = an_open_invoice(engine, account, client, collect=False)
        write_off = ask(engine, write_off_invoice, account, invoice_id=invoice_id)
        charge = ask(engine, charge_invoice, account, invoice_id=invoice_id)

        together(
            partial(work, engine, now=NOW, gateways=vendors, queues=("billing",)),
            partial(work, engine, now=NOW, gateways=vendors, queues=("payments",)),
        )
        work(engine, now=NOW, gateways=vendors, queues=QUEUES)

        after = invoice_of(engine, invoice_id)
        ended = job_of(engine, write_off).state, job_of(engine, charge).state
        assert ended in {("succeeded", "skipped"), ("skipped", "succeeded")}
        assert after.status == ("uncollectible" if ended[0] == "succeeded" else "paid")
        assert len(attempts_of(engine, invoice_id)) == (after.status == "paid")

    assert_books_agree(engine, account, stripe_sandbox, charges=charged(stripe_sandbox))
