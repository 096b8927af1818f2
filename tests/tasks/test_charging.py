from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from gateways.sandbox.stripe.server import StripeSandbox
from models import Account
from tasks.calls import Gateways
from tasks.charging import charge_invoice
from tasks.crediting import deposit_credit
from tasks.drafting import draft_invoice
from tests.cards import (
    AUTHENTICATED,
    BANK,
    EXPIRED,
    HARD,
    MAY,
    QUEUES,
    SOFT,
    a_client_with,
    an_open_invoice,
    ask,
    assert_books_agree,
    attempt_states,
    attempts_of,
    card_of,
    credit_of,
    do,
    give_card,
    give_money,
    give_unknown_card,
    hurry,
    invoice_of,
    keys_sent,
    mails,
    pay_waiting_intents,
    payments,
    refuse,
    sweep,
    take_card,
    watched,
)
from tests.worlds import NOW, a_charge, a_client, audited, invoices_of, perform, work


def test_a_click_charges_the_card_for_what_is_due_and_receipts_it_once(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, email="ada@x.example")
    invoice_id = an_open_invoice(engine, account, client, "12.34", collect=False)

    job = do(engine, vendors, charge_invoice, account, invoice_id=invoice_id)

    [attempt] = attempts_of(engine, invoice_id)
    assert job.result == {
        "invoice": str(invoice_id),
        "attempt": str(attempt.id),
        "state": "succeeded",
        "decline_code": None,
    }
    invoice = invoice_of(engine, invoice_id)
    assert (invoice.status, invoice.amount_paid, invoice.amount_due) == ("paid", 1234, 0)
    assert (invoice.attempt_count, invoice.next_attempt_at) == (1, None)
    assert (attempt.origin, attempt.settled_at, attempt.next_ask_at) == ("staff", NOW, None)
    [payment] = payments(engine)
    assert (payment.amount, payment.applied, payment.flagged) == (1234, 1234, None)
    assert mails(engine) == ["receipt"]
    assert_books_agree(engine, account, stripe_sandbox, charges=[1234])


def test_what_stripe_is_asked_for_names_the_invoice_and_the_attempt(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client, collect=False)
    do(engine, vendors, charge_invoice, account, invoice_id=invoice_id)

    [intent] = stripe_sandbox.control.payment_intents()
    [attempt] = attempts_of(engine)
    assert intent["description"] == "Invoice INV-000001"
    assert intent["metadata"] == {
        "account": str(account.id),
        "client": str(client.id),
        "invoice": str(invoice_id),
        "attempt": str(attempt.id),
    }
    assert keys_sent(stripe_sandbox) == [attempt.idempotency_key]
    assert attempt.payment_intent == intent["id"]


def test_a_declined_click_starts_no_schedule_and_mails_nobody(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, SOFT)
    invoice_id = an_open_invoice(engine, account, client, collect=False)

    job = do(engine, vendors, charge_invoice, account, invoice_id=invoice_id)

    assert job.state == "succeeded"
    assert job.result is not None
    assert (job.result["state"], job.result["decline_code"]) == ("declined", "insufficient_funds")
    invoice = invoice_of(engine, invoice_id)
    assert (invoice.status, invoice.attempt_count, invoice.failures) == ("open", 1, 0)
    assert invoice.next_attempt_at is None
    assert mails(engine) == []
    assert_books_agree(engine, account, stripe_sandbox, charges=[])


def test_clicks_use_up_no_scheduled_try(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, SOFT)
    invoice_id = an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    scheduled = invoice_of(engine, invoice_id).next_attempt_at
    assert scheduled is not None

    for _ in range(3):
        do(engine, vendors, charge_invoice, account, invoice_id=invoice_id)

    invoice = invoice_of(engine, invoice_id)
    assert (invoice.attempt_count, invoice.failures) == (4, 1)
    assert invoice.next_attempt_at == scheduled
    assert [one.origin for one in attempts_of(engine)] == ["automatic", *["staff"] * 3]


@pytest.mark.parametrize(
    ("card", "code"), [(HARD, "lost_card"), (EXPIRED, "expired_card")], ids=["hard", "expired"]
)
def test_a_hard_decline_of_a_click_stops_every_automatic_try_on_that_card(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    card: str,
    code: str,
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, SOFT)
    waiting = an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    give_card(engine, stripe_sandbox, client, card)
    by_hand = an_open_invoice(engine, account, client, collect=False)

    do(engine, vendors, charge_invoice, account, invoice_id=by_hand)
    for day in (1, 3, 8, 15, 22, 40):
        sweep(engine, vendors, now=NOW + timedelta(days=day))

    method = card_of(engine, client)
    assert method is not None
    assert method.stopped_for == code
    assert invoice_of(engine, waiting).next_attempt_at is None
    # The click goes before what comes by the thousand, and nothing after it.
    assert [one.origin for one in attempts_of(engine)] == ["automatic", "staff"]


def test_a_click_may_still_try_a_card_that_was_stopped(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, HARD)
    invoice_id = an_open_invoice(engine, account, client)
    sweep(engine, vendors)

    do(engine, vendors, charge_invoice, account, invoice_id=invoice_id)

    assert attempt_states(engine, invoice_id) == ["declined", "declined"]


def test_a_client_without_a_card_is_not_charged(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    invoice_id = an_open_invoice(engine, account, a_client(engine, account), collect=False)

    job = do(engine, vendors, charge_invoice, account, invoice_id=invoice_id)

    assert (job.state, job.reason) == ("skipped", "no_billing_method")
    assert invoice_of(engine, invoice_id).attempt_count == 0
    assert keys_sent(stripe_sandbox) == []


def test_only_an_open_invoice_is_charged(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    paid = an_open_invoice(engine, account, client, collect=False)
    do(engine, vendors, charge_invoice, account, invoice_id=paid)
    a_charge(engine, client, MAY)
    perform(engine, draft_invoice, account, client_id=client.id)
    draft = invoices_of(engine, client)[-1].id

    for invoice_id in (paid, draft):
        job = do(engine, vendors, charge_invoice, account, invoice_id=invoice_id)
        assert (job.state, job.reason) == ("skipped", "invoice_not_open")
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_another_accounts_invoice_is_not_there_to_be_charged(
    engine: Engine, account: Account, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client, collect=False)
    other = Account(id=client.id)  # Any id that is not this account's.

    with pytest.raises(Exception, match="no invoice"):
        perform(engine, charge_invoice, other, invoice_id=invoice_id)
    assert keys_sent(stripe_sandbox) == []


def test_a_click_while_a_bank_debit_is_under_way_is_refused(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, BANK)
    invoice_id = an_open_invoice(engine, account, client, collect=False)
    do(engine, vendors, charge_invoice, account, invoice_id=invoice_id)

    job = do(engine, vendors, charge_invoice, account, invoice_id=invoice_id)

    assert (job.state, job.reason) == ("skipped", "payment_in_flight")
    assert attempt_states(engine) == ["processing"]


def test_a_click_withdraws_what_waits_for_the_client_and_charges_anew(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, AUTHENTICATED)
    invoice_id = an_open_invoice(engine, account, client, collect=False)
    do(engine, vendors, charge_invoice, account, invoice_id=invoice_id)
    give_card(engine, stripe_sandbox, client)

    job = do(engine, vendors, charge_invoice, account, invoice_id=invoice_id)

    assert job.result is not None
    assert job.result["state"] == "succeeded"
    assert attempt_states(engine, invoice_id) == ["canceled", "succeeded"]
    statuses = [one["status"] for one in stripe_sandbox.control.payment_intents()]
    assert statuses == ["canceled", "succeeded"]
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_a_click_that_finds_the_client_has_just_paid_writes_that_down_and_charges_nothing(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, AUTHENTICATED)
    invoice_id = an_open_invoice(engine, account, client, collect=False)
    do(engine, vendors, charge_invoice, account, invoice_id=invoice_id)
    pay_waiting_intents(stripe_sandbox)

    job = do(engine, vendors, charge_invoice, account, invoice_id=invoice_id)

    assert (job.state, job.reason) == ("skipped", "invoice_not_open")
    assert attempt_states(engine, invoice_id) == ["succeeded"]
    assert invoice_of(engine, invoice_id).status == "paid"
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_a_click_without_a_card_leaves_what_waits_for_the_client_as_it_is(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, AUTHENTICATED)
    invoice_id = an_open_invoice(engine, account, client, collect=False)
    do(engine, vendors, charge_invoice, account, invoice_id=invoice_id)
    take_card(engine, client)

    job = do(engine, vendors, charge_invoice, account, invoice_id=invoice_id)

    assert (job.state, job.reason) == ("skipped", "no_billing_method")
    assert attempt_states(engine, invoice_id) == ["needs_action"]
    [intent] = stripe_sandbox.control.payment_intents()
    assert intent["status"] == "requires_payment_method"


def test_only_what_credit_left_is_charged(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client, collect=False)
    do(engine, vendors, deposit_credit, account, client_id=client.id, amount=400, currency="usd")

    do(engine, vendors, charge_invoice, account, invoice_id=invoice_id)

    invoice = invoice_of(engine, invoice_id)
    assert (invoice.status, invoice.credit_applied, invoice.amount_paid) == ("paid", 400, 600)
    assert_books_agree(engine, account, stripe_sandbox, charges=[600])


def test_a_click_at_what_is_too_little_for_a_card_carries_it_with_no_call(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client, "0.49", collect=False)

    job = do(engine, vendors, charge_invoice, account, invoice_id=invoice_id)

    assert job.result == {"invoice": str(invoice_id), "state": "carried"}
    assert invoice_of(engine, invoice_id).status == "paid"
    assert credit_of(engine, client) == -49
    assert keys_sent(stripe_sandbox) == []
    assert audited(engine, account) == []


def test_too_many_requests_are_waited_out_as_long_as_stripe_says_and_charge_once(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client, collect=False)
    stripe_sandbox.control.add_fault("rate_limit", path="/v1/payment_intents", retry_after=30)

    job = do(engine, vendors, charge_invoice, account, invoice_id=invoice_id)

    assert (job.state, job.attempt) == ("scheduled", 0)
    assert job.started_at is not None
    assert timedelta(seconds=29) < job.run_at - job.started_at < timedelta(seconds=40)
    assert attempt_states(engine) == ["pending"]
    hurry(engine, vendors, now=NOW + timedelta(seconds=30))
    assert len(set(keys_sent(stripe_sandbox))) == 1
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_stripe_is_never_waited_for_longer_than_an_hour(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client, collect=False)
    stripe_sandbox.control.add_fault("rate_limit", path="/v1/payment_intents", retry_after=900_000)

    job = do(engine, vendors, charge_invoice, account, invoice_id=invoice_id)

    assert job.started_at is not None
    assert job.run_at - job.started_at < timedelta(hours=1, minutes=1)
    [attempt] = attempts_of(engine)
    assert attempt.next_ask_at == NOW + timedelta(hours=1, minutes=1)


@pytest.mark.parametrize("told", [0, None], ids=["no time at all", "nothing"])
def test_stripe_that_says_not_how_long_is_asked_again_after_a_second_or_more(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    told: int | None,
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client, collect=False)
    stripe_sandbox.control.add_fault("rate_limit", path="/v1/payment_intents", retry_after=told)

    job = do(engine, vendors, charge_invoice, account, invoice_id=invoice_id)

    assert job.started_at is not None
    assert job.run_at - job.started_at >= timedelta(seconds=1)


def test_a_card_that_stripe_does_not_know_is_not_tried_again(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    give_unknown_card(engine, client)
    invoice_id = an_open_invoice(engine, account, client)
    sweep(engine, vendors)

    [attempt] = attempts_of(engine, invoice_id)
    assert (attempt.state, attempt.decline_class) == ("declined", "needs_new_card")
    assert attempt.decline_code == "resource_missing"
    method = card_of(engine, client)
    assert method is not None
    assert method.stopped_for == "resource_missing"


def test_an_amount_that_stripe_refuses_leaves_the_card_to_other_invoices(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    too_much = an_open_invoice(engine, account, client, "1000000.00")
    normal = an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    sweep(engine, vendors, now=NOW + timedelta(minutes=1))

    [refused] = attempts_of(engine, too_much)
    assert (refused.state, refused.decline_code) == ("declined", "amount_too_large")
    assert invoice_of(engine, too_much).next_attempt_at is None
    assert invoice_of(engine, normal).status == "paid"
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


TEN_TOMORROW = datetime(2026, 6, 2, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    "code",
    ["account_invalid", "testmode_charges_only", "invalid", "payment_intent_invalid_parameter"],
)
def test_a_refusal_about_us_stops_no_card_and_is_tried_again_tomorrow(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    code: str,
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, email="ada@x.example")
    ids = [an_open_invoice(engine, account, client, price) for price in ("10.00", "20.00")]
    we_are_refused = watched(vendors, before=refuse(code))
    for minute in range(4):
        sweep(engine, we_are_refused, now=NOW + timedelta(minutes=minute))

    for invoice_id in ids:
        [attempt] = attempts_of(engine, invoice_id)
        assert (attempt.state, attempt.decline_code) == ("declined", code)
        assert attempt.decline_class is None
        invoice = invoice_of(engine, invoice_id)
        assert (invoice.failures, invoice.next_attempt_at) == (0, TEN_TOMORROW)
    method = card_of(engine, client)
    assert method is not None
    assert method.stopped_for is None
    assert mails(engine) == []

    sweep(engine, vendors, now=TEN_TOMORROW)

    assert_books_agree(engine, account, stripe_sandbox, charges=[1000, 2000])


def test_refusals_about_us_are_tried_again_for_weeks_and_use_up_no_try(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, SOFT)
    invoice_id = an_open_invoice(engine, account, client)
    we_are_refused = watched(vendors, before=refuse("account_invalid"))
    for day in range(20):
        sweep(engine, we_are_refused, now=NOW + timedelta(days=day))
    assert len(attempts_of(engine)) == 20

    later = NOW + timedelta(days=20)
    sweep(engine, vendors, now=later)

    [*_, attempt] = attempts_of(engine)
    assert attempt.decline_code == "insufficient_funds"
    invoice = invoice_of(engine, invoice_id)
    assert (invoice.failures, invoice.attempt_count) == (1, 21)
    assert invoice.next_attempt_at == datetime(2026, 6, 24, 10, tzinfo=UTC)
    assert mails(engine) == ["payment_failed"]


def test_a_refusal_about_us_of_a_click_is_its_result_and_changes_no_schedule(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, SOFT)
    invoice_id = an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    scheduled = invoice_of(engine, invoice_id).next_attempt_at

    job = do(
        engine,
        watched(vendors, before=refuse("account_invalid")),
        charge_invoice,
        account,
        invoice_id=invoice_id,
    )

    assert job.result is not None
    assert (job.result["state"], job.result["decline_code"]) == ("declined", "account_invalid")
    assert invoice_of(engine, invoice_id).next_attempt_at == scheduled


@pytest.mark.parametrize(
    "code",
    [
        "customer_max_payment_methods",
        "payment_method_customer_decline",
        "payment_method_invalid_parameter",
        "payment_method_microdeposit_failed",
        "payment_method_unexpected_state",
        "resource_missing",
    ],
)
def test_a_refusal_about_the_card_stops_it_and_asks_for_another(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    code: str,
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    tried = an_open_invoice(engine, account, client)
    untried = an_open_invoice(engine, account, client)
    it_is_refused = watched(vendors, before=refuse(code))

    for day in (0, 1, 3, 8, 40):
        sweep(engine, it_is_refused, now=NOW + timedelta(days=day))

    [attempt] = attempts_of(engine)
    assert (attempt.invoice_id, attempt.decline_class) == (tried, "needs_new_card")
    assert [invoice_of(engine, one).next_attempt_at for one in (tried, untried)] == [None, None]
    assert invoice_of(engine, tried).failures == 1
    method = card_of(engine, client)
    assert method is not None
    assert method.stopped_for == code
    assert mails(engine) == ["payment_failed"]


@pytest.mark.parametrize(
    "code", ["amount_too_large", "amount_too_small", "invalid_amount", "invalid_currency"]
)
def test_a_refusal_about_the_amount_ends_the_tries_of_that_invoice_alone(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    code: str,
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    refused = an_open_invoice(engine, account, client, "10.00")
    normal = an_open_invoice(engine, account, client, "20.00")
    sweep(engine, watched(vendors, before=refuse(code, times=1)))

    for day in (1, 3, 8, 40):
        sweep(engine, vendors, now=NOW + timedelta(days=day))

    assert attempt_states(engine, refused) == ["declined"]
    assert invoice_of(engine, refused).next_attempt_at is None
    assert invoice_of(engine, normal).status == "paid"
    assert mails(engine) == ["receipt"]
    assert_books_agree(engine, account, stripe_sandbox, charges=[2000])


@pytest.mark.parametrize("is_refused", [False, True], ids=["declined", "refused"])
@pytest.mark.parametrize("by_whom", ["the sweep", "staff"])
@pytest.mark.parametrize("credit", [400, 1000, 1500])
def test_credit_that_comes_during_a_charge_is_used_when_it_fails(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    credit: int,
    by_whom: str,
    is_refused: bool,
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, SOFT)
    invoice_id = an_open_invoice(engine, account, client, collect=by_whom == "the sweep")

    def deposit() -> None:
        perform(engine, deposit_credit, account, client_id=client.id, amount=credit, currency="usd")
        assert invoice_of(engine, invoice_id).credit_applied == 0
        if is_refused:
            refuse("account_invalid")()

    if by_whom == "staff":
        ask(engine, charge_invoice, account, invoice_id=invoice_id)
    work(engine, now=NOW, gateways=watched(vendors, before=deposit), queues=QUEUES)

    invoice = invoice_of(engine, invoice_id)
    used = min(credit, 1000)
    assert (invoice.credit_applied, invoice.amount_due) == (used, 1000 - used)
    assert credit_of(engine, client) == credit - used
    is_paid = used == 1000
    assert invoice.status == ("paid" if is_paid else "open")
    is_tried_again = by_whom == "the sweep" and not is_paid
    assert (invoice.next_attempt_at is not None) == is_tried_again
    assert mails(engine).count("payment_failed") == (is_tried_again and not is_refused)
    assert_books_agree(engine, account, stripe_sandbox, charges=[])


def test_an_invoice_is_tried_fifteen_times_in_thirty_days_whoever_asks(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, SOFT)
    invoice_id = an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    due = invoice_of(engine, invoice_id).next_attempt_at
    assert due is not None
    for _ in range(14):
        job = do(engine, vendors, charge_invoice, account, invoice_id=invoice_id)
        assert job.state == "succeeded"

    job = do(engine, vendors, charge_invoice, account, invoice_id=invoice_id)
    assert (job.state, job.reason) == ("skipped", "too_many_tries")
    sweep(engine, vendors, now=due)
    assert invoice_of(engine, invoice_id).next_attempt_at is None
    assert len(set(keys_sent(stripe_sandbox))) == len(attempts_of(engine)) == 15

    give_money(stripe_sandbox)
    later = NOW + timedelta(days=30)
    do(engine, vendors, charge_invoice, account, invoice_id=invoice_id, now=later)
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_what_waits_for_the_client_stays_when_no_other_try_is_allowed(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, AUTHENTICATED)
    invoice_id = an_open_invoice(engine, account, client, collect=False)
    for _ in range(15):
        do(engine, vendors, charge_invoice, account, invoice_id=invoice_id)
    waiting = ["canceled"] * 14 + ["needs_action"]
    assert attempt_states(engine) == waiting

    job = do(engine, vendors, charge_invoice, account, invoice_id=invoice_id)

    assert (job.state, job.reason) == ("skipped", "too_many_tries")
    assert attempt_states(engine) == waiting
    assert stripe_sandbox.control.payment_intents()[-1]["status"] == "requires_payment_method"


def test_a_new_card_has_tries_of_its_own(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, AUTHENTICATED)
    invoice_id = an_open_invoice(engine, account, client, collect=True)
    for _ in range(15):
        do(engine, vendors, charge_invoice, account, invoice_id=invoice_id)

    give_card(engine, stripe_sandbox, client)
    sweep(engine, vendors)

    assert attempt_states(engine)[-1] == "succeeded"
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])
