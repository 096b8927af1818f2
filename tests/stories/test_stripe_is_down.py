"""Stripe goes away in the middle of the day, and comes back: everything is charged once."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from billing.breaker import FAILURES_IN_A_ROW
from gateways.sandbox.stripe.server import StripeSandbox
from models import Client, Job, Queue
from models.queue import PAUSED_FOR_OUTAGE
from tasks.calls import Gateways
from tests.processes import Stack
from tests.stories.conftest import JUNE, Till
from tests.waiting import wait_for
from tests.worlds import audited, tick, work

CLIENTS = 20


def test_payments_wait_while_stripe_is_down_and_each_is_made_once(
    till: Till, trading: Stack, stripe_sandbox: StripeSandbox, vendors: Gateways
) -> None:
    clients = [till.client(f"Client {number}") for number in range(CLIENTS)]
    # The cards are looked at while Stripe is there: what fails below are the charges.
    work(till.engine, gateways=vendors, queues=["payments"])
    # Drafted and finalized; nobody has asked Stripe yet.
    tick(till.engine, now=JUNE)
    stripe_sandbox.stop()
    trading.start("dispatcher")
    first = trading.start("payments")

    wait_for(lambda: _paused_by(till) == PAUSED_FOR_OUTAGE, what="payments are paused")
    wait_for(lambda: _jobs(till, "running") == 0, what="what was under way has ended")
    tried = sum(len(till.attempts(client)) for client in clients)
    assert FAILURES_IN_A_ROW <= tried < CLIENTS

    # Whoever has paused them dies; another process goes on with the probes.
    trading.kill(first)
    trading.start("payments")
    stripe_sandbox.start()
    wait_for(lambda: _paused_by(till) is None, what="payments go on")
    wait_for(lambda: _all_are_paid(till, clients), what="all is paid")

    assert [till.charged(client) for client in clients] == [[1_000]] * CLIENTS
    assert audited(till.engine, till.account) == []
    assert "Stripe is not reachable: payments are paused until it is" in trading.logs()


def _all_are_paid(till: Till, clients: list[Client]) -> bool:
    till.skip_waits()
    return all(till.invoice(client).status == "paid" for client in clients)


def _paused_by(till: Till) -> str | None:
    with Session(till.engine) as session:
        return session.get_one(Queue, "payments").paused_by


def _jobs(till: Till, state: str) -> int:
    with Session(till.engine) as session:
        return len(session.scalars(select(Job.id).where(Job.state == state)).all())
