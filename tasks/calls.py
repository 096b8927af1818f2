"""Network calls of a job: made between two transactions, never inside one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from gateways.cards import CardGateway
from gateways.checkout import CheckoutGateway
from gateways.documents import DocumentRenderer
from gateways.mail import MailGateway
from gateways.payment_records import PaymentRecords
from gateways.saved_cards import SavedCardsGateway
from tasks.links import Links
from tasks.outcomes import Outcome


class GatewayMissing(Exception):  # noqa: N818 - named as the fact it states
    """This process was not given what the job needs: it serves a queue that it is not set up for."""


class Gateways:
    """The outside world, as far as this process was given access to it.

    ``mail_sender`` is the address that mails come from; ``stripe_rate`` how often a second each
    Stripe account may be asked by all processes together, any if ``None``; ``is_stripe_reachable``
    asks whether Stripe answers at all.
    """

    def __init__(
        self,
        *,
        cards: CardGateway | None = None,
        checkout: CheckoutGateway | None = None,
        saved_cards: SavedCardsGateway | None = None,
        payment_records: PaymentRecords | None = None,
        links: Links | None = None,
        mail: MailGateway | None = None,
        mail_sender: str = "",
        documents: DocumentRenderer | None = None,
        stripe_rate: float | None = None,
        is_stripe_reachable: Callable[[], bool] | None = None,
    ) -> None:
        self._cards = cards
        self._checkout = checkout
        self._saved_cards = saved_cards
        self._payment_records = payment_records
        self._links = links
        self._mail = mail
        self.mail_sender = mail_sender
        self.stripe_rate = stripe_rate
        self.is_stripe_reachable = is_stripe_reachable
        self._documents = documents

    @property
    def cards(self) -> CardGateway:
        """Where cards are charged."""
        if self._cards is None:
            raise GatewayMissing("cards: only a worker that serves `payments` has them")
        return self._cards

    @property
    def checkout(self) -> CheckoutGateway:
        """Where clients pay by themselves, or leave a card."""
        if self._checkout is None:
            raise GatewayMissing("checkout: only a worker that serves `payments` has it")
        return self._checkout

    @property
    def saved_cards(self) -> SavedCardsGateway:
        """Where clients' cards are kept."""
        if self._saved_cards is None:
            raise GatewayMissing("saved cards: only a worker that serves `payments` has them")
        return self._saved_cards

    @property
    def payment_records(self) -> PaymentRecords:
        """What the vendor has on record."""
        if self._payment_records is None:
            raise GatewayMissing("records: only a worker that serves `payments` has them")
        return self._payment_records

    @property
    def links(self) -> Links:
        """What clients are sent to our own pages by."""
        if self._links is None:
            raise GatewayMissing("links: only a worker that serves `payments` or `mail` has them")
        return self._links

    @property
    def mail(self) -> MailGateway:
        """Where mail goes out."""
        if self._mail is None:
            raise GatewayMissing("mail: only a worker that serves `mail` has it")
        return self._mail

    @property
    def documents(self) -> DocumentRenderer:
        """Where documents are set."""
        if self._documents is None:
            raise GatewayMissing("documents: only a worker that serves `mail` has them")
        return self._documents


@dataclass(frozen=True, slots=True)
class Call:
    """What a job has to ask outside before it can end.

    What the job has written so far is committed first, if the job is still this run's. Then
    ``ask`` is made, with no transaction open. ``record`` writes down the answer, in a transaction
    that ends the job as well; it may have something more to ask. What ``ask`` raises is the run's
    outcome, so whatever must be written down of a failure, ``ask`` returns.
    """

    ask: Callable[[Gateways], Any]
    record: Callable[[Session, Any], "Outcome | Call"]


Step = Outcome | Call
"""What a job's function says at its end: what came of it, or what it has to ask first."""


def go_on(part: Callable[[Session], Step]) -> Call:
    """Commit what was done, and do the next part in a transaction of its own."""
    return Call(lambda _gateways: None, lambda session, _answer: part(session))
