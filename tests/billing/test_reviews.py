from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.errors import InvalidInput
from billing.reviews import (
    WaitingDraft,
    require_review_hours,
    review_end,
    review_hours_for,
    ripe,
)

NOW = datetime(2026, 6, 3, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("account", "client", "by_person", "hours"),
    [
        (0, None, False, 0),
        (48, None, False, 48),
        (None, None, False, None),
        (48, 0, False, 0),
        (None, 24, False, 24),
        (0, None, True, None),
    ],
)
def test_a_client_is_reviewed_as_its_account_unless_it_says_otherwise(
    account: int | None,
    client: int | None,
    by_person: bool,  # noqa: FBT001 - a row of the table
    hours: int | None,
) -> None:
    assert review_hours_for(account=account, client=client, by_person=by_person) == hours


def test_the_window_runs_from_the_moment_the_draft_is_made() -> None:
    assert review_end(NOW, 48) == NOW + timedelta(days=2)
    assert review_end(NOW, 0) == NOW
    assert review_end(NOW, None) is None


@pytest.mark.parametrize("hours", [-1, 2161, 1.5, "48", True, None])
def test_what_can_be_no_window_is_refused(hours: object) -> None:
    with pytest.raises(InvalidInput) as refused:
        require_review_hours(hours)

    assert refused.value.field == "review_hours"


def draft(number: int, month: int, ends_at: datetime | None) -> WaitingDraft:
    return WaitingDraft(UUID(int=number), date(2026, month, 1), ends_at)


PAST, FUTURE = NOW - HOUR, NOW + HOUR


@pytest.mark.parametrize(
    ("drafts", "numbers"),
    [
        ([], []),
        ([draft(1, 5, NOW)], [1]),
        ([draft(1, 5, FUTURE)], []),
        ([draft(1, 5, None)], []),
        # By boundary and not by when they were made: one that was deleted is drafted again late.
        ([draft(1, 6, PAST), draft(2, 5, PAST)], [2, 1]),
        ([draft(1, 5, PAST), draft(2, 6, FUTURE), draft(3, 7, PAST)], [1]),
        ([draft(1, 5, None), draft(2, 6, PAST)], []),
        # Two currencies of one period do not wait for each other.
        ([draft(1, 5, None), draft(2, 5, PAST), draft(3, 6, PAST)], [2]),
    ],
)
def test_drafts_are_finalized_oldest_first(drafts: list[WaitingDraft], numbers: list[int]) -> None:
    assert [one.invoice_id.int for one in ripe(drafts, NOW)] == numbers


DRAFTS = st.lists(
    st.tuples(st.integers(1, 12), st.sampled_from([None, PAST, NOW, FUTURE])), max_size=8
).map(lambda rows: [draft(number, *row) for number, row in enumerate(rows)])


@given(DRAFTS)
def test_none_is_finalized_before_an_older_one_or_before_its_time(
    drafts: list[WaitingDraft],
) -> None:
    finalized = ripe(drafts, NOW)

    waiting = [one for one in drafts if one not in finalized]
    assert all(one.review_ends_at in {PAST, NOW} for one in finalized)
    # What waits has its own reason, or an older one that has.
    for one in waiting:
        reasons = [two for two in waiting if two.review_ends_at in {None, FUTURE}]
        assert one in reasons or any(two.boundary < one.boundary for two in reasons)
    for one in finalized:
        assert all(two.boundary >= one.boundary for two in waiting)
