from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from billing.unknown_outcomes import KEY_TRUSTED_FOR
from gateways.cards import CardCharge, CardReport, ChargeOutcomeUnknown
from gateways.merchants import DEPLOYMENT
from gateways.sandbox.stripe.server import StripeSandbox
from models import Account
from tasks.calls import Gateways
from tasks.charging import charge_invoice
from tasks.collecting import collect_client
from tasks.resolving import MISSING, NEVER_ARRIVED, NOT_KNOWN, resolve_attempt
from tasks.voiding import void_invoice
from tests.cards import (
    BANK,
    HARD,
    QUEUES,
    SOFT,
    Killed,
    WatchedCards,
    a_client_with,
    an_open_invoice,
    ask,
    assert_books_agree,
    attempt_states,
    attempts_of,
    begin_to_pay_returned_debits,
    card_of,
    charged,
    die,
    do,
    expire_leases,
    hurry,
    invoice_of,
    jobs_of,
    keys_sent,
    mails,
    payments,
    restart,
    set_top_up,
    sweep,
    sweep_top_ups,
    tell_all,
    top_up_of,
    watched,
)
from tests.worlds import NOW, work

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
INTENTS = "/v1/payment_intents"


def lose_every_answer(stripe: StripeSandbox) -> None:
    """Charges are made, and nobody hears of it; lists are answered."""
    stripe.control.add_fault("lost_answer", times=None, path=INTENTS)


def test_an_answer_lost_after_a_success_is_asked_for_by_key_and_charged_once(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client)
    lose_every_answer(stripe_sandbox)
    sweep(engine, vendors)
    [attempt] = attempts_of(engine)
    assert (attempt.state, attempt.next_ask_at) == ("unknown", NOW + MINUTE)
    assert charged(stripe_sandbox) == [1000]
    assert payments(engine) == []

    stripe_sandbox.control.clear_faults()
    sweep(engine, vendors, now=NOW + timedelta(seconds=59))
    assert attempt_states(engine) == ["unknown"]
    sweep(engine, vendors, now=NOW + MINUTE)

    assert attempt_states(engine) == ["succeeded"]
    assert invoice_of(engine, invoice_id).status == "paid"
    assert set(keys_sent(stripe_sandbox)) == {attempt.idempotency_key}
    assert mails(engine) == ["receipt"]
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_silence_is_asked_after_at_one_minute_five_an_hour_and_then_daily(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    an_open_invoice(engine, account, client)
    # Nothing of this attempt can be heard, whichever way it is asked.
    stripe_sandbox.control.add_fault("server_error_after", path=INTENTS)
    stripe_sandbox.control.add_fault("reset", times=None, method="GET", path=INTENTS)
    sweep(engine, vendors)

    asked = []
    for _ in range(3):
        [attempt] = attempts_of(engine)
        assert attempt.next_ask_at is not None
        asked.append(attempt.next_ask_at - NOW)
        sweep(engine, vendors, now=attempt.next_ask_at)

    assert asked == [MINUTE, 5 * MINUTE, HOUR]
    [attempt] = attempts_of(engine)
    assert attempt.next_ask_at == NOW + DAY
    assert attempt.state == "unknown"


def test_a_decline_whose_answer_was_lost_follows_the_schedule_once_it_is_heard(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, SOFT)
    invoice_id = an_open_invoice(engine, account, client)
    lose_every_answer(stripe_sandbox)
    sweep(engine, vendors)
    stripe_sandbox.control.clear_faults()
    sweep(engine, vendors, now=NOW + MINUTE)

    invoice = invoice_of(engine, invoice_id)
    assert (invoice.failures, invoice.attempt_count) == (1, 1)
    assert invoice.next_attempt_at == datetime(2026, 6, 4, 10, tzinfo=UTC)


def test_a_failure_of_stripes_that_its_key_repeats_is_looked_up(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client)
    stripe_sandbox.control.add_fault("server_error_after", path=INTENTS)
    sweep(engine, vendors)
    assert attempt_states(engine) == ["unknown"]

    sweep(engine, vendors, now=NOW + MINUTE)

    assert invoice_of(engine, invoice_id).status == "paid"
    sent = stripe_sandbox.control.requests(method="POST", path=INTENTS)
    assert [(one.status, one.replayed) for one in sent] == [(500, False), (500, True)]
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_a_charge_that_never_arrived_is_given_up_after_a_day_and_made_anew(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client)
    # Without an effect, and the same for good under this key.
    stripe_sandbox.control.add_fault("server_error", path=INTENTS, is_saved=True)
    sweep(engine, vendors)
    for after in (MINUTE, 5 * MINUTE, HOUR, DAY - MINUTE):
        sweep(engine, vendors, now=NOW + after)
        assert attempt_states(engine) == ["unknown"], after
    assert charged(stripe_sandbox) == []

    sweep(engine, vendors, now=NOW + DAY)
    sweep(engine, vendors, now=NOW + DAY + MINUTE)

    lost, made = attempts_of(engine, invoice_id)
    assert (lost.state, lost.message) == ("canceled", NEVER_ARRIVED)
    assert (lost.settled_at, lost.next_ask_at) == (NOW + DAY, None)
    assert made.state == "succeeded"
    assert made.idempotency_key != lost.idempotency_key
    assert invoice_of(engine, invoice_id).failures == 0
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_a_click_that_never_arrived_is_given_up_and_not_made_anew_by_itself(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client, collect=False)
    stripe_sandbox.control.add_fault("server_error", path=INTENTS, is_saved=True)
    do(engine, vendors, charge_invoice, account, invoice_id=invoice_id)
    for day in (1, 2):
        sweep(engine, vendors, now=NOW + day * DAY)

    assert attempt_states(engine, invoice_id) == ["canceled"]
    assert charged(stripe_sandbox) == []


def test_once_the_key_may_be_forgotten_nothing_is_sent_and_the_charge_is_found_by_its_name(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client)
    lose_every_answer(stripe_sandbox)
    sweep(engine, vendors)
    stripe_sandbox.control.clear_faults()
    stripe_sandbox.control.expire_keys()
    sent = len(keys_sent(stripe_sandbox))

    sweep(engine, vendors, now=NOW + KEY_TRUSTED_FOR)

    assert len(keys_sent(stripe_sandbox)) == sent
    assert invoice_of(engine, invoice_id).status == "paid"
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


@pytest.mark.parametrize("by_whom", ["the sweep", "staff"])
def test_a_job_that_is_run_again_after_a_day_does_not_use_its_old_key(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    by_whom: str,
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client, collect=by_whom == "the sweep")
    if by_whom == "staff":
        ask(engine, charge_invoice, account, invoice_id=invoice_id)
    with pytest.raises(Killed):
        work(engine, now=NOW, gateways=watched(vendors, after=die), queues=QUEUES)
    # Everything was down for two days, and Stripe has forgotten the key.
    stripe_sandbox.control.expire_keys()
    later = NOW + 2 * DAY
    restart(engine)
    work(engine, now=later, gateways=vendors, queues=QUEUES)
    assert charged(stripe_sandbox) == [1000]

    sweep(engine, vendors, now=later)

    assert attempt_states(engine) == ["succeeded"]
    assert invoice_of(engine, invoice_id).status == "paid"
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


@pytest.mark.parametrize("by_whom", ["the sweep", "staff"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_worker_that_dies_around_the_call_is_followed_by_one_that_asks_under_the_same_key(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    moment: str,
    by_whom: str,
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client, collect=by_whom == "the sweep")
    if by_whom == "staff":
        ask(engine, charge_invoice, account, invoice_id=invoice_id)
    with pytest.raises(Killed):
        work(engine, now=NOW, gateways=watched(vendors, **{moment: die}), queues=QUEUES)
    assert attempt_states(engine) == ["pending"]
    assert charged(stripe_sandbox) == ([] if moment == "before" else [1000])

    restart(engine)
    work(engine, now=NOW + MINUTE, gateways=vendors, queues=QUEUES)

    [attempt] = attempts_of(engine, invoice_id)
    assert (attempt.state, attempt.asks) == ("succeeded", 2)
    assert set(keys_sent(stripe_sandbox)) == {attempt.idempotency_key}
    assert invoice_of(engine, invoice_id).status == "paid"
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_a_run_whose_lease_ended_during_the_call_keeps_nothing_and_the_next_one_asks_again(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client)
    lost: list[bool] = []

    def lose_the_lease() -> None:
        if not lost:
            lost.append(True)
            expire_leases(engine)

    # The job is ready again as soon as its first run lost it, so this works both runs.
    work(engine, now=NOW, gateways=watched(vendors, after=lose_the_lease), queues=QUEUES)

    [attempt] = attempts_of(engine, invoice_id)
    assert (attempt.state, attempt.asks) == ("succeeded", 2)
    assert len(keys_sent(stripe_sandbox)) == 2
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_a_job_that_is_dead_leaves_its_question_to_the_sweep(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    first = an_open_invoice(engine, account, client)
    second = an_open_invoice(engine, account, client, "20.00")
    for _ in range(3):
        with pytest.raises(Killed):
            work(engine, now=NOW, gateways=watched(vendors, after=die), queues=QUEUES)
        restart(engine)
    [job] = jobs_of(engine, collect_client)
    assert (job.state, job.reason) == ("dead", "poison")

    sweep(engine, vendors, now=NOW + MINUTE)

    assert [invoice_of(engine, one).status for one in (first, second)] == ["paid", "paid"]
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000, 2000])


def test_a_catch_up_that_is_interrupted_goes_on_where_it_was(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    for price in ("10.00", "20.00", "30.00"):
        an_open_invoice(engine, account, client, price)
    calls: list[bool] = []

    def die_at_the_second() -> None:
        calls.append(True)
        if len(calls) == 2:
            raise Killed

    with pytest.raises(Killed):
        work(engine, now=NOW, gateways=watched(vendors, after=die_at_the_second), queues=QUEUES)
    assert attempt_states(engine) == ["succeeded", "pending"]
    restart(engine)
    work(engine, now=NOW, gateways=vendors, queues=QUEUES)

    assert_books_agree(engine, account, stripe_sandbox, charges=[1000, 2000, 3000])


def test_a_question_that_could_not_be_asked_is_asked_when_stripe_is_back_not_a_day_later(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client)
    lose_every_answer(stripe_sandbox)
    sweep(engine, vendors)
    stripe_sandbox.kill()
    sweep(engine, vendors, now=NOW + HOUR)
    [question] = jobs_of(engine, resolve_attempt)
    assert (question.state, question.attempt) == ("scheduled", 0)

    stripe_sandbox.start()
    stripe_sandbox.control.clear_faults()
    hurry(engine, vendors, now=NOW + HOUR + 10 * MINUTE)

    assert invoice_of(engine, invoice_id).status == "paid"
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_too_many_requests_after_a_lost_answer_say_nothing_of_the_charge(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client)
    with pytest.raises(Killed):
        work(engine, now=NOW, gateways=watched(vendors, after=die), queues=QUEUES)
    restart(engine)
    stripe_sandbox.control.add_fault("rate_limit", path=INTENTS, retry_after=5)
    work(engine, now=NOW, gateways=vendors, queues=QUEUES)
    assert attempt_states(engine, invoice_id) == ["pending"]

    hurry(engine, vendors, now=NOW + MINUTE)

    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_a_bank_debit_whose_webhook_was_lost_is_asked_after_daily(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, BANK)
    invoice_id = an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    for day in (1, 2, 3):
        [attempt] = attempts_of(engine)
        assert (attempt.state, attempt.next_ask_at) == ("processing", NOW + day * DAY)
        sweep(engine, vendors, now=NOW + day * DAY)
    [intent] = stripe_sandbox.control.payment_intents()
    stripe_sandbox.control.settle(intent["id"])

    sweep(engine, vendors, now=NOW + 4 * DAY)

    assert invoice_of(engine, invoice_id).status == "paid"
    assert len(keys_sent(stripe_sandbox)) == 1
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_a_bank_debit_that_comes_back_is_a_decline_and_what_waited_is_told_when(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, BANK)
    invoice_id = an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    [intent] = stripe_sandbox.control.payment_intents()
    stripe_sandbox.control.settle(intent["id"], "insufficient_funds")

    sweep(engine, vendors, now=NOW + DAY)

    [attempt] = attempts_of(engine)
    assert attempt.state == "declined"
    invoice = invoice_of(engine, invoice_id)
    assert (invoice.status, invoice.failures) == ("open", 1)
    assert invoice.next_attempt_at == datetime(2026, 6, 5, 10, tzinfo=UTC)
    assert mails(engine) == ["payment_failed"]
    assert_books_agree(engine, account, stripe_sandbox, charges=[])


def name_payments(engine: Engine, change: str) -> None:
    """Another Stripe account is asked from now on, or again the one that has the payments."""
    with engine.begin() as connection:
        connection.execute(
            text(f"UPDATE payment_attempts SET payment_intent = {change}")  # noqa: S608 - ours
        )


def lose_payments(engine: Engine) -> None:
    name_payments(engine, "payment_intent || '_gone'")


def find_payments(engine: Engine) -> None:
    name_payments(engine, "replace(payment_intent, '_gone', '')")


def test_a_payment_that_stripe_has_not_known_for_a_day_is_left_to_a_person(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, BANK)
    invoice_id = an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    lose_payments(engine)

    sweep(engine, vendors, now=NOW + DAY)
    [attempt] = attempts_of(engine)
    assert (attempt.state, attempt.message) == ("processing", NOT_KNOWN)
    assert (attempt.missing_since, attempt.next_ask_at) == (NOW + DAY, NOW + 2 * DAY)
    # Nothing else is done meanwhile: the money may be on its way.
    assert do(engine, vendors, void_invoice, account, invoice_id=invoice_id).state == "skipped"
    do(engine, vendors, resolve_attempt, account, attempt_id=attempt.id, now=NOW + DAY + HOUR)
    assert attempt_states(engine) == ["processing"]

    for day in (2, 3, 10, 40):
        sweep(engine, vendors, now=NOW + day * DAY)

    [attempt] = attempts_of(engine)
    assert (attempt.state, attempt.message, attempt.decline_class) == ("canceled", MISSING, None)
    assert (attempt.settled_at, attempt.next_ask_at) == (NOW + 2 * DAY, None)
    assert [job.reason for job in jobs_of(engine, resolve_attempt) if job.state == "dead"] == [
        "payment_missing"
    ]
    invoice = invoice_of(engine, invoice_id)
    assert (invoice.status, invoice.auto_collect, invoice.next_attempt_at) == ("open", False, None)
    assert (invoice.failures, mails(engine)) == (0, [])
    assert len(keys_sent(stripe_sandbox)) == 1
    assert_books_agree(engine, account, stripe_sandbox, charges=[])


def test_a_payment_that_is_told_of_while_it_is_looked_up_is_not_missing(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    def lose() -> None:
        raise ChargeOutcomeUnknown("stripe: no answer")

    class ToldMeanwhile(WatchedCards):
        """Its event is handled after Stripe has said that there is none."""

        def look_up(self, order: CardCharge) -> CardReport | None:
            found = super().look_up(order)
            name_payments(engine, "'pi_told_of_meanwhile'")
            return found

    client = a_client_with(engine, account, stripe_sandbox, BANK)
    an_open_invoice(engine, account, client)
    sweep(engine, watched(vendors, before=lose))

    sweep(engine, Gateways(cards=ToldMeanwhile(vendors.cards)), now=NOW + 2 * DAY)

    [attempt] = attempts_of(engine)
    assert attempt.payment_intent == "pi_told_of_meanwhile"
    assert (attempt.state, attempt.missing_since) == ("unknown", None)


def test_a_payment_that_is_found_again_was_not_missing(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, BANK)
    invoice_id = an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    lose_payments(engine)
    sweep(engine, vendors, now=NOW + DAY)
    find_payments(engine)
    sweep(engine, vendors, now=NOW + 2 * DAY)
    [attempt] = attempts_of(engine)
    assert (attempt.state, attempt.missing_since) == ("processing", None)

    lose_payments(engine)
    sweep(engine, vendors, now=NOW + 3 * DAY)
    assert attempt_states(engine) == ["processing"]
    find_payments(engine)
    [intent] = stripe_sandbox.control.payment_intents()
    stripe_sandbox.control.settle(intent["id"])
    sweep(engine, vendors, now=NOW + 4 * DAY)

    assert invoice_of(engine, invoice_id).status == "paid"
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_money_of_a_payment_that_was_missing_counts_when_its_event_comes(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, BANK)
    invoice_id = an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    lose_payments(engine)
    for day in (1, 2):
        sweep(engine, vendors, now=NOW + day * DAY)
    assert attempt_states(engine) == ["canceled"]
    find_payments(engine)
    [intent] = stripe_sandbox.control.payment_intents()
    stripe_sandbox.control.settle(intent["id"])

    tell_all(engine, stripe_sandbox)
    sweep(engine, vendors, now=NOW + 3 * DAY)

    assert attempt_states(engine) == ["succeeded"]
    assert invoice_of(engine, invoice_id).status == "paid"
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_a_top_up_that_stripe_knows_no_more_is_not_made_again_by_itself(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, BANK)
    set_top_up(engine, client)
    sweep_top_ups(engine, vendors)
    assert attempt_states(engine) == ["processing"]
    lose_payments(engine)

    for day in (1, 2, 3, 10):
        sweep(engine, vendors, now=NOW + day * DAY)
        sweep_top_ups(engine, vendors, now=NOW + day * DAY)

    assert attempt_states(engine) == ["canceled"]
    assert top_up_of(engine, client).tries.is_off
    assert len(keys_sent(stripe_sandbox)) == 1


def test_a_bank_debit_that_came_back_unheard_and_waits_for_the_client_is_over(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, BANK)
    invoice_id = an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    [intent] = stripe_sandbox.control.payment_intents()
    stripe_sandbox.control.settle(intent["id"], "insufficient_funds")
    begin_to_pay_returned_debits(stripe_sandbox)

    for day in (1, 2, 5, 10, 40):
        sweep(engine, vendors, now=NOW + day * DAY)

    # The client may pay this one yet: by itself nothing else is charged.
    [attempt] = attempts_of(engine)
    assert (attempt.state, attempt.decline_class) == ("declined", "needs_authentication")
    assert (attempt.settled_at, attempt.next_ask_at) == (NOW + DAY, None)
    assert invoice_of(engine, invoice_id).next_attempt_at is None
    assert mails(engine) == ["authentication_needed"]
    job = do(engine, vendors, void_invoice, account, invoice_id=invoice_id)
    assert job.state == "succeeded"
    assert_books_agree(engine, account, stripe_sandbox, charges=[])


def test_a_charge_cancelled_by_hand_at_stripe_is_not_tried_again_by_itself(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, BANK)
    invoice_id = an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    [intent] = stripe_sandbox.control.payment_intents()
    vendors.cards.cancel(intent["id"], DEPLOYMENT)

    for day in (1, 2, 3):
        sweep(engine, vendors, now=NOW + day * DAY)

    assert attempt_states(engine) == ["canceled"]
    assert invoice_of(engine, invoice_id).next_attempt_at is None


def test_what_is_settled_is_not_asked_after(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, HARD)
    an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    [attempt] = attempts_of(engine)

    job = do(engine, vendors, resolve_attempt, account, attempt_id=attempt.id)

    assert (job.state, job.reason) == ("skipped", "attempt_settled")
    assert len(keys_sent(stripe_sandbox)) == 1
    assert card_of(engine, client) is not None


def test_the_answer_to_a_question_lets_the_clients_other_invoices_go_on(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    an_open_invoice(engine, account, client)
    an_open_invoice(engine, account, client, "20.00")
    lose_every_answer(stripe_sandbox)
    sweep(engine, vendors)
    stripe_sandbox.control.clear_faults()
    assert charged(stripe_sandbox) == [1000]

    sweep(engine, vendors, now=NOW + MINUTE)

    assert_books_agree(engine, account, stripe_sandbox, charges=[1000, 2000])


def test_an_attempt_that_is_gone_is_a_skipped_job(
    engine: Engine, account: Account, vendors: Gateways
) -> None:
    job = do(engine, vendors, resolve_attempt, account, attempt_id=account.id)
    assert (job.state, job.reason) == ("skipped", "payment_attempt_not_found")
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM payment_attempts")).scalar() == 0
