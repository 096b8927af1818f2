"""Credit that two spend, fill or set at the same moment: the card is charged once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from billing.errors import RuleViolation
from gateways.sandbox.stripe.server import StripeSandbox
from models import Account, Client
from tasks.calls import Call, Gateways
from tasks.card_deposits import deposit_by_card
from tasks.crediting import adjust_credit
from tasks.finalizing import finalize_invoice
from tasks.kinds import JobKind
from tasks.outcomes import Done
from tasks.top_ups import start_top_ups, top_up_client, top_up_due
from tasks.voiding import void_invoice
from tests.cards import (
    QUEUES,
    a_client_with,
    assert_books_agree,
    attempts_of,
    charged,
    credit_of,
    jobs_of,
    set_top_up,
)
from tests.jobs import wait_until_blocked
from tests.money import (
    a_draft,
    adjust,
    an_invoice,
    assert_no_money_is_lost,
    deposit,
    grant,
    invoice_of,
)
from tests.worlds import NOW, a_client, change, perform, together, work

ROUNDS = 6
FULL = 20_000


@pytest.fixture
def ada(engine: Engine, account: Account, stripe_sandbox: StripeSandbox) -> Client:
    """A client with 200.00 of credit, to be topped up to that below 50.00."""
    client = a_client_with(engine, account, stripe_sandbox)
    deposit(engine, account, client, FULL)
    set_top_up(engine, client)
    return client


def run(
    engine: Engine, vendors: Gateways, kind: JobKind, account: Account, **arguments: Any
) -> object:
    """A job's work with its calls, part after part; what it says, or why it refuses."""
    try:
        step = perform(engine, kind, account, **arguments)
    except RuleViolation as refusal:
        return refusal.code
    while isinstance(step, Call):
        answer = step.ask(vendors)
        with Session(engine, expire_on_commit=False) as session, session.begin():
            step = step.record(session, answer)
    return step


def rounds(engine: Engine, account: Account, vendors: Gateways, client: Client) -> Iterator[int]:
    """A round's number; what was woken in it is worked off, and the credit is as at first."""
    for round_ in range(ROUNDS):
        yield round_
        work(engine, now=NOW, gateways=vendors, queues=QUEUES)
        missing = FULL - credit_of(engine, client)
        if missing:
            adjust(engine, account, client, missing)
    assert_no_money_is_lost(engine, account)


def test_two_who_spend_below_the_threshold_have_the_card_charged_once(
    engine: Engine,
    account: Account,
    *,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    ada: Client,
) -> None:
    spend: dict[str, Any] = {"client_id": ada.id, "amount": -8_000, "currency": "usd"}
    for round_ in range(ROUNDS):
        spent = together(*[partial(perform, engine, adjust_credit, account, **spend, note="x")] * 2)
        assert all(isinstance(one, Done) for one in spent), spent
        waiting = [job for job in jobs_of(engine, top_up_client) if job.finished_at is None]
        assert len(waiting) == 1

        # As if two workers had a job each, all the same.
        top_up = partial(run, engine, vendors, top_up_client, account, client_id=ada.id)
        outcomes = together(top_up, top_up)

        assert all(isinstance(one, Done) for one in outcomes), outcomes
        work(engine, now=NOW, gateways=vendors, queues=QUEUES)
        assert credit_of(engine, ada) == FULL
        assert len(attempts_of(engine)) == round_ + 1
    assert_books_agree(engine, account, stripe_sandbox, charges=[16_000] * ROUNDS)


def test_two_sweeps_and_a_spender_make_one_charge(
    engine: Engine,
    account: Account,
    *,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    ada: Client,
) -> None:
    spend: dict[str, Any] = {"client_id": ada.id, "amount": -16_000, "currency": "usd"}
    for _ in range(ROUNDS):
        sweep = partial(perform, engine, top_up_due, None)
        outcomes = together(
            sweep, partial(perform, engine, adjust_credit, account, **spend, note="x"), sweep
        )
        assert all(isinstance(one, Done) for one in outcomes), outcomes
        work(engine, now=NOW, gateways=vendors, queues=QUEUES)
        assert credit_of(engine, ada) == FULL
    assert_books_agree(engine, account, stripe_sandbox, charges=[16_000] * ROUNDS)


@pytest.mark.parametrize("target", [30_000, None])
def test_a_setting_that_changes_meanwhile_is_either_the_old_or_the_new_one(
    engine: Engine,
    account: Account,
    *,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    ada: Client,
    target: int | None,
) -> None:
    other = None if target is None else {"threshold": 5_000, "target": target, "currency": "usd"}
    for round_ in rounds(engine, account, vendors, ada):
        set_top_up(engine, ada)
        adjust(engine, account, ada, -16_000)

        outcomes = together(
            partial(run, engine, vendors, top_up_client, account, client_id=ada.id),
            partial(change, engine, ada, auto_top_up=other),
        )

        assert not any(isinstance(one, BaseException) for one in outcomes), outcomes
        work(engine, now=NOW, gateways=vendors, queues=QUEUES)
        assert credit_of(engine, ada) in {FULL, target or 4_000}
        if target is not None:
            assert len(charged(stripe_sandbox)) == round_ + 1
    # Corrections have spent the rest.
    assert set(charged(stripe_sandbox)) <= {16_000, 26_000}


def test_a_top_up_that_settles_while_an_invoice_is_finalized_pays_for_it(
    engine: Engine,
    account: Account,
    *,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    ada: Client,
) -> None:
    for round_ in rounds(engine, account, vendors, ada):
        draft = a_draft(engine, account, ada, "100.00")
        adjust(engine, account, ada, -16_000)

        outcomes = together(
            partial(run, engine, vendors, top_up_client, account, client_id=ada.id),
            partial(perform, engine, finalize_invoice, account, invoice_id=draft.id),
        )

        assert all(isinstance(one, Done) for one in outcomes), outcomes
        assert invoice_of(engine, draft.id).status == "paid"
        assert credit_of(engine, ada) in {10_000, 14_000}
        assert len(charged(stripe_sandbox)) == round_ + 1


def test_of_two_deposits_at_once_one_is_refused_or_both_are_made_one_after_the_other(
    engine: Engine,
    account: Account,
    *,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    ada: Client,
) -> None:
    made = 0
    some = {"client_id": ada.id, "amount": 500, "currency": "usd"}
    for _ in range(ROUNDS):
        deposits = [partial(run, engine, vendors, deposit_by_card, account, **some)] * 2

        outcomes = together(*deposits)

        done = [one for one in outcomes if isinstance(one, Done)]
        assert done
        assert all(one == "payment_in_flight" for one in outcomes if one not in done), outcomes
        made += len(done)
    assert credit_of(engine, ada) == FULL + 500 * made
    assert_books_agree(engine, account, stripe_sandbox, charges=[500] * made)


def test_a_void_takes_its_notes_number_before_it_asks_for_a_top_up(
    engine: Engine, account: Account
) -> None:
    with Session(engine) as session, session.begin():
        session.get_one(Account, account.id).void_makes_credit_note = True
    client = a_client(engine, account)
    first, invoice = (an_invoice(engine, account, client) for _ in range(2))
    perform(engine, void_invoice, account, invoice_id=first.id)
    grant(engine, account, client, 400, NOW.date() + timedelta(days=1))
    set_top_up(engine, client)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM jobs"))
    # What the grant gets back expires again at once, so the balance is below the threshold.
    void = partial(
        perform,
        engine,
        void_invoice,
        account,
        invoice_id=invoice.id,
        now=NOW + timedelta(days=2),
    )

    with ThreadPoolExecutor(1) as threads:
        with engine.begin() as numbering:
            numbering.execute(
                text("SELECT FROM number_series WHERE document = 'credit_note' FOR UPDATE")
            )
            waiting = threads.submit(void)
            wait_until_blocked(engine)
            # Whoever holds the series may ask for the same job: it must not wait for the void.
            numbering.execute(text("SET LOCAL lock_timeout = '2s'"))
            start_top_ups(Session(numbering), [(account.id, client.id)], "test")
        assert isinstance(waiting.result(timeout=30), Done)

    assert len(jobs_of(engine, top_up_client)) == 1
    assert_no_money_is_lost(engine, account)
