from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.closing import first_open_day, require_closing, require_open_day
from billing.errors import InvalidInput

MAY_31, JUNE_1 = date(2026, 5, 31), date(2026, 6, 1)
DAYS = st.dates(date(2000, 1, 1), date(2100, 1, 1))


@pytest.mark.parametrize(
    ("bears", "closed_through", "counts_for"),
    [
        (MAY_31, None, MAY_31),
        (MAY_31, MAY_31, JUNE_1),
        (date(1999, 1, 1), MAY_31, JUNE_1),
        (JUNE_1, MAY_31, JUNE_1),
        (date(2026, 7, 1), MAY_31, date(2026, 7, 1)),
    ],
)
def test_what_bears_a_date_in_closed_books_counts_for_the_first_open_day(
    bears: date, closed_through: date | None, counts_for: date
) -> None:
    assert first_open_day(bears, closed_through) == counts_for


@given(DAYS, st.none() | DAYS)
def test_nothing_counts_for_a_closed_day_nor_earlier_than_it_says(
    bears: date, closed_through: date | None
) -> None:
    day = first_open_day(bears, closed_through)

    assert day >= bears
    assert closed_through is None or day > closed_through
    assert first_open_day(day, closed_through) == day


def test_a_day_that_somebody_names_is_refused_where_the_books_are_closed() -> None:
    require_open_day("paid_on", JUNE_1, MAY_31)
    require_open_day("paid_on", MAY_31, None)

    with pytest.raises(InvalidInput, match="must be after 2026-05-31") as refused:
        require_open_day("paid_on", MAY_31, MAY_31)
    assert (refused.value.field, refused.value.code) == ("paid_on", "books_closed")


@pytest.mark.parametrize("closed_through", [None, date(2026, 4, 30), MAY_31])
def test_books_are_closed_through_any_later_day_that_is_over(closed_through: date | None) -> None:
    assert require_closing(MAY_31, closed_through, today=JUNE_1) == MAY_31


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        (JUNE_1, "invalid"),  # Today is not over.
        (JUNE_1 + timedelta(days=1), "invalid"),
        (date(2026, 4, 29), "books_closed"),
        (None, "books_closed"),
    ],
)
def test_books_are_not_closed_too_far_nor_opened_again(wanted: date | None, code: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        require_closing(wanted, date(2026, 4, 30), today=JUNE_1)

    assert (refused.value.field, refused.value.code) == ("books_closed_through", code)


def test_what_was_never_closed_may_stay_so() -> None:
    assert require_closing(None, None, today=JUNE_1) is None
    # The same again changes nothing, whatever the day is by now.
    assert require_closing(JUNE_1, JUNE_1, today=JUNE_1) == JUNE_1
