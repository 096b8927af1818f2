"""The invoice life cycle: the whole machine is the table below."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from billing.errors import IllegalTransition


class InvoiceStatus(StrEnum):
    """Where an invoice stands; the names are Stripe's."""

    DRAFT = "draft"
    OPEN = "open"
    PAID = "paid"
    VOID = "void"
    UNCOLLECTIBLE = "uncollectible"


class InvoiceEvent(StrEnum):
    """What can happen to an invoice."""

    FINALIZE = "finalize"
    PAY = "pay"
    VOID = "void"
    WRITE_OFF = "write off"
    # Its money went back: by a refund without a credit note, or a lost dispute.
    REOPEN = "reopen"


TRANSITIONS: Mapping[tuple[InvoiceStatus, InvoiceEvent], InvoiceStatus] = MappingProxyType(
    {
        (InvoiceStatus.DRAFT, InvoiceEvent.FINALIZE): InvoiceStatus.OPEN,
        (InvoiceStatus.OPEN, InvoiceEvent.PAY): InvoiceStatus.PAID,
        (InvoiceStatus.OPEN, InvoiceEvent.VOID): InvoiceStatus.VOID,
        (InvoiceStatus.OPEN, InvoiceEvent.WRITE_OFF): InvoiceStatus.UNCOLLECTIBLE,
        (InvoiceStatus.PAID, InvoiceEvent.REOPEN): InvoiceStatus.OPEN,
        (InvoiceStatus.UNCOLLECTIBLE, InvoiceEvent.VOID): InvoiceStatus.VOID,
        # A client may still settle a debt that was given up.
        (InvoiceStatus.UNCOLLECTIBLE, InvoiceEvent.PAY): InvoiceStatus.PAID,
    }
)


def transition(status: InvoiceStatus, event: InvoiceEvent) -> InvoiceStatus:
    """The status an invoice reaches when ``event`` happens to it.

    Raises:
        IllegalTransition: The table has no such edge.
    """
    try:
        return TRANSITIONS[status, event]
    except KeyError:
        raise IllegalTransition(status, event) from None


def events_when_finalized(total: int) -> tuple[InvoiceEvent, ...]:
    """What happens to a draft of ``total`` minor units as it is finalized, in order.

    One with nothing to collect is paid at once: a negative total becomes credit.
    """
    if total > 0:
        return (InvoiceEvent.FINALIZE,)
    return (InvoiceEvent.FINALIZE, InvoiceEvent.PAY)
