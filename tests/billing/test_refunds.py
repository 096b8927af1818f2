import pytest

from billing.errors import RuleViolation
from billing.invoice_states import InvoiceStatus
from billing.refunds import (
    REFUND_TRANSITIONS,
    UNSETTLED_REFUNDS,
    RefundState,
    require_debt_may_be_back,
    settle_refund,
)

PENDING, PROCESSING, UNKNOWN, SUCCEEDED, FAILED = RefundState


@pytest.mark.parametrize("state", RefundState)
@pytest.mark.parametrize("to", RefundState)
def test_news_moves_a_refund_as_the_table_says_and_no_other_way(
    state: RefundState, to: RefundState
) -> None:
    if to in REFUND_TRANSITIONS[state]:
        assert settle_refund(state, to) == to
        return
    with pytest.raises(RuleViolation) as refusal:
        settle_refund(state, to)
    assert refusal.value.code == "refund_settled"


def test_every_state_has_its_place_in_the_table() -> None:
    assert REFUND_TRANSITIONS.keys() == {*RefundState}


def test_what_is_out_can_come_to_either_end() -> None:
    assert {PENDING, PROCESSING, UNKNOWN} == UNSETTLED_REFUNDS
    for state in UNSETTLED_REFUNDS:
        assert REFUND_TRANSITIONS[state] >= {SUCCEEDED, FAILED}


def test_a_success_is_taken_back_by_the_bank_alone_and_a_failure_never() -> None:
    assert REFUND_TRANSITIONS[SUCCEEDED] == {FAILED}
    assert REFUND_TRANSITIONS[FAILED] == frozenset()


def test_no_news_is_taken_twice() -> None:
    assert all(state not in after for state, after in REFUND_TRANSITIONS.items())


def test_older_news_is_refused() -> None:
    """Stripe's first answer may be heard after its last."""
    for older in (PENDING, PROCESSING, UNKNOWN):
        with pytest.raises(RuleViolation):
            settle_refund(SUCCEEDED, older)
    for older in (PENDING, UNKNOWN):
        with pytest.raises(RuleViolation):
            settle_refund(PROCESSING, older)


def test_only_a_debt_that_was_given_up_is_never_opened_again() -> None:
    for status in (InvoiceStatus.OPEN, InvoiceStatus.PAID):
        require_debt_may_be_back(status)
    with pytest.raises(RuleViolation, match="refund with a credit note") as refusal:
        require_debt_may_be_back(InvoiceStatus.UNCOLLECTIBLE)
    assert refusal.value.code == "invoice_not_open"
