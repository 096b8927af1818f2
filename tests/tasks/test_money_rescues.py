"""Jobs that move money, run again after their worker died: each effect once."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from models import Account, Client, Invoice
from tasks.calls import Step
from tasks.crediting import adjust_credit, apply_client_credit, apply_invoice_credit, deposit_credit
from tasks.finalizing import finalize_invoice
from tasks.invoice_credits import credit_invoice
from tasks.kinds import JobKind, Run
from tasks.leases import LeaseKeeper
from tasks.marking_paid import mark_invoice_paid
from tasks.running import Runner
from tasks.voiding import void_invoice
from tests.jobs import LEASE, dispatch, job_of, let_lease_expire, rescue, runs_of
from tests.money import (
    a_draft,
    an_invoice,
    ask,
    assert_no_money_is_lost,
    balances,
    counts,
    deposit,
    moves,
    paid_how,
    payments_of,
)
from tests.worlds import NOW, a_client


class Killed(BaseException):
    """The worker's process ends here."""


CASES: dict[str, tuple[JobKind, Callable[[Client, Invoice, Invoice], dict[str, Any]]]] = {
    "deposit": (
        deposit_credit,
        lambda client, _open, _draft: {"client_id": client.id, "amount": 900, "currency": "usd"},
    ),
    "adjust up": (
        adjust_credit,
        lambda client, _open, _draft: {
            "client_id": client.id,
            "amount": 900,
            "currency": "usd",
            "note": "goodwill",
        },
    ),
    "adjust down": (
        adjust_credit,
        lambda client, _open, _draft: {
            "client_id": client.id,
            "amount": -100,
            "currency": "usd",
            "note": "a miscount",
        },
    ),
    "apply to the client": (
        apply_client_credit,
        lambda client, _open, _draft: {"client_id": client.id, "amount": 100},
    ),
    "apply to the invoice": (
        apply_invoice_credit,
        lambda _client, invoice, _draft: {"invoice_id": invoice.id, "amount": 100},
    ),
    "mark a part as paid": (
        mark_invoice_paid,
        lambda _client, invoice, _draft: {"invoice_id": invoice.id, "amount": 100},
    ),
    "overpay": (
        mark_invoice_paid,
        lambda _client, invoice, _draft: {
            "invoice_id": invoice.id,
            "amount": 2000,
            "overpayment": "credit",
        },
    ),
    "credit": (
        credit_invoice,
        lambda _client, invoice, _draft: {"invoice_id": invoice.id, "amount": 900, "to": "credit"},
    ),
    "void": (void_invoice, lambda _client, invoice, _draft: {"invoice_id": invoice.id}),
    "finalize": (finalize_invoice, lambda _client, _open, draft: {"invoice_id": draft.id}),
}

case = pytest.mark.parametrize("what", CASES)


@pytest.fixture
def runner(engine: Engine) -> Runner:
    leases = LeaseKeeper(engine, lease=LEASE, run_limit=timedelta(minutes=10))
    return Runner(engine, leases, worker="test", lease=LEASE, clock=lambda: NOW)


def asked(engine: Engine, account: Account, what: str) -> tuple[Client, JobKind, UUID]:
    """A client with credit in use and in hand, an open invoice and a draft; and the job for it."""
    client = a_client(engine, account, email="ada@ada-imports.example")
    deposit(engine, account, client, 200)
    invoice = an_invoice(engine, account, client)
    deposit(engine, account, client, 300, apply=False)
    draft = a_draft(engine, account, client, "5.00")
    kind, arguments = CASES[what]
    job_id = ask(engine, kind, account, **arguments(client, invoice, draft))
    dispatch(engine, kind.queue)
    return client, kind, job_id


def state_of(engine: Engine, client: Client) -> list[Any]:
    payments = [(one.amount, one.applied) for one in payments_of(engine, client)]
    return [
        paid_how(engine, client),
        balances(engine, client),
        moves(engine, client),
        payments,
    ]


def once(engine: Engine, account: Account, runner: Runner, what: str) -> list[Any]:
    """How a twin stands for whom the same was done once."""
    client, kind, job_id = asked(engine, account, what)
    before = state_of(engine, client)
    runner.run(kind, job_id)
    assert job_of(engine, job_id).state == "succeeded"
    after = state_of(engine, client)
    assert after != before
    return after


@case
def test_a_message_that_comes_again_after_the_commit_changes_nothing(
    engine: Engine, account: Account, runner: Runner, what: str
) -> None:
    client, kind, job_id = asked(engine, account, what)
    runner.run(kind, job_id)
    rows = counts(engine)

    runner.run(kind, job_id)
    assert rescue(engine) == 0
    runner.run(kind, job_id)

    assert counts(engine) == rows
    assert runs_of(engine, job_id) == [(1, "succeeded")]
    assert state_of(engine, client) == once(engine, account, runner, what)
    assert_no_money_is_lost(engine, account)


@case
def test_a_worker_killed_before_the_commit_leaves_nothing_and_its_job_is_done_by_another(
    engine: Engine, account: Account, runner: Runner, what: str
) -> None:
    client, kind, job_id = asked(engine, account, what)
    before, rows = state_of(engine, client), counts(engine)

    def die(run: Run, session: Session, /, **arguments: Any) -> Step:
        kind.body(run, session, **arguments)
        session.flush()
        raise Killed

    with pytest.raises(Killed):
        runner.run(replace(kind, body=die), job_id)
    assert (state_of(engine, client), counts(engine)) == (before, rows)
    let_lease_expire(engine, job_id)
    assert rescue(engine) == 1
    dispatch(engine, kind.queue)
    runner.run(kind, job_id)

    assert runs_of(engine, job_id) == [(1, "rescued"), (2, "succeeded")]
    assert state_of(engine, client) == once(engine, account, runner, what)
    assert_no_money_is_lost(engine, account)


@case
def test_a_worker_that_was_thought_dead_commits_nothing_beside_the_one_that_took_over(
    engine: Engine, account: Account, runner: Runner, what: str
) -> None:
    client, kind, job_id = asked(engine, account, what)

    def be_late(run: Run, session: Session, /, **arguments: Any) -> Step:
        step = kind.body(run, session, **arguments)
        session.flush()
        let_lease_expire(engine, job_id)
        assert rescue(engine) == 1
        dispatch(engine, kind.queue)
        return step

    before = state_of(engine, client)
    runner.run(replace(kind, body=be_late), job_id)
    assert state_of(engine, client) == before
    runner.run(kind, job_id)

    assert runs_of(engine, job_id) == [(1, "rescued"), (2, "succeeded")]
    assert state_of(engine, client) == once(engine, account, runner, what)
    assert_no_money_is_lost(engine, account)
