"""Stripe's events come before our own commit, twice, and when nobody waits for them any more."""

from collections.abc import Callable
from typing import cast

from gateways.cards import CardCharge, CardGateway, CardReport
from tasks.calls import Gateways
from tasks.voiding import void_invoice
from tests.gateways.sandbox.stripe.paying import card, client_of
from tests.stories.conftest import JUNE, Till
from tests.worlds import audited

SUCCEEDED = "payment_intent.succeeded"


class Overtaken:
    """Stripe, with something that happens between a charge and its answer."""

    def __init__(self, cards: CardGateway, meanwhile: Callable[[], None]) -> None:
        self._cards = cards
        self._meanwhile = meanwhile

    def charge(self, order: CardCharge) -> CardReport:
        """Charge, and answer later."""
        report = self._cards.charge(order)
        self._meanwhile()
        return report


def test_an_event_before_our_own_commit_and_its_twin_pay_once(till: Till) -> None:
    ada = till.client("Ada Imports")
    news: list[tuple[int, str]] = []

    def meanwhile() -> None:
        for _ in range(2):
            new = till.hear(SUCCEEDED)
            till.work(JUNE)
            news.append((new, till.invoice(ada).status))

    overtaken = Overtaken(till.gateways.cards, meanwhile)
    till.gateways = Gateways(cards=cast("CardGateway", overtaken))
    till.bill_may()

    assert news == [(1, "paid"), (0, "paid")]
    assert [attempt.state for attempt in till.attempts(ada)] == ["succeeded"]
    assert till.charged(ada) == [payment.amount for payment in till.payments(ada)] == [1_000]
    assert till.invoice(ada).amount_paid == 1_000
    assert [mail.kind for mail in till.mails(ada)] == ["invoice_ready", "receipt"]
    assert audited(till.engine, till.account) == []


def test_money_that_comes_after_a_void_is_credit_and_flagged(till: Till) -> None:
    """Someone had the declined payment paid at Stripe, with another card."""
    ada = till.client("Ada Imports", "pm_card_chargeDeclinedInsufficientFunds")
    till.bill_may()
    voided = till.ask(void_invoice, invoice_id=till.invoice(ada).id)
    till.work(JUNE)
    assert till.ended(voided) == ("succeeded", None)

    [declined] = till.attempts(ada)
    at_stripe = client_of(till.stripe.url)
    another = card(at_stripe, declined.customer)
    at_stripe.v1.payment_intents.confirm(
        str(declined.payment_intent), {"payment_method": another, "off_session": True}
    )
    assert till.hear(SUCCEEDED) == 1
    assert till.hear(SUCCEEDED) == 0
    till.work(JUNE)

    assert till.invoice(ada).status == "void"
    [payment] = till.payments(ada)
    assert (payment.amount, payment.applied, payment.flagged) == (1_000, 0, "invoice_void")
    assert till.balance(ada) == 1_000
    assert till.charged(ada) == [1_000]
    assert audited(till.engine, till.account) == []
