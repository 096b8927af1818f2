from datetime import UTC, date, datetime

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from models import Account, Job
from tasks.billing_runs import request_run
from tasks.run_reports import RunProgress, progress_of
from tests.worlds import NOW, a_charge, a_client, bill, refuse_invoices_of


def test_progress_counts_periods_failures_and_money(engine: Engine, account: Account) -> None:
    since = datetime(2026, 5, 1, tzinfo=UTC)
    billed, _idle, bad = (
        a_client(engine, account, billing_cycle="monthly", now=since) for _ in range(3)
    )
    for client in (billed, bad):
        a_charge(engine, client, date(2026, 5, 1), "12.00")
    a_charge(engine, billed, date(2026, 5, 1), "3", currency="eur")
    refuse_invoices_of(engine, bad)
    with Session(engine) as session:
        unborn = request_run(session, account.id, now=NOW, requested_by="test").run
        assert progress_of(session, unborn) == RunProgress(
            due=3, periods={}, failures=[], invoiced={}, drafted={}
        )

    run = bill(engine, account, now=NOW)

    with Session(engine) as session:
        progress = progress_of(session, run)
        told = session.scalar(select(Job.result).where(Job.kind == "bill_due_periods"))
    assert progress == RunProgress(
        due=0,
        periods={"billed": 1, "empty": 1, "failed": 1},
        failures=[
            {
                "client": str(bad.id),
                "period_start": "2026-05-01",
                "error": "RaiseException: not this one",
            }
        ],
        invoiced={
            "eur": {"invoices": 1, "total": 300},
            "usd": {"invoices": 1, "total": 1200},
        },
        drafted={},
    )
    assert told == progress.as_json()
