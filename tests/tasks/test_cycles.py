from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from billing.errors import RuleViolation
from models import Account, BillingPeriod, Client
from tasks.accounts import change_account, create_account
from tests.worlds import (
    NOW,
    a_charge,
    a_client,
    audited,
    bill,
    change,
    charges,
    invoices_of,
    periods_of,
    refuse_invoices_of,
    tick,
)

JUNE = date(2026, 6, 1)
JULY = date(2026, 7, 1)
AUGUST = date(2026, 8, 1)
JUNE_10 = datetime(2026, 6, 10, 12, tzinfo=UTC)


def on_a_cycle(engine: Engine, account: Account, **fields: Any) -> Client:
    """Since 1 June 2026 unless told otherwise."""
    return a_client(engine, account, **{"billing_cycle": "monthly", **fields})


def chain(engine: Engine, client: Client) -> list[tuple[date, date, str, str | None]]:
    """The client's periods; they tile its days and its instants."""
    periods = periods_of(engine, client)
    for earlier, later in pairwise(periods):
        assert (earlier.period_end, earlier.ends_at) == (later.period_start, later.starts_at)
    return [(one.period_start, one.period_end, one.state, one.reason) for one in periods]


def last_of(engine: Engine, client: Client) -> BillingPeriod:
    return periods_of(engine, client)[-1]


def move(
    engine: Engine, account: Account, client: Client, zone: str, *, whose: str, now: datetime
) -> None:
    """Give the client another zone, its own or its account's."""
    if whose == "client":
        change(engine, client, now=now, time_zone=zone)
    else:
        with Session(engine) as session, session.begin():
            change_account(session, account.id, {"time_zone": zone}, now=now)


def test_going_manual_skips_what_is_not_billed(engine: Engine, account: Account) -> None:
    client = on_a_cycle(engine, account, billing_starts_on=date(2026, 4, 15))
    charge = date(2026, 4, 20)
    a_charge(engine, client, charge)
    bill(engine, account, now=NOW, as_of=date(2026, 5, 1))

    change(engine, client, now=JUNE_10, billing_cycle="manual")

    manual = ("skipped", "switched_to_manual")
    assert chain(engine, client) == [
        (date(2026, 4, 15), date(2026, 5, 1), "billed", None),
        (date(2026, 5, 1), JUNE, *manual),
        (JUNE, JULY, *manual),
    ]
    assert {one.decided_at for one in periods_of(engine, client)[1:]} == {JUNE_10}
    tick(engine, now=datetime(2026, 8, 1, tzinfo=UTC))
    assert len(chain(engine, client)) == 3


def test_a_failed_period_is_skipped_too_without_its_error(engine: Engine, account: Account) -> None:
    client = on_a_cycle(engine, account)
    a_charge(engine, client, JUNE)
    refuse_invoices_of(engine, client)
    tick(engine, now=datetime(2026, 7, 1, tzinfo=UTC))
    assert last_of(engine, client).state == "failed"

    change(engine, client, now=datetime(2026, 7, 2, tzinfo=UTC), billing_cycle="manual")

    assert chain(engine, client) == [
        (JUNE, JULY, "skipped", "switched_to_manual"),
        (JULY, AUGUST, "skipped", "switched_to_manual"),
    ]
    assert {one.error for one in periods_of(engine, client)} == {None}


def test_coming_back_on_the_same_day_opens_the_same_period_again(
    engine: Engine, account: Account
) -> None:
    client = on_a_cycle(engine, account)
    before = chain(engine, client)
    change(engine, client, now=JUNE_10, billing_cycle="manual")

    back = change(engine, client, now=JUNE_10, billing_cycle="monthly")

    assert chain(engine, client) == before == [(JUNE, JULY, "open", None)]
    assert last_of(engine, client).decided_at is None
    assert back.activated_at == JUNE_10
    a_charge(engine, client, JUNE, "5.00")
    tick(engine, now=datetime(2026, 7, 1, tzinfo=UTC))
    assert [one.total for one in invoices_of(engine, client)] == [500]
    assert audited(engine, account) == []


def test_coming_back_months_later_goes_on_where_the_chain_ended(
    engine: Engine, account: Account
) -> None:
    client = on_a_cycle(engine, account)
    change(engine, client, now=JUNE_10, billing_cycle="manual")
    a_charge(engine, client, date(2026, 8, 5), "5.00")

    change(engine, client, now=datetime(2026, 9, 10, tzinfo=UTC), billing_cycle="monthly")

    september, october = date(2026, 9, 1), date(2026, 10, 1)
    assert chain(engine, client) == [
        (JUNE, JULY, "skipped", "switched_to_manual"),
        (JULY, AUGUST, "open", "before_activation"),
        (AUGUST, september, "open", "before_activation"),
        (september, october, "open", None),
    ]
    tick(engine, now=datetime(2026, 10, 1, tzinfo=UTC))
    assert [one[2] for one in chain(engine, client)] == ["skipped"] * 3 + ["billed", "open"]
    assert [one.total for one in invoices_of(engine, client)] == [500]
    assert audited(engine, account) == []


def test_coming_back_at_the_very_end_of_the_skipped_period_opens_the_next(
    engine: Engine, account: Account
) -> None:
    client = on_a_cycle(engine, account)
    change(engine, client, now=JUNE_10, billing_cycle="manual")

    change(engine, client, now=datetime(2026, 7, 1, tzinfo=UTC), billing_cycle="monthly")

    assert chain(engine, client) == [
        (JUNE, JULY, "skipped", "switched_to_manual"),
        (JULY, AUGUST, "open", None),
    ]


def test_coming_back_after_a_billed_period_opens_the_one_after_it(
    engine: Engine, account: Account
) -> None:
    client = on_a_cycle(engine, account)
    tick(engine, now=datetime(2026, 7, 1, tzinfo=UTC))
    for cycle in ("manual", "monthly", "manual", "monthly"):
        change(engine, client, now=datetime(2026, 7, 5, tzinfo=UTC), billing_cycle=cycle)

    assert chain(engine, client) == [
        (JUNE, JULY, "empty", None),
        (JULY, AUGUST, "open", None),
    ]


def test_a_zone_changed_while_manual_counts_when_the_client_comes_back(
    engine: Engine, account: Account
) -> None:
    client = on_a_cycle(engine, account)
    change(engine, client, now=JUNE_10, billing_cycle="manual")
    change(engine, client, now=JUNE_10, time_zone="America/Chicago")

    change(engine, client, now=JUNE_10, billing_cycle="monthly")

    assert chain(engine, client) == [(JUNE, JULY, "open", None)]
    assert last_of(engine, client).ends_at == datetime(2026, 7, 1, 5, tzinfo=UTC)


def test_a_client_that_moved_across_the_date_line_comes_back_without_overlap(
    engine: Engine, account: Account
) -> None:
    # In its new zone the day after the last boundary is over before that boundary in the old one.
    client = on_a_cycle(engine, account, time_zone="Pacific/Pago_Pago")
    change(engine, client, now=JUNE_10, billing_cycle="manual")
    back = {"billing_cycle": "monthly", "time_zone": "Pacific/Kiritimati", "anchor_day": 2}

    change(engine, client, now=datetime(2026, 7, 1, 11, tzinfo=UTC), **back)

    assert [one[:2] for one in chain(engine, client)] == [
        (JUNE, JULY),
        (JULY, date(2026, 7, 2)),
        (date(2026, 7, 2), date(2026, 8, 2)),
    ]
    assert audited(engine, account) == []


def test_a_changed_anchor_keeps_the_open_period_and_counts_from_its_end(
    engine: Engine, account: Account
) -> None:
    client = on_a_cycle(engine, account)

    change(engine, client, now=JUNE_10, anchor_day=15)

    assert chain(engine, client) == [(JUNE, JULY, "open", None)]
    tick(engine, now=datetime(2026, 8, 15, tzinfo=UTC))
    assert [one[:3] for one in chain(engine, client)] == [
        (JUNE, JULY, "empty"),
        (JULY, date(2026, 7, 15), "empty"),
        (date(2026, 7, 15), date(2026, 8, 15), "empty"),
        (date(2026, 8, 15), date(2026, 9, 15), "open"),
    ]
    assert audited(engine, account) == []


def test_a_changed_cycle_keeps_the_open_period_and_counts_from_its_end(
    engine: Engine, account: Account
) -> None:
    client = on_a_cycle(engine, account)

    change(engine, client, now=JUNE_10, billing_cycle="weekly")

    assert chain(engine, client) == [(JUNE, JULY, "open", None)]
    tick(engine, now=datetime(2026, 7, 7, tzinfo=UTC))
    change(engine, client, now=datetime(2026, 7, 7, tzinfo=UTC), billing_cycle="semimonthly")
    tick(engine, now=datetime(2026, 8, 1, tzinfo=UTC))
    # From a Wednesday to the first Monday; the week in hand; then half months.
    ends = [(7, 1), (7, 6), (7, 13), (7, 15), (8, 1)]
    assert [one[1] for one in chain(engine, client)] == [
        *(date(2026, month, day) for month, day in ends),
        date(2026, 8, 15),
    ]
    assert [one[2] for one in chain(engine, client)] == ["empty"] * 5 + ["open"]
    assert audited(engine, account) == []


@pytest.mark.parametrize(
    ("fields", "ends"),
    [
        ({"billing_cycle": "weekly"}, [(6, 8), (6, 15), (6, 22), (6, 29)]),
        ({"billing_cycle": "weekly", "anchor_day": 5}, [(6, 5), (6, 12), (6, 19), (6, 26)]),
        ({"billing_cycle": "semimonthly"}, [(6, 15), (7, 1)]),
    ],
)
def test_weeks_and_half_months_are_billed_each_on_its_own_invoice(
    engine: Engine, account: Account, fields: dict[str, Any], ends: list[tuple[int, int]]
) -> None:
    client = on_a_cycle(engine, account, now=datetime(2026, 6, 1, tzinfo=UTC), **fields)
    days = [JUNE + timedelta(days=day) for day in range(30)]
    charges(engine, client, [(day, "1.00") for day in days])

    tick(engine, now=datetime(2026, 7, 1, tzinfo=UTC))

    boundaries = [date(2026, month, day) for month, day in ends]
    invoices = invoices_of(engine, client)
    assert [one.issued_on for one in invoices] == boundaries
    lengths = [(end - start).days for start, end in pairwise([JUNE, *boundaries])]
    assert [one.total for one in invoices] == [100 * length for length in lengths]
    assert audited(engine, account) == []


def test_a_week_begins_at_local_midnight_also_where_the_clock_skips_it(
    engine: Engine, account: Account
) -> None:
    # On Sunday 6 September 2026 the clock in Santiago goes from 24:00 to 1:00.
    client = on_a_cycle(
        engine,
        account,
        now=datetime(2026, 9, 1, tzinfo=UTC),
        billing_cycle="weekly",
        anchor_day=7,
        billing_starts_on=date(2026, 8, 30),
        time_zone="America/Santiago",
    )
    tick(engine, now=datetime(2026, 9, 14, tzinfo=UTC))

    assert chain(engine, client)[0][:3] == (date(2026, 8, 30), date(2026, 9, 6), "empty")
    assert [one.ends_at for one in periods_of(engine, client)[:2]] == [
        datetime(2026, 9, 6, 4, tzinfo=UTC),
        datetime(2026, 9, 13, 3, tzinfo=UTC),
    ]


@pytest.mark.parametrize("changes", [{"anchor_day": 15}, {"billing_cycle": "manual"}])
def test_a_change_moves_nothing_of_a_past_that_is_not_written_down_yet(
    engine: Engine, account: Account, changes: dict[str, Any]
) -> None:
    client = on_a_cycle(engine, account, billing_starts_on=date(2010, 1, 1))
    assert len(periods_of(engine, client)) == 25

    change(engine, client, now=JUNE_10, **changes)

    written = chain(engine, client)
    assert len(written) == 198
    assert {one[0].day for one in written} == {1}


def test_a_new_anchor_leaves_boundaries_that_passed_unbilled_where_they_were(
    engine: Engine, account: Account
) -> None:
    client = on_a_cycle(engine, account, now=datetime(2026, 2, 1, tzinfo=UTC))
    a_charge(engine, client, date(2026, 3, 20), "5.00")

    change(engine, client, now=datetime(2026, 5, 10, tzinfo=UTC), anchor_day=15)

    starts = [date(2026, month, 1) for month in range(2, 7)]
    assert chain(engine, client) == [(*days, "open", None) for days in pairwise(starts)]
    tick(engine, now=datetime(2026, 6, 1, tzinfo=UTC))
    assert [one[2] for one in chain(engine, client)] == ["empty", "billed"] + ["empty"] * 2 + [
        "open"
    ]
    assert chain(engine, client)[-1][:2] == (JUNE, date(2026, 6, 15))
    assert audited(engine, account) == []


def test_a_new_anchor_at_a_boundary_keeps_the_period_that_begins_there(
    engine: Engine, account: Account
) -> None:
    client = on_a_cycle(engine, account)

    change(engine, client, now=datetime(2026, 7, 1, tzinfo=UTC), anchor_day=15)

    assert [one[:2] for one in chain(engine, client)] == [(JUNE, JULY), (JULY, AUGUST)]


def test_boundaries_missed_after_a_day_lost_to_a_new_zone_leave_no_overlap(
    engine: Engine, account: Account
) -> None:
    start = datetime(2026, 1, 31, 12, tzinfo=UTC)
    client = on_a_cycle(engine, account, now=start, time_zone="Pacific/Pago_Pago")
    change(engine, client, now=start, time_zone="Pacific/Kiritimati")
    [lost] = periods_of(engine, client)
    assert lost.starts_at == lost.ends_at

    change(engine, client, now=datetime(2026, 3, 10, tzinfo=UTC), anchor_day=15)

    assert len(chain(engine, client)) == 3
    assert audited(engine, account) == []


def test_a_new_zone_asked_for_before_a_boundary_leaves_what_was_billed_meanwhile(
    engine: Engine, account: Account
) -> None:
    client = on_a_cycle(engine, account)
    boundary = datetime(2026, 7, 1, tzinfo=UTC)
    tick(engine, now=boundary)

    # Its transaction began before, and waited for the page's locks.
    asked_at = boundary - timedelta(seconds=1)
    move(engine, account, client, "America/Chicago", whose="account", now=asked_at)

    billed, following = periods_of(engine, client)
    assert (billed.ends_at, following.starts_at) == (boundary, boundary)
    assert following.ends_at == datetime(2026, 8, 1, 5, tzinfo=UTC)


@pytest.mark.parametrize("whose", ["client", "account"])
def test_a_new_zone_leaves_boundaries_that_passed_unbilled_where_they_were(
    engine: Engine, account: Account, whose: str
) -> None:
    client = on_a_cycle(engine, account, now=datetime(2026, 2, 1, tzinfo=UTC))
    on_the_boundary = datetime(2026, 5, 1, tzinfo=UTC)

    move(engine, account, client, "Asia/Tokyo", whose=whose, now=on_the_boundary)

    assert [one.ends_at for one in periods_of(engine, client)] == [
        datetime(2026, 3, 1, tzinfo=UTC),
        datetime(2026, 4, 1, tzinfo=UTC),
        on_the_boundary,
        datetime(2026, 5, 31, 15, tzinfo=UTC),
    ]
    assert {one[2:] for one in chain(engine, client)} == {("open", None)}
    tick(engine, now=on_the_boundary)
    assert [one[2] for one in chain(engine, client)] == ["empty"] * 3 + ["open"]
    assert audited(engine, account) == []


@pytest.mark.parametrize(
    ("zone", "ends_at"),
    [
        ("America/Chicago", datetime(2026, 7, 1, 5, tzinfo=UTC)),
        ("Asia/Tokyo", datetime(2026, 6, 30, 15, tzinfo=UTC)),
    ],
)
@pytest.mark.parametrize("whose", ["client", "account"])
def test_a_changed_zone_moves_only_the_open_periods_end(
    engine: Engine, account: Account, zone: str, ends_at: datetime, whose: str
) -> None:
    client = on_a_cycle(engine, account, billing_starts_on=date(2026, 5, 1))
    waiting, before = periods_of(engine, client)

    move(engine, account, client, zone, whose=whose, now=JUNE_10)

    still_waiting, after = periods_of(engine, client)
    assert (after.starts_at, after.ends_at) == (before.starts_at, ends_at)
    assert (after.period_start, after.period_end) == (JUNE, JULY)
    assert (still_waiting.starts_at, still_waiting.ends_at) == (waiting.starts_at, waiting.ends_at)
    tick(engine, now=ends_at - timedelta(seconds=1))
    assert last_of(engine, client).period_end == JULY
    tick(engine, now=ends_at)
    assert chain(engine, client)[-1] == (JULY, AUGUST, "open", None)
    assert audited(engine, account) == []


def test_a_start_may_be_corrected_until_a_period_is_decided(
    engine: Engine, account: Account
) -> None:
    client = on_a_cycle(engine, account)

    change(engine, client, now=JUNE_10, billing_starts_on=date(2026, 5, 20))
    assert chain(engine, client) == [
        (date(2026, 5, 20), JUNE, "open", "before_activation"),
        (JUNE, JULY, "open", None),
    ]

    change(engine, client, now=JUNE_10, billing_starts_on=None)
    assert chain(engine, client) == [(date(2026, 6, 10), JULY, "open", None)]

    tick(engine, now=datetime(2026, 7, 1, tzinfo=UTC))
    with pytest.raises(RuleViolation) as refused:
        change(engine, client, now=JUNE_10, billing_starts_on=date(2026, 6, 2))
    assert refused.value.code == "billing_already_started"


def test_the_same_start_again_changes_nothing_even_after_billing(
    engine: Engine, account: Account
) -> None:
    client = on_a_cycle(engine, account, billing_starts_on=JUNE)
    tick(engine, now=datetime(2026, 7, 1, tzinfo=UTC))
    before = chain(engine, client)

    change(engine, client, now=datetime(2026, 7, 2, tzinfo=UTC), billing_starts_on=JUNE)

    assert chain(engine, client) == before


def test_the_start_given_to_a_manual_client_counts_once_it_goes_on_the_cycle(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account, billing_starts_on=date(2026, 7, 15))
    assert periods_of(engine, client) == []

    change(engine, client, now=JUNE_10, billing_cycle="monthly")

    assert chain(engine, client) == [(date(2026, 7, 15), AUGUST, "open", None)]


def test_cycle_and_start_may_be_given_at_once(engine: Engine, account: Account) -> None:
    client = a_client(engine, account)

    change(engine, client, now=JUNE_10, billing_cycle="monthly", billing_starts_on=JUNE)

    assert chain(engine, client) == [(JUNE, JULY, "open", None)]


def test_a_client_put_on_the_cycle_starts_today_in_its_own_zone(
    engine: Engine, account: Account
) -> None:
    now = datetime(2026, 6, 10, 12, tzinfo=UTC)
    client = a_client(engine, account, now=now, time_zone="Pacific/Auckland")

    changed = change(engine, client, now=now, billing_cycle="monthly")

    assert changed.billing_starts_on == date(2026, 6, 11)
    assert chain(engine, client) == [(date(2026, 6, 11), JULY, "open", None)]


ZONES = ["UTC", "America/Chicago", "Pacific/Auckland", "Pacific/Pago_Pago", "Pacific/Kiritimati"]
EVENTS = st.one_of(
    st.fixed_dictionaries({"billing_cycle": st.just("monthly"), "anchor_day": st.integers(1, 31)}),
    st.fixed_dictionaries({"billing_cycle": st.just("weekly"), "anchor_day": st.integers(1, 7)}),
    st.fixed_dictionaries({"billing_cycle": st.sampled_from(["manual", "semimonthly"])}),
    st.fixed_dictionaries({"time_zone": st.sampled_from([*ZONES, None])}),
    st.sampled_from(["tick", "run", "account"]),
)


@given(st.lists(st.tuples(st.integers(0, 50 * 24), EVENTS), max_size=8), st.sampled_from(ZONES))
@settings(
    deadline=None,
    max_examples=8,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_whatever_happens_every_day_is_in_one_period_and_every_charge_on_one_invoice(
    engine: Engine, story: list[tuple[int, Any]], zone: str
) -> None:
    with Session(engine, expire_on_commit=False) as session, session.begin():
        account = create_account(session, f"Bluebird {uuid4()}")
    client = on_a_cycle(engine, account, billing_starts_on=date(2026, 4, 10), time_zone=zone)
    days = [date(2026, 4, 10) + timedelta(days=7 * week) for week in range(60)]
    charges(engine, client, [(day, "1.00") for day in days])
    now = NOW
    for hours, event in story:
        now += timedelta(hours=hours)
        match event:
            case "tick":
                tick(engine, now=now)
            case "run":
                bill(engine, account, now=now)
            case "account":
                zone = ZONES[hours % len(ZONES)]
                move(engine, account, client, zone, whose="account", now=now)
            case _:
                change(engine, client, now=now, **event)

    change(engine, client, now=now, billing_cycle="monthly")
    # Twice: a run takes 60 periods, and there may be more weeks.
    for _ in range(2):
        tick(engine, now=now + timedelta(days=62))

    *decided, following = periods_of(engine, client)
    chain(engine, client)
    assert following.state == "open"
    assert not {one.state for one in decided} & {"open", "failed"}
    taken = [day for day in days if day < following.period_start]
    assert sum(one.total for one in invoices_of(engine, client)) == 100 * len(taken)
    assert audited(engine, account) == []
