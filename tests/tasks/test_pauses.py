from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from billing.errors import InvalidInput
from gateways.sandbox.stripe.server import StripeSandbox
from models import Account, Client
from tasks.calls import Gateways
from tasks.charging import charge_invoice
from tasks.pauses import release_held
from tests.cards import (
    SOFT,
    attempt_states,
    attempts_of,
    charged,
    do,
    give_card,
    sweep,
    watched,
)
from tests.mailbox import mails_of, monthly
from tests.reviews import change_business, end_reviews, states
from tests.tasks.test_races import ROUNDS, a_page_of, on_monthly_since_may
from tests.worlds import (
    NOW,
    a_charge,
    audited,
    bill,
    change,
    charges,
    invoices_of,
    periods_of,
    tick,
    together,
    work,
)

DAY = timedelta(days=1)
MAY = date(2026, 5, 1)
HELD, OPEN, BILLED = ("held", "paused"), ("open", None), ("billed", None)


def on(month: int, day: int) -> datetime:
    return datetime(2026, month, day, tzinfo=UTC)


def pause(engine: Engine, whom: Client | Account, **paused: bool) -> None:
    """Pause, or let go on, what ``paused`` says, of a client or of everyone."""
    if isinstance(whom, Client):
        change(engine, whom, paused=paused)
    else:
        change_business(engine, whom, paused=paused)


def with_three_months(engine: Engine, account: Account, **fields: Any) -> Client:
    client = monthly(engine, account, "10.00", **fields)
    charges(engine, client, [(date(2026, month, 5), "1.00") for month in (6, 7)])
    return client


@pytest.mark.parametrize("whose", ["client", "account"])
def test_a_pause_holds_each_period_and_its_end_bills_them_oldest_first_one_invoice_each(
    engine: Engine, account: Account, whose: str
) -> None:
    client = with_three_months(engine, account)
    whom = client if whose == "client" else account
    pause(engine, whom, billing=True)

    tick(engine, now=on(6, 1))
    tick(engine, now=on(7, 1))
    assert states(engine, client) == [HELD, HELD, OPEN]
    assert invoices_of(engine, client) == []
    assert mails_of(engine, client) == []

    pause(engine, whom, billing=False)
    assert states(engine, client) == [OPEN, OPEN, OPEN]
    tick(engine, now=on(7, 3))

    assert states(engine, client) == [BILLED, BILLED, OPEN]
    assert [one.total for one in invoices_of(engine, client)] == [1000, 100]
    [mail] = mails_of(engine, client)
    assert len(mail.invoice_ids) == 2
    assert audited(engine, account, now=on(7, 3)) == []


def test_the_end_of_one_pause_leaves_held_what_the_other_still_holds(
    engine: Engine, account: Account
) -> None:
    client, other = (with_three_months(engine, account) for _ in range(2))
    pause(engine, client, billing=True)
    pause(engine, account, billing=True)
    tick(engine, now=on(6, 1))

    pause(engine, account, billing=False)
    assert (states(engine, client)[0], states(engine, other)[0]) == (HELD, OPEN)
    pause(engine, account, billing=True)
    pause(engine, client, billing=False)
    assert states(engine, client)[0] == HELD
    pause(engine, account, billing=False)
    assert states(engine, client)[0] == OPEN


def test_a_run_for_everyone_holds_what_is_paused_and_one_for_the_client_alone_bills_it(
    engine: Engine, account: Account
) -> None:
    client = with_three_months(engine, account)
    pause(engine, client, billing=True)
    bill(engine, account, now=on(7, 1))
    assert states(engine, client) == [HELD, HELD, OPEN]

    run = bill(engine, account, now=on(8, 1), client_id=client.id)

    assert states(engine, client) == [BILLED, BILLED, BILLED, OPEN]
    assert [one.total for one in invoices_of(engine, client)] == [1000, 100, 100]
    assert {one.run_id for one in invoices_of(engine, client)} == {run.id}
    # What comes next is held again.
    tick(engine, now=on(9, 1))
    assert states(engine, client)[3:] == [HELD, OPEN]


def test_a_failed_period_is_held_as_well_and_so_is_one_asked_for_from_before_activation(
    engine: Engine, account: Account
) -> None:
    client = monthly(engine, account, "10.00", billing_starts_on=date(2026, 3, 1))
    a_charge(engine, client, date(2026, 3, 5))
    pause(engine, client, billing=True)
    tick(engine, now=NOW)
    assert states(engine, client)[:3] == [("open", "before_activation")] * 2 + [HELD]

    bill(engine, account, now=NOW)
    assert states(engine, client)[:3] == [HELD] * 3
    pause(engine, client, billing=False)
    tick(engine, now=NOW)

    assert states(engine, client)[:3] == [BILLED, ("empty", None), BILLED]


def test_going_manual_skips_what_is_held(engine: Engine, account: Account) -> None:
    client = with_three_months(engine, account)
    pause(engine, client, billing=True)
    tick(engine, now=on(6, 1))

    change(engine, client, billing_cycle="manual", paused={"billing": False})

    assert states(engine, client) == [("skipped", "switched_to_manual")] * 2


def test_a_paused_client_keeps_its_drafts_in_review_and_its_end_finalizes_them(
    engine: Engine, account: Account
) -> None:
    client = with_three_months(engine, account, review_hours=24)
    tick(engine, now=on(6, 1))
    pause(engine, account, billing=True)

    end_reviews(engine, now=on(6, 10))
    assert states(engine, client)[0] == ("drafted", None)
    pause(engine, account, billing=False)
    end_reviews(engine, now=on(6, 10))

    assert states(engine, client)[0] == BILLED
    [invoice] = invoices_of(engine, client)
    assert (invoice.issued_on, invoice.due_on) == (date(2026, 6, 1), date(2026, 6, 24))


def test_a_page_that_was_late_to_hear_of_the_end_of_a_pause_loses_no_period(
    engine: Engine, account: Account
) -> None:
    client = with_three_months(engine, account)
    pause(engine, account, billing=True)
    tick(engine, now=on(6, 1))
    with engine.begin() as connection:
        # As if the page had read the account before this, and ended after it.
        connection.exec_driver_sql("UPDATE accounts SET billing_paused = false")
    assert states(engine, client)[0] == HELD

    tick(engine, now=on(6, 2))

    assert states(engine, client)[0] == BILLED


def test_a_switch_that_is_left_out_stays(engine: Engine, account: Account) -> None:
    client = monthly(engine, account)
    change(engine, client, paused={"billing": True})
    changed = change(engine, client, paused={"collection": True})
    assert (changed.billing_paused, changed.collection_paused) == (True, True)
    business = change_business(engine, account, paused={"collection": True})
    assert (business.billing_paused, business.collection_paused) == (False, True)


@pytest.mark.parametrize(
    ("paused", "field"),
    [(None, "paused"), ({"mail": True}, "paused.mail"), ({"billing": None}, "paused.billing")],
)
def test_what_cannot_be_paused_is_named(
    engine: Engine, account: Account, paused: object, field: str
) -> None:
    client = monthly(engine, account)
    for attempt in (
        partial(change, engine, client, paused=paused),
        partial(change_business, engine, account, paused=paused),
    ):
        with pytest.raises(InvalidInput) as refused:
            attempt()
        assert refused.value.field == field


@pytest.mark.parametrize("whose", ["client", "account"])
def test_a_pause_meets_a_page_that_bills_the_client_or_leaves_the_period_held(
    engine: Engine, account: Account, whose: str
) -> None:
    for _ in range(ROUNDS // 2):
        client = on_monthly_since_may(engine, account)
        a_charge(engine, client, MAY)
        whom = client if whose == "client" else account
        outcomes = together(a_page_of(engine, account), partial(pause, engine, whom, billing=True))
        assert not any(isinstance(one, Exception) for one in outcomes), outcomes
        assert states(engine, client) in ([BILLED, OPEN], [HELD, OPEN])
        assert len(invoices_of(engine, client)) == (states(engine, client)[0] == BILLED)
        pause(engine, whom, billing=False)

    assert audited(engine, account) == []


@pytest.mark.parametrize("whose", ["client", "account"])
def test_the_end_of_a_pause_meets_runs_and_every_period_is_billed_once(
    engine: Engine, account: Account, whose: str
) -> None:
    for _ in range(ROUNDS // 2):
        client = on_monthly_since_may(engine, account)
        a_charge(engine, client, MAY)
        whom = client if whose == "client" else account
        pause(engine, whom, billing=True)
        outcomes = together(a_page_of(engine, account), partial(pause, engine, whom, billing=False))
        assert not any(isinstance(one, Exception) for one in outcomes), outcomes

        together(partial(tick, engine, now=NOW), partial(bill, engine, account, now=NOW))
        work(engine, now=NOW)
        assert states(engine, client) == [BILLED, OPEN]
        assert [one.total for one in invoices_of(engine, client)] == [1000]

    assert audited(engine, account) == []


def test_held_periods_that_somebody_is_deciding_are_left_to_them(
    engine: Engine, account: Account
) -> None:
    client = with_three_months(engine, account)
    pause(engine, client, billing=True)
    tick(engine, now=on(6, 1))
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE clients SET billing_paused = false")
    with engine.begin() as deciding, Session(engine) as session, session.begin():
        deciding.exec_driver_sql("SELECT FROM billing_periods WHERE state = 'held' FOR UPDATE")
        release_held(session)
    assert states(engine, client)[0] == HELD

    with Session(engine) as session, session.begin():
        release_held(session)
    assert states(engine, client)[0] == OPEN
    assert periods_of(engine, client)[0].run_id is None


@pytest.mark.parametrize("whose", ["client", "account"])
def test_no_card_is_charged_while_collection_is_paused_and_each_due_try_is_made_once_after_it(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    whose: str,
) -> None:
    client = with_three_months(engine, account)
    give_card(engine, stripe_sandbox, client)
    whom = client if whose == "client" else account
    pause(engine, whom, collection=True)
    for month in (6, 7):
        tick(engine, now=on(month, 1))
        sweep(engine, vendors, now=on(month, 9))
    assert charged(stripe_sandbox) == []
    # Nobody is told that a card will be charged.
    assert [mail.told["charged"] for mail in mails_of(engine, client)] == [[], []]

    pause(engine, whom, collection=False)
    for _ in range(2):
        sweep(engine, vendors, now=on(7, 10))

    assert sorted(charged(stripe_sandbox)) == [100, 1000]
    assert {one.status for one in invoices_of(engine, client)} == {"paid"}
    assert audited(engine, account, now=on(7, 10)) == []


def test_a_declined_try_waits_through_the_pause_and_is_made_once_after_it(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = monthly(engine, account, "10.00")
    give_card(engine, stripe_sandbox, client, SOFT)
    tick(engine, now=NOW)
    sweep(engine, vendors, now=NOW)
    [invoice] = invoices_of(engine, client)
    pause(engine, client, collection=True)

    sweep(engine, vendors, now=NOW + 10 * DAY)
    assert attempt_states(engine, invoice.id) == ["declined"]
    staffs = do(engine, vendors, charge_invoice, account, now=NOW + 11 * DAY, invoice_id=invoice.id)
    assert staffs.state == "succeeded"
    assert [one.origin for one in attempts_of(engine, invoice.id)] == ["automatic", "staff"]

    pause(engine, client, collection=False)
    for _ in range(2):
        sweep(engine, vendors, now=NOW + 12 * DAY)
    assert [one.origin for one in attempts_of(engine, invoice.id)][2:] == ["automatic"]


def test_a_decline_that_comes_during_the_pause_is_mailed_to_nobody(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = monthly(engine, account, "10.00")
    give_card(engine, stripe_sandbox, client, SOFT)
    tick(engine, now=NOW)

    paused_meanwhile = partial(pause, engine, account, collection=True)
    sweep(engine, watched(vendors, after=paused_meanwhile), now=NOW)

    [failed] = [mail for mail in mails_of(engine, client) if mail.kind == "payment_failed"]
    assert (failed.state, failed.reason) == ("suppressed", "paused")
