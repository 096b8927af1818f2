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
    # Above zero: promotional, and below zero when its date has come.
    GRANTED = "granted"
    EXPIRED = "expired"
    # Above zero: what a credit note was worth over what was due.
    CREDIT_NOTE = "credit_note"
    # Above zero: a payment that was given back as credit, its debt being there again.
    REFUND = "refund"
    # Above zero: what the bank gave back of a refund.
    REFUND_FAILED = "refund_failed"
    # Below zero: unused credit that the client was paid.
    PAID_OUT = "paid_out"
    # Below zero: money that the bank has taken back, and that had become credit.
    DISPUTE = "dispute"


SPENDS_NO_GRANT = frozenset(
    {CreditEntryKind.EXPIRED, CreditEntryKind.PAID_OUT, CreditEntryKind.DISPUTE}
)
"""What lowers a balance without spending it: a grant of its own expires, paid credit is paid out
or taken back by the bank."""

USED_BY_AN_INVOICE = frozenset({CreditEntryKind.APPLIED, CreditEntryKind.CARRIED})
"""What an invoice uses of a balance, and a void of it gives back."""


def credit_to_apply(balance: int, due: int) -> int:
    """What an invoice with ``due`` left to pay takes from the balance, signed, in minor units.

    Credit covers what is due, and no more. A debit (a negative balance) comes in whole: the
    result is negative, and what is due grows by it. Where nothing is due, nothing moves.
    """
    return min(balance, due) if due > 0 else 0
