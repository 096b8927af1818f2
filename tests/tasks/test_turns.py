"""A Stripe account that many want to ask: at its rate, fairly, and nobody is written down for it."""

from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from itertools import pairwise

import pytest
from sqlalchemy import Engine, func, select, text
from sqlalchemy.orm import Session

from gateways.sandbox.stripe.control import LoggedRequest
from gateways.sandbox.stripe.server import StripeSandbox
from models import Account, CardRole, Client, Job, PaymentAttempt, StripeLimit, StripeTurn
from models.database import database_now
from tasks.accounts import create_account
from tasks.calls import Gateways
from tasks.card_setups import ask_for_setup, open_card_setup
from tasks.charging import charge_invoice
from tasks.collecting import collect_client
from tasks.payment_refunds import refund_payment
from tests.cards import (
    QUEUES,
    a_client_with,
    an_open_invoice,
    attempts_of,
    do,
    invoice_of,
    jobs_of,
    payments,
    sweep,
)
from tests.pay_pages import PagesOfToday, press_pay
from tests.worlds import NOW, a_client, audited, together, work

RATE = 10.0


def at_a_rate(vendors: Gateways, rate: float = RATE) -> Gateways:
    of_today = PagesOfToday(vendors.checkout)
    return Gateways(
        cards=vendors.cards,
        checkout=of_today,
        saved_cards=vendors.saved_cards,
        links=vendors.links,
        stripe_rate=rate,
    )


def work_until_done(engine: Engine, gateways: Gateways) -> None:
    """Work as a process does, looking for what has become due."""
    while True:
        work(engine, gateways=gateways, queues=QUEUES)
        with Session(engine) as session:
            if not session.scalar(select(func.count()).where(Job.finished_at.is_(None))):
                return


def leave_card(engine: Engine, client: Client) -> None:
    """The client wants to leave a card."""
    with Session(engine) as session, session.begin():
        ask_for_setup(
            session,
            client.id,
            CardRole.DEFAULT,
            return_url="http://duecourse.example/p/token",
            now=database_now(session),
            requested_by="client",
        )


def charged(stripe: StripeSandbox) -> list[LoggedRequest]:
    return stripe.control.requests(method="POST", path="/v1/payment_intents")


def most_in_a_second(requests: Sequence[LoggedRequest]) -> int:
    times = sorted(request.at for request in requests)
    return max(sum(at <= other < at + 1 for other in times) for at in times)


def use_up(engine: Engine, *, seconds: float = 3600) -> None:
    """Let the deployment's Stripe account have been asked too much."""
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO stripe_limits (merchant_id, held_until) VALUES"
                " ('00000000-0000-0000-0000-000000000000', now() + :wait)"
            ),
            {"wait": timedelta(seconds=seconds)},
        )


def test_two_accounts_with_one_backlogged_both_finish_and_stripe_sees_no_more_than_the_rate(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    with Session(engine, expire_on_commit=False) as session, session.begin():
        other = create_account(session, "Cardinal Prep")
    for owner, count in ((account, 30), (other, 4)):
        for _ in range(count):
            an_open_invoice(engine, owner, a_client_with(engine, owner, stripe_sandbox))
    before = len(stripe_sandbox.control.requests())
    stripe_sandbox.control.set(creates_per_second=RATE)
    sweep(engine, at_a_rate(vendors))

    together(*[partial(work_until_done, engine, at_a_rate(vendors)) for _ in range(4)])

    requests = [one for one in charged(stripe_sandbox) if one.sequence > before]
    assert [one.status for one in requests] == [200] * 34
    assert most_in_a_second(requests) <= RATE
    of_other = [
        place
        for place, one in enumerate(requests)
        if one.parameters["metadata[account]"] == str(other.id)
    ]
    # Last enqueued, and through well before the other's backlog.
    assert len(of_other) == 4
    assert max(of_other) < 25
    assert audited(engine, account) == audited(engine, other) == []
    with Session(engine) as session:
        assert session.scalar(select(func.count()).select_from(StripeTurn)) == 0


def test_without_a_turn_nothing_is_written_down_and_the_job_comes_back(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client)
    use_up(engine)

    job = do(engine, at_a_rate(vendors), charge_invoice, account, invoice_id=invoice_id)

    assert (job.state, job.attempt) == ("scheduled", 0)
    assert attempts_of(engine) == []
    assert invoice_of(engine, invoice_id).attempt_count == 0
    assert charged(stripe_sandbox) == []
    with Session(engine) as session:
        turn = session.get_one(StripeTurn, job.id)
        assert abs(turn.at - job.run_at) < timedelta(seconds=1)


def test_without_a_turn_a_refund_is_not_written_down_either(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    an_open_invoice(engine, account, a_client_with(engine, account, stripe_sandbox))
    sweep(engine, vendors)
    [payment] = payments(engine)
    use_up(engine)

    job = do(
        engine,
        at_a_rate(vendors),
        refund_payment,
        account,
        payment_id=payment.id,
        to="card",
        reason="late",
    )

    assert job.state == "scheduled"
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM refunds")).scalar() == 0
    assert audited(engine, account) == []


@pytest.mark.parametrize("has_customer", [True, False])
def test_without_a_turn_stripe_is_asked_for_no_page_and_no_customer(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    has_customer: bool,
) -> None:
    client = (
        a_client_with(engine, account, stripe_sandbox)
        if has_customer
        else a_client(engine, account)
    )
    invoice_id = an_open_invoice(engine, account, client)
    asked = len(stripe_sandbox.control.requests(method="POST"))
    use_up(engine)

    pay = press_pay(engine, at_a_rate(vendors), account, invoice_id)
    leave_card(engine, client)
    work(engine, gateways=at_a_rate(vendors), queues=QUEUES)

    assert pay.state == "scheduled"
    assert [job.state for job in jobs_of(engine, open_card_setup)] == ["scheduled"]
    assert attempts_of(engine) == []
    assert invoice_of(engine, invoice_id).attempt_count == 0
    assert len(stripe_sandbox.control.requests(method="POST")) == asked


def test_a_page_that_is_asked_for_too_often_holds_that_stripe_account_too(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client)
    other = an_open_invoice(engine, account, a_client_with(engine, account, stripe_sandbox))
    stripe_sandbox.control.add_fault("rate_limit", times=3, retry_after=60)

    pay = press_pay(engine, at_a_rate(vendors), account, invoice_id)
    charge = do(engine, at_a_rate(vendors), charge_invoice, account, invoice_id=other)

    assert pay.state == charge.state == "scheduled"
    assert attempts_of(engine, other) == []


def test_each_who_must_come_back_is_given_a_moment_of_its_own(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    jobs = []
    for _ in range(5):
        client = a_client_with(engine, account, stripe_sandbox)
        an_open_invoice(engine, account, client)
        jobs.append(client.id)
    use_up(engine)
    sweep(engine, at_a_rate(vendors))

    with Session(engine) as session:
        waiting = list(session.scalars(select(StripeTurn.at).order_by(StripeTurn.at)))
    gaps = [(b - a).total_seconds() for a, b in pairwise(waiting)]
    assert len(waiting) == 5
    assert min(gaps) >= 1 / RATE


@pytest.mark.parametrize("retry_after", [None, 7])
def test_a_429_holds_that_stripe_account_until_its_retry_after(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    retry_after: int | None,
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client)
    stripe_sandbox.control.add_fault("rate_limit", times=3, retry_after=retry_after)

    do(engine, at_a_rate(vendors), charge_invoice, account, invoice_id=invoice_id)

    with Session(engine) as session:
        now = session.scalars(select(func.now())).one()
        [limit] = session.scalars(select(StripeLimit)).all()
    assert limit.held_until is not None
    left = (limit.held_until - now).total_seconds()
    assert (retry_after or 1) - 3 < left <= (retry_after or 1)


def test_a_lock_timeout_of_one_object_holds_nobody_else(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client)
    stripe_sandbox.control.add_fault("rate_limit", times=3, code="lock_timeout")

    do(engine, at_a_rate(vendors), charge_invoice, account, invoice_id=invoice_id)

    with Session(engine) as session:
        [limit] = session.scalars(select(StripeLimit)).all()
    assert limit.held_until is None


def test_a_try_that_was_turned_away_waits_for_a_turn_like_any_other(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client)
    stripe_sandbox.control.add_fault("rate_limit", times=3, retry_after=60)
    sweep(engine, at_a_rate(vendors))
    asked = len(charged(stripe_sandbox))
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET run_at = now() WHERE state = 'scheduled'"))

    work(engine, now=NOW, gateways=at_a_rate(vendors), queues=QUEUES)

    assert len(charged(stripe_sandbox)) == asked
    assert [job.state for job in jobs_of(engine, collect_client)] == ["scheduled"]
    [attempt] = attempts_of(engine, invoice_id)
    assert (attempt.state, attempt.asks) == ("pending", 1)


def test_the_frozen_statement_is_sent_whatever_the_account_is_called_by_then(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    an_open_invoice(engine, account, client)
    stripe_sandbox.control.add_fault("lost_answer", times=3)
    sweep(engine, vendors)
    with Session(engine) as session, session.begin():
        session.get_one(Account, account.id).name = "Robin Prep"

    sweep(engine, vendors, now=NOW + timedelta(minutes=2))

    said = {one.parameters["statement_descriptor_suffix"] for one in charged(stripe_sandbox)}
    assert said == {"INV-000001"}
    assert [one.status for one in charged(stripe_sandbox)][-1] == 200
    with Session(engine) as session:
        assert set(session.scalars(select(PaymentAttempt.statement_suffix))) == said
