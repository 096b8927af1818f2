"""Voiding: what credit had paid comes back, and money that may be moving is never voided away."""

from datetime import timedelta

from tasks.voiding import void_invoice
from tests.stories.conftest import JUNE, Till
from tests.worlds import audited

BANK_DEBIT = "pm_usBankAccount_success"


def test_a_void_gives_back_the_credit_it_had_used_once(till: Till) -> None:
    ada = till.client("Ada Imports", "pm_card_chargeDeclinedInsufficientFunds")
    till.deposit(ada, 400)
    till.bill_may()
    invoice = till.invoice(ada)
    assert (invoice.credit_applied, invoice.amount_due, till.balance(ada)) == (400, 600, 0)

    jobs = [till.ask(void_invoice, invoice_id=invoice.id) for _ in range(2)]
    till.work(JUNE)

    assert sorted(till.ended(job) for job in jobs) == [
        ("skipped", "invoice_not_open"),
        ("succeeded", None),
    ]
    assert (till.invoice(ada).status, till.invoice(ada).amount_due) == ("void", 0)
    assert till.balance(ada) == 400
    till.sweep(JUNE + timedelta(days=3, hours=10))
    assert [attempt.state for attempt in till.attempts(ada)] == ["declined"]
    assert till.charged(ada) == []
    assert audited(till.engine, till.account) == []


def test_an_invoice_whose_debit_is_under_way_is_voided_only_once_it_failed(till: Till) -> None:
    till.stripe.set(settle_after=None)
    paid, returned = (till.client(name, BANK_DEBIT) for name in ("Ada Imports", "Bell Books"))
    till.bill_may()
    assert [till.attempts(client)[0].state for client in (paid, returned)] == ["processing"] * 2
    refused = [
        till.ask(void_invoice, invoice_id=till.invoice(client).id) for client in (paid, returned)
    ]
    till.work(JUNE)
    assert {till.ended(job) for job in refused} == {("skipped", "payment_in_flight")}

    till.stripe.settle(str(till.attempts(paid)[0].payment_intent))
    till.stripe.settle(str(till.attempts(returned)[0].payment_intent), "insufficient_funds")
    till.hear("payment_intent.succeeded")
    till.hear("payment_intent.payment_failed")
    till.work(JUNE)
    too_late = till.ask(void_invoice, invoice_id=till.invoice(paid).id)
    voided = till.ask(void_invoice, invoice_id=till.invoice(returned).id)
    till.work(JUNE)

    assert till.ended(too_late) == ("skipped", "invoice_not_open")
    assert till.ended(voided) == ("succeeded", None)
    assert till.invoice(paid).status == "paid"
    assert till.invoice(returned).status == "void"
    assert (till.charged(paid), till.charged(returned)) == ([1_000], [])
    assert audited(till.engine, till.account) == []


def test_what_waits_for_the_client_is_withdrawn_at_stripe_before_the_void(till: Till) -> None:
    ada = till.client("Ada Imports", "pm_card_authenticationRequired")
    till.bill_may()
    assert [attempt.state for attempt in till.attempts(ada)] == ["needs_action"]

    voided = till.ask(void_invoice, invoice_id=till.invoice(ada).id)
    till.work(JUNE)

    assert till.ended(voided) == ("succeeded", None)
    assert till.invoice(ada).status == "void"
    assert [attempt.state for attempt in till.attempts(ada)] == ["canceled"]
    assert [intent["status"] for intent in till.stripe.payment_intents()] == ["canceled"]
    assert audited(till.engine, till.account) == []
