from itertools import product

import pytest

from billing.errors import RuleViolation
from billing.refunds import REFUND_TRANSITIONS, UNSETTLED_REFUNDS, RefundState, settle_refund

EDGES = {
    *("pending processing", "pending unknown", "pending succeeded", "pending failed"),
    # Asked again until there is an answer.
    *("unknown processing", "unknown succeeded", "unknown failed"),
    *("processing succeeded", "processing failed"),
    # The bank gave it back.
    "succeeded failed",
}


@pytest.mark.parametrize(("state", "to"), list(product(RefundState, RefundState)))
def test_a_refund_goes_where_the_table_says_and_nowhere_else(
    state: RefundState, to: RefundState
) -> None:
    if f"{state} {to}" in EDGES:
        assert settle_refund(state, to) == to
        return
    with pytest.raises(RuleViolation) as refused:
        settle_refund(state, to)

    assert refused.value.code == "refund_settled"


def test_what_has_no_outcome_can_still_have_one_and_what_failed_stays_so() -> None:
    for state in UNSETTLED_REFUNDS:
        assert REFUND_TRANSITIONS[state] >= {RefundState.SUCCEEDED, RefundState.FAILED}
    assert REFUND_TRANSITIONS[RefundState.FAILED] == frozenset()
    assert REFUND_TRANSITIONS.keys() == {*RefundState}


def test_the_table_cannot_be_changed_at_run_time() -> None:
    with pytest.raises(TypeError):
        REFUND_TRANSITIONS[RefundState.FAILED] = UNSETTLED_REFUNDS  # type: ignore[index]  # what is tested
