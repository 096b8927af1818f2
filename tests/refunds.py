"""Credit notes and refunds asked for by tests, and how they ended."""

from typing import Any
from uuid import UUID

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from gateways.sandbox.stripe.server import StripeSandbox
from models import Account, Client, CreditNote, Job, Payment, Refund
from tasks.calls import Gateways
from tasks.charging import charge_invoice
from tasks.invoice_credits import credit_invoice, credit_invoice_to_card
from tasks.payment_refunds import refund_payment, refund_payment_to_card
from tests.cards import a_client_with, an_open_invoice, do, payments
from tests.worlds import audited


def a_card_payment(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe: StripeSandbox,
    price: str = "10.00",
    *,
    card: str = "pm_card_visa",
) -> Payment:
    """What a new client's card paid for an invoice, all of it."""
    client = a_client_with(engine, account, stripe, card)
    return a_payment_by_card(engine, account, vendors, client, price)


def a_payment_by_card(
    engine: Engine, account: Account, vendors: Gateways, client: Client, price: str = "10.00"
) -> Payment:
    """What a client's card paid for a new invoice."""
    invoice_id = an_open_invoice(engine, account, client, price, collect=False)
    do(engine, vendors, charge_invoice, account, invoice_id=invoice_id)
    return payments(engine)[-1]


def credit(
    engine: Engine, vendors: Gateways, account: Account, invoice_id: UUID, **asked: Any
) -> Job:
    """How the job that credits an invoice ended, with all that follows."""
    to = asked.pop("to", "credit")
    if to == "card":
        return do(engine, vendors, credit_invoice_to_card, account, invoice_id=invoice_id, **asked)
    return do(engine, vendors, credit_invoice, account, invoice_id=invoice_id, to=to, **asked)


def refund(
    engine: Engine, vendors: Gateways, account: Account, payment: Payment, **asked: Any
) -> Job:
    """How the job that refunds a payment ended, with all that follows."""
    to = asked.pop("to", "card")
    if to == "card":
        return do(engine, vendors, refund_payment_to_card, account, payment_id=payment.id, **asked)
    return do(engine, vendors, refund_payment, account, payment_id=payment.id, to=to, **asked)


def notes_of(engine: Engine) -> list[CreditNote]:
    """Every credit note, in the order they were written."""
    with Session(engine) as session:
        return list(session.scalars(select(CreditNote).order_by(CreditNote.sequence)))


def refunds_of(engine: Engine) -> list[Refund]:
    """Every refund, in the order they were asked for."""
    with Session(engine) as session:
        return list(session.scalars(select(Refund).order_by(Refund.id)))


def refund_states(engine: Engine) -> list[str]:
    """Where the refunds stand, in the order they were asked for."""
    return [one.state for one in refunds_of(engine)]


def sent_back(stripe: StripeSandbox) -> list[int]:
    """What Stripe has given back and was not returned to it, in its units, in the order it did."""
    return [one["amount"] for one in stripe.control.objects("refund") if one["status"] != "failed"]


def refund_keys(stripe: StripeSandbox) -> list[str | None]:
    """The idempotency key of each request for a refund, in order; retries within a call too."""
    sent = stripe.control.requests(method="POST", path="/v1/refunds")
    return [request.idempotency_key for request in sent]


def assert_stripe_agrees(engine: Engine, account: Account, stripe: StripeSandbox) -> None:
    """What Stripe gave back is what our refunds say, and the books are sound."""
    ours = sorted(
        one.amount
        for one in refunds_of(engine)
        if one.destination == "card" and one.state != "failed"
    )
    assert sorted(sent_back(stripe)) == ours
    assert audited(engine, account) == []
