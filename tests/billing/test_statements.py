from dataclasses import replace
from datetime import date, timedelta
from itertools import accumulate
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.cycles import Period
from billing.statements import InvoiceDue, Movement, MovementKind, Statement, statement_of

NOVEMBER = Period(date(2026, 11, 1), date(2026, 12, 1))
DECEMBER = Period(date(2026, 12, 1), date(2027, 1, 1))
BEGINNING = date(2026, 10, 25)
DAYS = st.dates(BEGINNING, BEGINNING + timedelta(days=20))
AMOUNTS = st.integers(-500, 500)


def move(
    day: str, kind: str, *, due: int = 0, credit: int = 0, invoice: int | None = None
) -> Movement:
    """A movement on a day of 2026, in usd."""
    return Movement(
        dated_on=date.fromisoformat(f"2026-{day}"),
        kind=MovementKind(kind),
        reference=f"{kind} {day}",
        currency="usd",
        invoice_id=None if invoice is None else UUID(int=invoice),
        due=due,
        credit=credit,
    )


MOVEMENTS = st.builds(
    Movement,
    dated_on=DAYS,
    kind=st.sampled_from(MovementKind),
    reference=st.just("any"),
    currency=st.sampled_from(["usd", "eur"]),
    invoice_id=st.integers(1, 3).map(lambda key: UUID(int=key)),
    due=AMOUNTS,
    credit=AMOUNTS,
)
HISTORIES = st.lists(MOVEMENTS, max_size=12)


@st.composite
def periods(draw: st.DrawFn) -> Period:
    start = draw(DAYS)
    return Period(start, start + timedelta(days=draw(st.integers(1, 10))))


def usd(movements: list[Movement], period: Period) -> Statement:
    return statement_of(movements, currency="usd", period=period)


STORY = [
    move("10-28", "payment", credit=500),
    move("11-01", "invoice", due=4_900, invoice=1),
    # Credit pays a part of it: nothing the client would owe more or less.
    move("11-01", "credit", due=-500, credit=-500, invoice=1),
    move("11-03", "payment", due=-4_000, invoice=1),
    move("11-08", "invoice", due=2_000, invoice=2),
    move("11-09", "void", due=-2_000, invoice=2),
    move("11-10", "credit", credit=300),
    move("11-15", "invoice", due=1_000, invoice=3),
    # 50 more than what was left.
    move("11-20", "payment", due=-1_000, credit=50, invoice=3),
    move("11-30", "credit_note", due=-100, invoice=1),
    move("12-01", "invoice", due=700, invoice=4),
    move("12-24", "credit", credit=-300),
    move("12-31", "refund", due=200, invoice=3),
]


def test_a_statement_lists_what_moved_with_the_balance_after_each() -> None:
    statement = usd(STORY, NOVEMBER)

    assert statement.opening_balance == -500
    assert [(line.movement.reference, line.movement.amount, line.balance) for line in statement.lines] == [
        ("invoice 11-01", 4_900, 4_400),
        ("payment 11-03", -4_000, 400),
        ("invoice 11-08", 2_000, 2_400),
        ("void 11-09", -2_000, 400),
        ("credit 11-10", -300, 100),
        ("invoice 11-15", 1_000, 1_100),
        ("payment 11-20", -1_050, 50),
        ("credit_note 11-30", -100, -50),
    ]  # fmt: skip
    assert statement.closing_balance == -50
    assert statement.open_items == (InvoiceDue(UUID(int=1), 300),)
    assert statement.credit == 350
    assert (statement.currency, statement.period) == ("usd", NOVEMBER)


def test_the_next_statement_goes_on_from_there() -> None:
    statement = usd(STORY, DECEMBER)

    assert statement.opening_balance == -50
    assert [line.balance for line in statement.lines] == [650, 950, 1_150]
    assert statement.closing_balance == 1_150
    # Oldest first; a refund that reopens a debt puts it back in its place.
    assert statement.open_items == (
        InvoiceDue(UUID(int=1), 300),
        InvoiceDue(UUID(int=3), 200),
        InvoiceDue(UUID(int=4), 700),
    )
    assert statement.credit == 50


@pytest.mark.parametrize(
    ("day", "listed"),
    [("10-31", ""), ("11-01", "listed"), ("11-30", "listed"), ("12-01", "")],
)
def test_a_period_has_its_first_day_and_not_the_day_of_its_end(day: str, listed: str) -> None:
    statement = usd([move(day, "invoice", due=100, invoice=1)], NOVEMBER)

    assert bool(statement.lines) is bool(listed)
    assert statement.opening_balance == (100 if day < "11" else 0)
    assert statement.closing_balance == (100 if day < "12" else 0)


def test_a_client_without_movements_owes_nothing() -> None:
    assert usd([], NOVEMBER) == Statement("usd", NOVEMBER, 0, (), 0, (), 0)


def test_movements_of_one_day_keep_the_order_in_which_they_were_recorded() -> None:
    recorded = [
        move("11-05", "payment", due=-100, invoice=1),
        move("11-04", "invoice", due=100, invoice=2),
        move("11-05", "invoice", due=100, invoice=3),
        move("11-04", "payment", due=-100, invoice=2),
    ]

    lines = usd(recorded, NOVEMBER).lines

    assert [line.movement.reference for line in lines] == [
        "invoice 11-04",
        "payment 11-04",
        "payment 11-05",
        "invoice 11-05",
    ]


def test_a_payment_dated_before_its_invoice_shows_as_open_until_the_invoice_comes() -> None:
    story = [
        move("12-01", "invoice", due=700, invoice=1),
        move("11-30", "payment", due=-700, invoice=1),
    ]

    assert usd(story, NOVEMBER).open_items == (InvoiceDue(UUID(int=1), -700),)
    assert usd(story, DECEMBER).open_items == ()


def test_a_balance_that_was_carried_is_owed_without_an_open_invoice() -> None:
    story = [
        move("11-01", "invoice", due=40, invoice=1),
        move("11-01", "credit", due=-40, credit=-40, invoice=1),
    ]

    statement = usd(story, NOVEMBER)

    assert (statement.closing_balance, statement.open_items, statement.credit) == (40, (), -40)


@given(HISTORIES, periods())
def test_the_balance_runs_from_the_opening_to_the_closing_one(
    movements: list[Movement], period: Period
) -> None:
    statement = usd(movements, period)

    amounts = [line.movement.amount for line in statement.lines]
    assert all(amounts)
    running = [*accumulate(amounts, initial=statement.opening_balance)]
    assert [line.balance for line in statement.lines] == running[1:]
    assert statement.closing_balance == running[-1]
    dates = [line.movement.dated_on for line in statement.lines]
    assert dates == sorted(dates)
    assert all(period.start <= day < period.end for day in dates)


@given(HISTORIES, periods(), st.integers(1, 10))
def test_the_closing_balance_of_one_period_is_the_opening_one_of_the_next(
    movements: list[Movement], period: Period, days: int
) -> None:
    following = Period(period.end, period.end + timedelta(days=days))
    one, other = usd(movements, period), usd(movements, following)
    both = usd(movements, Period(period.start, following.end))

    assert one.closing_balance == other.opening_balance
    assert both.lines == one.lines + other.lines
    assert both.opening_balance == one.opening_balance
    assert (both.closing_balance, both.open_items, both.credit) == (
        other.closing_balance,
        other.open_items,
        other.credit,
    )


@given(HISTORIES, periods())
def test_the_closing_balance_is_what_is_due_less_the_credit_in_hand(
    movements: list[Movement], period: Period
) -> None:
    statement = usd(movements, period)

    assert statement.closing_balance == (
        sum(item.due for item in statement.open_items) - statement.credit
    )
    assert all(item.due for item in statement.open_items)
    assert len({item.invoice_id for item in statement.open_items}) == len(statement.open_items)


@given(HISTORIES, periods())
def test_other_currencies_and_later_dates_change_nothing(
    movements: list[Movement], period: Period
) -> None:
    until_end = [one for one in movements if one.currency == "usd" and one.dated_on < period.end]

    assert usd(movements, period) == usd(until_end, period)


@given(HISTORIES, periods())
def test_the_order_in_which_days_were_recorded_does_not_matter(
    movements: list[Movement], period: Period
) -> None:
    # The last day first; of one day, the order stays.
    reordered = sorted(movements, key=lambda one: one.dated_on, reverse=True)

    assert usd(reordered, period) == usd(movements, period)


@given(MOVEMENTS)
def test_what_is_due_is_due_on_an_invoice(movement: Movement) -> None:
    if movement.due:
        with pytest.raises(ValueError, match="due on an invoice"):
            replace(movement, invoice_id=None)
    else:
        assert replace(movement, invoice_id=None).amount == -movement.credit


def test_the_kinds_of_lines_have_these_names() -> None:
    assert {*MovementKind} == {
        "invoice",
        "void",
        "credit_note",
        "payment",
        "refund",
        "write_off",
        "credit",
    }
