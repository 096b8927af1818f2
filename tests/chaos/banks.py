"""Clients' banks, which take money back, decide who was right, and do as they like with refunds."""

import random
from collections import Counter
from collections.abc import Callable
from typing import Literal

from sqlalchemy import text

from gateways.sandbox.processes import LocalServerError
from gateways.sandbox.stripe.control import StripeSandboxControl
from tests.chaos.business import Business
from tests.chaos.patience import patiently

CHANCE_OF_AN_ACT = 0.25
"""Most of the time banks let things be."""

_PAID = """
SELECT payment_intent FROM payments JOIN payment_attempts AS attempts ON attempts.id = attempt_id
 WHERE payments.source = 'card'
   AND NOT EXISTS (SELECT FROM disputes WHERE payment_id = payments.id) ORDER BY payments.id
"""
_SENT_BACK = """
SELECT stripe_refund FROM refunds
 WHERE destination = 'card' AND state = 'succeeded' AND stripe_refund IS NOT NULL ORDER BY id
"""
_CARDS = "SELECT DISTINCT payment_method FROM billing_methods WHERE kind = 'card' ORDER BY 1"


class Banks:
    """Do one thing after another, each by ``rng``.

    Attributes:
        done: What was done, and how often.
    """

    def __init__(
        self, business: Business, stripe: StripeSandboxControl, rng: random.Random
    ) -> None:
        self._business = business
        self._stripe = stripe
        self._rng = rng
        self._deeds: dict[str, Callable[[], bool]] = {
            "dispute a payment": lambda: self._dispute(inquiry=False),
            "ask about a payment": lambda: self._dispute(inquiry=True),
            "have a dispute won": lambda: self._close("needs_response", "won"),
            "have a dispute lost": lambda: self._close("needs_response", "lost"),
            "have an inquiry end": lambda: self._close("warning_needs_response", "warning_closed"),
            "have an inquiry become a dispute": self._escalate,
            "give a refund back to us": self._refuse_refund,
            "renew a card": self._renew_card,
        }
        self.done: Counter[str] = Counter()

    def act(self) -> None:
        """Do one thing, or nothing; half of the time, one of those that were done least."""
        if self._rng.random() > CHANCE_OF_AN_ACT:
            return
        names = list(self._deeds)
        self._rng.shuffle(names)
        if self._rng.random() < 0.5:
            names.sort(key=lambda name: self.done[name])
        for name in names:
            try:
                if self._deeds[name]():
                    self.done[name] += 1
                    return
            except LocalServerError:
                # It cannot be done any more: all of it was refunded, the dispute has ended.
                continue

    def never_done(self) -> list[str]:
        """What was never done, for want of a subject."""
        return [name for name in self._deeds if not self.done[name]]

    def _dispute(self, *, inquiry: bool) -> bool:
        intent, amount = self._drawn(_PAID), self._rng.choice((None, None, 100))
        if intent is not None:
            self._stripe.dispute(intent, amount, inquiry=inquiry)
        return intent is not None

    def _close(self, status: str, outcome: Literal["won", "lost", "warning_closed"]) -> bool:
        dispute = self._dispute_that_is(status)
        if dispute is not None:
            self._stripe.close_dispute(dispute, outcome)
        return dispute is not None

    def _escalate(self) -> bool:
        dispute = self._dispute_that_is("warning_needs_response")
        if dispute is not None:
            self._stripe.escalate_dispute(dispute)
        return dispute is not None

    def _refuse_refund(self) -> bool:
        refund = self._drawn(_SENT_BACK)
        if refund is not None:
            self._stripe.settle_refund(refund, "failed")
        return refund is not None

    def _renew_card(self) -> bool:
        card = self._drawn(_CARDS)
        if card is not None:
            self._stripe.update_card(card, exp_year=2040 + self._rng.randrange(10))
        return card is not None

    def _dispute_that_is(self, status: str) -> str | None:
        found = [one["id"] for one in self._stripe.objects("dispute") if one["status"] == status]
        return str(self._rng.choice(found)) if found else None

    def _drawn(self, of: str) -> str | None:
        found = patiently(self._business.engine, lambda session: session.scalars(text(of)).all())
        return str(self._rng.choice(found)) if found else None
