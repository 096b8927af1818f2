import re
import time
from collections.abc import Callable
from datetime import date
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from cli import following_up
from cli.following_up import what_followed
from cli.liveness import obstacles
from gateways.sandbox.sendgrid.client import SendGridControl
from gateways.sandbox.sendgrid.faults import Fault, FaultKind
from gateways.sandbox.stripe.cardholders import make_cardholder
from gateways.sandbox.stripe.server import StripeSandbox
from models import Account, BillingRun, Client, Job, Mail, Process
from models.database import database_now
from tasks.billing_methods import set_billing_method
from tasks.calls import Gateways
from tasks.crediting import deposit_credit
from tasks.enqueueing import enqueue
from tasks.operating import pause_queue
from tests.cli.conftest import Command, Working
from tests.worlds import a_charge, a_client, audited, bill, work

AS_OF = "2026-05-01"

pytestmark = pytest.mark.usefixtures("account")

Owing = Callable[..., Client]


@pytest.fixture
def owing(engine: Engine, account: Account, stripe_sandbox: StripeSandbox) -> Owing:
    """Makes clients who owe for April: an amount, a card of Stripe's test ones, credit."""

    def make(
        name: str, price: str, card: str | None = None, credit: int = 0, **fields: Any
    ) -> Client:
        client = a_client(
            engine,
            account,
            name=name,
            billing_cycle="monthly",
            billing_starts_on=date(2026, 4, 1),
            **{"email": f"{name.lower()}@client.example", **fields},
        )
        a_charge(engine, client, date(2026, 4, 20), price)
        with Session(engine) as session, session.begin():
            if card is not None:
                holder = make_cardholder(stripe_sandbox.url, payment_method=card)
                set_billing_method(
                    session,
                    account.id,
                    client.id,
                    stripe_customer=holder.customer,
                    payment_method=holder.payment_method,
                    now=database_now(session),
                    requested_by="test",
                )
            if credit:
                enqueue(
                    session,
                    deposit_credit,
                    account_id=account.id,
                    requested_by="test",
                    client_id=client.id,
                    amount=credit,
                    currency="usd",
                )
        work(engine)
        return client

    return make


def outcomes(document: Any) -> dict[tuple[str, str | None], tuple[int, int]]:  # noqa: ANN401 - JSON
    """Invoices and amount by outcome and decline code."""
    return {
        (one["outcome"], one["decline_code"]): (one["invoices"], one["amount"])
        for one in document["followed_up"]["outcomes"]
    }


def test_wait_all_tells_what_became_of_every_invoice_and_mail(
    *,
    command: Command,
    working_with_vendors: Working,
    engine: Engine,
    account: Account,
    owing: Owing,
    stripe_sandbox: StripeSandbox,
    sendgrid_control: SendGridControl,
) -> None:
    owing("Ada", "10.00", "pm_card_visa")
    owing("Bob", "20.00", "pm_card_chargeDeclinedInsufficientFunds")
    owing("Cy", "40.00", "pm_card_chargeDeclinedStolenCard")
    owing("Di", "80.00", "pm_card_authenticationRequired")
    owing("Ed", "160.00", email=None)
    owing("Flo", "320.00", credit=40_000)
    owing("Gus", "640.00", "pm_card_visa", credit=14_000)
    owing("Hal", "1280.00", "pm_usBankAccount_processing", notifications={"invoice_ready": False})
    owing("Ida", "2560.00", "pm_card_visa", auto_collect=False)

    with working_with_vendors():
        answer = command("bill", "--as-of", AS_OF, "--wait-all", "--json")

    assert answer.code == 0
    assert outcomes(answer.document) == {
        ("applied", None): (2, 46_000),
        ("card", None): (2, 51_000),
        ("declined", "insufficient_funds"): (1, 2_000),
        ("declined", "stolen_card"): (1, 4_000),
        ("needs_action", None): (1, 8_000),
        ("in_flight", None): (1, 128_000),
        ("no_billing_method", None): (1, 16_000),
        ("manual", None): (1, 256_000),
    }
    followed = answer.document["followed_up"]
    assert followed["adds_up"] is True
    assert followed["invoiced"] == {"usd": answer.document["invoiced"]["usd"]["total"]}
    retried = {one["decline_code"]: one["next_try_on"] for one in followed["outcomes"]}
    assert retried["insufficient_funds"] is not None
    assert retried["stolen_card"] is None
    mails = {(one["kind"], one["state"], one["reason"]): one["mails"] for one in followed["mails"]}
    assert mails == {
        ("invoice_ready", "accepted", None): 6,
        ("invoice_ready", "suppressed", "no_email"): 1,
        ("invoice_ready", "suppressed", "switched_off"): 1,
        ("payment_failed", "accepted", None): 2,
        ("authentication_needed", "accepted", None): 1,
        # One paid by credit alone, two by card; those for deposits are about no invoice.
        ("receipt", "accepted", None): 3,
    }
    assert {one["sent"] for one in followed["mails"] if one["state"] == "accepted"} == {True}
    assert len(sendgrid_control.mails()) == 6 + 3 + 3 + 2
    charged = [one["amount"] for one in stripe_sandbox.control.charges() if one["paid"]]
    assert sorted(charged) == [1_000, 50_000]
    assert audited(engine, account) == []


def test_people_are_told_the_same(
    command: Command, working_with_vendors: Working, owing: Owing
) -> None:
    owing("Ada", "10.00", "pm_card_visa", credit=300)
    owing("Bob", "20.00", "pm_card_chargeDeclinedExpiredCard")
    owing("Cy", "30.00", email=None)
    with working_with_vendors():
        answer = command("bill", "--as-of", AS_OF, "--wait-all")
    assert answer.code == 0
    for line in (
        r"paid by credit +1 +3\.00 USD",
        r"paid by card +1 +7\.00 USD",
        r"declined +1 +20\.00 USD +expired card; no further try",
        r"open without card +1 +30\.00 USD",
        r" +60\.00 USD",
        r"invoice ready +accepted +2",
        r"invoice ready +suppressed +1 +no email",
        r"payment failed +accepted +1",
    ):
        assert re.search(line, answer.stdout), line


def test_a_try_of_another_day_is_not_waited_for_but_a_mail_that_is_not_sent_is(
    *,
    engine: Engine,
    account: Account,
    session: Session,
    owing: Owing,
    vendors: Gateways,
    sendgrid_control: SendGridControl,
) -> None:
    owing("Bob", "20.00", "pm_card_chargeDeclinedInsufficientFunds")
    run = bill(engine, account, now=database_now(session), as_of=date(2026, 5, 1))
    counted = following_up._counted(account.id, run.id)

    def waiting() -> dict[str, int]:
        session.rollback()
        return {queue: number for queue, _, number in session.execute(counted)}

    # To charge the card, and to know what it is.
    assert waiting() == {"payments": 2, "mail": 1}
    sendgrid_control.fail(Fault(kind=FaultKind.STATUS, times=2))
    work(engine, gateways=vendors, queues=["payments", "mail"])
    # Both mails are to be tried again in a minute.
    assert {job.state for job in session.scalars(select(Job).where(Job.queue == "mail"))} == {
        "scheduled"
    }
    assert waiting() == {"payments": 0, "mail": 2}
    told = what_followed(session, account.id, [run.id], seconds=0)
    assert [(one.state, one.mails) for one in told.mails] == [("queued", 1), ("queued", 1)]
    assert [one.outcome for one in told.shares] == ["declined"]


def test_a_job_that_gave_up_is_a_problem(
    engine: Engine, account: Account, session: Session, owing: Owing
) -> None:
    owing("Ada", "20.00")
    run = bill(engine, account, now=database_now(session), as_of=date(2026, 5, 1))
    mail = session.scalars(select(Mail)).one()
    job = session.scalars(select(Job).where(Job.queue == "mail")).one()
    job.state, job.finished_at = "dead", job.created_at
    session.flush()
    told = what_followed(session, account.id, [run.id], seconds=0)
    assert told.dead == [job.id]
    assert told.found_a_problem
    assert mail.state == "queued"
    assert session.execute(following_up._counted(account.id, run.id)).all() == [("mail", 1, 0)]


def test_ctrl_c_leaves_cards_and_mails_going_and_says_so(
    *,
    command: Command,
    working: Working,
    engine: Engine,
    owing: Owing,
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    owing("Ada", "10.00", "pm_card_visa")
    sleep = time.sleep

    def press_once_billed(seconds: float) -> None:
        with Session(engine) as looking:
            if looking.scalars(select(BillingRun.finished_at)).one() is not None:
                raise KeyboardInterrupt
        sleep(seconds)

    monkeypatch.setattr("cli.patience.time.sleep", press_once_billed)
    with working():
        answer = command("bill", "--as-of", AS_OF, "--wait-all")
    assert answer.code == 130
    assert "the work goes on without us" in answer.stderr
    queues = select(Job.queue).where(Job.state.in_(["ready", "dispatched"]))
    assert set(session.scalars(queues)) == {"payments", "mail"}


def test_what_keeps_a_queue_from_being_worked_on_is_found(session: Session) -> None:
    assert obstacles(session, {"mail"}) == ["no dispatcher is alive", "no worker serves mail"]
    session.add(Process(kind="dispatcher", host="here", pid=1))
    session.add(Process(kind="worker", host="here", pid=2, queues=["mail", "payments"]))
    session.flush()
    assert obstacles(session, {"mail", "payments"}) == []
    assert obstacles(session, {"mail", "billing"}) == ["no worker serves billing"]
    pause_queue(session, "mail", "Grace")
    assert obstacles(session, {"mail"}) == ["the queue mail is paused"]


def test_without_wait_all_cards_and_mails_are_left_to_the_workers(
    command: Command, working: Working, owing: Owing, session: Session
) -> None:
    owing("Ada", "10.00", "pm_card_visa")
    with working():
        answer = command("bill", "--as-of", AS_OF, "--json")
    assert answer.code == 0
    assert "followed_up" not in answer.document
    states = session.scalars(select(Job.state).where(Job.queue.in_(["payments", "mail"])))
    assert set(states) == {"ready"}


def test_nothing_due_is_followed_by_nothing(
    command: Command, working_with_vendors: Working
) -> None:
    with working_with_vendors():
        answer = command("bill", "--wait-all", "--json")
    assert answer.code == 0
    followed = answer.document["followed_up"]
    assert (followed["invoiced"], followed["outcomes"], followed["mails"]) == ({}, [], [])
    assert all(UUID(run) for run in answer.document["runs"])
    with working_with_vendors():
        shown = command("bill", "--wait-all")
    assert "What became" not in shown.stdout
