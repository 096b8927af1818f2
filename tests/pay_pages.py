"""Pages at the local Stripe on which clients pay: opened, paid on and looked at by tests."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Engine

from gateways.checkout import CheckoutGateway, CheckoutOrder, CheckoutReport
from gateways.merchants import Merchant
from gateways.sandbox.stripe.server import StripeSandbox
from models import Account, Job, PaymentAttempt
from tasks.calls import Gateways
from tasks.pay_pages import open_pay_page
from tests.cards import attempts_of, do
from tests.worlds import NOW


class PagesOfToday:
    """The real gateway of pages, for tests that tell a story of another day.

    Stripe opens none that would end in its past. Asked for again, one ends when it did before.
    Something may be done right ``before`` one is opened, or right ``after`` it.
    """

    def __init__(self, pages: CheckoutGateway, **when: Callable[[], None]) -> None:
        self._pages = pages
        self._ends: dict[str, datetime] = {}
        self.do(**when)

    def do(
        self, *, before: Callable[[], None] | None = None, after: Callable[[], None] | None = None
    ) -> None:
        """Have this done at every opening from now on."""
        self._before = before
        self._after = after

    def open(self, order: CheckoutOrder) -> CheckoutReport:
        in_an_hour = datetime.now(UTC) + timedelta(hours=1)
        ends_at = self._ends.setdefault(order.idempotency_key, in_an_hour)
        if self._before:
            self._before()
        report = self._pages.open(replace(order, expires_at=ends_at))
        if self._after:
            self._after()
        return report

    def retrieve(self, session: str, merchant: Merchant) -> CheckoutReport:
        return self._pages.retrieve(session, merchant)

    def expire(self, session: str, merchant: Merchant) -> CheckoutReport:
        return self._pages.expire(session, merchant)


def of_today(vendors: Gateways, **when: Callable[[], None]) -> Gateways:
    """The same vendors, whose pages can be opened on any day of the test's calendar.

    With ``before`` or ``after``, that is done at every opening.
    """
    return Gateways(
        cards=vendors.cards,
        checkout=PagesOfToday(vendors.checkout, **when),
        saved_cards=vendors.saved_cards,
        links=vendors.links,
        mail=vendors.mail,
        mail_sender=vendors.mail_sender,
        documents=vendors.documents,
    )


def press_pay(
    engine: Engine,
    vendors: Gateways,
    account: Account,
    invoice_id: UUID,
    *,
    now: datetime = NOW,
) -> Job:
    """The client wants to pay; how the job that opens its page ended."""
    return do(engine, vendors, open_pay_page, account, invoice_id=invoice_id, now=now)


def page_of(engine: Engine, invoice_id: UUID) -> PaymentAttempt:
    """The last page that was opened for an invoice."""
    return [one for one in attempts_of(engine, invoice_id) if one.is_page][-1]


def pay_on_page(
    engine: Engine, stripe: StripeSandbox, invoice_id: UUID, card: str = "pm_card_visa", **more: Any
) -> None:
    """The client pays on its page, at Stripe: only its events tell of it."""
    stripe.control.pay_session(session_of(engine, invoice_id), card, **more)


def leave_page(engine: Engine, stripe: StripeSandbox, invoice_id: UUID) -> None:
    """The client leaves its page alone until it is closed, at Stripe."""
    stripe.control.expire_session(session_of(engine, invoice_id))


def session_of(engine: Engine, invoice_id: UUID) -> str:
    """Stripe's id of the last page that was opened for an invoice."""
    return str(page_of(engine, invoice_id).checkout_session)


def pages(stripe: StripeSandbox) -> list[str]:
    """How every page at Stripe stands, in the order they were opened."""
    return [one["status"] for one in stripe.control.objects("checkout.session")]
