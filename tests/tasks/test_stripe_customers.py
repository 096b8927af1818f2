"""A customer that is deleted at Stripe on the day it was made."""

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from gateways.sandbox.stripe.server import StripeSandbox
from models import Account, Client
from tasks.calls import Gateways
from tests.cards import an_open_invoice, tell_all
from tests.pay_pages import of_today, page_of, press_pay
from tests.worlds import NOW, a_client, work


def test_a_client_whose_customer_was_deleted_the_same_day_gets_a_page(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    vendors = of_today(vendors)
    client = a_client(engine, account)
    first = an_open_invoice(engine, account, client, collect=False)
    second = an_open_invoice(engine, account, client, collect=False)
    press_pay(engine, vendors, account, first)
    with Session(engine) as session:
        customer = str(session.get_one(Client, client.id).stripe_customer)
    stripe_sandbox.control.delete_customer(customer)
    tell_all(engine, stripe_sandbox)
    work(engine, now=NOW, gateways=vendors, queues=["billing", "payments"])
    with Session(engine) as session:
        assert session.get_one(Client, client.id).stripe_customer is None

    jobs = [press_pay(engine, vendors, account, second) for _ in range(2)]
    assert [(job.state, job.reason) for job in jobs] == [("succeeded", None)] * 2
    assert page_of(engine, second).state == "needs_action"
