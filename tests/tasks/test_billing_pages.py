from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

import models.billing_period
from models import Account, BillingRun, Client, InvoiceLine, LedgerEntry, LedgerPosting
from tasks.accounts import create_account
from tasks.billing_pages import bill_page
from tasks.drafting import draft_invoice
from tasks.finalizing import finalize_invoice
from tasks.kinds import Run
from tasks.outcomes import Done
from tests.jobs import wait_until_blocked
from tests.worlds import (
    NOW,
    a_charge,
    a_client,
    allow_invoices_again,
    audited,
    bill,
    change,
    charges,
    counted,
    invoices_of,
    perform,
    periods_of,
    refuse_invoices_of,
    tick,
)

MAY = date(2026, 5, 1)
JUNE = date(2026, 6, 1)


def on_monthly_since_may(engine: Engine, account: Account, **fields: Any) -> Client:
    activated_at = datetime(2026, 5, 1, 12, tzinfo=UTC)
    return a_client(engine, account, **{"now": activated_at, "billing_cycle": "monthly", **fields})


def postings(engine: Engine, client: Client) -> list[Any]:
    with Session(engine) as session:
        rows = session.execute(
            select(
                LedgerEntry.event,
                LedgerEntry.effective_on,
                LedgerPosting.ledger_account,
                LedgerPosting.amount,
            )
            .join(LedgerPosting, LedgerPosting.entry_id == LedgerEntry.id)
            .where(LedgerEntry.client_id == client.id)
            .order_by(LedgerPosting.id)
        )
        return [tuple(row) for row in rows]


def states(engine: Engine, client: Client) -> list[tuple[date, str, str | None]]:
    return [(one.period_start, one.state, one.reason) for one in periods_of(engine, client)]


def test_a_month_becomes_one_open_invoice(engine: Engine, account: Account) -> None:
    client = on_monthly_since_may(engine, account, net_days=30)
    charges(engine, client, [(MAY, "10.00"), (date(2026, 5, 31), "0.2550")])

    run = bill(engine, account, now=NOW)

    [invoice] = invoices_of(engine, client)
    assert (invoice.number, invoice.status) == ("INV-000001", "open")
    assert (invoice.subtotal, invoice.tax, invoice.total, invoice.amount_due) == (
        1026,
        0,
        1026,
        1026,
    )
    assert (invoice.issued_on, invoice.due_on) == (JUNE, date(2026, 7, 1))
    assert (invoice.finalized_at, invoice.paid_at, invoice.run_id) == (NOW, None, run.id)
    assert postings(engine, client) == [
        ("finalize", JUNE, "receivable", 1026),
        ("finalize", JUNE, "revenue", -1026),
    ]
    assert states(engine, client) == [(MAY, "billed", None), (JUNE, "open", None)]
    billed, following = periods_of(engine, client)
    assert (billed.id, billed.run_id, billed.decided_at) == (invoice.period_id, run.id, NOW)
    assert (following.period_end, following.starts_at) == (date(2026, 7, 1), billed.ends_at)
    assert run.finished_at == NOW
    assert audited(engine, account) == []


def test_lines_and_parties_are_frozen_as_they_stood(
    engine: Engine, session: Session, account: Account
) -> None:
    client = on_monthly_since_may(
        engine,
        account,
        legal_name="Ada Ltd",
        email="ada@example.com",
        tax_ids=["GB1"],
        address={"line1": "1 High St"},
    )
    later = a_charge(engine, client, date(2026, 5, 20), "1.50", quantity=Decimal("2.5"))
    earlier = a_charge(engine, client, date(2026, 5, 2), "3.00")
    bill(engine, account, now=NOW)
    change(engine, client, name="Eve Imports", address=None)

    [invoice] = invoices_of(engine, client)
    assert invoice.bill_to == {
        "name": "Ada Imports",
        "legal_name": "Ada Ltd",
        "email": "ada@example.com",
        "address": {"line1": "1 High St"},
        "tax_ids": ["GB1"],
    }
    assert invoice.bill_from == {
        "name": "Bluebird Prep",
        "legal_name": None,
        "address": None,
        "tax_ids": [],
    }
    lines = session.scalars(select(InvoiceLine).order_by(InvoiceLine.position)).all()
    assert [(line.position, line.charge_id, line.charged_on) for line in lines] == [
        (1, earlier, date(2026, 5, 2)),
        (2, later, date(2026, 5, 20)),
    ]
    assert [(line.quantity, line.unit_price, line.amount, line.description) for line in lines] == [
        (1, 3, 300, "FNSKU labelling"),
        (Decimal("2.5"), Decimal("1.5"), 375, "FNSKU labelling"),
    ]


def test_a_month_without_charges_is_recorded_as_empty(engine: Engine, account: Account) -> None:
    client = on_monthly_since_may(engine, account)

    bill(engine, account, now=NOW)

    assert states(engine, client) == [(MAY, "empty", None), (JUNE, "open", None)]
    assert invoices_of(engine, client) == []


def test_two_currencies_make_two_invoices_of_one_period(engine: Engine, account: Account) -> None:
    client = on_monthly_since_may(engine, account)
    a_charge(engine, client, MAY, "7.00", currency="usd")
    a_charge(engine, client, MAY, "5.00", currency="gbp")
    a_charge(engine, client, MAY, "500", currency="jpy")

    bill(engine, account, now=NOW)

    found = invoices_of(engine, client)
    assert [(one.currency, one.total) for one in found] == [
        ("gbp", 500),
        ("jpy", 500),
        ("usd", 700),
    ]
    assert len({one.period_id for one in found}) == 1
    assert audited(engine, account) == []


def test_charges_that_cancel_out_make_an_invoice_paid_at_once(
    engine: Engine, account: Account
) -> None:
    client = on_monthly_since_may(engine, account)
    charges(engine, client, [(MAY, "9.99"), (MAY, "-9.99")])

    bill(engine, account, now=NOW)

    [invoice] = invoices_of(engine, client)
    assert (invoice.status, invoice.total, invoice.amount_due) == ("paid", 0, 0)
    assert (invoice.paid_at, invoice.number) == (NOW, "INV-000001")
    assert postings(engine, client) == []
    assert audited(engine, account) == []


def test_a_negative_total_is_paid_at_once_and_becomes_credit(
    engine: Engine, account: Account
) -> None:
    client = on_monthly_since_may(engine, account)
    charges(engine, client, [(MAY, "2.00"), (MAY, "-9.00")])

    bill(engine, account, now=NOW)

    [invoice] = invoices_of(engine, client)
    assert (invoice.status, invoice.total, invoice.amount_due) == ("paid", -700, 0)
    assert invoice.credit_applied == -700
    assert postings(engine, client) == [
        ("finalize", JUNE, "revenue", 700),
        ("finalize", JUNE, "credit", -700),
    ]
    assert audited(engine, account) == []


def test_the_same_month_asked_for_again_bills_nothing(engine: Engine, account: Account) -> None:
    client = on_monthly_since_may(engine, account)
    a_charge(engine, client, MAY)
    bill(engine, account, now=NOW)

    again = bill(engine, account, now=NOW, as_of=JUNE)

    assert len(invoices_of(engine, client)) == 1
    assert again.finished_at == NOW
    assert states(engine, client) == [(MAY, "billed", None), (JUNE, "open", None)]


def test_a_charge_recorded_late_joins_the_next_invoice_and_a_later_one_waits(
    engine: Engine, account: Account
) -> None:
    client = on_monthly_since_may(engine, account)
    a_charge(engine, client, JUNE, "4.00")  # The boundary's own day is the next period's.
    bill(engine, account, now=NOW)
    assert invoices_of(engine, client) == []
    a_charge(engine, client, date(2026, 4, 30), "3.00")  # Older than the client's cycle.
    a_charge(engine, client, date(2026, 5, 31), "2.00")
    a_charge(engine, client, date(2026, 7, 1), "1.00")

    bill(engine, account, now=datetime(2026, 7, 1, tzinfo=UTC))

    assert [one.total for one in invoices_of(engine, client)] == [900]


def test_missed_months_are_billed_oldest_first_and_numbers_follow_dates(
    engine: Engine, account: Account
) -> None:
    first = on_monthly_since_may(engine, account, anchor_day=15)
    second = on_monthly_since_may(engine, account, time_zone="America/Chicago")
    third = on_monthly_since_may(engine, account, anchor_day=31, time_zone="Pacific/Auckland")
    for client in (first, second, third):
        charges(engine, client, [(date(2026, month, 10), "10.00") for month in (5, 6, 7)])

    tick(engine, now=datetime(2026, 8, 1, 12, tzinfo=UTC))

    for client, ends in {
        first: ["2026-05-15", "2026-06-15", "2026-07-15"],
        second: ["2026-06-01", "2026-07-01", "2026-08-01"],
        third: ["2026-05-31", "2026-06-30", "2026-07-31"],
    }.items():
        billed = [one.period_end.isoformat() for one in periods_of(engine, client)][:-1]
        assert billed == ends
        assert [one.total for one in invoices_of(engine, client)] == [1000, 1000, 1000]
    with Session(engine) as session:
        in_order = session.scalars(
            text(
                "SELECT period_end FROM invoices JOIN billing_periods AS periods"
                " ON periods.id = period_id ORDER BY number"
            )
        ).all()
    assert in_order == sorted(in_order)
    assert len(in_order) == 9
    assert audited(engine, account) == []


@pytest.mark.parametrize(
    ("now", "issued"),
    [
        # The oldest boundary, 1 June, is 31 days back: every invoice bears its own boundary.
        (datetime(2026, 7, 2, 9, tzinfo=UTC), ["2026-06-01", "2026-07-01"]),
        # It is 32 days back: all of this client's bear the day of finalizing.
        (datetime(2026, 7, 3, 9, tzinfo=UTC), ["2026-07-03", "2026-07-03"]),
    ],
)
def test_a_long_catch_up_bears_the_day_of_finalizing(
    engine: Engine, account: Account, now: datetime, issued: list[str]
) -> None:
    client = on_monthly_since_may(engine, account)
    recent = on_monthly_since_may(engine, account, now=datetime(2026, 6, 20, tzinfo=UTC))
    charges(engine, client, [(MAY, "1.00"), (JUNE, "1.00")])
    a_charge(engine, recent, date(2026, 6, 21))

    tick(engine, now=now)

    found = invoices_of(engine, client)
    assert [str(one.issued_on) for one in found] == issued
    assert {one.due_on for one in found} == {now.date() + timedelta(days=14)}
    assert [one.issued_on for one in invoices_of(engine, recent)] == [date(2026, 7, 1)]


def test_the_day_of_finalizing_is_the_accounts(engine: Engine, session: Session) -> None:
    account = create_account(session, "Antipodes", time_zone="Pacific/Auckland")
    session.commit()
    client = on_monthly_since_may(engine, account)
    a_charge(engine, client, date(2026, 5, 2))

    tick(engine, now=datetime(2026, 8, 1, 12, tzinfo=UTC))

    assert invoices_of(engine, client)[0].issued_on == date(2026, 8, 2)


def test_charges_on_a_draft_made_by_hand_stay_there_and_the_period_says_so(
    engine: Engine, account: Account
) -> None:
    drafted, both = (on_monthly_since_may(engine, account) for _ in range(2))
    for client in (drafted, both):
        a_charge(engine, client, MAY, "5.00")
        perform(engine, draft_invoice, account, client_id=client.id)
    a_charge(engine, both, MAY, "1.00")

    bill(engine, account, now=NOW)

    assert states(engine, drafted)[0] == (MAY, "empty", "charges_on_manual_draft")
    assert states(engine, both)[0] == (MAY, "billed", "charges_on_manual_draft")
    assert [(one.status, one.total) for one in invoices_of(engine, both)] == [
        ("open", 100),
        ("draft", 500),
    ]


def test_a_page_takes_the_same_number_of_statements_for_3_and_for_50_clients(
    engine: Engine, account: Account
) -> None:
    counts = []
    for clients in (3, 50):
        for _ in range(clients):
            client = on_monthly_since_may(engine, account)
            charges(engine, client, [(MAY, "1.00"), (MAY, "2.00")])
        with Session(engine, expire_on_commit=False) as session, session.begin():
            run = BillingRun(account_id=account.id, as_of_at=NOW, created_at=NOW)
            session.add(run)
        with counted(engine) as statements:
            perform(
                engine,
                bill_page,
                account,
                run_id=run.id,
                boundary=JUNE,
                first_client=UUID(int=0),
                last_client=UUID(int=2**128 - 1),
            )
        counts.append(len(statements))

    assert len(invoices_of(engine, account)) == 53
    assert counts[0] == counts[1] < 30


def test_a_client_that_cannot_be_billed_leaves_the_others_billed_and_no_number_out(
    engine: Engine, account: Account
) -> None:
    clients = [on_monthly_since_may(engine, account) for _ in range(4)]
    for client in clients:
        a_charge(engine, client, MAY, "10.00")
    bad = clients[1]
    refuse_invoices_of(engine, bad)

    run = bill(engine, account, now=NOW)

    assert [one.number for one in invoices_of(engine, account)] == [
        "INV-000001",
        "INV-000002",
        "INV-000003",
    ]
    [failed] = periods_of(engine, bad)
    assert (failed.state, failed.run_id, failed.decided_at) == ("failed", run.id, NOW)
    assert failed.error == "RaiseException: not this one"
    assert {states(engine, client)[0][1] for client in clients if client is not bad} == {"billed"}
    assert audited(engine, account) == []


def test_a_failed_period_is_billed_by_a_later_run_once_mended(
    engine: Engine, account: Account
) -> None:
    client = on_monthly_since_may(engine, account)
    a_charge(engine, client, MAY, "10.00")
    refuse_invoices_of(engine, client)
    bill(engine, account, now=NOW)
    allow_invoices_again(engine)

    run = bill(engine, account, now=NOW + timedelta(minutes=1))

    billed, following = periods_of(engine, client)
    assert (billed.state, billed.error, billed.run_id) == ("billed", None, run.id)
    assert following.period_start == billed.period_end
    [invoice] = invoices_of(engine, client)
    assert (invoice.number, invoice.total, invoice.issued_on) == ("INV-000001", 1000, JUNE)
    assert audited(engine, account) == []


def test_the_scheduler_leaves_a_fresh_failure_alone_for_an_hour(
    engine: Engine, account: Account
) -> None:
    client = on_monthly_since_may(engine, account)
    a_charge(engine, client, MAY)
    refuse_invoices_of(engine, client)
    tick(engine, now=NOW)
    allow_invoices_again(engine)

    tick(engine, now=NOW + timedelta(hours=1))
    assert states(engine, client) == [(MAY, "failed", None)]

    tick(engine, now=NOW + timedelta(hours=1, seconds=1))
    assert states(engine, client)[0] == (MAY, "billed", None)


def test_a_fresh_failure_waits_though_another_client_falls_due(
    engine: Engine, account: Account
) -> None:
    client = on_monthly_since_may(engine, account)
    an_hour_later = on_monthly_since_may(engine, account, time_zone="Atlantic/Cape_Verde")
    a_charge(engine, client, MAY)
    refuse_invoices_of(engine, client)
    tick(engine, now=datetime(2026, 6, 1, tzinfo=UTC))
    allow_invoices_again(engine)

    tick(engine, now=datetime(2026, 6, 1, 1, tzinfo=UTC))

    assert states(engine, an_hour_later)[0][1] == "empty"
    assert states(engine, client)[0][1] == "failed"


def test_one_client_of_the_page_is_billed_once_though_it_is_asked_for_twice(
    engine: Engine, account: Account
) -> None:
    client = on_monthly_since_may(engine, account)
    a_charge(engine, client, MAY)
    with Session(engine, expire_on_commit=False) as session, session.begin():
        run = BillingRun(account_id=account.id, as_of_at=NOW, created_at=NOW)
        session.add(run)
    page: dict[str, Any] = {
        "run_id": run.id,
        "boundary": JUNE,
        "first_client": client.id,
        "last_client": client.id,
    }

    outcomes = [perform(engine, bill_page, account, **page) for _ in range(2)]

    assert outcomes == [Done({"periods": 1, "failed": 0}), Done({"periods": 0, "failed": 0})]
    assert len(invoices_of(engine, client)) == 1


def a_run(engine: Engine, account: Account) -> BillingRun:
    with Session(engine, expire_on_commit=False) as session, session.begin():
        run = BillingRun(account_id=account.id, as_of_at=NOW, created_at=NOW)
        session.add(run)
    return run


def whole_page(run: BillingRun, boundary: date = JUNE) -> dict[str, Any]:
    return {
        "run_id": run.id,
        "boundary": boundary,
        "first_client": UUID(int=0),
        "last_client": UUID(int=2**128 - 1),
    }


def test_a_bad_period_costs_two_tries_for_each_halving_of_the_page(
    engine: Engine, account: Account
) -> None:
    clients = [on_monthly_since_may(engine, account) for _ in range(32)]
    for client in clients:
        a_charge(engine, client, MAY)
    refuse_invoices_of(engine, clients[20])

    with counted(engine) as statements:
        outcome = perform(engine, bill_page, account, **whole_page(a_run(engine, account)))

    assert outcome == Done({"periods": 32, "failed": 1})
    tries = [one for one in statements if "INSERT INTO invoices " in one]
    assert len(tries) == 1 + 2 * 5
    assert [states(engine, client)[0][1] for client in clients].count("billed") == 31
    assert states(engine, clients[20])[0][1] == "failed"
    assert audited(engine, account) == []


def test_without_credit_only_what_bears_a_number_is_written_while_the_numbers_are_locked(
    engine: Engine, account: Account
) -> None:
    client = on_monthly_since_may(engine, account)
    a_charge(engine, client, MAY)

    with counted(engine) as statements:
        perform(engine, bill_page, account, **whole_page(a_run(engine, account)))

    [taken] = [at for at, one in enumerate(statements) if "number_series" in one]
    begins = [one.split()[:2] for one in statements[taken + 1 :]]
    # It also looks whether there is credit to use, and whether the run is over.
    assert [one for one in begins if one[0] not in ("SELECT", "RELEASE")] == [
        ["UPDATE", "invoices"]
    ]


def test_charges_on_an_invoice_by_hand_that_is_finalized_are_none_on_a_draft(
    engine: Engine, account: Account
) -> None:
    client = on_monthly_since_may(engine, account)
    a_charge(engine, client, MAY, "5.00")
    perform(engine, draft_invoice, account, client_id=client.id)
    [by_hand] = invoices_of(engine, client)
    perform(engine, finalize_invoice, account, invoice_id=by_hand.id)

    bill(engine, account, now=NOW)

    assert states(engine, client)[0] == (MAY, "empty", None)


def test_what_the_run_may_take_of_a_client_is_looked_at_under_its_lock(
    engine: Engine, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models.billing_period, "MAX_PERIODS_PER_RUN", 1)
    client = on_monthly_since_may(engine, account, now=NOW, billing_starts_on=date(2026, 4, 1))
    run = a_run(engine, account)
    april = Run(job_id=uuid4(), account_id=account.id, attempt=1, now=NOW, requested_by="test")

    with ThreadPoolExecutor(1) as threads, Session(engine) as session:
        bill_page.body(april, session, **whole_page(run, MAY))
        may = threads.submit(perform, engine, bill_page, account, **whole_page(run))
        wait_until_blocked(engine)
        session.commit()

        assert may.result() == Done({"periods": 0, "failed": 0})

    assert [one.state for one in periods_of(engine, client)] == ["empty", "open", "open"]
