"""Disputes: where one stands, and what a lost one takes back."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from billing.invoice_states import InvoiceStatus

STOPPED_FOR_DISPUTE = "disputed"
"""Why a card is not charged by itself; only a win or another card changes that."""


class DisputeState(StrEnum):
    """Where a dispute stands."""

    # The bank asks; no money has moved, and none may.
    INQUIRY = "inquiry"
    # The bank asks no more.
    CLOSED = "closed"
    # The bank has taken the money back, until it is known who is right.
    OPEN = "open"
    WON = "won"
    LOST = "lost"


class DisputeLost(StrEnum):
    """What becomes of an invoice whose payment was lost in a dispute, as its account chose."""

    # The debt is there again, to be collected by hand.
    REOPEN = "reopen"
    # The invoice stays paid, and the money is lost.
    WRITE_OFF = "write_off"


PENDING = frozenset({DisputeState.INQUIRY, DisputeState.OPEN})
"""The bank has not said its last word."""

_ENDS = frozenset({DisputeState.WON, DisputeState.LOST})

_NEXT: Mapping[DisputeState | None, frozenset[DisputeState]] = MappingProxyType(
    {
        None: frozenset({DisputeState.INQUIRY, DisputeState.CLOSED, DisputeState.OPEN}),
        DisputeState.INQUIRY: frozenset({DisputeState.CLOSED, DisputeState.OPEN}),
        DisputeState.CLOSED: frozenset({DisputeState.OPEN}),
        DisputeState.OPEN: _ENDS,
        DisputeState.WON: frozenset(),
        DisputeState.LOST: frozenset(),
    }
)


def steps_to(state: DisputeState | None, to: DisputeState) -> tuple[DisputeState, ...]:
    """The states that a dispute in ``state`` goes through by the news that it is ``to``.

    None where the news is older than what is known: it never goes backwards. One that has ended
    without being seen open was open in between. ``state`` is ``None`` where it was not known.
    """
    if to in _NEXT[state]:
        return (to,)
    if to in _ENDS and DisputeState.OPEN in _NEXT[state]:
        return (DisputeState.OPEN, to)
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What a lost dispute does, in minor units; the first three sum to the disputed amount.

    Attributes:
        reopened: What its invoice is owed again.
        written_off: What is lost, while its invoice stays settled.
        taken_back: What is taken from the client's credit, below zero if that was spent.
        given_up: What of ``reopened`` is bad debt at once, with the rest of its invoice.
    """

    reopened: int = 0
    written_off: int = 0
    taken_back: int = 0
    given_up: int = 0


def loss_of(amount: int, *, settles: int, invoice: InvoiceStatus | None, rule: DisputeLost) -> Loss:
    """What losing a dispute of ``amount`` does.

    What the payment settles comes first. All else of it is the client's: it became credit, because
    nothing was due, or the invoice was voided since; or it was given back already.

    Args:
        amount: What the bank took back, in minor units.
        settles: What the disputed payment still settles of its invoice; less than nothing is none.
        invoice: That invoice's status; ``None`` where it paid none.
        rule: What the account wants.
    """
    if invoice is None or invoice == InvoiceStatus.VOID:
        return Loss(taken_back=amount)
    settled = min(amount, max(settles, 0))
    rest = amount - settled
    if rule == DisputeLost.WRITE_OFF:
        return Loss(written_off=settled, taken_back=rest)
    given_up = settled if invoice == InvoiceStatus.UNCOLLECTIBLE else 0
    return Loss(reopened=settled, taken_back=rest, given_up=given_up)
