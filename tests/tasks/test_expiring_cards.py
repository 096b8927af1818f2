"""A client is told once that its card expires, if Stripe knows of no later date."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from gateways.sandbox.sendgrid.client import SendGridControl
from gateways.sandbox.stripe.server import StripeSandbox
from models import Account, Client, Mail
from tasks.calls import Gateways
from tasks.expiring_cards import warn_of_expiring_cards, warn_of_expiry
from tests.cards import (
    BANK,
    EXPIRED,
    a_client_with,
    an_open_invoice,
    ask,
    card_of,
    charged,
    give_card,
    jobs_of,
    sweep,
)
from tests.mailbox import inbox, mails_of
from tests.worlds import NOW, a_client, change, work

EVERY = ("billing", "mail", "ops", "payments")
DAY = timedelta(days=1)
MAY_31 = datetime(2026, 5, 31, 12, tzinfo=UTC)


def due_to_expire(
    engine: Engine,
    account: Account,
    stripe: StripeSandbox,
    vendors: Gateways,
    *,
    month: int = 6,
    year: int = 2026,
    **fields: Any,
) -> Client:
    """A client whose card is good until the end of a month, which is June unless told otherwise."""
    client = a_client(engine, account, **{"email": "ada@imports.example", **fields})
    holder = give_card(engine, stripe, client)
    stripe.control.update_card(holder.payment_method, exp_month=month, exp_year=year)
    work(engine, now=NOW, gateways=vendors, queues=EVERY)
    return client


def warn(engine: Engine, vendors: Gateways, *, now: datetime = NOW) -> None:
    """What the daily schedule starts, worked to its end."""
    ask(engine, warn_of_expiring_cards, None)
    work(engine, now=now, gateways=vendors, queues=EVERY)


def told(engine: Engine, client: Client) -> list[Mail]:
    return [mail for mail in mails_of(engine, client) if mail.kind == "card_expiring"]


def test_the_client_is_told_once_with_a_link_to_its_own_page(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    sendgrid_control: SendGridControl,
) -> None:
    client = due_to_expire(engine, account, stripe_sandbox, vendors)

    for days in range(4):
        warn(engine, vendors, now=NOW + days * DAY)

    [mail] = inbox(sendgrid_control)
    assert mail.subject == "Your card expires soon: please update it for Bluebird Prep"
    assert mail.says("Visa ending in 4242", "good until 30 June 2026")
    [link] = [word for word in mail.text.split() if "/p/" in word]
    assert vendors.links.client_of(link.rpartition("/")[2]) == client.id
    assert link in mail.html
    assert mail.attached == {}
    assert [one.state for one in told(engine, client)] == ["accepted"]


@pytest.mark.parametrize(
    ("month", "now", "is_told"),
    [
        (6, datetime(2026, 5, 30, 12, tzinfo=UTC), False),
        (6, MAY_31, True),
        (6, NOW, True),
        (5, NOW, True),
        (7, NOW, False),
    ],
)
def test_it_is_told_within_thirty_days_of_its_last_day_and_after(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    month: int,
    now: datetime,
    is_told: bool,
) -> None:
    client = due_to_expire(engine, account, stripe_sandbox, vendors, month=month)

    warn(engine, vendors, now=now)

    assert len(told(engine, client)) == is_told


def test_an_expired_card_is_tried_all_the_same(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = due_to_expire(engine, account, stripe_sandbox, vendors, year=2025)
    an_open_invoice(engine, account, client)

    sweep(engine, vendors)
    warn(engine, vendors)

    assert charged(stripe_sandbox) == [1000]
    assert len(told(engine, client)) == 1


def test_a_card_that_was_renewed_unheard_is_found_so_and_nobody_is_told(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = due_to_expire(engine, account, stripe_sandbox, vendors)
    card = card_of(engine, client)
    assert card is not None
    stripe_sandbox.control.update_card(card.payment_method, exp_year=2031)

    warn(engine, vendors)

    assert told(engine, client) == []
    assert jobs_of(engine, warn_of_expiry)[-1].reason == "not_expiring"
    renewed = card_of(engine, client)
    assert renewed is not None
    assert renewed.exp_year == 2031
    warn(engine, vendors, now=datetime(2031, 6, 20, tzinfo=UTC))
    assert len(told(engine, client)) == 1


def test_another_card_that_expires_is_told_of_by_itself(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = due_to_expire(engine, account, stripe_sandbox, vendors)
    warn(engine, vendors)
    holder = give_card(engine, stripe_sandbox, client, "pm_card_mastercard")
    stripe_sandbox.control.update_card(holder.payment_method, exp_month=6, exp_year=2026)

    for _ in range(2):
        warn(engine, vendors, now=NOW + DAY)

    assert len(told(engine, client)) == 2


@pytest.mark.parametrize(
    "why",
    [
        "charged by hand",
        "archived",
        "paused",
        "no card any more",
        "stopped",
        "switched off",
        "a bank account",
    ],
)
def test_who_need_not_know_is_not_told(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    why: str,
) -> None:
    client = due_to_expire(engine, account, stripe_sandbox, vendors)
    match why:
        case "charged by hand":
            change(engine, client, auto_collect=False)
        case "archived":
            change(engine, client, archived=True)
        case "paused":
            change(engine, client, paused={"collection": True})
        case "switched off":
            change(engine, client, notifications={"card_expiring": False})
        case "stopped":
            with engine.begin() as connection:
                connection.execute(text("UPDATE billing_methods SET stopped_for = 'lost_card'"))
        case "a bank account":
            give_card(engine, stripe_sandbox, client, BANK)
        case _:
            with engine.begin() as connection:
                connection.execute(text("DELETE FROM billing_methods"))

    warn(engine, vendors)

    assert [mail.reason for mail in told(engine, client)] == (
        ["switched_off"] if why == "switched off" else []
    )


def test_the_accounts_word_on_collecting_counts_where_the_client_has_none(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = due_to_expire(engine, account, stripe_sandbox, vendors)
    with Session(engine) as session, session.begin():
        session.get_one(Account, account.id).auto_collect = False
    warn(engine, vendors)
    assert told(engine, client) == []

    change(engine, client, auto_collect=True)
    warn(engine, vendors)

    assert len(told(engine, client)) == 1


def test_a_mail_that_waited_until_there_was_another_card_is_not_sent(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = due_to_expire(engine, account, stripe_sandbox, vendors)
    ask(engine, warn_of_expiring_cards, None)
    work(engine, now=NOW, gateways=vendors, queues=("payments",))
    give_card(engine, stripe_sandbox, client)

    work(engine, now=NOW, gateways=vendors, queues=EVERY)

    [mail] = told(engine, client)
    assert (mail.state, mail.reason) == ("suppressed", "card_replaced")


def test_cards_that_nothing_is_known_of_are_looked_at(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, EXPIRED)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM jobs"))

    warn(engine, vendors)

    card = card_of(engine, client)
    assert card is not None
    assert card.last4 is not None
