"""Disputes that meet something else at the same moment: no money is given back twice."""

from functools import partial

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from billing.errors import RuleViolation
from gateways.disputes import DisputeReport, DisputeStatus
from gateways.sandbox.stripe.server import StripeSandbox
from models import Account, Payment
from tasks.calls import Call, Gateways
from tasks.disputes import settle_dispute
from tasks.marking_paid import mark_invoice_paid
from tasks.outcomes import Done
from tasks.payment_refunds import refund_payment, refund_payment_to_card
from tasks.voiding import void_invoice
from tests.cards import a_client_with, sweep
from tests.disputes import disputes_of, intent_of
from tests.money import assert_no_money_is_lost, balances, invoice_of
from tests.refunds import a_payment_by_card, refund
from tests.worlds import NOW, perform, together

ROUNDS = 6
LATER = NOW.replace(hour=13)


def tell(engine: Engine, payment: Payment, status: DisputeStatus, name: str = "du") -> None:
    """The news of a dispute of all that a payment was, as an event's job writes it down."""
    report = DisputeReport(
        dispute=f"{name}_{payment.id}",
        payment_intent=intent_of(engine, payment),
        amount=payment.amount,
        currency=payment.currency,
        status=status,
        reason="fraudulent",
        evidence_due_at=None,
        created_at=NOW,
    )
    with Session(engine) as session, session.begin():
        known = session.scalars(select(Payment).where(Payment.id == payment.id)).one()
        settle_dispute(session, known, report, told_at=NOW, now=NOW, requested_by="stripe")


def test_news_of_one_dispute_at_once_is_booked_once(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    for _ in range(ROUNDS):
        payment = a_payment_by_card(engine, account, vendors, client)
        outcomes = together(
            partial(tell, engine, payment, DisputeStatus.NEEDS_RESPONSE),
            partial(tell, engine, payment, DisputeStatus.LOST),
            partial(tell, engine, payment, DisputeStatus.LOST),
            partial(tell, engine, payment, DisputeStatus.UNDER_REVIEW),
        )
        assert outcomes == [None] * 4

    assert [one.state for one in disputes_of(engine)] == ["lost"] * ROUNDS
    assert_no_money_is_lost(engine, account)


@pytest.mark.parametrize("to", ["credit", "outside"])
def test_a_dispute_and_a_refund_at_once_give_no_more_back_than_came(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox, to: str
) -> None:
    for _ in range(ROUNDS):
        client = a_client_with(engine, account, stripe_sandbox)
        payment = a_payment_by_card(engine, account, vendors, client)
        refunded, disputed = together(
            partial(
                perform,
                engine,
                refund_payment,
                account,
                payment_id=payment.id,
                to=to,
                credit_note=False,
            ),
            partial(tell, engine, payment, DisputeStatus.NEEDS_RESPONSE),
        )
        assert disputed is None
        is_refunded = isinstance(refunded, Done)
        assert is_refunded or refunded.code == "payment_disputed"

        tell(engine, payment, DisputeStatus.LOST)

        invoice = invoice_of(engine, payment.invoice_id or payment.id)
        assert (invoice.status, invoice.amount_due) == ("open", 1000)
        # What was given back before is taken back: the bank gave the same money once more.
        taken = {"credit": {}, "outside": {"usd": -1000}}[to] if is_refunded else {}
        assert balances(engine, client) == taken

    assert_no_money_is_lost(engine, account)


def test_a_refund_under_way_when_the_dispute_is_lost_is_counted_once(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    for _ in range(ROUNDS):
        client = a_client_with(engine, account, stripe_sandbox)
        payment = a_payment_by_card(engine, account, vendors, client)
        step = perform(
            engine,
            refund_payment_to_card,
            account,
            payment_id=payment.id,
            amount=400,
            credit_note=False,
        )
        assert isinstance(step, Call)
        together(
            partial(sweep, engine, vendors, now=LATER),
            partial(tell, engine, payment, DisputeStatus.LOST),
        )
        sweep(engine, vendors, now=LATER)
        invoice = invoice_of(engine, payment.invoice_id or payment.id)
        # The client has 600 + 400 of its money back, and 400 more by the bank.
        assert (invoice.amount_due, balances(engine, client)) in [
            (1000, {"usd": -400}),
            # Not asked for yet: it may still be refused.
            (600, {"usd": -400}),
        ]

    assert_no_money_is_lost(engine, account)


def test_of_a_lost_dispute_and_a_payment_at_once_both_count(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    for _ in range(ROUNDS):
        client = a_client_with(engine, account, stripe_sandbox)
        payment = a_payment_by_card(engine, account, vendors, client)
        lost, paid = together(
            partial(tell, engine, payment, DisputeStatus.LOST),
            partial(perform, engine, mark_invoice_paid, account, invoice_id=payment.invoice_id),
        )
        assert lost is None
        invoice = invoice_of(engine, payment.invoice_id or payment.id)
        if isinstance(paid, Done):
            assert (invoice.status, invoice.amount_paid) == ("paid", 2000)
        else:
            assert isinstance(paid, RuleViolation)
            assert (invoice.status, invoice.amount_due) == ("open", 1000)

    assert_no_money_is_lost(engine, account)


def test_of_a_lost_dispute_and_a_void_at_once_the_client_keeps_nothing_twice(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    for _ in range(ROUNDS):
        client = a_client_with(engine, account, stripe_sandbox)
        payment = a_payment_by_card(engine, account, vendors, client)
        refund(engine, vendors, account, payment, amount=400, credit_note=False)
        lost, void = together(
            partial(tell, engine, payment, DisputeStatus.LOST),
            partial(
                perform,
                engine,
                void_invoice,
                account,
                invoice_id=payment.invoice_id,
                settle="credit",
            ),
        )
        assert lost is None
        assert isinstance(void, Done)
        assert invoice_of(engine, payment.invoice_id or payment.id).status == "void"
        # Of 1000 paid it has 400 by the refund and 1000 by the bank.
        assert balances(engine, client) == {"usd": -400}

    assert_no_money_is_lost(engine, account)


def test_two_disputes_of_one_payment_at_once_take_no_more_than_it_was(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    for _ in range(ROUNDS):
        client = a_client_with(engine, account, stripe_sandbox)
        payment = a_payment_by_card(engine, account, vendors, client)
        together(
            partial(tell, engine, payment, DisputeStatus.LOST, "du_a"),
            partial(tell, engine, payment, DisputeStatus.LOST, "du_b"),
        )
        invoice = invoice_of(engine, payment.invoice_id or payment.id)
        assert (invoice.status, invoice.amount_due) == ("open", 1000)
        assert balances(engine, client) == {"usd": -1000}

    assert_no_money_is_lost(engine, account)
