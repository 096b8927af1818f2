"""Money given back by two at the same moment: no more goes back than came."""

from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine

from billing.errors import InvalidInput, RuleViolation
from gateways.sandbox.stripe.server import StripeSandbox
from models import Account, Client, Payment
from tasks.calls import Call, Gateways
from tasks.charging import charge_invoice
from tasks.invoice_credits import credit_invoice
from tasks.marking_paid import mark_invoice_paid
from tasks.outcomes import Done
from tasks.payment_refunds import refund_payment, refund_payment_to_card
from tasks.voiding import void_invoice
from tasks.writing_off import write_off_invoice
from tests.cards import a_client_with, charged, sweep
from tests.money import (
    an_invoice,
    assert_no_money_is_lost,
    balances,
    invoice_of,
    payments_of,
)
from tests.refunds import (
    a_payment_by_card,
    assert_stripe_agrees,
    notes_of,
    refund,
    refund_states,
    sent_back,
)
from tests.worlds import NOW, a_client, perform, together

ROUNDS = 6
LATER = NOW.replace(hour=13)


def codes(outcomes: list[Any]) -> list[str]:
    """How each ended: its code where it was refused."""
    return sorted(
        one.code if isinstance(one, InvalidInput | RuleViolation) else type(one).__name__.lower()
        for one in outcomes
    )


def an_outside_payment(engine: Engine, account: Account, client: Client) -> Payment:
    invoice = an_invoice(engine, account, client)
    perform(engine, mark_invoice_paid, account, invoice_id=invoice.id)
    return payments_of(engine, client)[-1]


@pytest.mark.parametrize("credit_note", [True, False])
def test_two_refunds_at_once_send_one_to_the_card(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    credit_note: bool,
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    for _ in range(ROUNDS):
        payment = a_payment_by_card(engine, account, vendors, client)
        ask = partial(
            perform,
            engine,
            refund_payment_to_card,
            account,
            payment_id=payment.id,
            credit_note=credit_note,
        )
        assert codes(together(ask, ask)) == ["call", "refund_in_flight"]
        sweep(engine, vendors, now=LATER)

    assert refund_states(engine) == ["succeeded"] * ROUNDS
    assert sent_back(stripe_sandbox) == [1000] * ROUNDS
    assert_stripe_agrees(engine, account, stripe_sandbox)


def test_two_refunds_at_once_give_no_more_than_was_paid(engine: Engine, account: Account) -> None:
    client = a_client(engine, account)
    for _ in range(ROUNDS):
        payment = an_outside_payment(engine, account, client)
        ask = partial(perform, engine, refund_payment, account, payment_id=payment.id, to="outside")
        outcomes = together(partial(ask, amount=600), partial(ask, amount=600))
        assert codes(outcomes) == ["amount_exceeds_paid", "done"]

    assert_no_money_is_lost(engine, account)


def test_two_notes_at_once_credit_no_more_than_the_invoice(
    engine: Engine, account: Account
) -> None:
    for _ in range(ROUNDS):
        client = a_client(engine, account)
        payment = an_outside_payment(engine, account, client)
        ask = partial(
            perform,
            engine,
            credit_invoice,
            account,
            invoice_id=payment.invoice_id,
            amount=600,
            to="credit",
        )
        assert codes(together(ask, ask)) == ["amount_exceeds_invoice", "done"]
        assert balances(engine, client) == {"usd": 600}

    assert [one.number for one in notes_of(engine)] == [
        f"CN-{number:06}" for number in range(1, ROUNDS + 1)
    ]
    assert_no_money_is_lost(engine, account)


def test_notes_of_many_clients_at_once_have_numbers_without_a_gap(
    engine: Engine, account: Account
) -> None:
    invoices = [an_invoice(engine, account, a_client(engine, account)) for _ in range(8)]

    outcomes = together(
        *(
            partial(
                perform,
                engine,
                credit_invoice,
                account,
                invoice_id=invoice.id,
                amount=100,
                to="credit",
            )
            for invoice in invoices
        )
    )

    assert codes(outcomes) == ["done"] * 8
    assert [one.sequence for one in notes_of(engine)] == [*range(1, 9)]
    assert_no_money_is_lost(engine, account)


def test_a_note_and_a_payment_at_once_leave_what_was_paid_too_much_as_credit(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    for _ in range(ROUNDS):
        invoice = an_invoice(engine, account, client)
        outcomes = together(
            partial(
                perform,
                engine,
                credit_invoice,
                account,
                invoice_id=invoice.id,
                amount=400,
                to="credit",
            ),
            partial(perform, engine, mark_invoice_paid, account, invoice_id=invoice.id),
        )
        assert codes(outcomes) == ["done", "done"]
        one = invoice_of(engine, invoice.id)
        assert (one.status, one.amount_credited) == ("paid", 400)
        assert one.amount_paid + one.credit_applied - one.amount_refunded == 600

    assert_no_money_is_lost(engine, account)


def test_a_note_and_a_payment_at_once_of_what_was_given_up_take_no_more_than_that(
    engine: Engine, account: Account
) -> None:
    for _ in range(ROUNDS):
        # Another one each time: what a note left as credit would pay the next invoice.
        invoice = an_invoice(engine, account, a_client(engine, account))
        perform(engine, write_off_invoice, account, invoice_id=invoice.id)
        of_invoice: dict[str, Any] = {"invoice_id": invoice.id, "amount": 700}

        outcomes = together(
            partial(perform, engine, credit_invoice, account, **of_invoice, to="credit"),
            partial(perform, engine, mark_invoice_paid, account, **of_invoice),
        )

        one = invoice_of(engine, invoice.id)
        if codes(outcomes) == ["amount_exceeds_due", "done"]:
            # The note came first: what is left of the debt is less than was to be paid.
            assert (one.status, one.amount_written_off, one.amount_paid) == (
                "uncollectible",
                300,
                0,
            )
        else:
            assert codes(outcomes) == ["done", "done"]
            assert (one.status, one.amount_credited, one.amount_refunded) == ("paid", 700, 400)
        assert_no_money_is_lost(engine, account)


def test_a_note_and_a_charge_at_once_never_charge_what_was_credited(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    taken = []
    for _ in range(ROUNDS):
        invoice = an_invoice(engine, account, client)
        outcomes = together(
            partial(
                perform,
                engine,
                credit_invoice,
                account,
                invoice_id=invoice.id,
                amount=400,
                to="credit",
            ),
            partial(perform, engine, charge_invoice, account, invoice_id=invoice.id),
        )
        noted = isinstance(outcomes[0], Done)
        assert isinstance(outcomes[1], Call)
        assert noted or codes(outcomes[:1]) == ["payment_in_flight"]
        taken.append(600 if noted else 1000)
        sweep(engine, vendors, now=LATER)
        assert invoice_of(engine, invoice.id).status == "paid"

    assert charged(stripe_sandbox) == taken
    assert_no_money_is_lost(engine, account)


def test_of_a_void_and_a_refund_at_once_one_is_refused(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    for _ in range(ROUNDS):
        # Another one each time: what a void left as credit would pay the next invoice.
        client = a_client_with(engine, account, stripe_sandbox)
        payment = a_payment_by_card(engine, account, vendors, client)
        refund(engine, vendors, account, payment, amount=400, credit_note=False)
        void, refunded = together(
            partial(
                perform,
                engine,
                void_invoice,
                account,
                invoice_id=payment.invoice_id,
                settle="credit",
            ),
            partial(perform, engine, refund_payment_to_card, account, payment_id=payment.id),
        )
        lost = refunded if isinstance(void, Done) else void
        assert codes([lost])[0] in {"invoice_not_open", "refund_in_flight"}
        sweep(engine, vendors, now=LATER)

    assert_stripe_agrees(engine, account, stripe_sandbox)
    assert_no_money_is_lost(engine, account)


def test_a_refund_and_its_own_answer_by_event_and_by_question_are_booked_once(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    for _ in range(ROUNDS):
        payment = a_payment_by_card(engine, account, vendors, client)
        step = perform(engine, refund_payment_to_card, account, payment_id=payment.id)
        assert isinstance(step, Call)
        together(
            partial(sweep, engine, vendors, now=LATER),
            partial(sweep, engine, vendors, now=LATER),
        )

    assert len(notes_of(engine)) == ROUNDS
    assert_stripe_agrees(engine, account, stripe_sandbox)
