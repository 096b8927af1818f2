"""Reconciliation: where our record and Stripe's differ about the same money, and what may be mended."""

from dataclasses import dataclass
from enum import StrEnum

from billing.collection import UNSETTLED, AttemptState
from billing.disputes import DisputeState, steps_to
from billing.refunds import UNSETTLED_REFUNDS, RefundState


class Difference(StrEnum):
    """One way in which the two records differ."""

    # Stripe has taken money, and we have not heard of it.
    PAYMENT_UNHEARD = "payment_unheard"
    # Stripe has taken none, and we still wait for its word.
    OUTCOME_UNHEARD = "outcome_unheard"
    # Stripe has taken money in our name, for no attempt that we know.
    PAYMENT_UNKNOWN = "payment_unknown"
    # We have written money down that Stripe has not taken.
    PAYMENT_MISSING = "payment_missing"
    # Stripe has taken another amount than we have written down, or asked for.
    PAYMENT_AMOUNT = "payment_amount"
    # Stripe has sent money back, or could not, and we have not heard of it.
    REFUND_UNHEARD = "refund_unheard"
    # Somebody has sent money of ours back at Stripe and not through us.
    REFUND_MADE_ELSEWHERE = "refund_made_elsewhere"
    # We have written a refund down that Stripe has not made.
    REFUND_MISSING = "refund_missing"
    # Stripe has sent back what we believe was refused.
    REFUND_CONTRADICTED = "refund_contradicted"
    REFUND_AMOUNT = "refund_amount"
    # A client's bank disputes a payment of ours, or has gone on with it, and we have not heard.
    DISPUTE_UNHEARD = "dispute_unheard"
    # We have written a dispute down that Stripe does not know.
    DISPUTE_MISSING = "dispute_missing"
    # It ended otherwise than we believe.
    DISPUTE_CONTRADICTED = "dispute_contradicted"
    DISPUTE_AMOUNT = "dispute_amount"


class Compared(StrEnum):
    """What the two records are of, in the order in which they are compared.

    News of a payment may be what makes its refund or dispute ours.
    """

    PAYMENTS = "payments"
    REFUNDS = "refunds"
    DISPUTES = "disputes"


def is_about(difference: Difference) -> Compared:
    """What a difference is one of."""
    match difference.partition("_")[0]:
        case "refund":
            return Compared.REFUNDS
        case "dispute":
            return Compared.DISPUTES
        case _:
            return Compared.PAYMENTS


REPAIRED = frozenset(
    {
        Difference.PAYMENT_UNHEARD,
        Difference.OUTCOME_UNHEARD,
        Difference.REFUND_UNHEARD,
        Difference.DISPUTE_UNHEARD,
    }
)
"""News that only came late: written down as its event would have been.

All else is listed for a person. Which of two records is wrong is not ours to guess.
"""


class Told(StrEnum):
    """What Stripe's record says became of a payment or a refund."""

    DONE = "done"
    # It may yet be either.
    UNDER_WAY = "under_way"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class TheirRecord:
    """Stripe's record of a payment or refund; ``amount`` in our minor units."""

    told: Told
    amount: int
    currency: str


@dataclass(frozen=True, slots=True)
class OurPayment:
    """Our record of one: what the attempt asked for, and received, if anything, in minor units."""

    state: AttemptState
    received: int | None
    asked: int
    currency: str


@dataclass(frozen=True, slots=True)
class OurRefund:
    """Our record of a refund to a card, in minor units."""

    state: RefundState
    amount: int
    currency: str


@dataclass(frozen=True, slots=True)
class DisputeRecord:
    """One side's record of a dispute, in minor units."""

    state: DisputeState
    amount: int
    currency: str


def payment_difference(ours: OurPayment | None, theirs: TheirRecord | None) -> Difference | None:
    """How the two records of a payment differ; ``None`` where they agree, or may yet.

    A charge that Stripe does not know and that we wait for is no difference: it is asked for until
    it is believed never to have arrived.
    """
    taken = theirs if theirs is not None and theirs.told is Told.DONE else None
    if ours is None:
        return None if taken is None else Difference.PAYMENT_UNKNOWN
    if taken is not None:
        expected = ours.asked if ours.received is None else ours.received
        if (expected, ours.currency) != (taken.amount, taken.currency):
            return Difference.PAYMENT_AMOUNT
        return Difference.PAYMENT_UNHEARD if ours.received is None else None
    if ours.received is not None:
        return Difference.PAYMENT_MISSING
    is_over = theirs is not None and theirs.told is Told.FAILED
    return Difference.OUTCOME_UNHEARD if is_over and ours.state in UNSETTLED else None


def refund_difference(ours: OurRefund | None, theirs: TheirRecord | None) -> Difference | None:
    """How the two records of a refund of our money differ; ``None`` where they agree, or may yet."""
    if theirs is None:
        is_missing = ours is not None and ours.state == RefundState.SUCCEEDED
        return Difference.REFUND_MISSING if is_missing else None
    if ours is None:
        return None if theirs.told is Told.FAILED else Difference.REFUND_MADE_ELSEWHERE
    if (ours.amount, ours.currency) != (theirs.amount, theirs.currency):
        return Difference.REFUND_AMOUNT
    return _REFUNDS.get((theirs.told, ours.state))


_REFUNDS = {
    **{
        (told, state): Difference.REFUND_UNHEARD
        for told in (Told.DONE, Told.FAILED)
        for state in UNSETTLED_REFUNDS
    },
    # The bank gave it back.
    (Told.FAILED, RefundState.SUCCEEDED): Difference.REFUND_UNHEARD,
    (Told.DONE, RefundState.FAILED): Difference.REFUND_CONTRADICTED,
}


def dispute_difference(
    ours: DisputeRecord | None, theirs: DisputeRecord | None, *, paid_in: str
) -> Difference | None:
    """How the two records of a dispute of our money differ; ``None`` where they agree.

    ``paid_in`` is the currency of what is disputed.
    """
    if theirs is None:
        return None if ours is None else Difference.DISPUTE_MISSING
    if theirs.currency != paid_in:
        # Whatever became of it, it is not of that money.
        return Difference.DISPUTE_AMOUNT
    if steps_to(None if ours is None else ours.state, theirs.state):
        return Difference.DISPUTE_UNHEARD
    if ours is None or ours.state != theirs.state:
        return Difference.DISPUTE_CONTRADICTED
    is_same = (ours.amount, ours.currency) == (theirs.amount, theirs.currency)
    return None if is_same else Difference.DISPUTE_AMOUNT
