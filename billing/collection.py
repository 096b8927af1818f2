"""How an invoice is being collected, and the life of one try at a card."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from billing.errors import RuleViolation
from billing.invoice_states import InvoiceStatus


class Collection(StrEnum):
    """What happens next to collect an invoice by card."""

    # Nothing is due, or the invoice is not open.
    NONE = "none"
    # Somebody has to press a button.
    MANUAL = "manual"
    # A try has its time.
    SCHEDULED = "scheduled"
    # A charge was sent and is not settled.
    IN_FLIGHT = "in_flight"
    # The client has to authenticate.
    NEEDS_ACTION = "needs_action"
    # There was no card when a try was due; the try was not used up.
    NO_BILLING_METHOD = "no_billing_method"
    # Collection is paused, for the client or the account.
    PAUSED = "paused"
    # Every automatic try was used, or the card cannot be tried again.
    EXHAUSTED = "exhausted"


class Origin(StrEnum):
    """Who started an attempt. Only an automatic one uses up a scheduled try."""

    AUTOMATIC = "automatic"
    STAFF = "staff"
    CLIENT = "client"


class AttemptPurpose(StrEnum):
    """What an attempt's money is for."""

    INVOICE = "invoice"
    # Credit that somebody asked for.
    DEPOSIT = "deposit"
    # Credit that had fallen below its threshold.
    TOP_UP = "top_up"


class AttemptState(StrEnum):
    """Where one try at a card stands."""

    # Written down, before the card is touched.
    PENDING = "pending"
    # Taken by the bank, which will say later.
    PROCESSING = "processing"
    # Sent, and the answer was lost.
    UNKNOWN = "unknown"
    # The client has to authenticate first.
    NEEDS_ACTION = "needs_action"
    SUCCEEDED = "succeeded"
    DECLINED = "declined"
    # Withdrawn, or believed never to have arrived.
    CANCELED = "canceled"


UNSETTLED = frozenset({AttemptState.PENDING, AttemptState.PROCESSING, AttemptState.UNKNOWN})
"""Money may be moving: void, mark as paid and another charge are refused.

An attempt that waits for the client is not one of them: it is cancelled at Stripe first.
"""

SETTLED = frozenset({AttemptState.SUCCEEDED, AttemptState.DECLINED, AttemptState.CANCELED})
"""There is an outcome."""

# Stripe's word that money moved is taken whenever it comes, also after a refusal.
_MONEY_MOVED = frozenset({AttemptState.SUCCEEDED})

ATTEMPT_TRANSITIONS: Mapping[AttemptState, frozenset[AttemptState]] = MappingProxyType(
    {
        AttemptState.PENDING: SETTLED
        | {AttemptState.PROCESSING, AttemptState.UNKNOWN, AttemptState.NEEDS_ACTION},
        AttemptState.UNKNOWN: SETTLED | {AttemptState.PROCESSING, AttemptState.NEEDS_ACTION},
        AttemptState.NEEDS_ACTION: SETTLED | {AttemptState.PROCESSING},
        AttemptState.PROCESSING: SETTLED,
        AttemptState.DECLINED: _MONEY_MOVED,
        AttemptState.CANCELED: _MONEY_MOVED,
        AttemptState.SUCCEEDED: frozenset(),
    }
)
"""From each state, those that may come next. Staying is no edge: a success told twice is refused
the second time, so it cannot be booked twice."""


def may_follow(state: AttemptState, to: AttemptState) -> bool:
    """Whether an attempt in ``state`` is moved by news that it is ``to``.

    News that do not move it now do not move it later either.
    """
    return to in ATTEMPT_TRANSITIONS[state]


def settle(state: AttemptState, to: AttemptState) -> AttemptState:
    """The state ``to``, which an attempt in ``state`` reaches by news of its outcome.

    Raises:
        RuleViolation: The table has no such edge: ``attempt_settled`` where the attempt already
            has its outcome, ``attempt_moved_on`` where the news is older than what is known.
    """
    if may_follow(state, to):
        return to
    code = "attempt_settled" if state in SETTLED else "attempt_moved_on"
    raise RuleViolation(code, f"an attempt that is {state} cannot become {to}")


def collection_of(
    *,
    status: InvoiceStatus,
    is_automatic: bool,
    attempt: AttemptState | None,
    has_next_try: bool,
    has_card: bool,
    is_paused: bool = False,
) -> Collection:
    """How an invoice is being collected.

    Args:
        status: The invoice's.
        is_automatic: Whether it is charged without being asked.
        attempt: Its attempt that has no outcome yet, if there is one.
        has_next_try: Whether an automatic try has its time.
        has_card: Whether its client has a billing method.
        is_paused: Whether collection is paused, for its client or the account.
    """
    if status != InvoiceStatus.OPEN:
        return Collection.NONE
    if attempt is not None:
        waits = attempt == AttemptState.NEEDS_ACTION
        return Collection.NEEDS_ACTION if waits else Collection.IN_FLIGHT
    if not is_automatic:
        return Collection.MANUAL
    if has_next_try:
        return Collection.PAUSED if is_paused else Collection.SCHEDULED
    return Collection.EXHAUSTED if has_card else Collection.NO_BILLING_METHOD
