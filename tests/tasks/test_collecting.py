from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from billing.collection import AttemptState, Collection, collection_of
from billing.invoice_states import InvoiceStatus
from gateways.sandbox.stripe.server import StripeSandbox
from models import Account, Client, JobAttempt
from tasks.accounts import change_account
from tasks.calls import Gateways
from tasks.charging import charge_invoice
from tasks.collecting import MAX_CHARGES_A_RUN, collect_client
from tasks.crediting import deposit_credit
from tasks.due_collections import collect_due
from tests.cards import (
    AUTHENTICATED,
    BANK,
    EXPIRED,
    HARD,
    QUEUES,
    SOFT,
    a_client_with,
    an_open_invoice,
    ask,
    assert_books_agree,
    attempt_states,
    attempts_of,
    card_of,
    charged,
    credit_of,
    do,
    give_card,
    give_money,
    hurry,
    invoice_of,
    jobs_of,
    keys_sent,
    mails,
    many_open_invoices,
    payments,
    sweep,
    take_card,
    watched,
)
from tests.worlds import NOW, a_charge, a_client, audited, change, invoices_of, tick, work

CHICAGO = "America/Chicago"  # 10:00 there is 15:00 UTC in June.


def collection(engine: Engine, client: Client) -> Collection:
    """How the client's only invoice is being collected."""
    [invoice] = invoices_of(engine, client)
    still_open = {AttemptState.PENDING, AttemptState.PROCESSING, AttemptState.UNKNOWN}
    still_open.add(AttemptState.NEEDS_ACTION)
    states = [state for state in attempt_states(engine, invoice.id) if state in still_open]
    return collection_of(
        status=InvoiceStatus(invoice.status),
        is_automatic=invoice.auto_collect,
        attempt=AttemptState(states[0]) if states else None,
        has_next_try=invoice.next_attempt_at is not None,
        has_card=card_of(engine, client) is not None,
    )


def retry_after(engine: Engine, account: Account, days: list[int]) -> None:
    with Session(engine) as session, session.begin():
        change_account(session, account.id, {"dunning_days": days}, now=NOW)


def test_a_month_is_billed_and_charged_by_itself(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client(
        engine, account, now=datetime(2026, 5, 1, 12, tzinfo=UTC), billing_cycle="monthly"
    )
    give_card(engine, stripe_sandbox, client)
    a_charge(engine, client, date(2026, 5, 5), "10.00")

    tick(engine, now=NOW)
    work(engine, now=NOW, gateways=vendors, queues=QUEUES)

    [invoice] = invoices_of(engine, client)
    assert (invoice.status, invoice.attempt_count) == ("paid", 1)
    [attempt] = attempts_of(engine)
    assert attempt.origin == "automatic"
    assert mails(engine) == ["receipt"]
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_soft_declines_are_retried_on_the_schedule_at_ten_in_the_clients_zone_and_then_end(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, SOFT, time_zone=CHICAGO)
    invoice_id = an_open_invoice(engine, account, client)

    tries, now = [NOW], NOW
    sweep(engine, vendors, now=now)
    while (due := invoice_of(engine, invoice_id).next_attempt_at) is not None:
        sweep(engine, vendors, now=due - timedelta(minutes=1))
        assert len(attempts_of(engine)) == len(tries), "tried before its time"
        tries.append(due)
        sweep(engine, vendors, now=due)

    assert tries[1:] == [datetime(2026, 6, day, 15, tzinfo=UTC) for day in (4, 9, 16, 23)]
    assert attempt_states(engine) == ["declined"] * 5
    invoice = invoice_of(engine, invoice_id)
    assert (invoice.status, invoice.failures, invoice.attempt_count) == ("open", 5, 5)
    assert collection(engine, client) == Collection.EXHAUSTED
    sweep(engine, vendors, now=now + timedelta(days=90))
    assert len(attempts_of(engine)) == 5
    assert mails(engine) == ["payment_failed"] * 5
    assert len(set(keys_sent(stripe_sandbox))) == 5
    assert_books_agree(engine, account, stripe_sandbox, charges=[])


def test_an_account_chooses_its_own_days(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    retry_after(engine, account, [1, 2])
    client = a_client_with(engine, account, stripe_sandbox, SOFT)
    invoice_id = an_open_invoice(engine, account, client)

    due: list[datetime] = []
    for _ in range(3):
        sweep(engine, vendors, now=due[-1] if due else NOW)
        at = invoice_of(engine, invoice_id).next_attempt_at
        if at is not None:
            due.append(at)

    assert due == [datetime(2026, 6, day, 10, tzinfo=UTC) for day in (2, 4)]
    assert collection(engine, client) == Collection.EXHAUSTED


def test_an_account_that_retries_nothing_still_tries_each_invoice_once(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    retry_after(engine, account, [])
    client = a_client_with(engine, account, stripe_sandbox, SOFT)
    older = an_open_invoice(engine, account, client, "10.00")
    newer = an_open_invoice(engine, account, client, "20.00")

    sweep(engine, vendors)
    assert attempt_states(engine, older) == ["declined"]
    assert invoice_of(engine, older).next_attempt_at is None
    assert attempts_of(engine, newer) == []
    tomorrow = datetime(2026, 6, 2, 10, tzinfo=UTC)
    assert invoice_of(engine, newer).next_attempt_at == tomorrow

    sweep(engine, vendors, now=tomorrow)
    assert attempt_states(engine, newer) == ["declined"]
    assert invoice_of(engine, newer).next_attempt_at is None


@pytest.mark.parametrize(
    ("card", "code", "kind"),
    [
        (HARD, "lost_card", "hard"),
        ("pm_card_chargeDeclinedStolenCard", "stolen_card", "hard"),
        ("pm_card_chargeDeclinedFraudulent", "fraudulent", "hard"),
        (EXPIRED, "expired_card", "needs_new_card"),
        ("pm_card_chargeDeclinedIncorrectCvc", "incorrect_cvc", "needs_new_card"),
    ],
)
def test_a_card_that_cannot_be_tried_again_stops_all_of_the_clients_tries(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    card: str,
    code: str,
    kind: str,
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, card)
    tried = an_open_invoice(engine, account, client)
    untried = an_open_invoice(engine, account, client)

    for day in (0, 1, 3, 8, 15, 22, 40):
        sweep(engine, vendors, now=NOW + timedelta(days=day))

    [attempt] = attempts_of(engine)
    assert attempt.invoice_id == tried
    assert (attempt.decline_code, attempt.decline_class) == (code, kind)
    assert invoice_of(engine, untried).next_attempt_at is None
    method = card_of(engine, client)
    assert method is not None
    assert method.stopped_for == code
    assert mails(engine) == ["payment_failed"]
    assert_books_agree(engine, account, stripe_sandbox, charges=[])


def test_an_invoice_finalized_on_a_stopped_card_waits_for_a_new_one(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, HARD)
    an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    later = an_open_invoice(engine, account, client, "20.00")
    sweep(engine, vendors)
    assert attempts_of(engine, later) == []

    give_card(engine, stripe_sandbox, client)
    sweep(engine, vendors)
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000, 2000])


@pytest.mark.parametrize(
    ("card", "code"),
    [
        ("pm_card_chargeDeclined", "generic_decline"),
        ("pm_card_chargeDeclinedVelocityLimitExceeded", "card_velocity_exceeded"),
        ("pm_card_chargeDeclinedProcessingError", "processing_error"),
    ],
)
def test_a_card_that_may_be_good_later_is_tried_later(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    card: str,
    code: str,
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, card)
    invoice_id = an_open_invoice(engine, account, client)
    sweep(engine, vendors)

    [attempt] = attempts_of(engine)
    assert (attempt.decline_code, attempt.decline_class) == (code, "soft")
    due = datetime(2026, 6, 4, 10, tzinfo=UTC)
    assert invoice_of(engine, invoice_id).next_attempt_at == due


def test_authentication_required_waits_for_the_client_and_says_so_once(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, AUTHENTICATED)
    an_open_invoice(engine, account, client)

    for day in (0, 1, 3, 8, 15, 22, 40):
        sweep(engine, vendors, now=NOW + timedelta(days=day))

    [attempt] = attempts_of(engine)
    assert (attempt.state, attempt.decline_class) == ("needs_action", "needs_authentication")
    assert collection(engine, client) == Collection.NEEDS_ACTION
    assert invoices_of(engine, client)[0].failures == 0
    assert mails(engine) == ["authentication_needed"]
    assert_books_agree(engine, account, stripe_sandbox, charges=[])


def test_what_waits_for_the_client_holds_the_rest_for_days_not_for_ever(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, AUTHENTICATED)
    older = an_open_invoice(engine, account, client)
    newer = an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    assert attempts_of(engine, newer) == []
    due = invoice_of(engine, newer).next_attempt_at
    assert due == datetime(2026, 6, 4, 10, tzinfo=UTC)

    sweep(engine, vendors, now=due)
    assert attempt_states(engine, older) == attempt_states(engine, newer) == ["needs_action"]


def test_a_catch_up_is_charged_oldest_first_one_after_another(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client(
        engine, account, now=datetime(2026, 3, 1, 12, tzinfo=UTC), billing_cycle="monthly"
    )
    give_card(engine, stripe_sandbox, client)
    for month, price in ((3, "10.00"), (4, "20.00"), (5, "30.00")):
        a_charge(engine, client, date(2026, month, 5), price)

    tick(engine, now=NOW)
    work(engine, now=NOW, gateways=vendors, queues=QUEUES)

    assert [one.status for one in invoices_of(engine, client)] == ["paid"] * 3
    [job] = jobs_of(engine, collect_client)
    assert job.result is not None
    assert [one["state"] for one in job.result["attempts"]] == ["succeeded"] * 3
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000, 2000, 3000])


def test_what_comes_due_while_the_last_one_is_charged_is_the_next_sweeps(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    an_open_invoice(engine, account, client, "10.00")
    come: list[UUID] = []

    def one_comes() -> None:
        if not come:
            come.append(an_open_invoice(engine, account, client, "20.00"))

    sweep(engine, watched(vendors, before=one_comes))
    sweep(engine, vendors)

    assert [one.status for one in invoices_of(engine, client)] == ["paid"] * 2
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000, 2000])


def test_a_decline_holds_the_rest_until_the_next_try_and_they_go_on_after_it(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, SOFT)
    ids = [an_open_invoice(engine, account, client, price) for price in ("10.00", "20.00", "30.00")]
    sweep(engine, vendors)
    sweep(engine, vendors, now=NOW + timedelta(days=1))
    due = datetime(2026, 6, 4, 10, tzinfo=UTC)
    assert [invoice_of(engine, one).next_attempt_at for one in ids] == [due] * 3
    assert [invoice_of(engine, one).failures for one in ids] == [1, 0, 0]
    assert len(attempts_of(engine)) == 1

    give_money(stripe_sandbox)
    sweep(engine, vendors, now=due)

    assert [invoice_of(engine, one).status for one in ids] == ["paid"] * 3
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000, 2000, 3000])


def test_an_invoice_that_comes_while_an_older_one_waits_gets_its_time_and_comes_after_it(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, SOFT)
    older = an_open_invoice(engine, account, client, "10.00")
    sweep(engine, vendors)
    due = datetime(2026, 6, 4, 10, tzinfo=UTC)
    assert invoice_of(engine, older).next_attempt_at == due

    tomorrow = NOW + timedelta(days=1)
    newer = an_open_invoice(engine, account, client, "20.00", now=tomorrow)
    assert invoice_of(engine, newer).next_attempt_at == due
    give_money(stripe_sandbox)
    sweep(engine, vendors, now=tomorrow)
    assert attempts_of(engine, newer) == []

    sweep(engine, vendors, now=due)

    assert [invoice_of(engine, one).status for one in (older, newer)] == ["paid", "paid"]
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000, 2000])


def test_invoices_that_keep_coming_do_not_put_off_one_that_was_declined(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, SOFT)
    older = an_open_invoice(engine, account, client)
    for day in range(23):
        now = NOW + timedelta(days=day)
        if day % 2:
            an_open_invoice(engine, account, client, "20.00", now=now)
        sweep(engine, vendors, now=now)

    tries = [attempt.created_at.day for attempt in attempts_of(engine, older)]
    assert tries == [1, 4, 9, 16, 23]
    # The others have their turn once nothing more is tried of that one.
    assert {attempt.invoice_id for attempt in attempts_of(engine)} == {older}


def test_an_older_invoice_that_is_tried_no_more_holds_no_new_one(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    retry_after(engine, account, [])
    client = a_client_with(engine, account, stripe_sandbox, SOFT)
    an_open_invoice(engine, account, client, "10.00")
    sweep(engine, vendors)
    give_money(stripe_sandbox)

    an_open_invoice(engine, account, client, "20.00")
    sweep(engine, vendors)

    assert_books_agree(engine, account, stripe_sandbox, charges=[2000])


def test_a_decline_moves_no_invoice_that_was_declined_itself(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, SOFT)
    first = an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    due = datetime(2026, 6, 4, 10, tzinfo=UTC)
    change(engine, client, net_days=0)
    sooner = an_open_invoice(engine, account, client, now=NOW + timedelta(days=1))
    in_order = sorted(invoices_of(engine, client), key=lambda invoice: str(invoice.due_on))
    assert [invoice.id for invoice in in_order] == [sooner, first]

    sweep(engine, vendors, now=due)
    assert attempt_states(engine, sooner) == ["declined"]
    assert invoice_of(engine, first).next_attempt_at == due
    sweep(engine, vendors, now=due)

    times = [invoice_of(engine, one).next_attempt_at for one in (first, sooner)]
    assert times == [datetime(2026, 6, day, 10, tzinfo=UTC) for day in (9, 7)]


def test_one_clients_decline_holds_no_other_client(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    bad = a_client_with(engine, account, stripe_sandbox, HARD)
    good = a_client_with(engine, account, stripe_sandbox)
    an_open_invoice(engine, account, bad)
    an_open_invoice(engine, account, good, "20.00")

    sweep(engine, vendors)

    assert_books_agree(engine, account, stripe_sandbox, charges=[2000])


def test_without_a_card_no_try_is_used_and_a_card_starts_it(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client(engine, account)
    invoice_id = an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    assert collection(engine, client) == Collection.NO_BILLING_METHOD
    assert attempts_of(engine) == []

    give_card(engine, stripe_sandbox, client)
    sweep(engine, vendors)

    assert invoice_of(engine, invoice_id).status == "paid"
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_a_card_that_is_gone_when_the_retry_is_due_uses_up_no_try(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, SOFT)
    invoice_id = an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    take_card(engine, client)

    sweep(engine, vendors, now=NOW + timedelta(days=4))

    invoice = invoice_of(engine, invoice_id)
    assert (invoice.failures, invoice.attempt_count) == (1, 1)
    assert collection(engine, client) == Collection.NO_BILLING_METHOD


def test_credit_that_pays_everything_before_the_try_leaves_stripe_alone(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, SOFT)
    invoice_id = an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    sent = len(keys_sent(stripe_sandbox))
    keep_credit(engine, vendors, account, client, 1000)
    assert invoice_of(engine, invoice_id).status == "open"

    sweep(engine, vendors, now=NOW + timedelta(days=4))

    assert invoice_of(engine, invoice_id).status == "paid"
    assert len(keys_sent(stripe_sandbox)) == sent
    assert_books_agree(engine, account, stripe_sandbox, charges=[])


def test_an_invoice_that_owes_nothing_is_paid_with_no_call(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client, "0.00")
    sweep(engine, vendors)

    assert invoice_of(engine, invoice_id).status == "paid"
    assert keys_sent(stripe_sandbox) == []


@pytest.mark.parametrize("is_kept", [False, True], ids=["applied at once", "kept until the try"])
def test_credit_that_comes_before_the_retry_lowers_it(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    is_kept: bool,
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, SOFT)
    invoice_id = an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    keep_credit(engine, vendors, account, client, 300, apply=not is_kept)
    give_money(stripe_sandbox)

    sweep(engine, vendors, now=NOW + timedelta(days=4))

    assert [one.amount for one in attempts_of(engine, invoice_id)] == [1000, 700]
    assert_books_agree(engine, account, stripe_sandbox, charges=[700])


def test_what_is_below_stripes_minimum_is_carried_to_the_next_invoice_as_a_debit(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    small = an_open_invoice(engine, account, client, "0.30")
    sweep(engine, vendors)

    invoice = invoice_of(engine, small)
    assert (invoice.status, invoice.credit_applied, invoice.amount_due) == ("paid", 30, 0)
    assert (invoice.amount_paid, invoice.attempt_count) == (0, 0)
    assert credit_of(engine, client) == -30
    assert keys_sent(stripe_sandbox) == []
    assert audited(engine, account) == []

    following = an_open_invoice(engine, account, client, "10.00")
    sweep(engine, vendors)
    assert invoice_of(engine, following).credit_applied == -30
    assert credit_of(engine, client) == 0
    assert_books_agree(engine, account, stripe_sandbox, charges=[1030])


def test_what_credit_leaves_below_the_minimum_is_carried_and_the_next_is_charged(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, SOFT)
    older = an_open_invoice(engine, account, client, "10.00")
    newer = an_open_invoice(engine, account, client, "20.00")
    sweep(engine, vendors)
    keep_credit(engine, vendors, account, client, 960)
    give_money(stripe_sandbox)

    sweep(engine, vendors, now=NOW + timedelta(days=4))

    assert [invoice_of(engine, one).status for one in (older, newer)] == ["paid", "paid"]
    assert credit_of(engine, client) == -40
    assert_books_agree(engine, account, stripe_sandbox, charges=[2000])


def test_hundreds_that_are_too_small_are_carried_and_the_one_that_is_not_is_charged(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    small = many_open_invoices(engine, account, client, 300, "0.10")
    an_open_invoice(engine, account, client, "10.00")

    work(engine, now=NOW, gateways=vendors, queues=QUEUES)

    assert [one.status for one in invoices_of(engine, client)] == ["paid"] * 301
    assert attempts_of(engine, *small) == []
    assert credit_of(engine, client) == -3000
    assert [(job.state, job.attempt) for job in jobs_of(engine, collect_client)] == [
        ("succeeded", 1)
    ]
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_hundreds_that_stripe_does_not_charge_hold_nothing(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    strange = many_open_invoices(engine, account, client, 300, "500.00", currency="irr")
    normal = an_open_invoice(engine, account, client)

    work(engine, now=NOW, gateways=vendors, queues=QUEUES)

    assert {invoice_of(engine, one).next_attempt_at for one in strange} == {None}
    assert invoice_of(engine, normal).status == "paid"
    assert attempts_of(engine, *strange) == []
    assert {job.state for job in jobs_of(engine, collect_client)} == {"succeeded"}
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_a_long_list_is_charged_in_runs_of_a_few_that_follow_each_other_to_its_end(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    many_open_invoices(engine, account, client, 2 * MAX_CHARGES_A_RUN + 2, "10.00")

    work(engine, now=NOW, gateways=vendors, queues=QUEUES)

    [job] = jobs_of(engine, collect_client)
    with Session(engine) as session:
        runs = session.scalars(select(JobAttempt).where(JobAttempt.job_id == job.id)).all()
    assert [run.outcome for run in runs] == ["succeeded"] * 3
    assert job.result is not None
    assert len(job.result["attempts"]) == 2
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000] * 12)


def test_a_small_invoice_that_no_card_is_charged_for_stays_open(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    with_card = a_client_with(engine, account, stripe_sandbox)
    by_hand = an_open_invoice(engine, account, with_card, "0.30", collect=False)
    without = an_open_invoice(engine, account, a_client(engine, account), "0.30")
    sweep(engine, vendors)

    assert [invoice_of(engine, one).status for one in (by_hand, without)] == ["open", "open"]


def test_a_currency_that_stripe_does_not_charge_stays_open_and_holds_nothing(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    strange = an_open_invoice(engine, account, client, "500.00", currency="irr")
    normal = an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    sweep(engine, vendors, now=NOW + timedelta(days=1))

    assert invoice_of(engine, strange).status == "open"
    assert invoice_of(engine, strange).next_attempt_at is None
    assert invoice_of(engine, normal).status == "paid"
    assert attempts_of(engine, strange) == []
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


@pytest.mark.parametrize(
    ("currency", "price", "sent"),
    [("jpy", "1500", 1500), ("isk", "700", 70000), ("kwd", "1.250", 1250), ("huf", "400", 40000)],
)
def test_amounts_go_to_stripe_in_its_own_units(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    currency: str,
    price: str,
    sent: int,
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client, price, currency=currency)
    sweep(engine, vendors)

    invoice = invoice_of(engine, invoice_id)
    assert (invoice.status, invoice.amount_paid) == ("paid", invoice.total)
    assert_books_agree(engine, account, stripe_sandbox, charges=[sent])


def test_a_bank_debit_is_in_flight_and_holds_the_rest_until_it_is_settled(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, BANK)
    debited = an_open_invoice(engine, account, client)
    waiting = an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    sweep(engine, vendors, now=NOW + timedelta(hours=1))

    [attempt] = attempts_of(engine)
    assert (attempt.invoice_id, attempt.state) == (debited, "processing")
    assert attempts_of(engine, waiting) == []
    assert invoice_of(engine, debited).status == "open"
    assert payments(engine) == []
    assert mails(engine) == []


def test_two_sweeps_at_one_minute_charge_once(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    an_open_invoice(engine, account, client)
    for _ in range(3):
        ask(engine, collect_due, None)
    work(engine, now=NOW, gateways=vendors, queues=QUEUES)

    assert len(jobs_of(engine, collect_client)) == 1
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_stripe_away_for_an_hour_charges_once_when_it_is_back(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    an_open_invoice(engine, account, client)
    stripe_sandbox.kill()
    for minute in range(0, 60, 10):
        hurry(engine, vendors, now=NOW + timedelta(minutes=minute))
        sweep(engine, vendors, now=NOW + timedelta(minutes=minute))
    assert attempt_states(engine) == ["pending"]
    [job] = jobs_of(engine, collect_client)
    assert (job.state, job.attempt) == ("scheduled", 0)

    stripe_sandbox.start()
    hurry(engine, vendors, now=NOW + timedelta(hours=1))

    assert attempt_states(engine) == ["succeeded"]
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_an_invoice_of_a_run_waits_for_the_runs_end(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client(
        engine, account, now=datetime(2026, 5, 1, 12, tzinfo=UTC), billing_cycle="monthly"
    )
    give_card(engine, stripe_sandbox, client)
    a_charge(engine, client, date(2026, 5, 5))
    tick(engine, now=NOW)
    with engine.begin() as connection:
        connection.execute(text("UPDATE billing_runs SET finished_at = NULL"))

    sweep(engine, vendors)

    assert charged(stripe_sandbox) == []
    assert attempts_of(engine) == []


def test_a_client_that_is_gone_is_a_skipped_job(
    engine: Engine, account: Account, vendors: Gateways
) -> None:
    job = do(engine, vendors, collect_client, account, client_id=account.id)
    assert (job.state, job.reason) == ("skipped", "client_not_found")


def test_a_manual_invoice_is_never_charged_by_itself(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    an_open_invoice(engine, account, client, collect=False)
    for day in (0, 1, 3, 8, 15, 22, 40):
        sweep(engine, vendors, now=NOW + timedelta(days=day))

    assert keys_sent(stripe_sandbox) == []
    assert collection(engine, client) == Collection.MANUAL


def keep_credit(
    engine: Engine,
    vendors: Gateways,
    account: Account,
    client: Client,
    amount: int,
    *,
    apply: bool = False,
) -> None:
    """A deposit that no open invoice uses yet."""
    do(
        engine,
        vendors,
        deposit_credit,
        account,
        client_id=client.id,
        amount=amount,
        currency="usd",
        apply=apply,
    )


def give_up_after(engine: Engine, account: Account, days: list[int]) -> None:
    """Write off what is still due when the tries of this schedule are used up."""
    with Session(engine) as session, session.begin():
        ends = {"dunning_days": days, "dunning_final": "uncollectible"}
        change_account(session, account.id, ends, now=NOW)


def test_an_account_may_give_up_what_its_last_scheduled_try_did_not_bring(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    give_up_after(engine, account, [3])
    client = a_client_with(engine, account, stripe_sandbox, SOFT)
    invoice_id = an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    assert invoice_of(engine, invoice_id).status == "open"
    keep_credit(engine, vendors, account, client, 100, apply=False)

    sweep(engine, vendors, now=datetime(2026, 6, 4, 10, tzinfo=UTC))

    invoice = invoice_of(engine, invoice_id)
    assert (invoice.status, invoice.amount_written_off, invoice.amount_due) == (
        "uncollectible",
        900,
        0,
    )
    assert collection(engine, client) == Collection.NONE
    assert mails(engine) == ["payment_failed", "receipt", "payment_failed"]
    give_card(engine, stripe_sandbox, client)
    sweep(engine, vendors, now=datetime(2026, 6, 30, 10, tzinfo=UTC))
    assert invoice_of(engine, invoice_id).status == "uncollectible"
    assert_books_agree(engine, account, stripe_sandbox, charges=[])


def test_a_schedule_that_tries_once_is_used_up_by_that(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    give_up_after(engine, account, [])
    client = a_client_with(engine, account, stripe_sandbox, SOFT)
    first = an_open_invoice(engine, account, client)
    later = an_open_invoice(engine, account, client)

    sweep(engine, vendors)

    assert invoice_of(engine, first).status == "uncollectible"
    # Held by the decline: its own try is still to come.
    assert invoice_of(engine, later).status == "open"
    assert_books_agree(engine, account, stripe_sandbox, charges=[])


def test_a_card_that_is_refused_for_good_leaves_the_invoice_to_a_new_one(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    give_up_after(engine, account, [3])
    client = a_client_with(engine, account, stripe_sandbox, HARD)
    invoice_id = an_open_invoice(engine, account, client)

    sweep(engine, vendors)

    assert invoice_of(engine, invoice_id).status == "open"
    assert collection(engine, client) == Collection.EXHAUSTED


def test_staffs_own_tries_use_up_no_schedule_and_give_nothing_up(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    give_up_after(engine, account, [])
    client = a_client_with(engine, account, stripe_sandbox, SOFT)
    invoice_id = an_open_invoice(engine, account, client, collect=False)

    do(engine, vendors, charge_invoice, account, invoice_id=invoice_id)

    assert attempt_states(engine, invoice_id) == ["declined"]
    assert invoice_of(engine, invoice_id).status == "open"
