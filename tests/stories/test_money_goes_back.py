"""A client is given back what it paid by card: in part for good, in part to pay it again."""

from datetime import date, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from billing.card_amounts import from_stripe
from models import CreditNote, Refund
from tasks.charging import charge_invoice
from tasks.payment_refunds import refund_payment_to_card
from tests.stories.conftest import JUNE, Till
from tests.worlds import audited


def test_half_of_a_payment_goes_back_for_good_and_the_rest_is_paid_again(till: Till) -> None:
    client = till.client("Ada Imports", price="10.00")
    till.bill_may()
    [payment] = till.payments(client)
    assert till.invoice(client).status == "paid"

    # Half of the work was not done: it is credited, and the invoice stays settled.
    till.ask(refund_payment_to_card, payment_id=payment.id, amount=500, reason="not done")
    till.work(JUNE)
    invoice = till.invoice(client)
    assert (invoice.status, invoice.amount_credited, invoice.amount_refunded) == ("paid", 500, 500)

    # The wrong card had paid the rest. Stripe's answer gets lost on the way.
    till.stripe.add_fault("lost_answer", times=None, path="/v1/refunds")
    till.ask(refund_payment_to_card, payment_id=payment.id, credit_note=False)
    till.work(JUNE)
    assert till.invoice(client).status == "paid"
    till.stripe.clear_faults()
    till.sweep(JUNE + timedelta(minutes=1))
    invoice = till.invoice(client)
    assert (invoice.status, invoice.amount_due, invoice.auto_collect) == ("open", 500, False)

    # Nobody charges for it by itself; the client pays with another card.
    till.put_on_card(client, "pm_card_mastercard", now=JUNE)
    till.sweep(JUNE + timedelta(days=30))
    assert till.invoice(client).status == "open"
    till.ask(charge_invoice, invoice_id=invoice.id)
    till.work(JUNE)

    invoice = till.invoice(client)
    assert (invoice.status, invoice.amount_paid, invoice.amount_due) == ("paid", 1500, 0)
    assert [one.amount for one in till.payments(client)] == [1000, 500]
    with Session(till.engine) as session:
        refunds = session.scalars(select(Refund).order_by(Refund.id)).all()
        [note] = session.scalars(select(CreditNote)).all()
    assert (note.number, note.amount, note.issued_on) == ("CN-000001", 500, date(2026, 6, 1))
    assert refunds[0].credit_note_id == note.id
    # What Stripe gave back is what our books say, to the cent.
    theirs = {
        one["metadata"]["refund"]: from_stripe(one["amount"], one["currency"])
        for one in till.stripe.objects("refund")
    }
    assert theirs == {str(one.id): one.amount for one in refunds}
    [first] = [one for one in till.stripe.charges() if one["amount"] == 1000]
    assert first["amount_refunded"] == sum(one.amount for one in refunds) == 1000
    assert audited(till.engine, till.account) == []
