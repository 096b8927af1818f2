"""What the state of a page at Stripe says of the payment on it."""

from dataclasses import dataclass

from gateways.cards import CardReport, CardStatus
from gateways.checkout import CheckoutReport, CheckoutStatus

_HAS_MONEY = frozenset({CardStatus.SUCCEEDED, CardStatus.PROCESSING})


@dataclass(frozen=True, slots=True, kw_only=True)
class PageClosed:
    """Nobody can pay on the page any more, and nobody has."""

    code: str | None = None
    message: str | None = None


def news_of(report: CheckoutReport) -> CardReport | PageClosed | None:
    """What a page as it stands now says; ``None`` while the client may still pay on it.

    Money counts whatever the page's own state is. A decline counts once the client can try no
    more: of a bank debit, that is when it comes back.
    """
    payment = report.payment
    if payment is not None and payment.status in _HAS_MONEY:
        return payment
    match report.status:
        case CheckoutStatus.COMPLETE:
            return payment
        case CheckoutStatus.EXPIRED:
            return PageClosed()
        case CheckoutStatus.OPEN:
            return None
