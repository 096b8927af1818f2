"""Clients, who pay by themselves and leave cards: on our pages, and on Stripe's behind them."""

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import httpx2
from sqlalchemy import Row, text

from gateways.sandbox.processes import LocalServerError
from gateways.sandbox.stripe.control import StripeSandboxControl
from gateways.sandbox.stripe.sessions import PAGES
from tasks.links import Links
from tests.chaos.business import Business
from tests.chaos.insisting import ANSWER_SECONDS, Insistence
from tests.chaos.patience import patiently
from tests.processes import SECRET_KEY

CARDS = (
    *("pm_card_visa",) * 4,
    "pm_card_chargeDeclinedInsufficientFunds",
    "pm_card_authenticationRequired",
    "pm_card_authenticationRequired",
    "pm_card_createDispute",
    "pm_usBankAccount_success",
    "pm_usBankAccount_insufficientFunds",
)
"""What a client names on a page, each as often as it stands here."""

AUTHENTICATES = (True, True, False, None)
"""Whether it passes where the bank asks; ``None`` is to let the bank wait."""

CHANCE_OF_COMING_BACK = 0.6
LONGEST_THOUGHT_SECONDS = 0.6

_PAYABLE = """
SELECT id FROM invoices WHERE status IN ('open', 'uncollectible') AND amount_due > 50
"""
# The bank asks: the client is to confirm on a page.
_TO_CONFIRM = """
SELECT invoice_id AS id FROM payment_attempts
 WHERE state = 'needs_action' AND checkout_expires_at IS NULL AND invoice_id IS NOT NULL
"""
_PAGES = """
SELECT checkout_session AS id, invoice_id FROM payment_attempts
 WHERE state = 'needs_action' AND checkout_session IS NOT NULL
"""
_CARD_PAGES = """
SELECT checkout_session AS id, id AS setup_id, client_id FROM card_setups
 WHERE state = 'open' AND checkout_session IS NOT NULL
"""
_WITH_BACKUP = "SELECT client_id AS id FROM backup_methods"


class Payers:
    """Do one thing after another, each by ``rng``; ``broken`` is told of wrong answers.

    Attributes:
        done: What was done, and how often.
    """

    def __init__(
        self,
        url: str,
        business: Business,
        stripe: StripeSandboxControl,
        rng: random.Random,
        broken: list[str],
    ) -> None:
        self._links = Links(url, SECRET_KEY)
        self._business = business
        self._stripe = stripe
        self._rng = rng
        self._broken = broken
        self._insistence = Insistence()
        self._deeds: dict[str, Callable[[], bool]] = {
            "press pay": lambda: self._press_pay(_PAYABLE),
            "press pay, to confirm": lambda: self._press_pay(_TO_CONFIRM),
            "pay on a page that was left open": self._use_page,
            "let a page's time run out": self._leave_page,
            "ask for a page to leave a card": self._ask_for_card_page,
            "leave a card": self._leave_card,
            "use the second card as the first": lambda: self._press(_WITH_BACKUP, "use-as-backup"),
            "remove the second card": lambda: (
                self._rng.random() < 0.2 and self._press(_WITH_BACKUP, "backup-card/remove")
            ),
        }
        self.done: Counter[str] = Counter()

    @property
    def repeated(self) -> int:
        """How many requests had to be made again."""
        return self._insistence.repeated

    def act(self) -> None:
        """Do one thing; half of the time, one of those that were done least."""
        names = list(self._deeds)
        self._rng.shuffle(names)
        if self._rng.random() < 0.5:
            names.sort(key=lambda name: self.done[name])
        for name in names:
            if self._deeds[name]():
                self.done[name] += 1
                return

    def never_done(self) -> list[str]:
        """What was never done, for want of a subject or of success."""
        return [name for name in self._deeds if not self.done[name]]

    def _press_pay(self, of: str) -> bool:
        """A client presses the button, and does on Stripe's page what comes to its mind."""
        invoice = self._drawn(of)
        if invoice is None:
            return False
        here = self._links.to_invoice(invoice.id)
        answer = self._ask("POST", f"{here}/pay")
        if self._rng.random() < 0.2:
            # Twice, in two tabs: it is sent to where it was sent before, if that is still open.
            answer = self._ask("POST", f"{here}/pay")
        address = answer.headers.get("location", "")
        if PAGES in address and self._rng.random() < 0.7:
            time.sleep(self._rng.uniform(0.0, LONGEST_THOUGHT_SECONDS))
            self._pay(address.rpartition("/")[2], invoice.id)
        return True

    def _use_page(self) -> bool:
        page = self._drawn(_PAGES)
        return page is not None and self._pay(page.id, page.invoice_id)

    def _pay(self, page: str, invoice_id: UUID) -> bool:
        """Name a card on a page, which may be closed by now; perhaps come back to us."""
        card, authenticates = self._rng.choice(CARDS), self._rng.choice(AUTHENTICATES)
        comes_back = self._rng.random() < CHANCE_OF_COMING_BACK
        try:
            session = self._stripe.pay_session(page, card, authenticates=authenticates)
        except LocalServerError:
            return False
        if comes_back and session["status"] == "complete":
            self._ask("GET", f"{self._links.to_invoice(invoice_id)}/paid")
        return True

    def _leave_page(self) -> bool:
        page = self._drawn(_PAGES)
        if page is None:
            return False
        try:
            self._stripe.expire_session(page.id)
        except LocalServerError:
            return False
        return True

    def _ask_for_card_page(self) -> bool:
        _, client_id = self._rng.choice(self._business.clients)
        role = self._rng.choice(("card", "card", "backup-card"))
        self._ask("POST", f"{self._links.to_portal(client_id)}/{role}/add")
        return True

    def _leave_card(self) -> bool:
        page = self._drawn(_CARD_PAGES)
        if page is None:
            return False
        card, authenticates = self._rng.choice(CARDS), self._rng.choice(AUTHENTICATES)
        comes_back = self._rng.random() < CHANCE_OF_COMING_BACK
        try:
            session = self._stripe.save_card(page.id, card, authenticates=authenticates)
        except LocalServerError:
            return False
        if comes_back and session["status"] == "complete":
            self._ask("GET", f"{self._links.to_portal(page.client_id)}/left/{page.setup_id}")
        return True

    def _press(self, of: str, button: str) -> bool:
        """A button on a client's own page."""
        client = self._drawn(of)
        if client is None:
            return False
        self._ask("POST", f"{self._links.to_portal(client.id)}/{button}")
        return True

    def _drawn(self, of: str) -> Row[Any] | None:
        found: Sequence[Row[Any]] = patiently(
            self._business.engine, lambda session: session.execute(text(f"{of} ORDER BY id")).all()
        )
        return self._rng.choice(found) if found else None

    def _ask(self, method: str, address: str) -> httpx2.Response:
        answer = self._insistence.answer(
            lambda: httpx2.request(method, address, timeout=ANSWER_SECONDS)
        )
        if answer.status_code != httpx2.codes.SEE_OTHER:
            self._broken.append(f"a client was answered {answer.status_code}: {answer.text}")
        return answer
