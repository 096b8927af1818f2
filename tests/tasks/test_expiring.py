from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from billing.errors import RuleViolation
from models import Account, Client, CreditEntry, Job
from tasks.charging import charge_invoice
from tasks.crediting import apply_invoice_credit
from tasks.expiring import expire_client_credit, expire_due_credit
from tasks.finalizing import finalize_invoices
from tests.money import (
    a_draft,
    adjust,
    an_invoice,
    assert_no_money_is_lost,
    balances,
    booked,
    deposit,
    done,
    grant,
    moves,
    paid_how,
    remaining,
    with_a_card,
)
from tests.worlds import NOW, a_client, audited, counted, perform, work

TOMORROW = NOW.date() + timedelta(days=1)
DAY = timedelta(days=1)


@pytest.fixture
def client(engine: Engine, account: Account) -> Client:
    return a_client(engine, account)


def sweep(engine: Engine, now: datetime) -> int:
    """How many clients the sweep finds at ``now``; their jobs are done."""
    found: int = done(engine, expire_due_credit, None, now=now)["clients"]
    work(engine, now=now)
    return found


# The sweep


def test_what_is_left_of_a_grant_expires_on_its_day_once(
    engine: Engine, account: Account, client: Client
) -> None:
    grant(engine, account, client, 500, TOMORROW)
    an_invoice(engine, account, client, "2.00")
    midnight = datetime(2026, 6, 2, tzinfo=UTC)

    assert sweep(engine, midnight - timedelta(seconds=1)) == 0
    assert sweep(engine, midnight) == 1
    assert sweep(engine, midnight + DAY) == 0

    assert (balances(engine, client), remaining(engine, client)) == ({}, [0])
    assert moves(engine, client) == [("applied", -200), ("expired", -300), ("granted", 500)]
    assert booked(engine, "expiry") == [(TOMORROW, {"credit": 300, "promotion": -300})]
    with Session(engine) as session:
        ends = select(CreditEntry.grant_id).where(CreditEntry.kind.in_(["granted", "expired"]))
        assert len(set(session.scalars(ends))) == 1
    assert_no_money_is_lost(engine, account)


def test_what_was_missed_expires_late_and_counts_for_its_day(
    engine: Engine, account: Account, client: Client
) -> None:
    grant(engine, account, client, 500, TOMORROW)

    assert sweep(engine, NOW + 9 * DAY) == 1

    assert [on for on, _ in booked(engine, "expiry")] == [TOMORROW]


def test_a_closed_month_stays_as_it_was_reported(
    engine: Engine, session: Session, account: Account, client: Client
) -> None:
    grant(engine, account, client, 500, TOMORROW)
    session.get_one(Account, account.id).books_closed_through = date(2026, 6, 30)
    session.commit()

    assert sweep(engine, NOW + 40 * DAY) == 1

    assert [on for on, _ in booked(engine, "expiry")] == [date(2026, 7, 1)]
    assert_no_money_is_lost(engine, account)


def test_each_grant_expires_by_its_clients_calendar(engine: Engine, account: Account) -> None:
    zones = ["Pacific/Kiritimati", "Europe/Berlin", None, "America/Chicago", "Etc/GMT+12"]
    clients = [a_client(engine, account, time_zone=zone) for zone in zones]
    for client in clients:
        grant(engine, account, client, 500, date(2026, 6, 10))

    emptied = []
    for hours in range(-14, 13):
        for client in [one for one in clients if one not in emptied]:
            assert remaining(engine, client) == [500]
        sweep(engine, datetime(2026, 6, 10, tzinfo=UTC) + timedelta(hours=hours))
        emptied += [one for one in clients if one not in emptied and not balances(engine, one)]
        assert len(emptied) == sum(start <= hours for start in (-14, -2, 0, 5, 12))

    assert emptied == clients
    assert_no_money_is_lost(engine, account)


def test_a_client_waits_for_no_other_whose_credit_cannot_expire(
    engine: Engine, account: Account, client: Client
) -> None:
    other = a_client(engine, account)
    for one in (client, other):
        grant(engine, account, one, 500, TOMORROW)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " $fn$ BEGIN RAISE EXCEPTION 'not this one'; END $fn$;"
            " CREATE TRIGGER refuse BEFORE INSERT ON credit_entries FOR EACH ROW"
            f" WHEN (NEW.kind = 'expired' AND NEW.client_id = '{client.id}')"
            " EXECUTE FUNCTION refuse()"
        )

    assert sweep(engine, NOW + DAY) == 2

    assert [remaining(engine, one) for one in (client, other)] == [[500], [0]]
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP FUNCTION refuse CASCADE")
    with Session(engine) as session:
        jobs = select(Job.subject_id).where(Job.kind == expire_client_credit.name)
        assert session.scalars(jobs.where(Job.state != "succeeded")).all() == [client.id]


def test_a_sweep_that_finds_a_client_twice_makes_one_job(
    engine: Engine, account: Account, client: Client
) -> None:
    for days in (1, 2):
        grant(engine, account, client, 500, TOMORROW + timedelta(days=days - 1))
    grant(engine, account, client, 100, TOMORROW, currency="eur")

    for _ in range(2):
        assert done(engine, expire_due_credit, None, now=NOW + 3 * DAY) == {"clients": 1}
    work(engine, now=NOW + 3 * DAY)

    with Session(engine) as session:
        jobs = session.scalars(select(Job).where(Job.kind == expire_client_credit.name)).all()
    assert [job.result for job in jobs] == [{"client": str(client.id), "grants": 3}]
    assert balances(engine, client) == {}


def test_what_never_expires_and_what_is_spent_is_not_looked_for(
    engine: Engine, account: Account, client: Client
) -> None:
    grant(engine, account, client, 100)
    deposit(engine, account, client, 100)
    grant(engine, account, client, 200, TOMORROW)
    an_invoice(engine, account, client, "2.00")

    assert sweep(engine, NOW + 400 * DAY) == 0
    assert balances(engine, client) == {"usd": 200}


# What has expired pays nothing, also before the sweep


def test_an_invoice_finalized_before_the_sweep_uses_nothing_that_has_expired(
    engine: Engine, account: Account, client: Client
) -> None:
    deposit(engine, account, client, 100)
    grant(engine, account, client, 500, TOMORROW)

    an_invoice(engine, account, client, "3.00", now=NOW + DAY)

    assert paid_how(engine, client) == [("open", 100, 0, 200)]
    assert (balances(engine, client), remaining(engine, client)) == ({}, [0])
    assert [on for on, _ in booked(engine, "expiry")] == [TOMORROW]
    assert sweep(engine, NOW + DAY) == 0
    assert_no_money_is_lost(engine, account)


def test_a_client_left_with_nothing_by_an_expiry_uses_nothing(
    engine: Engine, account: Account, client: Client
) -> None:
    grant(engine, account, client, 500, TOMORROW)

    an_invoice(engine, account, client, "3.00", now=NOW + DAY)

    assert paid_how(engine, client) == [("open", 0, 0, 300)]
    assert_no_money_is_lost(engine, account)


def test_where_the_day_has_begun_elsewhere_alone_a_grant_still_pays(
    engine: Engine, account: Account, client: Client
) -> None:
    grant(engine, account, client, 500, TOMORROW)

    an_invoice(engine, account, client, "3.00", now=datetime(2026, 6, 1, 23, tzinfo=UTC))

    assert paid_how(engine, client) == [("paid", 300, 0, 0)]
    assert remaining(engine, client) == [200]


def test_what_has_expired_is_neither_applied_on_demand_nor_corrected_away(
    engine: Engine, account: Account, client: Client
) -> None:
    invoice = an_invoice(engine, account, client)
    grant(engine, account, client, 500, TOMORROW, apply=False)

    for refused in (
        lambda: perform(
            engine, apply_invoice_credit, account, invoice_id=invoice.id, now=NOW + DAY
        ),
        lambda: adjust(engine, account, client, -1, now=NOW + DAY),
    ):
        with pytest.raises(RuleViolation) as refusal:
            refused()
        assert refusal.value.code == "insufficient_credit"

    adjust(engine, account, client, 40, now=NOW + DAY)
    assert paid_how(engine, client) == [("open", 40, 0, 960)]
    assert_no_money_is_lost(engine, account)


def test_a_remainder_that_is_carried_uses_nothing_that_has_expired(
    engine: Engine, account: Account, client: Client
) -> None:
    with_a_card(engine, account, client)
    small = an_invoice(engine, account, client, "0.45")
    grant(engine, account, client, 500, TOMORROW, apply=False)

    done(engine, charge_invoice, account, invoice_id=small.id, now=NOW + DAY)

    assert balances(engine, client) == {"usd": -45}
    assert [sides["credit"] for _, sides in booked(engine, "expiry")] == [500]
    assert_no_money_is_lost(engine, account)


def test_a_new_grant_covers_no_debt_with_one_that_has_expired(
    engine: Engine, account: Account, client: Client
) -> None:
    grant(engine, account, client, 500, TOMORROW)

    grant(engine, account, client, 100, now=NOW + DAY)

    assert (balances(engine, client), remaining(engine, client)) == ({"usd": 100}, [0, 100])
    assert_no_money_is_lost(engine, account)


def test_a_page_writes_expiries_in_as_many_statements_for_many_clients_as_for_two(
    engine: Engine, account: Account
) -> None:
    sent = []
    for clients in (2, 12):
        drafts = []
        for number in range(clients):
            client = a_client(engine, account)
            grant(engine, account, client, 400, TOMORROW)
            grant(engine, account, client, 100, TOMORROW + DAY)
            if number % 2:
                grant(engine, account, client, 70, TOMORROW, currency="eur")
            drafts.append(a_draft(engine, account, client, "3.00").id)
        with counted(engine) as statements, Session(engine) as session, session.begin():
            mine = session.get_one(Account, account.id)
            finalize_invoices(session, mine, drafts, now=NOW + DAY, requested_by="test")
        sent.append(len(statements))

    assert sent[0] == sent[1]
    assert_no_money_is_lost(engine, account)


def test_the_audit_misses_an_expiry_that_nobody_wrote_down(
    engine: Engine, account: Account, client: Client
) -> None:
    grant(engine, account, client, 500, TOMORROW)

    # Until a day after it ended wherever it ended last.
    assert audited(engine, account, now=datetime(2026, 6, 3, 23, tzinfo=UTC)) == []
    [difference] = audited(engine, account, now=datetime(2026, 6, 4, tzinfo=UTC))
    assert difference.rule == "expired_grants_have_nothing_left"
