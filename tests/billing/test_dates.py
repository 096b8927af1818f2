from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.dates import InvoiceDate, due_on, issued_on
from billing.errors import InvalidInput

DAYS = st.dates(date(2000, 1, 1), date(2100, 1, 1))


@pytest.mark.parametrize(
    ("boundary", "finalized_on", "oldest", "issued"),
    [
        # On time, or a little late: the boundary.
        (date(2026, 11, 1), date(2026, 11, 1), None, date(2026, 11, 1)),
        (date(2026, 11, 1), date(2026, 11, 4), date(2026, 11, 1), date(2026, 11, 1)),
        # Exactly 31 days back is not yet catch-up; a day more is.
        (date(2026, 10, 1), date(2026, 11, 1), date(2026, 10, 1), date(2026, 10, 1)),
        (date(2026, 10, 1), date(2026, 11, 2), date(2026, 10, 1), date(2026, 11, 2)),
        (date(2026, 10, 1), date(2026, 11, 2), None, date(2026, 11, 2)),
        # The oldest decides for all of the client's invoices, also for one just due.
        (date(2026, 11, 1), date(2026, 11, 2), date(2026, 8, 1), date(2026, 11, 2)),
        # By hand: the day of finalizing.
        (None, date(2026, 11, 22), None, date(2026, 11, 22)),
        # A client ahead of the account's zone: its boundary is tomorrow there.
        (date(2026, 12, 1), date(2026, 11, 30), None, date(2026, 12, 1)),
    ],
)
def test_date_of_issue(
    boundary: date | None, finalized_on: date, oldest: date | None, issued: date
) -> None:
    assert (
        issued_on(
            boundary=boundary,
            finalized_on=finalized_on,
            oldest_boundary=oldest,
            last_issued_on=None,
        )
        == issued
    )


@pytest.mark.parametrize(
    ("boundary", "finalized_on", "last", "issued"),
    [
        # The last one bears its own boundary, or another day up to this boundary: nothing changes.
        (date(2026, 11, 1), date(2026, 11, 4), date(2026, 10, 1), date(2026, 11, 1)),
        (date(2026, 11, 1), date(2026, 11, 4), date(2026, 11, 1), date(2026, 11, 1)),
        # The last one ended a catch-up of which this is the rest, on the same day or a later one.
        (date(2026, 11, 1), date(2026, 11, 22), date(2026, 11, 22), date(2026, 11, 22)),
        (date(2026, 11, 1), date(2026, 11, 24), date(2026, 11, 22), date(2026, 11, 24)),
        # Meanwhile the account has moved to where it is still the day before.
        (date(2026, 11, 1), date(2026, 11, 21), date(2026, 11, 22), date(2026, 11, 22)),
        # By hand: the day of finalizing, whatever the cycle's invoices bear.
        (None, date(2026, 11, 22), date(2026, 12, 1), date(2026, 11, 22)),
    ],
)
def test_the_date_of_issue_after_the_last_cycle_invoice(
    boundary: date | None, finalized_on: date, last: date, issued: date
) -> None:
    assert (
        issued_on(
            boundary=boundary,
            finalized_on=finalized_on,
            oldest_boundary=None,
            last_issued_on=last,
        )
        == issued
    )


@given(DAYS, DAYS, DAYS, DAYS)
def test_dates_of_issue_never_go_back(
    boundary: date, finalized_on: date, oldest: date, last: date
) -> None:
    issued = issued_on(
        boundary=boundary, finalized_on=finalized_on, oldest_boundary=oldest, last_issued_on=last
    )

    assert issued >= last


@given(st.lists(DAYS, min_size=1, max_size=5, unique=True), DAYS)
def test_all_of_a_clients_invoices_in_a_run_are_dated_the_same_way(
    boundaries: list[date], finalized_on: date
) -> None:
    issued = [
        issued_on(
            boundary=one,
            finalized_on=finalized_on,
            oldest_boundary=min(boundaries),
            last_issued_on=None,
        )
        for one in boundaries
    ]

    assert issued in (boundaries, [finalized_on] * len(boundaries))


@pytest.mark.parametrize(
    ("issued", "finalized_on", "net_days", "due"),
    [
        (date(2026, 11, 1), date(2026, 11, 1), 14, date(2026, 11, 15)),
        (date(2026, 11, 1), date(2026, 11, 20), 14, date(2026, 12, 4)),
        (date(2026, 12, 1), date(2026, 11, 30), 14, date(2026, 12, 15)),
        (date(2028, 2, 28), date(2028, 2, 28), 1, date(2028, 2, 29)),
        (date(2026, 11, 1), date(2026, 11, 1), 0, date(2026, 11, 1)),
    ],
)
def test_payment_is_due_net_days_after_the_later_of_issue_and_finalizing(
    issued: date, finalized_on: date, net_days: int, due: date
) -> None:
    assert due_on(issued_on=issued, finalized_on=finalized_on, net_days=net_days) == due


@given(DAYS, DAYS, st.integers(0, 365))
def test_a_client_always_has_net_days_from_seeing_the_invoice(
    issued: date, finalized_on: date, net_days: int
) -> None:
    due = due_on(issued_on=issued, finalized_on=finalized_on, net_days=net_days)

    assert min(due - issued, due - finalized_on) == timedelta(days=net_days)


@pytest.mark.parametrize(
    ("chosen", "due"),
    [
        (None, date(2026, 12, 4)),
        (date(2027, 3, 1), date(2027, 3, 1)),
        # Before it is finalized, but not before it is issued.
        (date(2026, 11, 5), date(2026, 11, 5)),
        (date(2026, 11, 1), date(2026, 11, 1)),
        (date(2026, 10, 31), date(2026, 12, 4)),
    ],
)
def test_a_day_that_was_chosen_stands_unless_the_invoice_is_issued_after_it(
    chosen: date | None, due: date
) -> None:
    assert due == due_on(
        issued_on=date(2026, 11, 1), finalized_on=date(2026, 11, 20), net_days=14, chosen=chosen
    )


@pytest.mark.parametrize("net_days", [-1, 366])
def test_absurd_net_days_are_refused(net_days: int) -> None:
    with pytest.raises(InvalidInput) as refused:
        due_on(issued_on=date(2026, 1, 1), finalized_on=date(2026, 1, 1), net_days=net_days)

    assert refused.value.field == "net_days"


@pytest.mark.parametrize(
    ("last", "issued"),
    [
        (None, date(2026, 6, 20)),
        (date(2026, 6, 1), date(2026, 6, 20)),
        # The account's zone went back over midnight, or its clock did.
        (date(2026, 6, 21), date(2026, 6, 21)),
    ],
)
def test_where_the_account_wants_it_the_date_is_the_day_of_finalizing(
    last: date | None, issued: date
) -> None:
    assert (
        issued_on(
            boundary=date(2026, 6, 15),
            finalized_on=date(2026, 6, 20),
            oldest_boundary=None,
            last_issued_on=last,
            invoice_date=InvoiceDate.FINALIZATION,
        )
        == issued
    )
