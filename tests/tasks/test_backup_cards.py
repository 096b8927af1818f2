"""A second card is tried once where the first one is refused, and takes its place if it pays."""

from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from billing.errors import InvalidInput, NotFound, RuleViolation
from gateways.sandbox.stripe.server import StripeSandbox
from models import Account, Client, Job
from tasks.accounts import change_account, create_account
from tasks.billing_methods import set_backup_method
from tasks.calls import Gateways
from tasks.charging import charge_invoice
from tasks.voiding import void_invoice
from tests.cards import (
    AUTHENTICATED,
    BANK,
    EXPIRED,
    HARD,
    SOFT,
    a_client_with,
    an_open_invoice,
    assert_books_agree,
    attempt_states,
    attempts_of,
    backup_of,
    card_of,
    charged,
    do,
    give_backup,
    give_card,
    give_money,
    invoice_of,
    mails,
    pay_waiting_intents,
    put_on,
    set_top_up,
    sweep,
    take_backup,
    take_card,
    tell_all,
    top_up_of,
)
from tests.worlds import NOW, a_client, audited, change, work

INTENTS = "/v1/payment_intents"
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


def methods(engine: Engine, client: Client) -> list[tuple[str, str | None] | None]:
    """The first and the second card, each with what it is stopped for."""
    return [
        None if card is None else (card.payment_method, card.stopped_for)
        for card in (card_of(engine, client), backup_of(engine, client))
    ]


@pytest.mark.parametrize(
    ("card", "code"),
    [(HARD, "lost_card"), (EXPIRED, "expired_card")],
    ids=["hard", "needs another"],
)
def test_the_second_card_pays_at_once_and_becomes_the_first_for_all_that_waits(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    card: str,
    code: str,
) -> None:
    client = a_client(engine, account)
    first = give_card(engine, stripe_sandbox, client, card).payment_method
    second = give_backup(engine, stripe_sandbox, client).payment_method
    ids = [an_open_invoice(engine, account, client, price) for price in ("10.00", "20.00")]

    sweep(engine, vendors)

    assert attempt_states(engine) == ["declined", "succeeded", "succeeded"]
    assert [one.payment_method for one in attempts_of(engine)] == [first, second, second]
    assert {one.origin for one in attempts_of(engine)} == {"automatic"}
    assert methods(engine, client) == [(second, None), (first, code)]
    assert [invoice_of(engine, one).attempt_count for one in ids] == [2, 1]
    # Nothing has failed that the client should do something about.
    assert mails(engine) == ["receipt", "receipt"]
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000, 2000])


@pytest.mark.parametrize("second", [SOFT, HARD])
def test_where_the_second_card_is_declined_too_it_ends_as_without_one(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    second: str,
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, HARD)
    give_backup(engine, stripe_sandbox, client, second)
    ids = [an_open_invoice(engine, account, client, price) for price in ("10.00", "20.00")]

    for day in (0, 1, 3, 8, 30):
        sweep(engine, vendors, now=NOW + day * DAY)

    assert attempt_states(engine) == ["declined", "declined"]
    assert [invoice_of(engine, one).next_attempt_at for one in ids] == [None, None]
    assert [invoice_of(engine, one).failures for one in ids] == [1, 0]
    card, backup = methods(engine, client)
    assert card is not None
    assert backup is not None
    assert (card[1], backup[1]) == ("lost_card", "lost_card" if second == HARD else None)
    assert mails(engine) == ["payment_failed"]
    assert_books_agree(engine, account, stripe_sandbox, charges=[])


def test_a_soft_decline_waits_for_the_schedule_and_not_for_the_second_card(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, SOFT)
    give_backup(engine, stripe_sandbox, client)
    invoice_id = an_open_invoice(engine, account, client)

    sweep(engine, vendors)

    assert attempt_states(engine) == ["declined"]
    assert invoice_of(engine, invoice_id).next_attempt_at is not None
    assert charged(stripe_sandbox) == []


def test_a_second_card_is_left_alone_unless_the_client_says_to_use_it(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, HARD)
    give_backup(engine, stripe_sandbox, client)
    change(engine, client, use_backup_card=False)
    an_open_invoice(engine, account, client)

    sweep(engine, vendors)

    assert attempt_states(engine) == ["declined"]
    assert mails(engine) == ["payment_failed"]


def test_a_click_that_is_declined_does_not_reach_for_the_second_card(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, HARD)
    give_backup(engine, stripe_sandbox, client)
    invoice_id = an_open_invoice(engine, account, client, collect=False)

    do(engine, vendors, charge_invoice, account, invoice_id=invoice_id)
    sweep(engine, vendors)

    assert attempt_states(engine) == ["declined"]
    assert_books_agree(engine, account, stripe_sandbox, charges=[])


def test_a_second_card_that_wants_its_owner_takes_the_place_once_it_is_paid(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client(engine, account)
    first = give_card(engine, stripe_sandbox, client, HARD).payment_method
    second = give_backup(engine, stripe_sandbox, client, AUTHENTICATED).payment_method
    an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    assert attempt_states(engine) == ["declined", "needs_action"]
    assert mails(engine) == ["authentication_needed"]

    pay_waiting_intents(stripe_sandbox)
    tell_all(engine, stripe_sandbox)
    work(engine, now=NOW, gateways=vendors, queues=("billing", "payments"))

    assert attempt_states(engine) == ["declined", "succeeded"]
    assert methods(engine, client) == [(second, None), (first, "lost_card")]
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_the_second_card_follows_also_where_the_decline_is_told_late(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, HARD)
    give_backup(engine, stripe_sandbox, client)
    an_open_invoice(engine, account, client)
    stripe_sandbox.control.add_fault("lost_answer", times=None, path=INTENTS)
    sweep(engine, vendors)
    assert attempt_states(engine) == ["unknown"], "nothing is tried while the first is not settled"
    stripe_sandbox.control.clear_faults()

    sweep(engine, vendors, now=NOW + MINUTE)

    assert attempt_states(engine) == ["declined", "succeeded"]
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_a_second_card_without_an_answer_is_asked_after_and_tried_once(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client(engine, account)
    give_card(engine, stripe_sandbox, client, HARD)
    holder = give_backup(engine, stripe_sandbox, client)
    an_open_invoice(engine, account, client)
    stripe_sandbox.control.add_fault(
        "lost_answer", times=None, path=INTENTS, parameters={"customer": holder.customer}
    )
    sweep(engine, vendors)
    assert attempt_states(engine) == ["declined", "unknown"]
    stripe_sandbox.control.clear_faults()

    for minutes in (1, 10, 100):
        sweep(engine, vendors, now=NOW + minutes * MINUTE)

    assert attempt_states(engine) == ["declined", "succeeded"]
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


@pytest.mark.parametrize("is_back", [True, False], ids=["paused and resumed", "taken away"])
def test_a_second_card_waits_for_the_end_of_a_pause(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    is_back: bool,
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, HARD)
    give_backup(engine, stripe_sandbox, client)
    invoice_id = an_open_invoice(engine, account, client)
    stripe_sandbox.control.add_fault("lost_answer", times=None, path=INTENTS)
    sweep(engine, vendors)
    stripe_sandbox.control.clear_faults()
    change(engine, client, paused={"collection": True})
    sweep(engine, vendors, now=NOW + MINUTE)
    assert attempt_states(engine) == ["declined"]
    assert invoice_of(engine, invoice_id).next_attempt_at == NOW + MINUTE
    assert audited(engine, account) == []

    if not is_back:
        take_backup(engine, client)
    change(engine, client, paused={"collection": False})
    sweep(engine, vendors, now=NOW + DAY)

    assert attempt_states(engine) == ["declined", "succeeded"][: 1 + is_back]
    assert invoice_of(engine, invoice_id).next_attempt_at is None
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000][:is_back])


def test_a_card_that_may_not_be_tried_again_is_no_second_card(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, HARD)
    give_backup(engine, stripe_sandbox, client)
    with engine.begin() as connection:
        connection.execute(text("UPDATE backup_methods SET stopped_for = 'stolen_card'"))
    an_open_invoice(engine, account, client)

    sweep(engine, vendors)

    assert attempt_states(engine) == ["declined"]
    assert mails(engine) == ["payment_failed"]


def test_a_new_card_beside_the_second_ones_charge_stays_the_first(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, HARD)
    second = give_backup(engine, stripe_sandbox, client, BANK).payment_method
    an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    assert attempt_states(engine) == ["declined", "processing"]

    new = give_card(engine, stripe_sandbox, client).payment_method
    sweep(engine, vendors)
    stripe_sandbox.control.settle(str(attempts_of(engine)[-1].payment_intent))
    sweep(engine, vendors, now=NOW + DAY)

    assert attempt_states(engine) == ["declined", "succeeded"]
    assert methods(engine, client) == [(new, None), (second, None)]
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_a_first_card_that_is_taken_away_leaves_its_place_to_the_second(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, SOFT)
    second = give_backup(engine, stripe_sandbox, client).payment_method
    an_open_invoice(engine, account, client)
    sweep(engine, vendors)

    take_card(engine, client)
    sweep(engine, vendors)

    assert methods(engine, client) == [(second, None), None]
    assert attempt_states(engine) == ["declined", "succeeded"]
    take_card(engine, client)
    assert methods(engine, client) == [None, None]
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_the_second_card_can_be_made_the_first(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, HARD)
    holder = give_backup(engine, stripe_sandbox, client)

    put_on(engine, client, holder)

    assert methods(engine, client) == [(holder.payment_method, None), None]
    an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    assert attempt_states(engine) == ["succeeded"]


def test_a_top_up_is_not_tried_on_the_second_card(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, HARD)
    give_backup(engine, stripe_sandbox, client)
    set_top_up(engine, client)

    sweep(engine, vendors)

    assert [one.purpose for one in attempts_of(engine)] == ["top_up"]
    assert top_up_of(engine, client).is_off


def test_a_click_that_pays_on_the_stopped_card_leaves_both_where_they_are(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client(engine, account)
    first = give_card(engine, stripe_sandbox, client, HARD).payment_method
    second = give_backup(engine, stripe_sandbox, client, SOFT).payment_method
    invoice_id = an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    give_money(stripe_sandbox)

    do(engine, vendors, charge_invoice, account, invoice_id=invoice_id)

    assert methods(engine, client) == [(first, None), (second, None)]
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def give_second(engine: Engine, owner: UUID, client: Client, customer: str, method: str) -> None:
    with Session(engine) as session, session.begin():
        set_backup_method(
            session,
            owner,
            client.id,
            stripe_customer=customer,
            payment_method=method,
            now=NOW,
            requested_by="test",
        )


def test_a_second_card_is_another_one_and_the_accounts_own(
    engine: Engine, account: Account, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client(engine, account)
    holder = give_card(engine, stripe_sandbox, client)
    with Session(engine, expire_on_commit=False) as session, session.begin():
        other = create_account(session, "Another")
    theirs = a_client(engine, other)

    with pytest.raises(InvalidInput) as same:
        give_second(engine, account.id, client, holder.customer, holder.payment_method)
    assert same.value.field == "payment_method"
    with pytest.raises(RuleViolation) as taken:
        give_second(engine, other.id, theirs, holder.customer, "pm_2")
    assert taken.value.code == "stripe_customer_taken"
    with pytest.raises(NotFound):
        give_second(engine, other.id, client, "cus_2", "pm_2")
    with pytest.raises(NotFound) as missing:
        take_backup(engine, client)
    assert missing.value.code == "backup_method_not_found"


def test_a_returned_debit_of_the_second_card_is_written_down_whatever_became_of_the_first(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    with Session(engine) as session, session.begin():
        change_account(session, account.id, {"dunning_final": "uncollectible"}, now=NOW)
    client = a_client_with(engine, account, stripe_sandbox, HARD)
    give_backup(engine, stripe_sandbox, client, BANK)
    invoice_id = an_open_invoice(engine, account, client)
    by_hand = an_open_invoice(engine, account, client, "20.00", collect=False)
    sweep(engine, vendors)
    assert attempt_states(engine, invoice_id) == ["declined", "processing"]
    give_card(engine, stripe_sandbox, client, HARD)  # a new one: a fresh schedule, failures = 0
    do(engine, vendors, charge_invoice, account, invoice_id=by_hand)  # refused: it is stopped

    intent = str(attempts_of(engine, invoice_id)[-1].payment_intent)
    stripe_sandbox.control.settle(intent, "insufficient_funds")
    tell_all(engine, stripe_sandbox)
    work(engine, now=NOW + 3 * DAY, gateways=vendors, queues=["billing", "payments"])

    with Session(engine) as session:
        errors = [job.error for job in session.scalars(select(Job)) if job.error]
    assert errors == []
    assert attempt_states(engine, invoice_id) == ["declined", "declined"]
    assert do(engine, vendors, void_invoice, account, invoice_id=invoice_id).state == "succeeded"
    assert invoice_of(engine, invoice_id).status == "void"

    later = an_open_invoice(engine, account, client, "30.00")
    give_card(engine, stripe_sandbox, client)
    sweep(engine, vendors, now=NOW + 4 * DAY)
    assert invoice_of(engine, later).status == "paid"
    assert_books_agree(engine, account, stripe_sandbox, charges=[3000])
