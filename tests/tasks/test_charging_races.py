"""Money asked for by two at the same moment: whoever is first, it is settled once."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from threading import Barrier
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from gateways.sandbox.stripe.cardholders import Cardholder, make_cardholder
from gateways.sandbox.stripe.server import StripeSandbox
from gateways.stripe_events import event_from
from models import Account, Client, Job, job_ledger
from tasks.calls import Gateways
from tasks.catalogue import KINDS
from tasks.charging import charge_invoice
from tasks.collecting import collect_client
from tasks.crediting import apply_invoice_credit, deposit_credit
from tasks.due_collections import collect_due
from tasks.kinds import JobKind
from tasks.leases import LeaseKeeper
from tasks.marking_paid import mark_invoice_paid
from tasks.resolving import resolve_attempt
from tasks.running import Runner
from tasks.voiding import void_invoice
from tasks.webhooks import handle_payment_event, store_payment_event
from tests.cards import (
    AUTHENTICATED,
    QUEUES,
    SOFT,
    Killed,
    a_client_with,
    an_open_invoice,
    ask,
    assert_books_agree,
    attempt_states,
    attempts_of,
    charged,
    credit_of,
    die,
    do,
    give_card,
    hurry,
    invoice_of,
    jobs_of,
    payments,
    put_on,
    restart,
    sweep,
    watched,
)
from tests.worlds import LEASE, NOW, together, work

ROUNDS = 8
LOSES = {"payment_in_flight", "invoice_not_open"}
MINUTE = timedelta(minutes=1)


def run_together(
    engine: Engine,
    vendors: Gateways,
    *jobs: UUID,
    now: datetime = NOW,
    meanwhile: Sequence[Callable[[], object]] = (),
) -> list[Job]:
    """Jobs begun at once, each in a thread of its own, and what follows of them; how they ended."""
    bells = {}
    with engine.begin() as connection:
        for queue in QUEUES:
            for bell in job_ledger.dispatch(connection, queue, window=64) or []:
                bells[bell.job_id] = KINDS[bell.kind]
    runs = [partial(run_one, engine, vendors, bells[one], one, now) for one in jobs]
    outcomes = together(*runs, *meanwhile)
    assert not any(isinstance(outcome, BaseException) for outcome in outcomes), outcomes
    restart(engine)
    work(engine, now=now, gateways=vendors, queues=QUEUES)
    # Who met the other at Stripe was told to come again.
    hurry(engine, vendors, now=now + MINUTE)
    with Session(engine) as session:
        return [session.get_one(Job, one) for one in jobs]


def run_one(engine: Engine, vendors: Gateways, kind: JobKind, job_id: UUID, now: datetime) -> None:
    leases = LeaseKeeper(engine, lease=LEASE, run_limit=timedelta(minutes=10))
    runner = Runner(engine, leases, worker="test", lease=LEASE, gateways=vendors, clock=lambda: now)
    runner.run(kind, job_id)


def test_of_a_void_and_a_charge_at_once_one_is_refused(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    paid = 0
    for _ in range(ROUNDS):
        invoice_id = an_open_invoice(engine, account, client, collect=False)
        void, charge = run_together(
            engine,
            vendors,
            ask(engine, void_invoice, account, invoice_id=invoice_id),
            ask(engine, charge_invoice, account, invoice_id=invoice_id),
        )
        status = invoice_of(engine, invoice_id).status
        paid += status == "paid"
        assert {"paid": charge.state, "void": void.state}[status] == "succeeded"
        loser = void if status == "paid" else charge
        assert loser.state == "skipped"
        assert loser.reason in LOSES

    assert credit_of(engine, client) == 0
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000] * paid)


def test_of_a_void_and_the_automatic_charge_at_once_one_goes_through(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    paid = 0
    for _ in range(ROUNDS):
        invoice_id = an_open_invoice(engine, account, client)
        void, _ = run_together(
            engine,
            vendors,
            ask(engine, void_invoice, account, invoice_id=invoice_id),
            jobs_of(engine, collect_client)[-1].id,
        )
        status = invoice_of(engine, invoice_id).status
        paid += status == "paid"
        assert (void.state == "succeeded") == (status == "void")

    assert_books_agree(engine, account, stripe_sandbox, charges=[1000] * paid)


@pytest.mark.parametrize("is_automatic", [False, True], ids=["a click", "the automatic charge"])
def test_of_mark_as_paid_and_a_charge_at_once_one_settles(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    is_automatic: bool,
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    ids = []
    for _ in range(ROUNDS):
        ids.append(an_open_invoice(engine, account, client, collect=is_automatic))
        charge = (
            jobs_of(engine, collect_client)[-1].id
            if is_automatic
            else ask(engine, charge_invoice, account, invoice_id=ids[-1])
        )
        mark = ask(engine, mark_invoice_paid, account, invoice_id=ids[-1])
        marked, _ = run_together(engine, vendors, mark, charge)
        assert marked.state == "succeeded" or marked.reason in LOSES

    assert {invoice_of(engine, one).status for one in ids} == {"paid"}
    assert [(one.amount, one.applied) for one in payments(engine)] == [(1000, 1000)] * ROUNDS
    by_card = sum(one.source == "card" for one in payments(engine))
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000] * by_card)


@pytest.mark.parametrize("clicks", [2, 4])
def test_clicks_at_once_charge_once(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    clicks: int,
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    for _ in range(ROUNDS):
        invoice_id = an_open_invoice(engine, account, client, collect=False)
        asked = [ask(engine, charge_invoice, account, invoice_id=invoice_id) for _ in range(clicks)]
        ended = run_together(engine, vendors, *asked)
        assert sorted(job.state for job in ended) == ["skipped"] * (clicks - 1) + ["succeeded"]
        assert {job.reason for job in ended if job.state == "skipped"} <= LOSES
        assert attempt_states(engine, invoice_id) == ["succeeded"]

    assert_books_agree(engine, account, stripe_sandbox, charges=[1000] * ROUNDS)


def test_a_click_and_the_automatic_charge_at_once_charge_once(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    for _ in range(ROUNDS):
        invoice_id = an_open_invoice(engine, account, client)
        run_together(
            engine,
            vendors,
            jobs_of(engine, collect_client)[-1].id,
            ask(engine, charge_invoice, account, invoice_id=invoice_id),
        )
        assert attempt_states(engine, invoice_id) == ["succeeded"]

    assert_books_agree(engine, account, stripe_sandbox, charges=[1000] * ROUNDS)


def test_clicks_at_once_on_what_waits_for_the_client_leave_one_charge_waiting(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, AUTHENTICATED)
    invoice_id = an_open_invoice(engine, account, client, collect=False)
    do(engine, vendors, charge_invoice, account, invoice_id=invoice_id)
    for _ in range(ROUNDS):
        asked = [ask(engine, charge_invoice, account, invoice_id=invoice_id) for _ in range(2)]
        run_together(engine, vendors, *asked)
        states = attempt_states(engine, invoice_id)
        assert states[-1] == "needs_action"
        assert set(states[:-1]) == {"canceled"}

    waiting = [
        one["metadata"]["attempt"]
        for one in stripe_sandbox.control.payment_intents()
        if one["status"] == "requires_payment_method"
    ]
    assert waiting == [str(attempts_of(engine, invoice_id)[-1].id)]
    assert_books_agree(engine, account, stripe_sandbox, charges=[])


def test_stripes_event_and_our_own_record_at_once_book_once(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    for _ in range(ROUNDS):
        invoice_id = an_open_invoice(engine, account, client, collect=False)
        both = Barrier(2, timeout=30)

        def meet(both: Barrier = both) -> None:
            both.wait()

        def hear_of_it(meet: Callable[[], None] = meet) -> None:
            meet()
            event = stripe_sandbox.control.events("payment_intent.succeeded")[-1]
            with Session(engine) as session, session.begin():
                store_payment_event(session, event_from(event), requested_by="test")
            with engine.begin() as connection:
                job_ledger.dispatch(connection, "payments", window=64)
            job = jobs_of(engine, handle_payment_event)[-1]
            run_one(engine, vendors, handle_payment_event, job.id, NOW)

        run_together(
            engine,
            watched(vendors, after=meet),
            ask(engine, charge_invoice, account, invoice_id=invoice_id),
            meanwhile=[hear_of_it],
        )
        assert attempt_states(engine, invoice_id) == ["succeeded"]
        assert invoice_of(engine, invoice_id).status == "paid"

    assert {job.state for job in jobs_of(engine, handle_payment_event)} == {"succeeded"}
    assert len(payments(engine)) == ROUNDS
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000] * ROUNDS)


def test_a_new_card_that_comes_with_the_old_ones_decline_is_tried_at_once(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    for _ in range(ROUNDS):
        client = a_client_with(engine, account, stripe_sandbox, SOFT)
        invoice_id = an_open_invoice(engine, account, client)
        better = make_cardholder(stripe_sandbox.url)
        both = Barrier(2, timeout=30)
        waits: list[Callable[[], Any]] = [both.wait]

        def answered(waits: list[Callable[[], Any]] = waits) -> None:
            if waits:
                waits.pop()()

        run_together(
            engine,
            watched(vendors, after=answered),
            jobs_of(engine, collect_client)[-1].id,
            meanwhile=[partial(put_on_at, both, engine, client, better)],
        )
        sweep(engine, vendors)
        invoice = invoice_of(engine, invoice_id)
        assert (invoice.status, invoice.failures) == ("paid", 0)
        assert attempt_states(engine, invoice_id) == ["declined", "succeeded"]

    assert_books_agree(engine, account, stripe_sandbox, charges=[1000] * ROUNDS)


def put_on_at(both: Barrier, engine: Engine, client: Client, holder: Cardholder) -> None:
    both.wait()
    put_on(engine, client, holder)


def test_two_sweeps_at_once_charge_once(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    clients = [a_client_with(engine, account, stripe_sandbox) for _ in range(3)]
    for _ in range(ROUNDS // 2):
        for client in clients:
            an_open_invoice(engine, account, client)
        run_together(engine, vendors, *[ask(engine, collect_due, None) for _ in range(3)])

    assert_books_agree(engine, account, stripe_sandbox, charges=[1000] * 3 * (ROUNDS // 2))


def test_a_job_and_a_question_that_ask_for_one_attempt_at_once_charge_once(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    for _ in range(ROUNDS):
        invoice_id = an_open_invoice(engine, account, client)
        with pytest.raises(Killed):
            work(engine, now=NOW, gateways=watched(vendors, before=die), queues=QUEUES)
        restart(engine)
        [attempt] = attempts_of(engine, invoice_id)
        # So slow that both are there at once.
        stripe_sandbox.control.add_fault("delay", path="/v1/payment_intents", seconds=0.2)
        run_together(
            engine,
            vendors,
            jobs_of(engine, collect_client)[-1].id,
            ask(engine, resolve_attempt, account, attempt_id=attempt.id),
            now=NOW + MINUTE,
        )
        assert attempt_states(engine, invoice_id) == ["succeeded"]

    assert_books_agree(engine, account, stripe_sandbox, charges=[1000] * ROUNDS)


def test_credit_that_comes_with_the_charge_is_used_or_kept_never_both_paid(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    used = 0
    for number in range(1, ROUNDS + 1):
        invoice_id = an_open_invoice(engine, account, client, "10.00")
        run_together(
            engine,
            vendors,
            jobs_of(engine, collect_client)[-1].id,
            ask(
                engine,
                deposit_credit,
                account,
                client_id=client.id,
                amount=300,
                currency="usd",
            ),
        )
        invoice = invoice_of(engine, invoice_id)
        assert (invoice.status, invoice.credit_applied + invoice.amount_paid) == ("paid", 1000)
        used += invoice.credit_applied
        assert credit_of(engine, client) == 300 * number - used

    assert sum(charged(stripe_sandbox)) == 1000 * ROUNDS - used
    assert_books_agree(engine, account, stripe_sandbox, charges=charged(stripe_sandbox))


def test_of_credit_applied_and_a_new_cards_charge_at_once_each_cent_is_settled_once(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    for _ in range(ROUNDS // 2):
        client = a_client_with(engine, account, stripe_sandbox, AUTHENTICATED)
        invoice_id = an_open_invoice(engine, account, client)
        sweep(engine, vendors)
        do(
            engine,
            vendors,
            deposit_credit,
            account,
            client_id=client.id,
            amount=400,
            currency="usd",
            apply=False,
        )
        give_card(engine, stripe_sandbox, client)
        run_together(
            engine,
            vendors,
            jobs_of(engine, collect_client)[-1].id,
            ask(engine, apply_invoice_credit, account, invoice_id=invoice_id),
        )
        sweep(engine, vendors)
        invoice = invoice_of(engine, invoice_id)
        assert (invoice.status, invoice.credit_applied, invoice.amount_paid) == ("paid", 400, 600)
        assert credit_of(engine, client) == 0

    assert_books_agree(engine, account, stripe_sandbox, charges=[600] * (ROUNDS // 2))
