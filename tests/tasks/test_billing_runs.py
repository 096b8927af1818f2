from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from billing.cycles import MAX_PERIODS_PER_RUN
from billing.errors import InvalidInput, NotFound
from billing.periods import PeriodState
from models import Account, BillingRun, Client, Job
from tasks import billing_runs
from tasks.accounts import create_account
from tasks.billing_runs import bill_due_periods, request_run, start_due_runs
from tasks.enqueueing import enqueue
from tasks.outcomes import Done
from tasks.run_reports import progress_of
from tests.worlds import (
    NOW,
    a_charge,
    a_client,
    allow_invoices_again,
    audited,
    bill,
    charges,
    counted,
    invoices_of,
    perform,
    periods_of,
    refuse_invoices_of,
    tick,
    together,
    work,
)

JULY_1 = datetime(2026, 7, 1, tzinfo=UTC)


def on_monthly(engine: Engine, account: Account, start: date, **fields: Any) -> Client:
    return a_client(engine, account, billing_cycle="monthly", billing_starts_on=start, **fields)


def states(engine: Engine, client: Client) -> list[tuple[str, str, str | None]]:
    return [(str(one.period_start), one.state, one.reason) for one in periods_of(engine, client)]


def request(engine: Engine, account: Account, **options: Any) -> BillingRun:
    with Session(engine, expire_on_commit=False) as session, session.begin():
        options = {"now": NOW, "requested_by": "test", **options}
        return request_run(session, account.id, **options).run


def test_the_scheduler_leaves_what_ended_before_the_activation_alone(
    engine: Engine, account: Account
) -> None:
    client = on_monthly(engine, account, date(2026, 4, 1))
    a_charge(engine, client, date(2026, 4, 2))

    tick(engine, now=JULY_1 - timedelta(microseconds=1))

    assert states(engine, client) == [
        ("2026-04-01", "open", "before_activation"),
        ("2026-05-01", "open", "before_activation"),
        ("2026-06-01", "open", None),
    ]
    assert invoices_of(engine, client) == []


def test_an_explicit_run_bills_what_waits_oldest_first(engine: Engine, account: Account) -> None:
    client = on_monthly(engine, account, date(2026, 3, 15))
    for day, price in ((date(2026, 3, 20), "1"), (date(2026, 5, 20), "3"), (date(2026, 6, 1), "4")):
        a_charge(engine, client, day, price)

    bill(engine, account, now=NOW)

    assert states(engine, client) == [
        ("2026-03-15", "billed", None),
        ("2026-04-01", "empty", None),
        ("2026-05-01", "billed", None),
        ("2026-06-01", "open", None),
    ]
    assert [one.total for one in invoices_of(engine, client)] == [100, 300]
    assert audited(engine, account) == []


def test_what_waited_is_skipped_once_the_scheduler_has_billed_the_next_period(
    engine: Engine, account: Account
) -> None:
    client = on_monthly(engine, account, date(2026, 4, 1))
    charges(engine, client, [(date(2026, 4, 2), "1.00"), (date(2026, 6, 2), "5.00")])

    tick(engine, now=JULY_1)

    assert states(engine, client) == [
        ("2026-04-01", "skipped", "before_activation"),
        ("2026-05-01", "skipped", "before_activation"),
        ("2026-06-01", "billed", None),
        ("2026-07-01", "open", None),
    ]
    assert [one.total for one in invoices_of(engine, client)] == [600]
    assert audited(engine, account) == []


def test_a_run_takes_at_most_sixty_periods_of_a_client_and_the_next_run_the_rest(
    engine: Engine, account: Account
) -> None:
    client = on_monthly(engine, account, date(2020, 1, 1))  # 77 months have ended.
    short = on_monthly(engine, account, date(2026, 1, 1))
    charges(
        engine,
        client,
        [(date(2020, 1, 5), "1"), (date(2024, 12, 31), "2"), (date(2025, 1, 1), "3")],
    )

    first = bill(engine, account, now=NOW)
    decided = [one for one in periods_of(engine, client) if one.run_id == first.id]
    assert len(decided) == MAX_PERIODS_PER_RUN
    assert decided[-1].period_end == date(2025, 1, 1)
    assert [one.total for one in invoices_of(engine, client)] == [100, 200]
    assert [one.state for one in periods_of(engine, short)] == ["empty"] * 5 + ["open"]
    assert audited(engine, account) == []

    second = bill(engine, account, now=NOW)
    chain = periods_of(engine, client)
    assert [one.run_id for one in chain].count(second.id) == 17
    assert len(chain) == 78
    assert [one.total for one in invoices_of(engine, client)] == [100, 200, 300]
    assert audited(engine, account) == []


@pytest.mark.usefixtures("six_periods_a_run")
@pytest.mark.parametrize("explicit_runs_before", [0, 1, 2])
def test_a_start_long_ago_leaves_no_gap_whichever_is_billed_first(
    engine: Engine, account: Account, explicit_runs_before: int
) -> None:
    client = on_monthly(engine, account, date(2025, 1, 31), anchor_day=31)
    charges(engine, client, [(date(2025, 2, 5) + timedelta(days=30 * n), "1") for n in range(16)])
    assert len(periods_of(engine, client)) == 4

    for _ in range(explicit_runs_before):
        bill(engine, account, now=NOW)
    tick(engine, now=JULY_1)

    chain = periods_of(engine, client)
    assert chain[0].period_start == date(2025, 1, 31)
    for earlier, later in pairwise(chain):
        assert (earlier.period_end, earlier.ends_at) == (later.period_start, later.starts_at)
    assert len(chain) == 18
    assert [one.state for one in chain].count("skipped") == 16 - 6 * explicit_runs_before
    assert sum(one.total for one in invoices_of(engine, client)) == 1600
    assert audited(engine, account) == []


def test_a_run_for_one_client_leaves_the_others_alone(engine: Engine, account: Account) -> None:
    mine, other = (on_monthly(engine, account, date(2026, 5, 1)) for _ in range(2))

    bill(engine, account, now=NOW, client_id=mine.id)

    assert [one.state for one in periods_of(engine, mine)] == ["empty", "open"]
    assert [one.state for one in periods_of(engine, other)] == ["open", "open"]


def test_a_run_up_to_a_date_leaves_later_boundaries_alone(engine: Engine, account: Account) -> None:
    client = on_monthly(engine, account, date(2026, 3, 1))

    bill(engine, account, now=NOW, as_of=date(2026, 5, 1))

    assert [one.state for one in periods_of(engine, client)] == ["empty", "empty", "open", "open"]


def test_a_date_that_has_not_begun_in_a_clients_zone_bills_only_where_it_has(
    engine: Engine, account: Account
) -> None:
    now = datetime(2026, 5, 31, 20, tzinfo=UTC)
    start = {"start": date(2026, 5, 1), "now": datetime(2026, 5, 2, tzinfo=UTC)}
    east = on_monthly(engine, account, time_zone="Asia/Tokyo", **start)
    west = on_monthly(engine, account, time_zone="America/Chicago", **start)

    bill(engine, account, now=now, as_of=date(2026, 6, 1))

    assert [one.state for one in periods_of(engine, east)] == ["empty", "open"]
    assert [one.state for one in periods_of(engine, west)] == ["open"]


@pytest.mark.parametrize(
    "as_of", [NOW + timedelta(microseconds=1), date(2026, 6, 3), date(2027, 1, 1)]
)
def test_a_future_run_is_refused_unless_it_is_dry(
    engine: Engine, account: Account, as_of: datetime | date
) -> None:
    with pytest.raises(InvalidInput) as refused:
        request(engine, account, as_of=as_of)
    assert refused.value.field == "as_of"

    assert request(engine, account, as_of=as_of, dry_run=True).dry_run


def test_a_date_that_has_begun_somewhere_is_not_in_the_future(
    engine: Engine, account: Account
) -> None:
    # 2 June begins on Kiritimati at 10:00 UTC on 1 June.
    run = request(engine, account, now=NOW.replace(hour=10), as_of=date(2026, 6, 2))
    assert run.as_of_on == date(2026, 6, 2)
    with pytest.raises(InvalidInput):
        request(engine, account, now=NOW.replace(hour=9, minute=59), as_of=date(2026, 6, 2))


def test_a_run_for_another_accounts_client_is_refused(
    engine: Engine, account: Account, session: Session
) -> None:
    other = create_account(session, "Other")
    session.commit()
    theirs = a_client(engine, other)

    for client_id in (theirs.id, uuid4()):
        with pytest.raises(NotFound):
            request(engine, account, client_id=client_id)


def test_a_run_bills_no_other_account(engine: Engine, account: Account, session: Session) -> None:
    other = create_account(session, "Other")
    session.commit()
    theirs = on_monthly(engine, other, date(2026, 5, 1))
    a_charge(engine, theirs, date(2026, 5, 1))
    a_charge(engine, on_monthly(engine, account, date(2026, 5, 1)), date(2026, 5, 1))

    bill(engine, account, now=NOW)

    assert [one.state for one in periods_of(engine, theirs)] == ["open", "open"]
    assert invoices_of(engine, other) == []
    assert len(invoices_of(engine, account)) == 1


def test_every_account_has_numbers_of_its_own(
    engine: Engine, account: Account, session: Session
) -> None:
    other = create_account(session, "Other")
    session.commit()
    for owner in (account, other):
        a_charge(engine, on_monthly(engine, owner, date(2026, 5, 1)), date(2026, 5, 1))
        bill(engine, owner, now=NOW)
        assert [one.number for one in invoices_of(engine, owner)] == ["INV-000001"]


def test_boundaries_of_more_clients_than_a_page_holds_are_billed_page_by_page(
    engine: Engine, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(billing_runs, "PAGE_SIZE", 2)
    clients = [on_monthly(engine, account, date(2026, 5, 1)) for _ in range(5)]

    run = bill(engine, account, now=NOW)

    with Session(engine) as session:
        pages = session.scalars(select(Job).where(Job.kind == "bill_page")).all()
        assert sorted((page.result or {})["periods"] for page in pages) == [1, 2, 2]
        assert progress_of(session, run).periods == {"empty": 5}
    assert {periods_of(engine, client)[0].state for client in clients} == {"empty"}


def test_a_dead_page_ends_the_run_dead_and_a_later_run_goes_on(
    engine: Engine, account: Account
) -> None:
    client = on_monthly(engine, account, date(2026, 4, 1))
    charges(engine, client, [(date(2026, 4, 1), "1.00"), (date(2026, 5, 1), "2.00")])
    # The database's own trouble is no period's failure: the page itself fails.
    refuse_invoices_of(engine, client, errcode="deadlock_detected")
    with engine.begin() as connection:
        connection.execute(
            text(
                "CREATE FUNCTION one_try() RETURNS trigger LANGUAGE plpgsql AS"
                " 'BEGIN NEW.max_attempts := 1; RETURN NEW; END';"
                " CREATE TRIGGER one_try BEFORE INSERT ON jobs FOR EACH ROW"
                " EXECUTE FUNCTION one_try()"
            )
        )

    dead = bill(engine, account, now=NOW)

    assert dead.finished_at == NOW
    with Session(engine) as session:
        jobs = {job.kind: (job.state, job.reason) for job in session.scalars(select(Job))}
    assert jobs == {
        "bill_page": ("dead", "attempts_exhausted"),
        "bill_due_periods": ("dead", "page_unfinished"),
    }
    assert [one.state for one in periods_of(engine, client)] == ["open"] * 3

    allow_invoices_again(engine)
    bill(engine, account, now=NOW)
    assert [one.total for one in invoices_of(engine, client)] == [100, 200]
    assert audited(engine, account) == []


def test_the_scheduler_starts_one_run_for_each_account_with_something_due(
    engine: Engine, account: Account, session: Session
) -> None:
    idle, other = create_account(session, "Idle"), create_account(session, "Other")
    session.commit()
    for owner in (account, account, other):
        on_monthly(engine, owner, date(2026, 5, 1), now=datetime(2026, 5, 2, tzinfo=UTC))
    on_monthly(engine, idle, date(2026, 6, 1))

    tick(engine, now=NOW)

    runs = session.scalars(select(BillingRun)).all()
    assert {run.account_id for run in runs} == {account.id, other.id}
    assert len(runs) == 2
    assert all(run.scheduled and run.finished_at for run in runs)


def test_a_tick_starts_no_second_run_while_one_is_under_way(
    engine: Engine, account: Account, session: Session
) -> None:
    on_monthly(engine, account, date(2026, 5, 1), now=datetime(2026, 5, 2, tzinfo=UTC))

    for _ in range(2):
        perform(engine, start_due_runs, account, fire_at=NOW)

    assert len(session.scalars(select(BillingRun)).all()) == 1
    session.add(BillingRun(account_id=account.id, as_of_at=NOW, scheduled=True))
    with pytest.raises(IntegrityError, match="uq_billing_runs_scheduled"):
        session.flush()


def test_a_run_whose_job_was_cancelled_does_not_stop_the_scheduler(
    engine: Engine, account: Account, session: Session
) -> None:
    client = on_monthly(engine, account, date(2026, 5, 1), now=datetime(2026, 5, 2, tzinfo=UTC))
    perform(engine, start_due_runs, account, fire_at=NOW)
    session.execute(text("UPDATE jobs SET state = 'cancelled', finished_at = now()"))
    session.commit()

    tick(engine, now=NOW)

    assert [one.state for one in periods_of(engine, client)] == ["empty", "open"]


def test_a_run_that_is_gone_is_skipped(engine: Engine, account: Account) -> None:
    with pytest.raises(NotFound):
        perform(engine, bill_due_periods, account, run_id=uuid4())


def test_a_late_scheduler_bills_by_the_boundarys_dates(engine: Engine, account: Account) -> None:
    client = on_monthly(
        engine,
        account,
        date(2026, 5, 1),
        now=datetime(2026, 5, 2, tzinfo=UTC),
        time_zone="America/Chicago",
    )
    a_charge(engine, client, date(2026, 6, 1), "9.00")

    tick(engine, now=datetime(2026, 6, 1, 4, 59, 59, tzinfo=UTC))
    assert [one.state for one in periods_of(engine, client)] == ["open"]

    tick(engine, now=datetime(2026, 6, 20, tzinfo=UTC))
    assert [one.state for one in periods_of(engine, client)] == ["empty", "open"]


def test_every_state_that_a_run_leaves_is_decided_when(engine: Engine, account: Account) -> None:
    client = on_monthly(engine, account, date(2026, 3, 1))
    a_charge(engine, client, date(2026, 3, 1))
    tick(engine, now=JULY_1)

    *decided, following = periods_of(engine, client)
    assert {one.state for one in decided} <= {PeriodState.BILLED, PeriodState.SKIPPED}
    assert {one.decided_at for one in decided} == {JULY_1}
    assert following.decided_at is None


def test_a_run_with_nothing_due_is_finished_at_once(engine: Engine, account: Account) -> None:
    run = bill(engine, account, now=NOW)

    assert run.finished_at == NOW


def test_the_ready_job_of_a_run_knows_who_asked(engine: Engine, account: Account) -> None:
    with Session(engine) as session, session.begin():
        enqueue(session, start_due_runs, account_id=None, requested_by="schedule:x", fire_at=NOW)
    on_monthly(engine, account, date(2026, 5, 1), now=datetime(2026, 5, 2, tzinfo=UTC))
    work(engine, now=NOW)
    with Session(engine) as session:
        jobs = {job.kind: job for job in session.scalars(select(Job))}
    assert jobs["bill_due_periods"].requested_by == f"job:{jobs['start_due_runs'].id}"
    assert jobs["bill_page"].parent_id == jobs["bill_due_periods"].id


def test_a_failed_period_is_not_overtaken_by_its_clients_later_ones(
    engine: Engine, account: Account
) -> None:
    bad, good = (on_monthly(engine, account, date(2026, 4, 1)) for _ in range(2))
    for client in (bad, good):
        charges(engine, client, [(date(2026, 4, 2), "1.00"), (date(2026, 5, 2), "2.00")])
    refuse_invoices_of(engine, bad)

    bill(engine, account, now=NOW)

    assert [one.state for one in periods_of(engine, bad)] == ["failed", "open", "open"]
    assert [one.state for one in periods_of(engine, good)] == ["billed", "billed", "open"]

    allow_invoices_again(engine)
    bill(engine, account, now=NOW)
    assert [one.state for one in periods_of(engine, bad)] == ["billed", "billed", "open"]
    assert [one.total for one in invoices_of(engine, bad)] == [100, 200]
    assert audited(engine, account) == []


def test_no_run_is_started_for_a_fresh_failure_nor_for_what_comes_after_it(
    engine: Engine, account: Account, session: Session
) -> None:
    client = on_monthly(engine, account, date(2026, 4, 1))
    charges(engine, client, [(date(2026, 4, 2), "1.00"), (date(2026, 5, 2), "2.00")])
    with engine.begin() as connection:
        connection.execute(text("UPDATE billing_periods SET reason = NULL"))
    refuse_invoices_of(engine, client)
    tick(engine, now=NOW)
    allow_invoices_again(engine)

    tick(engine, now=NOW + timedelta(minutes=1))
    tick(engine, now=NOW + timedelta(hours=1))

    assert [one.state for one in periods_of(engine, client)] == ["failed", "open", "open"]
    assert len(session.scalars(select(BillingRun)).all()) == 1

    tick(engine, now=NOW + timedelta(hours=1, seconds=1))
    assert [one.total for one in invoices_of(engine, client)] == [100, 200]


def test_many_accounts_runs_are_started_by_as_many_statements_as_few_ones(
    engine: Engine, session: Session
) -> None:
    counts = []
    for accounts in (2, 12):
        for index in range(accounts):
            owner = create_account(session, f"Account {accounts} {index}")
            session.commit()
            on_monthly(engine, owner, date(2026, 5, 1), now=datetime(2026, 5, 2, tzinfo=UTC))
        with counted(engine) as statements:
            assert perform(engine, start_due_runs, None, fire_at=NOW) == Done({"runs": accounts})
        counts.append(len(statements))

    assert counts[0] == counts[1]
    runs = {run.id: run.account_id for run in session.scalars(select(BillingRun))}
    jobs = session.scalars(select(Job)).all()
    assert {job.subject_id: job.account_id for job in jobs} == runs
    assert len(jobs) == 14


def test_an_account_whose_run_is_under_way_does_not_keep_the_others_from_theirs(
    engine: Engine, account: Account, session: Session
) -> None:
    other = create_account(session, "Other")
    session.commit()
    for owner in (account, other):
        on_monthly(engine, owner, date(2026, 5, 1), now=datetime(2026, 5, 2, tzinfo=UTC))
    perform(engine, start_due_runs, None, fire_at=NOW)
    session.execute(
        text("UPDATE billing_runs SET finished_at = now() WHERE account_id = :account"),
        {"account": other.id},
    )
    session.commit()

    assert perform(engine, start_due_runs, None, fire_at=NOW) == Done({"runs": 1})
    assert (
        together(*[partial(perform, engine, start_due_runs, None, fire_at=NOW)] * 3)
        == [Done({"runs": 0})] * 3
    )


@pytest.mark.parametrize("state", ["cancelled", "dead"])
def test_an_explicit_run_whose_job_ended_without_it_is_finished(
    engine: Engine, account: Account, session: Session, state: str
) -> None:
    abandoned, under_way = (request(engine, account).id for _ in range(2))
    session.execute(
        text("UPDATE jobs SET state = :state, finished_at = now() WHERE subject_id = :run"),
        {"state": state, "run": abandoned},
    )
    session.commit()

    perform(engine, start_due_runs, None, fire_at=NOW)

    assert session.get_one(BillingRun, abandoned).finished_at == NOW
    assert session.get_one(BillingRun, under_way).finished_at is None


def test_what_a_run_skips_makes_no_catch_up_of_what_it_bills(
    engine: Engine, account: Account
) -> None:
    client = a_client(
        engine,
        account,
        now=datetime(2026, 6, 5, tzinfo=UTC),
        billing_cycle="monthly",
        billing_starts_on=date(2026, 1, 1),
        time_zone="Pacific/Auckland",
    )
    a_charge(engine, client, date(2026, 6, 10))

    # Midnight of 1 July in Auckland; in the account's zone it is still June.
    tick(engine, now=datetime(2026, 6, 30, 12, 1, tzinfo=UTC))

    [invoice] = invoices_of(engine, client)
    assert (invoice.issued_on, invoice.due_on) == (date(2026, 7, 1), date(2026, 7, 15))
    assert [one.state for one in periods_of(engine, client)] == ["skipped"] * 5 + ["billed", "open"]
