"""A client that pays ahead, and whose card fills its credit again: told by the calendar."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from gateways.sandbox.stripe.cardholders import make_cardholder
from gateways.sandbox.stripe.server import StripeSandbox
from models import Account, BillingMethod, Client
from tasks.calls import Gateways
from tests.cards import (
    SOFT,
    a_client_with,
    an_open_invoice,
    assert_books_agree,
    attempts_of,
    credit_of,
    give_card,
    invoice_of,
    mails,
    set_top_up,
    sweep,
    sweep_top_ups,
    top_up_of,
)
from tests.mailbox import send
from tests.worlds import work

FIVE_MINUTES, HOUR = timedelta(minutes=5), timedelta(hours=1)


def june(day: int, hour: int = 9) -> datetime:
    return datetime(2026, 6, day, hour, tzinfo=UTC)


def lose_money(engine: Engine, stripe: StripeSandbox, client: Client) -> None:
    """The client's card has no money on it from now on: behind its back it is one that has none."""
    holder = make_cardholder(stripe.url, payment_method=SOFT)
    with Session(engine) as session, session.begin():
        method = session.get_one(BillingMethod, client.id)
        method.stripe_customer = holder.customer
        method.payment_method = holder.payment_method


@pytest.fixture
def ada(engine: Engine, account: Account, stripe_sandbox: StripeSandbox) -> Client:
    """A client that is billed by hand, and pays by credit alone."""
    return a_client_with(engine, account, stripe_sandbox, email="ada@example.com")


def test_a_month_of_spending_topping_up_and_a_card_that_fails(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox, ada: Client
) -> None:
    def bill(price: str, now: datetime) -> str:
        invoice_id = an_open_invoice(engine, account, ada, price, collect=False, now=now)
        work(engine, now=now, gateways=vendors, queues=["billing", "payments"])
        return invoice_of(engine, invoice_id).status

    def as_scheduled(since: datetime, until: datetime) -> None:
        now = since
        while now <= until:
            sweep(engine, vendors, now=now)
            sweep_top_ups(engine, vendors, now=now)
            now += FIVE_MINUTES

    # The first top-up comes with the setting.
    set_top_up(engine, ada, 5_000, 20_000)
    work(engine, now=june(1), gateways=vendors, queues=["billing", "payments"])
    assert credit_of(engine, ada) == 20_000

    # 80.00 are left: enough. Then 20.00, which is not.
    assert bill("120.00", june(5)) == "paid"
    assert credit_of(engine, ada) == 8_000
    assert bill("60.00", june(9)) == "paid"
    assert credit_of(engine, ada) == 20_000

    # The card fails, and rests for an hour before each of the next three tries.
    lose_money(engine, stripe_sandbox, ada)
    assert bill("160.00", june(12)) == "paid"
    first = top_up_of(engine, ada)
    assert (first.declines, first.declined_at, first.is_off) == (1, june(12), False)
    as_scheduled(june(12) + FIVE_MINUTES, june(12, 10) - FIVE_MINUTES)
    assert top_up_of(engine, ada).declines == 1
    as_scheduled(june(12, 10), june(12, 14))
    assert [one.created_at for one in attempts_of(engine) if one.state == "declined"] == [
        june(12) + tries * HOUR for tries in range(4)
    ]
    assert top_up_of(engine, ada).is_off
    assert mails(engine).count("payment_failed") == 1

    # What the credit does not cover stays open, and nothing is charged.
    assert bill("60.00", june(14)) == "open"
    sweep_top_ups(engine, vendors, now=june(14, 12))
    assert credit_of(engine, ada) == 0

    # A new card fills the credit at once, and that pays what was open.
    give_card(engine, stripe_sandbox, ada, now=june(15))
    work(engine, now=june(15), gateways=vendors, queues=["billing", "payments"])
    assert credit_of(engine, ada) == 18_000
    fresh = top_up_of(engine, ada)
    assert (fresh.declines, fresh.declined_at, fresh.is_off) == (0, None, False)
    assert bill("150.00", june(28)) == "paid"

    send(engine, vendors, now=june(30))
    assert sorted(set(mails(engine))) == ["payment_failed", "receipt"]
    assert mails(engine).count("receipt") >= 4
    assert credit_of(engine, ada) == 20_000
    assert_books_agree(engine, account, stripe_sandbox, charges=[20_000, 18_000, 20_000, 17_000])
