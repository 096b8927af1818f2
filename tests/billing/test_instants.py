from datetime import UTC, date, datetime

import pytest

from billing.errors import InvalidInput
from billing.instants import date_or_instant, iso_date


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2026-02-28", date(2026, 2, 28)),
        ("2026-06-01T00:00:00Z", datetime(2026, 6, 1, tzinfo=UTC)),
        ("2026-06-01t00:00:00.5z", datetime(2026, 6, 1, 0, 0, 0, 500_000, tzinfo=UTC)),
        ("2026-06-01 01:30:00+01:30", datetime(2026, 6, 1, tzinfo=UTC)),
    ],
)
def test_a_day_and_an_instant_have_one_form_each(text: str, meant: date) -> None:
    assert date_or_instant(text, "as_of") == meant


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tomorrow",
        "2026-W01-1",
        "20261101",
        "2026-1-1",
        " 2026-06-01",
        "٢٠٢٦-06-01",
        "2026-06-01T00:00:00",
        "2026-06-01T00Z",
        "20260601T000000Z",
        "2026-06-01T25:00:00Z",
    ],
)
def test_any_other_form_is_refused_with_both(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^as_of: must be a date such as .* with its offset"):
        date_or_instant(text, "as_of")


def test_a_day_that_no_calendar_has_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"^charged_on: there is no day 2026-02-30$"):
        iso_date("2026-02-30", "charged_on")


@pytest.mark.parametrize("text", ["1969-12-31", "2200-01-01", "2200-01-01T00:00:00Z"])
def test_times_that_no_bill_is_about_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="must be from 1970-01-01 to before 2200-01-01"):
        date_or_instant(text, "as_of")
