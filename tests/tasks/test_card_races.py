"""A card that changes at the moment it is charged: nobody is charged twice, and nothing is lost."""

from collections.abc import Callable
from functools import partial

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from gateways.sandbox.stripe.cardholders import make_cardholder
from gateways.sandbox.stripe.server import StripeSandbox
from models import Account, CardRole, CardSetup, Client, job_ledger
from models.database import database_now
from tasks.calls import Gateways
from tasks.card_details import refresh_card
from tasks.card_setups import ask_after_setup, ask_for_setup, settle_card_setup
from tasks.charging import charge_invoice
from tasks.collecting import collect_client
from tasks.detaching import detach_card
from tasks.voiding import void_invoice
from tests.cards import (
    HARD,
    QUEUES,
    SOFT,
    a_client_with,
    an_open_invoice,
    ask,
    assert_books_agree,
    attempt_states,
    backup_of,
    card_of,
    give_backup,
    give_card,
    invoice_of,
    jobs_of,
    put_on,
    sweep,
    take_backup,
    take_card,
    tell_all,
)
from tests.tasks.test_charging_races import run_one, run_together
from tests.worlds import NOW, a_client, audited, work

ROUNDS = 6
LOSES = {"payment_in_flight", "invoice_not_open"}


def test_a_card_that_is_replaced_while_it_is_charged_is_charged_once_in_all(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    for _ in range(ROUNDS):
        client = a_client_with(engine, account, stripe_sandbox)
        new = make_cardholder(stripe_sandbox.url)
        invoice_id = an_open_invoice(engine, account, client)

        run_together(
            engine,
            vendors,
            jobs_of(engine, collect_client)[-1].id,
            meanwhile=[partial(put_on, engine, client, new)],
        )
        sweep(engine, vendors)

        assert invoice_of(engine, invoice_id).status == "paid"
        assert attempt_states(engine, invoice_id) == ["succeeded"]
        card = card_of(engine, client)
        assert card is not None
        assert card.payment_method == new.payment_method

    assert_books_agree(engine, account, stripe_sandbox, charges=[1000] * ROUNDS)


def test_a_card_that_is_removed_while_it_is_charged_is_forgotten_only_after(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    paid = 0
    for number in range(ROUNDS):
        client = a_client_with(engine, account, stripe_sandbox)
        invoice_id = an_open_invoice(engine, account, client)

        def remove_and_detach(client: Client = client) -> None:
            take_card(engine, client)
            with engine.begin() as connection:
                job_ledger.dispatch(connection, "payments", window=64)
            run_one(engine, vendors, detach_card, jobs_of(engine, detach_card)[-1].id, NOW)

        run_together(
            engine,
            vendors,
            jobs_of(engine, collect_client)[-1].id,
            meanwhile=[remove_and_detach],
        )

        states = attempt_states(engine, invoice_id)
        assert states in (["succeeded"], []), "it was taken away under the charge"
        paid += states == ["succeeded"]
        assert card_of(engine, client) is None
        detached = stripe_sandbox.control.requests(method="POST")
        assert sum(one.path.endswith("/detach") for one in detached) == number + 1

    assert_books_agree(engine, account, stripe_sandbox, charges=[1000] * paid)


def test_of_a_void_and_the_second_cards_charge_at_once_one_goes_through(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    paid = 0
    for _ in range(ROUNDS):
        client = a_client_with(engine, account, stripe_sandbox, HARD)
        give_backup(engine, stripe_sandbox, client)
        invoice_id = an_open_invoice(engine, account, client)

        void, _ = run_together(
            engine,
            vendors,
            ask(engine, void_invoice, account, invoice_id=invoice_id),
            jobs_of(engine, collect_client)[-1].id,
        )

        status = invoice_of(engine, invoice_id).status
        assert (void.state == "succeeded") == (status == "void")
        assert status in {"void", "paid"}
        assert void.reason in {None, *LOSES}
        paid += status == "paid"

    assert_books_agree(engine, account, stripe_sandbox, charges=[1000] * paid)


def test_a_click_beside_the_second_cards_charge_charges_once(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    for _ in range(ROUNDS):
        client = a_client_with(engine, account, stripe_sandbox, HARD)
        give_backup(engine, stripe_sandbox, client)
        invoice_id = an_open_invoice(engine, account, client)

        run_together(
            engine,
            vendors,
            ask(engine, charge_invoice, account, invoice_id=invoice_id),
            jobs_of(engine, collect_client)[-1].id,
        )

        assert attempt_states(engine, invoice_id).count("succeeded") <= 1
        assert audited(engine, account) == []


def test_a_second_card_that_is_removed_while_the_first_is_declined_leaves_nothing_waiting(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    for _ in range(ROUNDS):
        client = a_client_with(engine, account, stripe_sandbox, HARD)
        give_backup(engine, stripe_sandbox, client)
        invoice_id = an_open_invoice(engine, account, client)

        run_together(
            engine,
            vendors,
            jobs_of(engine, collect_client)[-1].id,
            meanwhile=[partial(take_backup, engine, client)],
        )

        assert attempt_states(engine, invoice_id) in (["declined"], ["declined", "succeeded"])
        assert backup_of(engine, client) is None
        assert invoice_of(engine, invoice_id).next_attempt_at is None
        assert audited(engine, account) == []


def test_a_card_that_is_replaced_while_stripe_is_asked_of_it_is_known_for_what_it_is(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    for _ in range(ROUNDS):
        client = a_client_with(engine, account, stripe_sandbox, SOFT)
        new = make_cardholder(stripe_sandbox.url, payment_method="pm_card_mastercard")

        run_together(
            engine,
            vendors,
            jobs_of(engine, refresh_card)[-1].id,
            meanwhile=[partial(put_on, engine, client, new)],
        )

        card = card_of(engine, client)
        assert card is not None
        assert (card.payment_method, card.brand) == (new.payment_method, "mastercard")


def test_a_card_that_is_told_of_by_an_event_and_the_client_at_once_is_set_once(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    for _ in range(ROUNDS):
        client = a_client(engine, account)
        setup_id = start(engine, client)
        work(engine, gateways=vendors, queues=QUEUES)
        with Session(engine) as session:
            setup = session.get_one(CardSetup, setup_id)
        stripe_sandbox.control.save_card(str(setup.checkout_session))
        both: list[Callable[[], None]] = [
            partial(tell_all, engine, stripe_sandbox),
            partial(come_back, engine, setup),
        ]
        for one in both:
            one()
        jobs = [
            ask(engine, settle_card_setup, account, client_id=client.id, setup_id=setup_id)
            for _ in range(2)
        ]

        run_together(engine, vendors, *jobs)

        with Session(engine) as session:
            assert session.get_one(CardSetup, setup_id).state == "completed"
        assert card_of(engine, client) is not None
        refreshed = [job for job in jobs_of(engine, refresh_card) if job.subject_id == client.id]
        assert len(refreshed) == 1, "the second time it is no news"


def start(engine: Engine, client: Client) -> object:
    with Session(engine) as session, session.begin():
        return ask_for_setup(
            session,
            client.id,
            CardRole.DEFAULT,
            return_url="http://duecourse.example/p/token",
            now=database_now(session),
            requested_by="client",
        ).id


def come_back(engine: Engine, setup: CardSetup) -> None:
    with Session(engine) as session, session.begin():
        ask_after_setup(session, session.get_one(CardSetup, setup.id), requested_by="client")


def test_a_new_card_and_the_end_of_the_old_one_at_once_leave_the_new_one(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    for _ in range(ROUNDS):
        client = a_client(engine, account)
        old = give_card(engine, stripe_sandbox, client)
        work(engine, now=NOW, gateways=vendors, queues=QUEUES)
        new = make_cardholder(stripe_sandbox.url)
        stripe_sandbox.control.delete_customer(old.customer)
        tell_all(engine, stripe_sandbox)

        run_together(
            engine,
            vendors,
            meanwhile=[
                partial(put_on, engine, client, new),
                partial(work, engine, now=NOW, gateways=vendors, queues=QUEUES),
            ],
        )

        card = card_of(engine, client)
        assert card is not None
        assert card.payment_method == new.payment_method
