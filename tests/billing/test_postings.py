from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.postings import (
    LedgerAccount,
    Posting,
    credit_applied_when_finalized,
    postings_for_finalizing,
    postings_for_voiding,
)

TOTALS = st.integers(-(10**18), 10**18)


def balances(postings: Iterable[Posting]) -> dict[LedgerAccount, int]:
    sums = dict.fromkeys(LedgerAccount, 0)
    for posting in postings:
        sums[posting.account] += posting.amount
    return sums


def test_finalizing_debits_receivable_and_credits_revenue() -> None:
    assert postings_for_finalizing(4_900) == (
        Posting(LedgerAccount.RECEIVABLE, 4_900),
        Posting(LedgerAccount.REVENUE, -4_900),
    )


def test_a_negative_total_takes_revenue_back_and_becomes_credit() -> None:
    assert postings_for_finalizing(-500) == (
        Posting(LedgerAccount.REVENUE, 500),
        Posting(LedgerAccount.CREDIT, -500),
    )


def test_a_total_of_zero_posts_nothing() -> None:
    assert postings_for_finalizing(0) == ()


@given(TOTALS)
def test_an_entry_balances_with_one_line_an_account_and_none_of_zero(total: int) -> None:
    postings = postings_for_finalizing(total)

    assert sum(posting.amount for posting in postings) == 0
    assert len({posting.account for posting in postings}) == len(postings)
    assert all(posting.amount for posting in postings)


@given(TOTALS)
def test_the_books_show_what_is_due_and_what_was_earned(total: int) -> None:
    sums = balances(postings_for_finalizing(total))
    credit_applied = credit_applied_when_finalized(total)

    assert sums[LedgerAccount.REVENUE] == -total
    assert sums[LedgerAccount.RECEIVABLE] == total - credit_applied >= 0
    # Credit that the client gains (a credit, so negative) is the negative amount applied.
    assert sums[LedgerAccount.CREDIT] == credit_applied <= 0


@given(st.integers(1, 10**18))
def test_voiding_undoes_finalizing(total: int) -> None:
    both = [*postings_for_finalizing(total), *postings_for_voiding(total, 0)]

    assert set(balances(both).values()) == {0}


@pytest.mark.parametrize("total", [0, -1])
def test_what_was_never_open_cannot_be_voided(total: int) -> None:
    with pytest.raises(ValueError, match="never open"):
        postings_for_voiding(total, 0)
