"""The dates an invoice bears."""

from datetime import date, timedelta
from enum import StrEnum

from billing.errors import InvalidInput

CATCH_UP_DAYS = 31
"""How far back a client's oldest boundary may lie before its invoices bear today's date."""

DEFAULT_NET_DAYS = 14
MAX_NET_DAYS = 365


class InvoiceDate(StrEnum):
    """Which date an account's cycle invoices bear."""

    BOUNDARY = "boundary"
    FINALIZATION = "finalization"


def issued_on(
    *,
    boundary: date | None,
    finalized_on: date,
    oldest_boundary: date | None,
    last_issued_on: date | None,
    invoice_date: InvoiceDate = InvoiceDate.BOUNDARY,
) -> date:
    """The date of issue.

    Args:
        boundary: The local date that ended the invoice's period; None when drafted by hand.
        finalized_on: The day of finalizing in the account's zone.
        oldest_boundary: The client's oldest boundary in the same run; None when this is it.
        last_issued_on: What the client's last cycle invoice bears; None when this is the first.
        invoice_date: Which date the account's cycle invoices bear.

    Returns:
        The boundary; but the day of finalizing for an invoice drafted by hand, where the account
        wants that day, and for all of a client's catch-up once its oldest boundary is over ``CATCH_UP_DAYS`` days back: a batch
        of invoices dated into closed months helps nobody's books. A catch-up that takes several
        runs is one: dates never go back behind the client's last cycle invoice.
    """
    if boundary is None:
        return finalized_on
    oldest = boundary if oldest_boundary is None else min(boundary, oldest_boundary)
    last = boundary if last_issued_on is None else last_issued_on
    if (
        invoice_date == InvoiceDate.FINALIZATION
        or last > boundary
        or finalized_on - oldest > timedelta(days=CATCH_UP_DAYS)
    ):
        return finalized_on if last_issued_on is None else max(finalized_on, last_issued_on)
    return boundary


def due_on(
    *, issued_on: date, finalized_on: date, net_days: int, chosen: date | None = None
) -> date:
    """The last day to pay: ``net_days`` after the later of issue and finalizing.

    A day that was ``chosen`` stands, unless the invoice is issued after it.

    Raises:
        InvalidInput: ``net_days`` is not 0 to ``MAX_NET_DAYS``.
    """
    if not 0 <= net_days <= MAX_NET_DAYS:
        raise InvalidInput("net_days", f"must be 0 to {MAX_NET_DAYS} days")
    if chosen is not None and chosen >= issued_on:
        return chosen
    return max(issued_on, finalized_on) + timedelta(days=net_days)
