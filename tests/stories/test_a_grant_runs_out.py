"""A grant of three months: used in part, gone on its day, and again when a void gives it back."""

from datetime import UTC, date, datetime, timedelta

from sqlalchemy.orm import Session

from scheduler.firing import fire_due, write_schedules
from scheduler.schedules import SCHEDULES
from tasks.crediting import apply_invoice_credit, deposit_credit
from tasks.granting import grant_credit
from tasks.paying_out import refund_credit
from tasks.voiding import void_invoice
from tests.money import booked, moves, remaining
from tests.stories.conftest import JUNE, Till
from tests.worlds import audited

ENDS = date(2026, 9, 1)
MIDNIGHT_IN_CHICAGO = datetime(2026, 9, 1, 5, tzinfo=UTC)


def fire(till: Till, at: datetime) -> None:
    """What the scheduler fires by the minute ``at`` about credit, worked to its end."""
    lines = {line.name: line for line in SCHEDULES if line.name == "expire-credit"}
    with Session(till.engine) as session, session.begin():
        write_schedules(session, list(lines.values()), now=at - timedelta(minutes=15))
        assert fire_due(session, lines, now=at) == 1
    till.work(at)


def test_a_grant_is_used_runs_out_and_is_gone_though_a_void_gives_it_back(till: Till) -> None:
    ada = till.client("Ada Imports", None, price="50.00", time_zone="America/Chicago")
    till.bill_may(now=JUNE + timedelta(hours=6))
    invoice = till.invoice(ada)
    of_ada = {"client_id": ada.id, "currency": "usd", "apply": False}
    till.ask(grant_credit, **of_ada, amount=5_000, expires_on=ENDS)
    till.ask(deposit_credit, **of_ada, amount=700)
    till.work(JUNE + timedelta(days=1))
    till.ask(apply_invoice_credit, invoice_id=invoice.id, amount=3_000)
    till.work(JUNE + timedelta(days=2))
    assert (till.balance(ada), remaining(till.engine, ada)) == (2_700, [2_000])

    # August ends in Europe, and hours later in Chicago.
    fire(till, datetime(2026, 8, 31, 22, tzinfo=UTC))
    assert remaining(till.engine, ada) == [2_000]
    fire(till, MIDNIGHT_IN_CHICAGO)
    assert (till.balance(ada), remaining(till.engine, ada)) == (700, [0])

    voided = till.ask(void_invoice, invoice_id=invoice.id)
    till.work(MIDNIGHT_IN_CHICAGO + timedelta(days=9))
    assert till.ended(voided) == ("succeeded", None)
    assert (till.balance(ada), remaining(till.engine, ada)) == (700, [0])
    assert booked(till.engine, "expiry") == [
        (ENDS, {"credit": 2_000, "promotion": -2_000}),
        (date(2026, 9, 10), {"credit": 3_000, "promotion": -3_000}),
    ]

    # What it paid in is its own all the same, and once.
    out = {"client_id": ada.id, "currency": "usd", "amount": 700}
    jobs = [till.ask(refund_credit, **out) for _ in range(2)]
    till.work(MIDNIGHT_IN_CHICAGO + timedelta(days=10))
    assert sorted(till.ended(job) for job in jobs) == [
        ("skipped", "insufficient_credit"),
        ("succeeded", None),
    ]
    assert till.balance(ada) == 0
    assert moves(till.engine, ada) == [
        ("applied", -3_000),
        ("deposit", 700),
        ("expired", -3_000),
        ("expired", -2_000),
        ("granted", 5_000),
        ("paid_out", -700),
        ("returned", 3_000),
    ]
    assert audited(till.engine, till.account, now=MIDNIGHT_IN_CHICAGO + timedelta(days=10)) == []
