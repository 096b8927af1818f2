"""Reconciling, on the local Stripe: what events never told is found and, where safe, mended."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any, Literal, cast
from uuid import UUID

import pytest
import stripe as sdk
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from billing.errors import InvalidInput
from gateways import stripe_records
from gateways.cards import CardReport
from gateways.payment_records import PaymentRecords, RecordPage, Window
from gateways.sandbox.stripe.application import DATABASE
from gateways.sandbox.stripe.server import StripeSandbox
from models import (
    Account,
    BillingMethod,
    Job,
    Reconciliation,
    ReconciliationDifference,
    Refund,
)
from models.database import database_now
from tasks.accounts import create_account
from tasks.calls import Gateways
from tasks.charging import charge_invoice
from tasks.reconciling import (
    reconcile_account,
    reconcile_accounts,
    request_reconciliation,
    window_since,
)
from tests.cards import (
    BANK,
    QUEUES,
    SOFT,
    a_client_with,
    an_open_invoice,
    ask,
    attempt_states,
    attempts_of,
    hurry,
    invoice_of,
    jobs_of,
    payments,
)
from tests.disputes import disputed, disputes_of, hear, intent_of
from tests.refunds import a_card_payment, assert_stripe_agrees, refund, refund_states
from tests.worlds import NOW, audited, work

DAY = timedelta(days=1)


def request_all(engine: Engine, account: Account) -> UUID:
    """The job that is to compare everything so far."""
    with Session(engine) as session, session.begin():
        now = database_now(session)
        # The stories' own clock may be ahead of Stripe's, which is the machine's.
        window = Window(min(now, NOW) - DAY, max(now, NOW) + DAY)
        return request_reconciliation(session, account.id, window, requested_by="test").job_id


def reconcile(engine: Engine, vendors: Gateways, account: Account) -> Job:
    """How the comparison of everything so far ended."""
    request_all(engine, account)
    work(engine, now=NOW, gateways=vendors, queues=QUEUES)
    return jobs_of(engine, reconcile_account)[-1]


def found(engine: Engine, job: Job) -> list[tuple[str, str | None, str | None, bool]]:
    """The differences that a job found: what, ours, theirs, and whether it was repaired."""
    with Session(engine) as session:
        rows = session.execute(
            select(
                ReconciliationDifference.difference,
                ReconciliationDifference.ours,
                ReconciliationDifference.theirs,
                ReconciliationDifference.repaired,
            )
            .join(Reconciliation, Reconciliation.id == ReconciliationDifference.reconciliation_id)
            .where(Reconciliation.job_id == job.id)
            .order_by(ReconciliationDifference.id)
        )
        return list(rows)


def rewrite(stripe: StripeSandbox, statement: str, *values: object) -> None:
    """Change what Stripe knows behind its back."""
    with closing(sqlite3.connect(stripe.directory / DATABASE, timeout=30)) as books, books:
        books.execute(statement, values)


@pytest.fixture
def shop(stripe_sandbox: StripeSandbox) -> Iterator[sdk.StripeClient]:
    """Somebody at Stripe's dashboard."""
    connections = sdk.RequestsClient(timeout=10)
    yield sdk.StripeClient(
        "sk_test_shop", base_addresses={"api": stripe_sandbox.url}, http_client=connections
    )
    connections.close()  # type: ignore[no-untyped-call]  # The SDK's own has no types.


def test_records_that_agree_are_counted_and_nothing_is_found(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    payment = a_card_payment(engine, account, vendors, stripe_sandbox)
    refund(engine, vendors, account, payment, amount=300)

    job = reconcile(engine, vendors, account)

    assert job.state == "succeeded"
    assert job.result is not None
    assert {name: job.result[name] for name in ("payments", "refunds", "differences")} == {
        "payments": 1,
        "refunds": 1,
        "differences": {},
    }
    with Session(engine) as session:
        record = session.scalars(select(Reconciliation)).one()
    assert (record.payments, record.refunds, record.finished_at) == (1, 1, NOW)


def test_a_success_that_nobody_told_is_written_down_and_pays_the_invoice(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client, collect=False)
    stripe_sandbox.control.add_fault("lost_answer", times=None, path="/v1/payment_intents")
    ask(engine, charge_invoice, account, invoice_id=invoice_id)
    work(engine, now=NOW, gateways=vendors, queues=QUEUES)
    stripe_sandbox.control.clear_faults()
    assert attempt_states(engine, invoice_id) == ["unknown"]

    job = reconcile(engine, vendors, account)

    assert found(engine, job) == [("payment_unheard", "unknown", "succeeded", True)]
    assert invoice_of(engine, invoice_id).status == "paid"
    [payment] = payments(engine)
    assert payment.requested_by.startswith("reconciliation:")
    assert audited(engine, account) == []
    assert found(engine, reconcile(engine, vendors, account)) == []


def test_a_bank_debit_that_was_returned_unheard_is_written_down(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, BANK)
    invoice_id = an_open_invoice(engine, account, client, collect=False)
    ask(engine, charge_invoice, account, invoice_id=invoice_id)
    work(engine, now=NOW, gateways=vendors, queues=QUEUES)
    [intent] = stripe_sandbox.control.payment_intents()
    stripe_sandbox.control.settle(intent["id"], "insufficient_funds")

    job = reconcile(engine, vendors, account)

    assert found(engine, job) == [("outcome_unheard", "processing", "declined", True)]
    assert attempt_states(engine, invoice_id) == ["declined"]


def test_money_taken_after_a_refusal_is_written_down(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, SOFT)
    invoice_id = an_open_invoice(engine, account, client, collect=False)
    ask(engine, charge_invoice, account, invoice_id=invoice_id)
    work(engine, now=NOW, gateways=vendors, queues=QUEUES)
    assert found(engine, reconcile(engine, vendors, account)) == []
    rewrite(
        stripe_sandbox,
        "UPDATE objects SET body = json_set(body, '$.status', 'succeeded',"
        " '$.amount_received', 1000) WHERE kind = 'payment_intent'",
    )

    job = reconcile(engine, vendors, account)

    assert found(engine, job) == [("payment_unheard", "declined", "succeeded", True)]
    assert attempt_states(engine, invoice_id) == ["succeeded"]
    assert invoice_of(engine, invoice_id).status == "paid"


def test_money_in_our_name_of_no_attempt_is_listed_and_not_touched(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    shop: sdk.StripeClient,
) -> None:
    shop.v1.payment_intents.create(
        {
            "amount": 700,
            "currency": "usd",
            "payment_method": "pm_card_visa",
            "confirm": True,
            "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
            "metadata": {"account": str(account.id), "attempt": str(UUID(int=7))},
        }
    )
    shop.v1.payment_intents.create(
        {
            "amount": 800,
            "currency": "usd",
            "payment_method": "pm_card_visa",
            "confirm": True,
            "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
        }
    )

    job = reconcile(engine, vendors, account)

    assert found(engine, job) == [("payment_unknown", None, "succeeded", False)]
    assert payments(engine) == []


def test_a_payment_that_stripe_does_not_know_is_listed(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    a_card_payment(engine, account, vendors, stripe_sandbox)
    rewrite(stripe_sandbox, "DELETE FROM objects WHERE kind = 'payment_intent'")

    job = reconcile(engine, vendors, account)

    assert found(engine, job) == [("payment_missing", "succeeded", None, False)]
    assert job.result is not None
    assert job.result["payments"] == 1
    assert len(payments(engine)) == 1


def test_a_payment_of_another_amount_is_listed_with_both(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    payment = a_card_payment(engine, account, vendors, stripe_sandbox)
    rewrite(
        stripe_sandbox,
        "UPDATE objects SET body = json_set(body, '$.amount_received', 999)"
        " WHERE kind = 'payment_intent'",
    )

    job = reconcile(engine, vendors, account)

    assert found(engine, job) == [("payment_amount", "succeeded", "succeeded", False)]
    with Session(engine) as session:
        [one] = session.scalars(select(ReconciliationDifference))
    assert (one.our_amount, one.their_amount, one.currency) == (1000, 999, "usd")
    assert (one.subject_id, one.invoice_id) == (payment.attempt_id, payment.invoice_id)


def test_one_begun_outside_the_window_is_asked_for_by_itself(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    a_card_payment(engine, account, vendors, stripe_sandbox)
    rewrite(
        stripe_sandbox,
        "UPDATE objects SET body = json_set(body, '$.created', 1000000000)"
        " WHERE kind = 'payment_intent'",
    )
    assert found(engine, reconcile(engine, vendors, account)) == []


def test_a_refund_that_nobody_told_is_written_down(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    payment = a_card_payment(engine, account, vendors, stripe_sandbox)
    stripe_sandbox.control.add_fault("lost_answer", times=None, path="/v1/refunds")
    refund(engine, vendors, account, payment)
    stripe_sandbox.control.clear_faults()
    assert refund_states(engine) == ["unknown"]

    job = reconcile(engine, vendors, account)

    assert found(engine, job) == [("refund_unheard", "unknown", "succeeded", True)]
    assert refund_states(engine) == ["succeeded"]
    assert_stripe_agrees(engine, account, stripe_sandbox)


def test_a_refund_that_the_bank_gave_back_unheard_becomes_credit(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    payment = a_card_payment(engine, account, vendors, stripe_sandbox)
    refund(engine, vendors, account, payment)
    [sent] = stripe_sandbox.control.objects("refund")
    stripe_sandbox.control.settle_refund(sent["id"], "failed")

    job = reconcile(engine, vendors, account)

    assert found(engine, job) == [("refund_unheard", "succeeded", "failed", True)]
    assert refund_states(engine) == ["failed"]
    assert audited(engine, account) == []


def test_a_refund_made_at_stripe_s_own_pages_is_listed_and_not_booked(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    shop: sdk.StripeClient,
) -> None:
    payment = a_card_payment(engine, account, vendors, stripe_sandbox)
    [intent] = stripe_sandbox.control.payment_intents()
    shop.v1.refunds.create({"payment_intent": intent["id"], "amount": 250})

    job = reconcile(engine, vendors, account)

    assert found(engine, job) == [("refund_made_elsewhere", None, "succeeded", False)]
    with Session(engine) as session:
        [one] = session.scalars(select(ReconciliationDifference))
        assert session.scalars(select(Refund)).all() == []
    assert (one.client_id, one.invoice_id) == (payment.client_id, payment.invoice_id)
    assert one.their_amount == 250


def test_a_refund_that_stripe_does_not_know_is_listed(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    payment = a_card_payment(engine, account, vendors, stripe_sandbox)
    refund(engine, vendors, account, payment)
    rewrite(stripe_sandbox, "DELETE FROM objects WHERE kind = 'refund'")

    job = reconcile(engine, vendors, account)

    assert found(engine, job) == [("refund_missing", "succeeded", None, False)]


@pytest.mark.parametrize("outcome", [None, "won", "lost"])
def test_a_dispute_that_nobody_told_is_booked(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    outcome: Literal["won", "lost"] | None,
) -> None:
    payment = a_card_payment(engine, account, vendors, stripe_sandbox)
    dispute = stripe_sandbox.control.dispute(intent_of(engine, payment), 400)
    if outcome is not None:
        stripe_sandbox.control.close_dispute(dispute["id"], outcome)

    job = reconcile(engine, vendors, account)

    assert found(engine, job) == [("dispute_unheard", None, outcome or "needs_response", True)]
    [known] = disputes_of(engine)
    assert (known.state, known.amount) == (outcome or "open", 400)
    assert audited(engine, account) == []
    assert found(engine, reconcile(engine, vendors, account)) == []


def test_a_dispute_that_stripe_does_not_know_is_listed(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    payment = a_card_payment(engine, account, vendors, stripe_sandbox)
    disputed(engine, vendors, stripe_sandbox, payment)
    rewrite(stripe_sandbox, "DELETE FROM objects WHERE kind = 'dispute'")

    job = reconcile(engine, vendors, account)

    assert found(engine, job) == [("dispute_missing", "open", None, False)]
    assert job.result is not None
    assert job.result["disputes"] == 1


def test_what_was_told_while_the_list_was_read_is_no_difference(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, BANK)
    invoice_id = an_open_invoice(engine, account, client, collect=False)
    ask(engine, charge_invoice, account, invoice_id=invoice_id)
    work(engine, now=NOW, gateways=vendors, queues=QUEUES)
    [intent] = stripe_sandbox.control.payment_intents()
    records = vendors.payment_records

    class Slow:
        """Stripe's record, which is old by the time that it arrives."""

        def payments(self, *asked: Any) -> RecordPage[CardReport]:
            page = records.payments(*asked)
            stripe_sandbox.control.settle(intent["id"], "succeeded")
            hear(engine, vendors, stripe_sandbox)
            return page

        def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the real one has
            return getattr(records, name)

    slowly = Gateways(cards=vendors.cards, payment_records=cast("PaymentRecords", Slow()))
    job = reconcile(engine, slowly, account)

    assert (job.state, found(engine, job)) == ("succeeded", [])
    assert invoice_of(engine, invoice_id).status == "paid"


def test_without_stripe_it_waits_and_then_goes_on(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    a_card_payment(engine, account, vendors, stripe_sandbox)
    stripe_sandbox.control.add_fault("server_error", times=None, method="GET", path="/v1/refunds")
    waiting = reconcile(engine, vendors, account)
    assert waiting.state == "scheduled"
    stripe_sandbox.control.clear_faults()

    hurry(engine, vendors, now=NOW)

    [job] = jobs_of(engine, reconcile_account)
    assert job.state == "succeeded"
    assert job.result is not None
    assert job.result["payments"] == 1


def test_many_payments_are_read_in_pages_and_each_is_compared_once(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stripe_records, "PAGE", 2)
    monkeypatch.setattr(stripe_records, "PAGES_A_CALL", 1)
    client = a_client_with(engine, account, stripe_sandbox)
    for _ in range(5):
        invoice_id = an_open_invoice(engine, account, client, collect=False)
        ask(engine, charge_invoice, account, invoice_id=invoice_id)
        work(engine, now=NOW, gateways=vendors, queues=QUEUES)

    job = reconcile(engine, vendors, account)

    assert job.result is not None
    assert (job.result["payments"], job.result["differences"]) == (5, {})


def test_another_account_s_money_at_the_same_stripe_is_left_to_that_account(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    with Session(engine, expire_on_commit=False) as session, session.begin():
        other = create_account(session, "Other")
    a_card_payment(engine, other, vendors, stripe_sandbox)
    rewrite(stripe_sandbox, "DELETE FROM objects WHERE kind = 'payment_intent'")

    assert found(engine, reconcile(engine, vendors, account)) == []
    job = reconcile(engine, vendors, other)
    assert found(engine, job) == [("payment_missing", "succeeded", None, False)]


def test_every_account_that_moved_money_of_late_is_reconciled_by_itself(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    with Session(engine) as session, session.begin():
        create_account(session, "Idle")
    a_card_payment(engine, account, vendors, stripe_sandbox)

    ask(engine, reconcile_accounts, None, fire_at=NOW + DAY)
    work(engine, now=NOW + DAY, gateways=vendors, queues=QUEUES)

    [job] = jobs_of(engine, reconcile_account)
    assert (job.account_id, job.state) == (account.id, "succeeded")
    assert jobs_of(engine, reconcile_accounts)[-1].result == {"accounts": 1}


def daily(engine: Engine, vendors: Gateways, day: int) -> None:
    """What the scheduler starts that many days later, worked to its end."""
    now = NOW + day * DAY
    ask(engine, reconcile_accounts, None, fire_at=now)
    work(engine, now=now, gateways=vendors, queues=QUEUES)


def windows(engine: Engine) -> list[tuple[datetime, datetime]]:
    """What every reconciliation was to compare, oldest first."""
    with Session(engine) as session:
        rows = session.execute(
            select(Reconciliation.since, Reconciliation.until).order_by(Reconciliation.id)
        )
        return [(since, until) for since, until in rows]


def test_a_dispute_in_another_currency_is_listed_and_never_booked(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    payment = a_card_payment(engine, account, vendors, stripe_sandbox)
    stripe_sandbox.control.dispute(intent_of(engine, payment), 1000)
    rewrite(
        stripe_sandbox,
        "UPDATE objects SET body = json_set(body, '$.currency', 'eur') WHERE kind = 'dispute'",
    )

    job = reconcile(engine, vendors, account)

    assert disputes_of(engine) == []
    assert found(engine, job) == [("dispute_amount", None, "needs_response", False)]


@pytest.mark.parametrize("taken", [("$.currency", "eur"), ("$.amount_received", 999)])
def test_money_unlike_what_was_asked_for_is_listed_and_not_called_repaired(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    taken: tuple[str, object],
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client, collect=False)
    stripe_sandbox.control.add_fault("lost_answer", times=None, path="/v1/payment_intents")
    ask(engine, charge_invoice, account, invoice_id=invoice_id)
    work(engine, now=NOW, gateways=vendors, queues=QUEUES)
    stripe_sandbox.control.clear_faults()
    rewrite(
        stripe_sandbox,
        "UPDATE objects SET body = json_set(body, ?, ?) WHERE kind = 'payment_intent'",
        *taken,
    )

    job = reconcile(engine, vendors, account)

    assert invoice_of(engine, invoice_id).status == "open"
    assert found(engine, job) == [("payment_amount", "unknown", "succeeded", False)]


def test_a_bank_debit_returned_for_good_unheard_stops_the_account_with_its_reason(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, BANK)
    invoice_id = an_open_invoice(engine, account, client, collect=True)
    work(engine, now=NOW, gateways=vendors, queues=QUEUES)
    [intent] = stripe_sandbox.control.payment_intents()
    stripe_sandbox.control.settle(intent["id"], "account_closed")

    job = reconcile(engine, vendors, account)

    assert found(engine, job) == [("outcome_unheard", "processing", "declined", True)]
    [attempt] = attempts_of(engine, invoice_id)
    assert attempt.decline_code == "account_closed"
    assert invoice_of(engine, invoice_id).next_attempt_at is None
    with Session(engine) as session:
        assert session.get_one(BillingMethod, client.id).stopped_for is not None


def test_a_dispute_that_ended_unheard_weeks_later_is_found_by_the_daily_comparison(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    payment = a_card_payment(engine, account, vendors, stripe_sandbox)
    one = disputed(engine, vendors, stripe_sandbox, payment)
    stripe_sandbox.control.close_dispute(one, "lost")

    daily(engine, vendors, 150)

    assert [dispute.state for dispute in disputes_of(engine)] == ["lost"]
    assert audited(engine, account) == []


def test_a_refund_that_came_back_unheard_weeks_later_is_found_by_the_daily_comparison(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    payment = a_card_payment(engine, account, vendors, stripe_sandbox)
    refund(engine, vendors, account, payment)
    [sent] = stripe_sandbox.control.objects("refund")
    stripe_sandbox.control.settle_refund(sent["id"], "failed")

    daily(engine, vendors, 44)

    assert refund_states(engine) == ["failed"]


def test_what_was_not_repaired_is_listed_daily_until_the_records_agree(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    a_card_payment(engine, account, vendors, stripe_sandbox)
    take = (
        "UPDATE objects SET body = json_set(body, '$.amount_received', {})"
        " WHERE kind = 'payment_intent'"
    )
    rewrite(stripe_sandbox, take.format(999))
    first = reconcile(engine, vendors, account)
    assert found(engine, first) == [("payment_amount", "succeeded", "succeeded", False)]

    for day in (20, 150):
        daily(engine, vendors, day)
        job = jobs_of(engine, reconcile_account)[-1]
        assert found(engine, job) == [("payment_amount", "succeeded", "succeeded", False)]
        [difference] = audited(engine, account)
        assert difference.rule == "our_record_agrees_with_stripe_s"
    rewrite(stripe_sandbox, take.format(1000))
    daily(engine, vendors, 151)

    assert found(engine, jobs_of(engine, reconcile_account)[-1]) == []
    assert audited(engine, account) == []
    ended = len(jobs_of(engine, reconcile_account))
    daily(engine, vendors, 152)
    assert len(jobs_of(engine, reconcile_account)) == ended


def test_a_refund_made_elsewhere_is_listed_daily_and_told_of_in_the_log(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    shop: sdk.StripeClient,
) -> None:
    a_card_payment(engine, account, vendors, stripe_sandbox)
    [intent] = stripe_sandbox.control.payment_intents()
    shop.v1.refunds.create({"payment_intent": intent["id"], "amount": 250})
    with capture_logs() as lines:
        reconcile(engine, vendors, account)
        daily(engine, vendors, 30)

    told = [line for line in lines if line["event"] == "our record and Stripe's differ"]
    assert [(line["log_level"], line["unrepaired"]) for line in told] == [("error", 1)] * 2
    job = jobs_of(engine, reconcile_account)[-1]
    assert found(engine, job) == [("refund_made_elsewhere", None, "succeeded", False)]


def test_the_daily_window_begins_where_the_last_one_that_was_finished_ends(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    a_card_payment(engine, account, vendors, stripe_sandbox)
    daily(engine, vendors, 1)
    # A person's own says nothing of what lies before it.
    with Session(engine) as session, session.begin():
        window = Window(NOW + 13 * DAY, NOW + 14 * DAY)
        request_reconciliation(session, account.id, window, requested_by="cli")
    work(engine, now=NOW + 14 * DAY, gateways=vendors, queues=QUEUES)
    daily(engine, vendors, 15)
    daily(engine, vendors, 16)
    daily(engine, vendors, 116)

    told = timedelta(hours=1)
    assert [windows(engine)[index] for index in (0, 2, 3, 4)] == [
        (NOW - 3 * DAY, NOW + DAY - told),
        (NOW + DAY - told, NOW + 15 * DAY - told),
        (NOW + 12 * DAY, NOW + 16 * DAY - told),
        (NOW + 26 * DAY, NOW + 116 * DAY - told),
    ]


def test_one_that_is_still_under_way_is_not_begun_once_more(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    a_card_payment(engine, account, vendors, stripe_sandbox)
    stripe_sandbox.control.add_fault("server_error", times=None, method="GET", path="/v1/refunds")
    daily(engine, vendors, 1)
    ask(engine, reconcile_accounts, None, fire_at=NOW + 2 * DAY)
    work(engine, now=NOW + 2 * DAY, gateways=vendors, queues=QUEUES)

    [job] = jobs_of(engine, reconcile_account)
    assert job.state == "scheduled"


def test_a_window_ends_now_and_begins_in_the_past() -> None:
    assert window_since(NOW - DAY, now=NOW) == Window(NOW - DAY, NOW)
    assert window_since(None, now=NOW) == Window(NOW - 4 * DAY, NOW)
    with pytest.raises(InvalidInput, match="past"):
        window_since(NOW, now=NOW)
