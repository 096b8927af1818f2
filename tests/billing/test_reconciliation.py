import pytest

from billing.collection import SETTLED, UNSETTLED, AttemptState
from billing.disputes import DisputeState
from billing.reconciliation import (
    REPAIRED,
    Compared,
    Difference,
    DisputeRecord,
    OurPayment,
    OurRefund,
    TheirRecord,
    Told,
    dispute_difference,
    is_about,
    payment_difference,
    refund_difference,
)
from billing.refunds import UNSETTLED_REFUNDS, RefundState

TAKEN = TheirRecord(Told.DONE, 1000, "usd")
WAITING = TheirRecord(Told.UNDER_WAY, 0, "usd")
REFUSED = TheirRecord(Told.FAILED, 0, "usd")
PAID = OurPayment(AttemptState.SUCCEEDED, 1000, 1000, "usd")
RETURNED = OurRefund(RefundState.SUCCEEDED, 300, "usd")
GONE = TheirRecord(Told.DONE, 300, "usd")
BACK = TheirRecord(Told.FAILED, 300, "usd")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (PAID, TAKEN),
        (None, WAITING),
        (None, REFUSED),
        *((OurPayment(state, None, 1000, "usd"), None) for state in AttemptState),
        *((OurPayment(state, None, 1000, "usd"), WAITING) for state in AttemptState),
        *(
            (OurPayment(state, None, 1000, "usd"), REFUSED)
            for state in {*SETTLED, AttemptState.NEEDS_ACTION}
        ),
    ],
)
def test_what_agrees_or_may_yet_agree_is_no_difference(
    ours: OurPayment | None, theirs: TheirRecord | None
) -> None:
    assert payment_difference(ours, theirs) is None


@pytest.mark.parametrize("state", sorted(set(AttemptState) - {AttemptState.SUCCEEDED}))
def test_money_that_we_have_not_heard_of_is_found_whatever_we_believe(state: AttemptState) -> None:
    found = payment_difference(OurPayment(state, None, 1000, "usd"), TAKEN)
    assert found == Difference.PAYMENT_UNHEARD


@pytest.mark.parametrize("state", sorted(UNSETTLED))
def test_a_refusal_that_we_still_wait_for_is_found(state: AttemptState) -> None:
    assert (
        payment_difference(OurPayment(state, None, 1000, "usd"), REFUSED)
        == Difference.OUTCOME_UNHEARD
    )


def test_money_in_our_name_of_no_attempt_is_found() -> None:
    assert payment_difference(None, TAKEN) == Difference.PAYMENT_UNKNOWN


@pytest.mark.parametrize("theirs", [None, WAITING, REFUSED])
def test_money_that_stripe_has_not_is_found(theirs: TheirRecord | None) -> None:
    assert payment_difference(PAID, theirs) == Difference.PAYMENT_MISSING


@pytest.mark.parametrize(
    "theirs", [TheirRecord(Told.DONE, 999, "usd"), TheirRecord(Told.DONE, 1000, "eur")]
)
def test_another_amount_or_currency_is_found(theirs: TheirRecord) -> None:
    assert payment_difference(PAID, theirs) == Difference.PAYMENT_AMOUNT


@pytest.mark.parametrize("state", sorted(set(AttemptState) - {AttemptState.SUCCEEDED}))
@pytest.mark.parametrize(
    "theirs", [TheirRecord(Told.DONE, 999, "usd"), TheirRecord(Told.DONE, 1000, "eur")]
)
def test_money_unlike_what_was_asked_for_is_no_late_news(
    state: AttemptState, theirs: TheirRecord
) -> None:
    ours = OurPayment(state, None, 1000, "usd")
    assert payment_difference(ours, theirs) == Difference.PAYMENT_AMOUNT


def test_what_was_received_counts_and_not_what_was_asked_for() -> None:
    ours = OurPayment(AttemptState.SUCCEEDED, 999, 1000, "usd")
    assert payment_difference(ours, TheirRecord(Told.DONE, 999, "usd")) is None


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (RETURNED, GONE),
        (None, None),
        (None, BACK),
        (OurRefund(RefundState.FAILED, 300, "usd"), BACK),
        *((OurRefund(state, 300, "usd"), None) for state in UNSETTLED_REFUNDS),
        (OurRefund(RefundState.FAILED, 300, "usd"), None),
        *(
            (OurRefund(state, 300, "usd"), TheirRecord(Told.UNDER_WAY, 300, "usd"))
            for state in RefundState
        ),
    ],
)
def test_refunds_that_agree_or_may_yet_are_no_difference(
    ours: OurRefund | None, theirs: TheirRecord | None
) -> None:
    assert refund_difference(ours, theirs) is None


@pytest.mark.parametrize(
    ("ours", "theirs", "difference"),
    [
        (None, GONE, Difference.REFUND_MADE_ELSEWHERE),
        (RETURNED, None, Difference.REFUND_MISSING),
        (RETURNED, BACK, Difference.REFUND_UNHEARD),
        *(
            (OurRefund(state, 300, "usd"), theirs, Difference.REFUND_UNHEARD)
            for state in sorted(UNSETTLED_REFUNDS)
            for theirs in (GONE, BACK)
        ),
        (OurRefund(RefundState.FAILED, 300, "usd"), GONE, Difference.REFUND_CONTRADICTED),
        (RETURNED, TheirRecord(Told.DONE, 301, "usd"), Difference.REFUND_AMOUNT),
        (RETURNED, TheirRecord(Told.DONE, 300, "eur"), Difference.REFUND_AMOUNT),
    ],
)
def test_refunds_that_differ_are_found(
    ours: OurRefund | None, theirs: TheirRecord | None, difference: Difference
) -> None:
    assert refund_difference(ours, theirs) == difference


def dispute(state: DisputeState, amount: int = 1000) -> DisputeRecord:
    return DisputeRecord(state, amount, "usd")


@pytest.mark.parametrize("state", sorted(DisputeState))
def test_disputes_that_agree_are_no_difference(state: DisputeState) -> None:
    assert dispute_difference(dispute(state), dispute(state), paid_in="usd") is None
    assert dispute_difference(None, None, paid_in="usd") is None


@pytest.mark.parametrize(
    ("ours", "theirs", "difference"),
    [
        *((None, dispute(state), Difference.DISPUTE_UNHEARD) for state in sorted(DisputeState)),
        (dispute(DisputeState.OPEN), dispute(DisputeState.LOST), Difference.DISPUTE_UNHEARD),
        (dispute(DisputeState.INQUIRY), dispute(DisputeState.WON), Difference.DISPUTE_UNHEARD),
        (dispute(DisputeState.WON), dispute(DisputeState.LOST), Difference.DISPUTE_CONTRADICTED),
        (dispute(DisputeState.LOST), dispute(DisputeState.OPEN), Difference.DISPUTE_CONTRADICTED),
        (dispute(DisputeState.OPEN), None, Difference.DISPUTE_MISSING),
        (dispute(DisputeState.OPEN), dispute(DisputeState.OPEN, 9), Difference.DISPUTE_AMOUNT),
    ],
)
def test_disputes_that_differ_are_found(
    ours: DisputeRecord | None, theirs: DisputeRecord | None, difference: Difference
) -> None:
    assert dispute_difference(ours, theirs, paid_in="usd") == difference


@pytest.mark.parametrize("ours", [None, dispute(DisputeState.OPEN)])
def test_a_dispute_of_other_money_than_was_paid_is_no_late_news(ours: DisputeRecord | None) -> None:
    found = dispute_difference(ours, dispute(DisputeState.LOST), paid_in="eur")
    assert found == Difference.DISPUTE_AMOUNT


def test_every_difference_is_about_what_its_name_says() -> None:
    about = {one: is_about(one) for one in Difference}
    assert about.pop(Difference.OUTCOME_UNHEARD) == Compared.PAYMENTS
    assert all(one.startswith(kind.removesuffix("s")) for one, kind in about.items())


def test_only_late_news_is_repaired() -> None:
    assert {one for one in Difference if one.endswith("_unheard")} == REPAIRED
