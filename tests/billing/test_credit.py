import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.credit import CreditEntryKind, credit_to_apply

AMOUNTS = st.integers(-(10**18), 10**18)


@pytest.mark.parametrize(
    ("balance", "due", "applied"),
    [
        (5_000, 3_000, 3_000),
        (3_000, 5_000, 3_000),
        (3_000, 3_000, 3_000),
        (50, 80, 50),  # Half a dollar is credit like any other.
        (0, 3_000, 0),
        (-40, 3_000, -40),
        (-5_000, 3_000, -5_000),  # The whole debit, also one above the invoice.
        # Nothing due moves nothing: neither credit nor debit.
        (5_000, 0, 0),
        (5_000, -1, 0),
        (-40, 0, 0),
        (-40, -100, 0),
    ],
)
def test_credit_covers_what_is_due_and_a_debit_comes_in_whole(
    balance: int, due: int, applied: int
) -> None:
    assert credit_to_apply(balance, due) == applied


@given(st.integers(0, 10**18), AMOUNTS)
def test_spending_never_takes_a_balance_below_zero_nor_a_due_amount(balance: int, due: int) -> None:
    applied = credit_to_apply(balance, due)

    assert applied >= 0
    assert balance - applied >= 0
    assert applied <= max(due, 0)
    # All that could be spent was spent.
    assert balance - applied == 0 or due - applied <= 0


@given(st.integers(-(10**18), -1), st.integers(1, 10**18))
def test_a_debit_is_cleared_by_the_next_invoice_and_only_adds_to_it(balance: int, due: int) -> None:
    applied = credit_to_apply(balance, due)

    assert balance - applied == 0
    assert due - applied > due


@given(AMOUNTS, AMOUNTS)
def test_applying_again_at_once_moves_nothing(balance: int, due: int) -> None:
    applied = credit_to_apply(balance, due)

    assert credit_to_apply(balance - applied, due - applied) == 0


def test_the_kinds_of_entries_are_stored_by_these_names() -> None:
    assert {*CreditEntryKind} == {
        "deposit",
        "adjustment",
        "applied",
        "returned",
        "settled",
        "negative_invoice",
        "carried",
        "overpayment",
        "unexpected",
        "granted",
        "expired",
        "credit_note",
        "refund",
        "refund_failed",
        "paid_out",
        "dispute",
    }
