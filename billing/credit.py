"""A client's credit: one signed balance per currency, and why it moved."""

from enum import StrEnum


class CreditEntryKind(StrEnum):
    """Why a balance moved. An entry's sign is the balance's: above zero, the client has more."""

    # Above zero: money paid in ahead.
    DEPOSIT = "deposit"
    # Either: staff's correction.
    ADJUSTMENT = "adjustment"
    # Below zero: spent on an invoice. Above zero: an invoice took in a debit.
    APPLIED = "applied"
    # The opposite of what the voided invoice had applied, so usually above zero.
    RETURNED = "returned"
    # Above zero: what was paid for an invoice that was voided all the same.
    SETTLED = "settled"
    # Above zero: an invoice's negative total, owed to the client.
    NEGATIVE_INVOICE = "negative_invoice"
    # Below zero: a remainder too small for a card, left for the next invoice.
    CARRIED = "carried"
    # Above zero: more was paid than was due, on purpose.
    OVERPAYMENT = "overpayment"
    # Above zero: money that arrived where none was due.
    UNEXPECTED = "unexpected"


def credit_to_apply(balance: int, due: int) -> int:
    """What an invoice with ``due`` left to pay takes from the balance, signed, in minor units.

    Credit covers what is due, and no more. A debit (a negative balance) comes in whole: the
    result is negative, and what is due grows by it. Where nothing is due, nothing moves.
    """
    return min(balance, due) if due > 0 else 0
