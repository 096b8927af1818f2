from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.postings import (
    ONCE_AN_INVOICE,
    LedgerAccount,
    LedgerEvent,
    Posting,
    credit_applied_when_finalized,
    postings_for_adjusting,
    postings_for_applying_credit,
    postings_for_finalizing,
    postings_for_payment,
    postings_for_voiding,
)

TOTALS = st.integers(-(10**18), 10**18)
RECEIVED_BY = st.sampled_from([LedgerAccount.STRIPE, LedgerAccount.OUTSIDE])


@st.composite
def payments(draw: st.DrawFn) -> tuple[int, int]:
    """What was received, and how much of it settles an invoice."""
    amount = draw(st.integers(1, 10**18))
    return amount, draw(st.integers(0, amount))


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


@given(
    st.one_of(
        TOTALS.map(postings_for_finalizing),
        st.builds(postings_for_voiding, st.integers(1, 10**18), TOTALS, TOTALS.map(abs)),
        TOTALS.map(postings_for_applying_credit),
        TOTALS.map(postings_for_adjusting),
        st.builds(lambda by, paid: postings_for_payment(by, *paid), RECEIVED_BY, payments()),
    )
)
def test_an_entry_balances_with_one_line_an_account_and_none_of_zero(
    postings: tuple[Posting, ...],
) -> None:
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


@given(st.integers(1, 10**18), TOTALS)
def test_voiding_undoes_finalizing_and_the_credit_or_debit_that_was_applied(
    total: int, credit_applied: int
) -> None:
    entries = [
        *postings_for_finalizing(total),
        *postings_for_applying_credit(credit_applied),
        *postings_for_voiding(total, credit_applied),
    ]

    assert set(balances(entries).values()) == {0}


def test_a_void_gives_credit_back_in_the_same_entry() -> None:
    assert postings_for_voiding(4_900, 1_500) == (
        Posting(LedgerAccount.REVENUE, 4_900),
        Posting(LedgerAccount.RECEIVABLE, -3_400),
        Posting(LedgerAccount.CREDIT, -1_500),
    )


def test_a_void_of_what_was_paid_in_part_leaves_that_as_credit() -> None:
    assert postings_for_voiding(4_900, 1_500, 900) == (
        Posting(LedgerAccount.REVENUE, 4_900),
        Posting(LedgerAccount.RECEIVABLE, -2_500),
        Posting(LedgerAccount.CREDIT, -2_400),
    )


def test_credit_settles_what_is_due_and_a_debit_adds_to_it() -> None:
    assert postings_for_applying_credit(500) == (
        Posting(LedgerAccount.CREDIT, 500),
        Posting(LedgerAccount.RECEIVABLE, -500),
    )
    assert postings_for_applying_credit(-40) == (
        Posting(LedgerAccount.CREDIT, -40),
        Posting(LedgerAccount.RECEIVABLE, 40),
    )


@pytest.mark.parametrize(
    ("received_by", "amount", "applied", "sides"),
    [
        ("stripe", 4_900, 4_900, {"stripe": 4_900, "receivable": -4_900}),
        ("outside", 5_000, 4_900, {"outside": 5_000, "receivable": -4_900, "credit": -100}),
        # Where none was due, and a deposit.
        ("stripe", 4_900, 0, {"stripe": 4_900, "credit": -4_900}),
        ("outside", 4_900, 0, {"outside": 4_900, "credit": -4_900}),
    ],
)
def test_money_received_settles_an_invoice_and_the_rest_is_credit(
    received_by: str, amount: int, applied: int, sides: dict[str, int]
) -> None:
    postings = postings_for_payment(LedgerAccount(received_by), amount, applied)

    assert {posting.account: posting.amount for posting in postings} == sides


def test_a_correction_has_a_ledger_account_of_its_own() -> None:
    assert postings_for_adjusting(-250) == (
        Posting(LedgerAccount.ADJUSTMENT, -250),
        Posting(LedgerAccount.CREDIT, 250),
    )


@given(st.lists(st.tuples(payments(), RECEIVED_BY), max_size=5), TOTALS, st.integers(1, 10**18))
def test_the_receivable_of_an_invoice_is_what_is_due_whatever_happens_to_it(
    received: list[tuple[tuple[int, int], LedgerAccount]], credit_applied: int, total: int
) -> None:
    entries = [*postings_for_finalizing(total), *postings_for_applying_credit(credit_applied)]
    for (amount, applied), by in received:
        entries += postings_for_payment(by, amount, applied)

    paid = sum(applied for (_, applied), _ in received)
    assert balances(entries)[LedgerAccount.RECEIVABLE] == total - credit_applied - paid


def test_an_invoice_is_finalized_and_voided_once_and_paid_any_number_of_times() -> None:
    assert {LedgerEvent.FINALIZE, LedgerEvent.VOID} == ONCE_AN_INVOICE
    assert {*LedgerEvent} - ONCE_AN_INVOICE == {
        "apply_credit",
        "carry",
        "card_payment",
        "outside_payment",
        "deposit",
        "adjustment",
    }


@pytest.mark.parametrize("total", [0, -1])
def test_what_was_never_open_cannot_be_voided(total: int) -> None:
    with pytest.raises(ValueError, match="never open"):
        postings_for_voiding(total, 0)
