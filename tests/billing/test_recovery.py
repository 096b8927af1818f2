from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.collection import Origin
from billing.errors import InvalidInput
from billing.recovery import (
    FailedInvoice,
    Incoming,
    Part,
    Try,
    days_asked_for,
    recovery_of,
    span_of,
    step_of,
)

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
LATER = datetime(2026, 6, 4, 14, tzinfo=UTC)


def a_try(
    number: int, origin: str = "automatic", card: str = "pm_1", job: int | None = None
) -> Try:
    """A try by a job of its own, unless named."""
    job_id = UUID(int=number if job is None else job)
    return Try(UUID(int=number), Origin(origin), card, job_id, AT if job is not None else LATER)


FIRST = a_try(0)


def a_failed(
    incoming: Sequence[Incoming] = (), *, due: int = 0, written_off: int = 0, is_void: bool = False
) -> FailedInvoice:
    return FailedInvoice(
        currency="usd",
        amount=1_000,
        tries=[FIRST, a_try(1), a_try(2, "staff")],
        incoming=incoming,
        due=due,
        written_off=written_off,
        is_void=is_void,
    )


@pytest.mark.parametrize(
    ("tries", "step"),
    [
        ([FIRST, a_try(9)], "retry_1"),
        ([FIRST, a_try(1), a_try(9)], "retry_2"),
        # What was tried before the schedule began may bring money late: a debit that comes back.
        ([a_try(9, "client"), FIRST], "client"),
        ([a_try(9, "staff"), FIRST, a_try(1)], "staff"),
        ([a_try(8, "client"), FIRST, a_try(9)], "retry_1"),
        # A click uses up no retry.
        ([FIRST, a_try(1, "staff"), a_try(9)], "retry_1"),
        ([FIRST, a_try(9, "staff")], "staff"),
        ([FIRST, a_try(9, "client", card="")], "client"),
        # Confirmed by its client.
        ([a_try(9)], "client"),
        ([FIRST, a_try(9, card="pm_2")], "new_card"),
        ([FIRST, a_try(1, card="pm_2"), a_try(9, card="pm_2")], "new_card"),
        # By the run that was refused.
        ([a_try(0, job=5), a_try(9, card="pm_2", job=5)], "backup_card"),
    ],
)
def test_a_try_that_brings_money_is_a_step(tries: Sequence[Try], step: str) -> None:
    assert step_of(Incoming(1_000, UUID(int=9)), tries) == step


def test_what_no_try_brought_came_from_outside_or_is_credit() -> None:
    assert step_of(Incoming(1_000), [FIRST]) == "outside"
    assert step_of(Incoming(1_000, is_credit=True), [FIRST]) == "credit"


def test_each_invoice_is_recovered_open_given_up_or_withdrawn() -> None:
    retried = a_failed([Incoming(1_000, UUID(int=1))])
    in_parts = a_failed([Incoming(300, is_credit=True), Incoming(200)], due=500)
    [(currency, found)] = recovery_of(
        [
            retried,
            in_parts,
            a_failed(due=1_000),
            a_failed(written_off=1_000),
            # Paid in part, and the rest taken back by a credit note.
            a_failed([Incoming(600, UUID(int=2))]),
            a_failed([Incoming(400)], is_void=True),
        ]
    ).items()

    assert currency == "usd"
    assert found.outcomes == {
        "failed": Part(6, 6_000),
        "recovered": Part(1, 2_100),
        "retry_1": Part(1, 1_000),
        "staff": Part(1, 600),
        "outside": Part(1, 200),
        "credit": Part(1, 300),
        "open": Part(2, 1_500),
        "given_up": Part(1, 1_000),
        "withdrawn": Part(2, 1_400),
    }
    assert list(found.outcomes)[2:6] == ["retry_1", "staff", "outside", "credit"]
    assert found.recovered.rate_of(found.failed) == Decimal("0.35")


def test_what_was_added_to_the_debt_since_is_not_recovered() -> None:
    # Refunded and paid again.
    paid_twice = a_failed([Incoming(1_000, UUID(int=1)), Incoming(1_000)])

    [found] = recovery_of([paid_twice]).values()

    assert found.recovered == Part(1, 1_000)
    assert found.steps == {"retry_1": Part(1, 1_000)}


AMOUNTS = st.integers(0, 2_000)


@given(
    st.lists(
        st.builds(
            lambda amounts, due, written_off, is_void: a_failed(
                [Incoming(one) for one in amounts],
                due=due,
                written_off=written_off,
                is_void=is_void,
            ),
            st.lists(st.integers(1, 2_000), max_size=3),
            AMOUNTS,
            AMOUNTS,
            st.booleans(),
        ),
        min_size=1,
    )
)
def test_the_parts_are_all_that_had_failed(invoices: list[FailedInvoice]) -> None:
    [found] = recovery_of(invoices).values()

    assert found.failed.amount == sum(one.amount for one in invoices)
    assert sum(part.amount for part in found.steps.values()) == found.recovered.amount
    rest = found.open.amount + found.given_up.amount + found.withdrawn.amount
    assert found.recovered.amount + rest == found.failed.amount
    assert all(0 <= part.rate_of(found.failed) <= 1 for part in found.outcomes.values())


def test_retries_are_in_their_order_also_beyond_nine() -> None:
    tries = [FIRST, *(a_try(number) for number in range(1, 12))]
    invoice = FailedInvoice(
        currency="usd",
        amount=100,
        tries=tries,
        incoming=[Incoming(10, tries[10].id), Incoming(90, tries[9].id)],
        due=0,
        written_off=0,
    )

    [found] = recovery_of([invoice]).values()

    assert list(found.steps) == ["retry_9", "retry_10"]


@pytest.mark.parametrize(
    ("asked", "days"),
    [
        ((None, None), ("2026-04-03", "2026-07-01")),
        (("2026-06-01", None), ("2026-06-01", "2026-07-01")),
        ((None, "2026-03-31"), ("2026-01-01", "2026-03-31")),
        (("2026-06-01", "2026-06-01"), ("2026-06-01", "2026-06-01")),
        # None of them is over: the report is empty.
        (("2026-08-01", None), ("2026-08-01", "2026-08-01")),
    ],
)
def test_without_days_it_is_about_the_last_ninety(
    asked: tuple[str | None, str | None], days: tuple[str, str]
) -> None:
    first, last = (None if one is None else date.fromisoformat(one) for one in asked)

    found = days_asked_for(first, last, today=date(2026, 7, 1))

    assert tuple(day.isoformat() for day in found) == days


def test_the_last_day_is_not_before_the_first() -> None:
    with pytest.raises(InvalidInput) as refused:
        days_asked_for(date(2026, 6, 2), date(2026, 6, 1), today=date(2026, 7, 1))

    assert refused.value.field == "to"


def test_days_are_the_zones_own() -> None:
    day = date(2026, 6, 1)

    assert span_of(day, day, ZoneInfo("America/New_York")) == (
        datetime(2026, 6, 1, 4, tzinfo=UTC),
        datetime(2026, 6, 2, 4, tzinfo=UTC),
    )
