"""Money that goes to a card is the work of `payments`, whichever kind of job was asked for it."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from gateways.sandbox.stripe.server import StripeSandbox
from models import Account, Job, Payment
from tasks.calls import Gateways
from tasks.invoice_credits import credit_invoice, credit_invoice_to_card
from tasks.kinds import JobKind
from tasks.payment_refunds import refund_payment, refund_payment_to_card
from tests.cards import QUEUES, Killed, ask, die, jobs_of, restart, watched
from tests.jobs import change_job, job_of
from tests.money import invoice_of
from tests.refunds import (
    a_card_payment,
    assert_stripe_agrees,
    notes_of,
    refund_states,
    refunds_of,
    sent_back,
)
from tests.worlds import NOW, work

About = Callable[[Payment], dict[str, Any]]

KINDS: list[tuple[JobKind, JobKind, About]] = [
    (
        credit_invoice,
        credit_invoice_to_card,
        lambda payment: {"invoice_id": payment.invoice_id, "amount": 400},
    ),
    (
        refund_payment,
        refund_payment_to_card,
        lambda payment: {"payment_id": payment.id, "amount": 400},
    ),
]
BOTH = pytest.mark.parametrize(("kind", "to_card", "about"), KINDS)


@pytest.fixture
def payment(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> Payment:
    """10.00 by card for an invoice of as much."""
    return a_card_payment(engine, account, vendors, stripe_sandbox)


def assert_credited(engine: Engine, payment: Payment, amount: int) -> None:
    """The invoice stays paid, and so much of it was credited and given back."""
    assert payment.invoice_id is not None
    one = invoice_of(engine, payment.invoice_id)
    assert (one.status, one.amount_credited, one.amount_refunded) == ("paid", amount, amount)


@pytest.mark.parametrize("to", ["credit", "outside"])
def test_what_does_not_go_to_a_card_needs_no_worker_of_payments(
    engine: Engine, account: Account, payment: Payment, to: str
) -> None:
    ask(engine, credit_invoice, account, invoice_id=payment.invoice_id, amount=300, to=to)
    ask(engine, refund_payment, account, payment_id=payment.id, amount=200, to=to)

    work(engine, now=NOW, queues=["billing"])

    assert_credited(engine, payment, 500)


@BOTH
@pytest.mark.parametrize("queue", ["payments", "billing"])
def test_a_job_of_one_kind_for_all_has_the_other_send_it_to_the_card(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    payment: Payment,
    queue: str,
    kind: JobKind,
    to_card: JobKind,
    about: About,
) -> None:
    job_id = ask(engine, kind, account, to="card", **about(payment))
    # As the last release wrote it down, for `payments`; or as other systems may ask.
    change_job(engine, job_id, queue=queue)

    work(engine, now=NOW, gateways=vendors, queues=QUEUES)

    job, [other], [one] = job_of(engine, job_id), jobs_of(engine, to_card), refunds_of(engine)
    assert (job.state, other.state, other.queue) == ("succeeded", "succeeded", "payments")
    assert job.result == other.result
    assert job.result is not None
    assert (job.result["refund"], job.result["state"]) == (str(one.id), "succeeded")
    assert (other.parent_id, other.requested_by, one.requested_by) == (job_id, "test", "test")
    assert_credited(engine, payment, 400)
    assert sent_back(stripe_sandbox) == [400]
    assert_stripe_agrees(engine, account, stripe_sandbox)


@BOTH
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_refund_that_a_job_of_the_last_release_wrote_down_is_gone_on_with(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    payment: Payment,
    when: str,
    kind: JobKind,
    to_card: JobKind,
    about: About,
) -> None:
    job_id = ask(engine, to_card, account, **about(payment))
    with pytest.raises(Killed):
        work(engine, now=NOW, gateways=watched(vendors, **{when: die}), queues=QUEUES)
    # The last release called it so.
    with engine.begin() as connection:
        connection.execute(
            text(
                """UPDATE jobs SET kind = :kind, args = args || '{"to": "card"}' WHERE id = :id"""
            ),
            {"kind": kind.name, "id": job_id},
        )

    restart(engine)
    work(engine, now=NOW, gateways=vendors, queues=QUEUES)

    assert job_of(engine, job_id).state == "succeeded"
    assert jobs_of(engine, to_card) == []
    assert refund_states(engine) == ["succeeded"]
    assert sent_back(stripe_sandbox) == [400]
    assert len(notes_of(engine)) == 1
    assert_stripe_agrees(engine, account, stripe_sandbox)


@BOTH
def test_what_was_handed_over_ends_as_the_other_job_did(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    *,
    payment: Payment,
    kind: JobKind,
    to_card: JobKind,
    about: About,
) -> None:
    refused = ask(engine, kind, account, to="card", **{**about(payment), "amount": 1001})
    work(engine, now=NOW, gateways=vendors, queues=QUEUES)
    job, [other] = job_of(engine, refused), jobs_of(engine, to_card)
    assert (job.state, other.state) == ("skipped", "skipped")
    assert (job.reason, job.result) == (other.reason, other.result)

    job_id = ask(engine, kind, account, to="card", **about(payment))
    work(engine, now=NOW, queues=["billing"])
    other = jobs_of(engine, to_card)[-1]
    change_job(engine, job_id, state="ready", children_pending=0)
    work(engine, now=NOW, queues=["billing"])
    assert job_of(engine, job_id).state == "scheduled"
    change_job(engine, other.id, state="dead", finished_at=NOW)
    change_job(engine, job_id, state="ready", children_pending=0)
    work(engine, now=NOW, queues=["billing"])
    dead = job_of(engine, job_id)
    assert (dead.state, dead.reason) == ("dead", "handed_over_unfinished")

    for one in (other.id, job_id):
        change_job(engine, one, state="ready", finished_at=None)
        work(engine, now=NOW, gateways=vendors, queues=QUEUES)
    with Session(engine) as session:
        assert session.get_one(Job, job_id).state == "succeeded"
    assert_credited(engine, payment, 400)
