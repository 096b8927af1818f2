import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import cycle
from threading import Barrier
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, func, insert, select, text
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from models import Account, BillingRun, Client, Invoice, Job, Mail
from tasks import billing_pages
from tasks.accounts import create_account
from tasks.billing_pages import bill_page
from tasks.billing_runs import request_run, start_due_runs
from tasks.calls import Step
from tasks.clients import NewClient, create_clients
from tasks.collecting import due_to_collect
from tasks.enqueueing import enqueue
from tasks.finalizing import finalize_invoices
from tasks.marking_paid import mark_invoice_paid
from tasks.operating import retry_job
from tasks.outcomes import Done
from tasks.payment_refunds import refund_payment
from tasks.run_conclusions import conclude_late_page, conclude_run, run_for_update
from tasks.voiding import void_invoice
from tasks.writing_off import write_off_invoice
from tests.cards import payments
from tests.mailbox import MAY_1, MAY_5, mails_of, monthly
from tests.money import deposit, with_a_card
from tests.worlds import (
    NOW,
    a_charge,
    allow_invoices_again,
    audited,
    bill,
    change,
    charges,
    counted,
    invoices_of,
    perform,
    refuse_invoices_of,
    tick,
    together,
    work,
)


def kinds(engine: Engine, owner: Client | Account) -> list[str]:
    return [mail.kind for mail in mails_of(engine, owner)]


def listed(engine: Engine, client: Client) -> list[set[UUID]]:
    return [set(mail.invoice_ids) for mail in mails_of(engine, client)]


def all_of(engine: Engine, client: Client) -> set[UUID]:
    return {invoice.id for invoice in invoices_of(engine, client)}


@pytest.fixture
def dying_pages(engine: Engine) -> None:
    """A job that fails is dead at once."""
    with engine.begin() as connection:
        connection.execute(
            text(
                "CREATE FUNCTION one_try() RETURNS trigger LANGUAGE plpgsql AS"
                " 'BEGIN NEW.max_attempts := 1; RETURN NEW; END';"
                " CREATE TRIGGER one_try BEFORE INSERT ON jobs FOR EACH ROW"
                " EXECUTE FUNCTION one_try()"
            )
        )


def test_one_mail_tells_of_all_that_a_run_billed_a_client_in_every_month_and_currency(
    engine: Engine, account: Account
) -> None:
    client = monthly(engine, account, billing_starts_on=date(2026, 3, 1))
    for month in (3, 4, 5):
        a_charge(engine, client, date(2026, month, 2))
        a_charge(engine, client, date(2026, month, 2), "900", currency="jpy")

    run = bill(engine, account, now=NOW)

    [mail] = mails_of(engine, client)
    assert (mail.kind, mail.state, mail.recipient) == (
        "invoice_ready",
        "queued",
        "ada@maple.example",
    )
    assert mail.subject_key == f"run:{run.id}:{client.id}"
    assert len(mail.invoice_ids) == 6
    assert {*mail.invoice_ids} == all_of(engine, client)
    assert sorted(due["amount_due"] for due in mail.told["due"].values()) == [900] * 3 + [1000] * 3


def test_a_run_of_nothing_tells_nobody(engine: Engine, account: Account) -> None:
    monthly(engine, account)

    assert bill(engine, account, now=NOW).finished_at == NOW
    assert mails_of(engine, account) == []


def test_a_dry_run_tells_nobody(engine: Engine, account: Account) -> None:
    monthly(engine, account, "10.00")

    bill(engine, account, now=NOW, dry_run=True)

    assert mails_of(engine, account) == []


def test_what_asks_for_nothing_is_not_announced(engine: Engine, account: Account) -> None:
    zero = monthly(engine, account, "10.00", "-10.00")
    negative = monthly(engine, account, "-5.00")

    tick(engine, now=NOW)

    assert [one.total for one in invoices_of(engine, zero)] == [0]
    assert [one.total for one in invoices_of(engine, negative)] == [-500]
    assert mails_of(engine, account) == []


def test_a_client_whose_credit_paid_everything_gets_a_receipt_instead(
    engine: Engine, account: Account
) -> None:
    client = monthly(engine, account, "10.00")
    a_charge(engine, client, MAY_5, "-3.00", currency="eur")
    deposit(engine, account, client, 1000)

    tick(engine, now=NOW)

    # The first is the deposit's own.
    assert kinds(engine, client) == ["receipt", "receipt"]
    assert listed(engine, client) == [set(), all_of(engine, client)]


def test_a_client_whose_credit_paid_a_part_is_told_what_is_left(
    engine: Engine, account: Account
) -> None:
    client = monthly(engine, account, "10.00")
    deposit(engine, account, client, 400)

    tick(engine, now=NOW)

    mail = mails_of(engine, client)[-1]
    assert mail.kind == "invoice_ready"
    assert [*mail.told["due"].values()] == [{"amount_due": 600, "credit_applied": 400}]


def test_an_invoice_voided_before_the_runs_end_is_not_announced(
    engine: Engine, account: Account, session: Session
) -> None:
    both, one = monthly(engine, account, "10.00"), monthly(engine, account, "10.00")
    a_charge(engine, both, MAY_5, "7.00", currency="eur")
    run_id = billed_but_not_concluded(engine, account)
    for client in (both, one):
        invoice = next(one for one in invoices_of(engine, client) if one.currency == "usd")
        perform(engine, void_invoice, account, invoice_id=invoice.id)

    work(engine, now=NOW)

    assert session.get_one(BillingRun, run_id).finished_at == NOW
    assert kinds(engine, one) == []
    assert [invoice.currency for invoice in told_of(session, both)] == ["eur"]


def test_what_was_paid_before_the_runs_end_has_its_receipt_and_is_not_told_again(
    engine: Engine, account: Account
) -> None:
    client = monthly(engine, account, "10.00")
    billed_but_not_concluded(engine, account)
    [invoice] = invoices_of(engine, client)
    perform(engine, mark_invoice_paid, account, invoice_id=invoice.id)

    work(engine, now=NOW)

    [mail] = mails_of(engine, client)
    assert (mail.kind, mail.payment_id is not None) == ("receipt", True)


@pytest.mark.parametrize("gives_up", [False, True])
def test_a_debt_that_is_back_after_its_run_ended_was_told_of_by_its_receipt(
    engine: Engine, account: Account, *, gives_up: bool
) -> None:
    client = monthly(engine, account, "10.00")
    other = monthly(engine, account, "10.00")
    billed_but_not_concluded(engine, account)
    [invoice] = invoices_of(engine, client)
    perform(engine, mark_invoice_paid, account, invoice_id=invoice.id)
    work(engine, now=NOW)
    assert kinds(engine, other) == ["invoice_ready"]
    [payment] = payments(engine)

    perform(engine, refund_payment, account, payment_id=payment.id, to="outside", credit_note=False)
    if gives_up:
        perform(engine, write_off_invoice, account, invoice_id=invoice.id)

    assert audited(engine, account) == []


def told_of(session: Session, client: Client) -> list[Invoice]:
    [mail] = session.scalars(select(Mail).where(Mail.client_id == client.id))
    return list(session.scalars(select(Invoice).where(Invoice.id.in_(mail.invoice_ids))))


def billed_but_not_concluded(engine: Engine, account: Account) -> UUID:
    """A run whose pages are done, and whose job is still to be woken by them."""
    with Session(engine) as session, session.begin():
        run_id = request_run(session, account.id, now=NOW, requested_by="test").run.id
    # The run fans out, then its page bills; the run's job would be third.
    with pytest.raises(AssertionError, match="without end"):
        work(engine, now=NOW, limit=1)
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET state = 'ready' WHERE state = 'dispatched'"))
    with Session(engine) as session:
        assert session.get_one(BillingRun, run_id).finished_at is None
    return run_id


@pytest.mark.usefixtures("dying_pages")
def test_a_run_that_failed_tells_what_it_billed_once_and_the_next_run_the_rest(
    engine: Engine, account: Account
) -> None:
    early, late = billed_in_april_and_failed_in_may(engine, account)
    april = all_of(engine, early)
    assert listed(engine, early) == [april]
    assert listed(engine, late) == []

    allow_invoices_again(engine)
    bill(engine, account, now=NOW)

    assert listed(engine, early) == [april, all_of(engine, early) - april]
    assert listed(engine, late) == [all_of(engine, late)]
    assert audited(engine, account) == []


@pytest.mark.usefixtures("dying_pages")
@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("retried", [["bill_page"], ["bill_page", "bill_due_periods"]])
def test_a_failed_run_that_is_retried_tells_only_what_it_had_not_told(
    engine: Engine, account: Account, *, moved: bool, retried: list[str]
) -> None:
    early, late = billed_in_april_and_failed_in_may(engine, account)
    april = all_of(engine, early)
    # Neither another address nor money makes what was told news.
    perform(engine, mark_invoice_paid, account, invoice_id=next(iter(april)))
    if moved:
        for client in (early, late):
            change(engine, client, email="new@maple.example")
    retry_dead(engine, "bill_due_periods")
    assert kinds(engine, early) == ["invoice_ready", "receipt"]

    allow_invoices_again(engine)
    for kind in retried:
        retry_dead(engine, kind)

    # The run was over: the page told of its invoices itself.
    may = all_of(engine, early) - april
    assert len(may) == 1
    ready = [mail for mail in mails_of(engine, account) if mail.kind == "invoice_ready"]
    assert [{*mail.invoice_ids} for mail in ready if mail.client_id == early.id] == [april, may]
    assert [{*mail.invoice_ids} for mail in ready if mail.client_id == late.id] == [
        all_of(engine, late)
    ]
    assert kinds(engine, account).count("receipt") == 1
    assert audited(engine, account) == []


def billed_in_april_and_failed_in_may(engine: Engine, account: Account) -> tuple[Client, Client]:
    """A client whose April was billed in a run that ended dead, and one who has only a May."""
    early = monthly(engine, account, billing_starts_on=date(2026, 4, 1))
    charges(engine, early, [(date(2026, 4, 2), "1.00"), (date(2026, 5, 2), "2.00")])
    late = monthly(engine, account, "4.00")
    # The database's own trouble is no period's failure: the page itself fails.
    refuse_invoices_of(engine, late, errcode="deadlock_detected")
    assert bill(engine, account, now=NOW).finished_at == NOW
    assert [invoice.total for invoice in invoices_of(engine, early)] == [100]
    return early, late


def retry_dead(engine: Engine, *kinds: str) -> None:
    with Session(engine) as session, session.begin():
        dead = select(Job.id).where(Job.kind.in_(kinds), Job.state == "dead")
        for job_id in session.scalars(dead).all():
            retry_job(session, job_id)
    work(engine, now=NOW)


@pytest.mark.usefixtures("dying_pages")
def test_a_failed_run_whose_jobs_are_all_retried_tells_the_rest_in_one_mail(
    engine: Engine, account: Account
) -> None:
    client = monthly(engine, account, billing_starts_on=date(2026, 1, 1))
    charges(engine, client, [(date(2026, month, 2), "1.00") for month in range(1, 6)])
    refuse_invoices_of(engine, client, errcode="deadlock_detected")
    bill(engine, account, now=NOW)
    allow_invoices_again(engine)

    retry_dead(engine, "bill_page", "bill_due_periods")

    assert len(all_of(engine, client)) == 5
    assert listed(engine, client) == [all_of(engine, client)]
    assert audited(engine, account) == []


@pytest.mark.parametrize("other_under_way", [False, True])
def test_a_run_that_goes_on_after_its_end_tells_once_and_collects_nothing_before(
    engine: Engine, account: Account, monkeypatch: pytest.MonkeyPatch, *, other_under_way: bool
) -> None:
    january = datetime(2026, 1, 1, tzinfo=UTC)
    client = monthly(engine, account, billing_starts_on=january.date(), now=january)
    with_a_card(engine, account, client)
    charges(engine, client, [(date(2026, month, 2), "1.00") for month in range(1, 6)])
    perform(engine, start_due_runs, None, fire_at=NOW)
    with engine.begin() as connection:
        connection.execute(text("UPDATE billing_runs SET finished_at = now()"))
    if other_under_way:
        # It found the account's place free, and takes what this one leaves.
        perform(engine, start_due_runs, None, fire_at=NOW)
    collectable = []

    def look(session: Session, *arguments: Any, **more: Any) -> None:
        collectable.append(len(session.scalars(due_to_collect(NOW)).all()))
        finalize_invoices(session, *arguments, **more)

    monkeypatch.setattr(billing_pages, "finalize_invoices", look)

    work(engine, now=NOW)

    assert collectable == [0] * 5
    assert len(all_of(engine, client)) == 5
    assert listed(engine, client) == [all_of(engine, client)]
    with Session(engine) as session:
        assert len(session.scalars(due_to_collect(NOW)).all()) == 5
        assert {run.finished_at for run in session.scalars(select(BillingRun))} == {NOW}
    assert audited(engine, account) == []


def test_late_pages_of_one_run_do_not_wait_for_each_other_in_a_ring(
    engine: Engine, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = [monthly(engine, account, "10.00") for _ in range(2)]
    run_id = a_run_that_is_over(engine, account)
    both = Barrier(2, timeout=10)

    def meet(*arguments: Any, **more: Any) -> None:
        both.wait()
        finalize_invoices(*arguments, **more)

    monkeypatch.setattr(billing_pages, "finalize_invoices", meet)

    answers = together(*[partial(bill_late, engine, account, run_id, one) for one in clients])

    assert answers == [Done({"periods": 1, "failed": 0})] * 2
    assert [listed(engine, client) for client in clients] == [
        [all_of(engine, client)] for client in clients
    ]


def test_a_run_that_ends_while_its_page_does_tells_of_that_page(
    engine: Engine, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = monthly(engine, account, "10.00")
    with Session(engine) as session, session.begin():
        run_id = request_run(session, account.id, now=NOW, requested_by="test").run.id

    def conclude() -> None:
        with Session(engine) as session, session.begin():
            run = session.scalars(run_for_update(run_id)).one()
            conclude_run(session, run, now=NOW, requested_by="test")

    with ThreadPoolExecutor(1) as thread:

        def then_conclude(*arguments: Any, **more: Any) -> None:
            conclude_late_page(*arguments, **more)
            # The page has only its commit to come, and the run does not overtake that.
            with suppress(TimeoutError):
                thread.submit(conclude).result(timeout=0.5)

        monkeypatch.setattr(billing_pages, "conclude_late_page", then_conclude)
        bill_late(engine, account, run_id, client)

    assert listed(engine, client) == [all_of(engine, client)]


def test_a_late_page_leaves_the_telling_to_its_runs_job_if_that_goes_on(
    engine: Engine, account: Account, session: Session
) -> None:
    client = monthly(engine, account, billing_starts_on=date(2026, 4, 1))
    charges(engine, client, [(date(2026, 4, 2), "1.00"), (date(2026, 5, 2), "2.00")])
    run_id = a_run_that_is_over(engine, account)
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET state = 'ready', finished_at = NULL"))

    bill_late(engine, account, run_id, client, boundary=date(2026, 5, 1))

    # Should that job end without a word, the next tick closes the run and tells.
    assert session.get_one(BillingRun, run_id).finished_at is None
    assert mails_of(engine, client) == []
    work(engine, now=NOW)
    assert len(all_of(engine, client)) == 2
    assert listed(engine, client) == [all_of(engine, client)]


def test_a_late_page_tells_itself_while_another_run_has_the_accounts_place(
    engine: Engine, account: Account
) -> None:
    client = monthly(engine, account, "10.00")
    run_id = a_run_that_is_over(engine, account)
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET state = 'ready', finished_at = NULL"))
        connection.execute(text("UPDATE billing_runs SET scheduled = true"))
    with Session(engine) as session, session.begin():
        session.add(BillingRun(account_id=account.id, as_of_at=NOW, scheduled=True))

    bill_late(engine, account, run_id, client)

    assert listed(engine, client) == [all_of(engine, client)]
    work(engine, now=NOW)
    assert listed(engine, client) == [all_of(engine, client)]


def a_run_that_is_over(engine: Engine, account: Account) -> UUID:
    """A run that ended before its pages did, as its job is dead."""
    with Session(engine) as session, session.begin():
        run_id = request_run(session, account.id, now=NOW, requested_by="test").run.id
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET state = 'dead', finished_at = now()"))
        connection.execute(text("UPDATE billing_runs SET finished_at = now()"))
    return run_id


def bill_late(
    engine: Engine,
    account: Account,
    run_id: UUID,
    client: Client,
    boundary: date = date(2026, 6, 1),
) -> Step:
    return perform(
        engine,
        bill_page,
        account,
        run_id=run_id,
        boundary=boundary,
        first_client=client.id,
        last_client=client.id,
    )


@pytest.mark.parametrize("state", ["cancelled", "dead"])
def test_an_abandoned_run_is_announced_once_by_the_next_tick_and_collected(
    engine: Engine, account: Account, session: Session, state: str
) -> None:
    client = monthly(engine, account, "10.00")
    with_a_card(engine, account, client)
    billed_but_not_concluded(engine, account)
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE jobs SET state = :state, finished_at = now() WHERE kind = 'bill_due_periods'"
            ),
            {"state": state},
        )
    assert mails_of(engine, client) == []

    together(*[partial(perform, engine, start_due_runs, None, fire_at=NOW)] * 3)
    for _ in range(2):
        tick(engine, now=NOW + timedelta(minutes=1))

    [mail] = mails_of(engine, client)
    assert mail.kind == "invoice_ready"
    assert mail.told["charged"] == [str(one) for one in mail.invoice_ids]
    jobs = session.scalars(select(Job.kind).where(Job.kind.in_(["send_mail", "collect_client"])))
    assert sorted(jobs) == ["collect_client", "send_mail"]


def test_an_abandoned_run_that_cannot_be_concluded_keeps_no_other_account_waiting(
    engine: Engine, account: Account, session: Session
) -> None:
    bad = monthly(engine, account, "10.00")
    run_id = billed_but_not_concluded(engine, account)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE jobs SET state = 'dead', finished_at = now() WHERE kind = :kind"),
            {"kind": "bill_due_periods"},
        )
        connection.execute(
            text(
                "CREATE FUNCTION refuse_mail() RETURNS trigger LANGUAGE plpgsql AS $fn$ BEGIN"
                " RAISE EXCEPTION 'not this one'; END $fn$;"
                " CREATE TRIGGER refuse_mail BEFORE INSERT ON mails FOR EACH ROW"
                f" WHEN (NEW.client_id = '{bad.id}') EXECUTE FUNCTION refuse_mail()"
            )
        )
    with Session(engine, expire_on_commit=False) as other_session, other_session.begin():
        other = create_account(other_session, "Kestrel Storage")
    client = monthly(engine, other, "10.00")

    with capture_logs() as logs:
        tick(engine, now=NOW + timedelta(minutes=1))

    assert kinds(engine, client) == ["invoice_ready"]
    assert session.get_one(BillingRun, run_id).finished_at is None
    assert "abandoned run not concluded" in [entry["event"] for entry in logs]


def test_two_runs_of_one_account_at_once_tell_each_client_once(
    engine: Engine, account: Account
) -> None:
    clients = [
        monthly(engine, account, "1.00", email=f"{number}@maple.example") for number in range(8)
    ]
    for _ in range(2):
        with Session(engine) as session, session.begin():
            request_run(session, account.id, now=NOW, requested_by="test")
    with Session(engine) as session, session.begin():
        enqueue(session, start_due_runs, account_id=None, requested_by="test", fire_at=NOW)

    answers = together(*[partial(work, engine, now=NOW)] * 3)

    assert all(isinstance(answer, int) for answer in answers), answers
    work(engine, now=NOW)
    for client in clients:
        assert listed(engine, client) == [all_of(engine, client)]
    assert audited(engine, account) == []


def test_a_conclusion_that_is_undone_has_told_nothing(engine: Engine, account: Account) -> None:
    client = monthly(engine, account, "10.00")
    run_id = billed_but_not_concluded(engine, account)
    with Session(engine) as session:
        run = session.get_one(BillingRun, run_id)
        conclude_run(session, run, now=NOW, requested_by="test")
        session.rollback()

    assert mails_of(engine, client) == []
    work(engine, now=NOW)
    assert kinds(engine, client) == ["invoice_ready"]


def test_as_many_statements_conclude_a_run_of_many_clients_as_of_few(engine: Engine) -> None:
    spent = []
    for clients in (30, 600):
        with Session(engine, expire_on_commit=False) as session, session.begin():
            owner = create_account(session, f"Of {clients}")
            run = a_billed_run(session, owner, clients)
        with Session(engine) as session, session.begin(), counted(engine) as statements:
            conclude_run(session, session.get_one(BillingRun, run.id), now=NOW, requested_by="test")
        spent.append(len(statements))
        states = [mail.state for mail in mails_of(engine, owner)]
        assert [states.count("queued"), states.count("suppressed")] == [clients // 2] * 2

    assert spent[0] == spent[1]
    assert spent[0] < 15


def test_five_thousand_clients_are_told_in_seconds(engine: Engine, account: Account) -> None:
    with Session(engine, expire_on_commit=False) as session, session.begin():
        run = a_billed_run(session, account, 5000)
    started = time.monotonic()
    with Session(engine) as session, session.begin(), counted(engine) as statements:
        conclude_run(session, session.get_one(BillingRun, run.id), now=NOW, requested_by="test")

    assert time.monotonic() - started < 20
    assert len(statements) < 25
    with Session(engine) as session:
        assert session.scalar(select(func.count()).select_from(Mail)) == 5000
        jobs = session.execute(select(Job.kind, func.count()).group_by(Job.kind)).all()
    assert dict(jobs) == {"send_mail": 2500}


def a_billed_run(session: Session, account: Account, clients: int) -> BillingRun:
    """A run that has only its end to come: an open invoice for each client, every other of whom has
    an address. Its invoices are written directly, since billing them is not what is looked at."""
    run = BillingRun(account_id=account.id, as_of_at=NOW)
    session.add(run)
    addresses = cycle(["ada@maple.example", None])
    new = [NewClient(name=f"Client {number}", email=next(addresses)) for number in range(clients)]
    made = create_clients(session, account, new, now=MAY_1)
    session.execute(
        insert(Invoice),
        [
            {
                "account_id": account.id,
                "client_id": client.id,
                "run_id": run.id,
                "currency": "usd",
                "subtotal": 1000,
                "total": 1000,
            }
            for client in made
        ],
    )
    session.execute(
        text(
            "UPDATE invoices SET status = 'open', number = invoices.id, series_year = 0,"
            " sequence = numbered.sequence, issued_on = '2026-06-01',"
            " due_on = '2026-06-15', finalized_at = '2026-06-01'"
            " FROM (SELECT id, row_number() OVER (ORDER BY id) AS sequence FROM invoices) AS numbered"
            " WHERE numbered.id = invoices.id AND run_id = :run"
        ),
        {"run": run.id},
    )
    return run
