"""Reconciling, on the local Stripe: what events never told is found and, where safe, mended."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any, Literal, cast
from uuid import UUID

import pytest
import stripe as sdk
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from billing.errors import InvalidInput
from gateways import stripe_records
from gateways.cards import CardReport
from gateways.payment_records import PaymentRecords, RecordPage, Window
from gateways.sandbox.stripe.application import DATABASE
from gateways.sandbox.stripe.server import StripeSandbox
from models import (
    Account,
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
    hurry,
    invoice_of,
    jobs_of,
    payments,
)
from tests.disputes import disputed, disputes_of, hear, intent_of
from tests.refunds import a_card_payment, assert_stripe_agrees, refund, refund_states
from tests.worlds import NOW, audited, work

DAY = timedelta(days=1)


def reconcile(engine: Engine, vendors: Gateways, account: Account) -> Job:
    """How the comparison of everything so far ended."""
    with Session(engine) as session, session.begin():
        now = database_now(session)
        # The stories' own clock may be ahead of Stripe's, which is the machine's.
        window = Window(min(now, NOW) - DAY, max(now, NOW) + DAY)
        request_reconciliation(session, account.id, window, requested_by="test")
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


def rewrite(stripe: StripeSandbox, statement: str) -> None:
    """Change what Stripe knows behind its back."""
    with closing(sqlite3.connect(stripe.directory / DATABASE, timeout=30)) as books, books:
        books.execute(statement)


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


def test_without_stripe_it_waits_and_then_counts_anew(
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


def test_a_window_ends_now_and_begins_in_the_past() -> None:
    assert window_since(NOW - DAY, now=NOW) == Window(NOW - DAY, NOW)
    assert window_since(None, now=NOW) == Window(NOW - 4 * DAY, NOW)
    with pytest.raises(InvalidInput, match="past"):
        window_since(NOW, now=NOW)
