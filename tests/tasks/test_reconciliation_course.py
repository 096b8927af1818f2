"""A reconciliation that takes long, is killed, or finds one of several Stripe accounts away."""

import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from threading import Barrier, Event
from typing import Any, cast

import pytest
from sqlalchemy import Engine, func, select, update
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from gateways import stripe_records
from gateways.cards import CardsUnavailable
from gateways.merchants import Merchant
from gateways.payment_records import PaymentRecords
from gateways.sandbox.stripe.server import StripeSandbox
from models import (
    Account,
    Job,
    JobAttempt,
    Payment,
    Reconciliation,
    ReconciliationDifference,
    ReconciliationRecord,
)
from models.dispute import dispute_for_update
from models.invoice import invoices_for_update
from tasks import reconciliation_course
from tasks.accounts import change_account
from tasks.calls import Gateways
from tasks.charging import charge_invoice
from tasks.leases import LeaseKeeper
from tasks.reconciling import reconcile_account
from tasks.running import Runner
from tests.cards import QUEUES, Killed, a_client_with, an_open_invoice, ask, hurry, jobs_of, restart
from tests.cards import payments as payments_written
from tests.disputes import disputed, disputes_of, intent_of
from tests.jobs import LEASE, dispatch
from tests.refunds import a_card_payment, a_payment_by_card
from tests.tasks.test_reconciling import found, reconcile, request_all, rewrite
from tests.worlds import LIMIT_SECONDS, NOW, audited, together, work

MISSING = ("payment_missing", "succeeded", None, False)


class WatchedRecords:
    """Stripe's record, with something done before each question."""

    def __init__(self, records: PaymentRecords, before: Callable[[str, Any], None]) -> None:
        self._records = records
        self._before = before

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the real one has
        def ask(*asked: Any) -> Any:  # noqa: ANN401 - as above
            self._before(name, asked)
            return getattr(self._records, name)(*asked)

        return ask


def watched(vendors: Gateways, before: Callable[[str, Any], None]) -> Gateways:
    records = WatchedRecords(vendors.payment_records, before)
    return Gateways(cards=vendors.cards, payment_records=cast("PaymentRecords", records))


def move(engine: Engine, account: Account, stripe_account: str | None) -> None:
    with Session(engine) as session, session.begin():
        change_account(session, account.id, {"stripe_account": stripe_account}, now=NOW)


def counts(job: Job) -> tuple[int, int, int]:
    assert job.result is not None
    return job.result["payments"], job.result["refunds"], job.result["disputes"]


@pytest.fixture
def payments(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    monkeypatch: pytest.MonkeyPatch,
) -> list[Payment]:
    """Five, of which Stripe lists two a page, and does not know the last two."""
    monkeypatch.setattr(stripe_records, "PAGE", 2)
    monkeypatch.setattr(stripe_records, "PAGES_A_CALL", 1)
    client = a_client_with(engine, account, stripe_sandbox)
    paid = [a_payment_by_card(engine, account, vendors, client) for _ in range(5)]
    for payment in paid[3:]:
        rewrite(stripe_sandbox, "DELETE FROM objects WHERE id = ?", intent_of(engine, payment))
    return paid


def still_kept(engine: Engine) -> int:
    with Session(engine) as session:
        return session.scalar(select(func.count()).select_from(ReconciliationRecord)) or 0


@pytest.mark.usefixtures("payments")
def test_a_long_comparison_is_made_in_runs_that_each_go_on_where_the_last_one_was(
    engine: Engine, account: Account, vendors: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciliation_course, "RUN_SECONDS", 0.0)
    asked: list[str] = []

    job = reconcile(engine, watched(vendors, lambda name, _asked: asked.append(name)), account)

    assert asked == ["payments"] * 2 + ["payment"] * 2 + ["refunds", "disputes"]
    assert found(engine, job) == [MISSING] * 2
    assert (counts(job), still_kept(engine)) == ((5, 0, 0), 0)
    with Session(engine) as session:
        runs = session.scalars(
            select(JobAttempt.outcome).where(JobAttempt.job_id == job.id).order_by(JobAttempt.id)
        ).all()
    assert runs == ["snoozed"] * 6 + ["succeeded"]


@pytest.mark.usefixtures("payments")
@pytest.mark.parametrize("killed_at", range(6))
def test_a_killed_comparison_goes_on_where_it_was_and_lists_nothing_twice(
    engine: Engine, account: Account, vendors: Gateways, killed_at: int
) -> None:
    asked: list[str] = []

    def kill(name: str, _asked: object) -> None:
        asked.append(name)
        if len(asked) == killed_at + 1:
            raise Killed

    with pytest.raises(Killed):
        reconcile(engine, watched(vendors, kill), account)
    restart(engine)
    hurry(engine, watched(vendors, kill), now=NOW)

    [job] = jobs_of(engine, reconcile_account)
    assert job.state == "succeeded"
    in_order = ["payments"] * 2 + ["payment"] * 2 + ["refunds", "disputes"]
    assert asked == [*in_order[: killed_at + 1], *in_order[killed_at:]]
    assert found(engine, job) == [MISSING] * 2
    assert counts(job) == (5, 0, 0)


@pytest.mark.usefixtures("payments")
def test_stripe_away_in_the_middle_loses_nothing_of_what_was_compared(
    engine: Engine, account: Account, vendors: Gateways
) -> None:
    asked: list[str] = []

    def fail(name: str, _asked: object) -> None:
        asked.append(name)
        if len(asked) in {2, 4, 6}:
            raise CardsUnavailable("stripe: away")

    gateways = watched(vendors, fail)
    waiting = reconcile(engine, gateways, account)
    assert waiting.state == "scheduled"
    for _ in range(3):
        hurry(engine, gateways, now=NOW)

    [job] = jobs_of(engine, reconcile_account)
    assert job.state == "succeeded"
    assert asked == [
        "payments", "payments", "payments", "payment", "payment", "payment", "payment",
        "refunds", "disputes",
    ]  # fmt: skip
    assert found(engine, job) == [MISSING] * 2
    assert counts(job) == (5, 0, 0)


def test_what_a_former_stripe_account_took_is_compared_there_after_a_move(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    payment = a_card_payment(engine, account, vendors, stripe_sandbox)
    move(engine, account, "acct_ada")
    stripe_sandbox.control.dispute(intent_of(engine, payment), 400)

    job = reconcile(engine, vendors, account)

    assert found(engine, job) == [("dispute_unheard", None, "needs_response", True)]
    assert [one.state for one in disputes_of(engine)] == ["open"]
    assert counts(job) == (1, 0, 1)


@pytest.mark.parametrize("days", [0, 2])
def test_a_former_stripe_account_that_cannot_be_asked_is_waited_for_a_day(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    days: int,
) -> None:
    payment = a_card_payment(engine, account, vendors, stripe_sandbox)
    stripe_sandbox.control.dispute(intent_of(engine, payment), 400)
    move(engine, account, "acct_ada")

    def refuse(_name: str, asked: tuple[Any, ...]) -> None:
        merchant = next(one for one in asked if isinstance(one, Merchant))
        if merchant.stripe_account is None:
            raise CardsUnavailable("stripe: 401 the key was taken back")

    gateways = watched(vendors, refuse)
    reconcile(engine, gateways, account)
    with Session(engine) as session, session.begin():
        session.execute(update(Reconciliation).values(created_at=NOW - timedelta(days=days)))
    with capture_logs() as lines:
        hurry(engine, gateways, now=NOW)

    [job] = jobs_of(engine, reconcile_account)
    assert job.state == ("succeeded" if days else "scheduled")
    told = [line for line in lines if line["event"] == "former Stripe account not compared"]
    assert len(told) == (4 if days else 0)
    with Session(engine) as session:
        assert session.scalars(select(ReconciliationDifference)).all() == []


def test_a_dispute_is_locked_after_its_invoice_as_everywhere(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    payment = a_card_payment(engine, account, vendors, stripe_sandbox)
    one = disputed(engine, vendors, stripe_sandbox, payment)
    stripe_sandbox.control.close_dispute(one, "lost")
    is_held, is_asked = Event(), Event()

    def hold_the_invoice_then_the_dispute() -> None:
        with Session(engine) as session, session.begin():
            session.scalars(invoices_for_update([payment.invoice_id or payment.id])).one()
            is_held.set()
            assert is_asked.wait(LIMIT_SECONDS)
            # What was asked for is being written down by now.
            time.sleep(1)
            session.scalars(dispute_for_update(one)).one()

    def tell(name: str, _asked: object) -> None:
        if name == "dispute":
            assert is_held.wait(LIMIT_SECONDS)
            is_asked.set()

    held, job = together(
        hold_the_invoice_then_the_dispute,
        partial(reconcile, engine, watched(vendors, tell), account),
    )

    assert (held, job.state, job.attempt) == (None, "succeeded", 1)
    assert [dispute.state for dispute in disputes_of(engine)] == ["lost"]


def an_unheard_success(
    engine: Engine, account: Account, vendors: Gateways, stripe: StripeSandbox
) -> str:
    """Stripe's id of a payment whose answer was lost."""
    client = a_client_with(engine, account, stripe)
    invoice_id = an_open_invoice(engine, account, client, collect=False)
    stripe.control.add_fault("lost_answer", times=None, path="/v1/payment_intents")
    ask(engine, charge_invoice, account, invoice_id=invoice_id)
    work(engine, now=NOW, gateways=vendors, queues=QUEUES)
    stripe.control.clear_faults()
    [intent] = stripe.control.payment_intents()
    return str(intent["id"])


def test_two_reconciliations_at_once_book_late_news_once(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    an_unheard_success(engine, account, vendors, stripe_sandbox)
    both_ask = Barrier(2, timeout=LIMIT_SECONDS)

    def meet(name: str, _asked: object) -> None:
        if name == "payment":
            both_ask.wait()

    two = [request_all(engine, account) for _ in range(2)]
    assert {*two} <= {*dispatch(engine, "payments")}
    # Each has a thread of its own: a worker that took both would wait for itself.
    leases = LeaseKeeper(engine, lease=LEASE, run_limit=timedelta(minutes=10))
    runner = Runner(
        engine,
        leases,
        worker="test",
        lease=LEASE,
        gateways=watched(vendors, meet),
        clock=lambda: NOW,
    )
    outcomes = together(*(partial(runner.run, reconcile_account, job_id) for job_id in two))

    assert outcomes == [None, None]
    jobs = jobs_of(engine, reconcile_account)
    assert [job.state for job in jobs] == ["succeeded"] * 2
    listed = [one for job in jobs for one in found(engine, job)]
    assert listed == [("payment_unheard", "unknown", "succeeded", True)]
    assert len(payments_written(engine)) == 1
    assert audited(engine, account) == []


def test_a_dispute_of_a_payment_that_nobody_told_of_is_booked_after_it(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    intent = an_unheard_success(engine, account, vendors, stripe_sandbox)
    stripe_sandbox.control.dispute(intent, 400)

    job = reconcile(engine, vendors, account)

    assert found(engine, job) == [
        ("payment_unheard", "unknown", "succeeded", True),
        ("dispute_unheard", None, "needs_response", True),
    ]
    assert audited(engine, account) == []
