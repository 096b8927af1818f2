"""Money that did not come through Stripe."""

from enum import StrEnum


class OutsideMethod(StrEnum):
    """How it was paid; it is booked by method."""

    BANK_TRANSFER = "bank_transfer"
    CASH = "cash"
    CHECK = "check"
    CARD_ELSEWHERE = "card_elsewhere"
    OTHER = "other"
