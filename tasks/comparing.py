"""What every comparison of our record with Stripe's has in common: its window, and its findings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar
from uuid import UUID

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from billing.reconciliation import REPAIRED, Difference
from gateways.cards import CardsUnavailable
from gateways.merchants import Merchant
from gateways.payment_records import Window
from models import Reconciliation, ReconciliationDifference
from tasks.calls import Call, Gateways, Step
from tasks.kinds import Run
from tasks.outcomes import Snooze

AGAIN_AFTER = timedelta(minutes=5)
"""How long a comparison waits that Stripe could not be asked for; it then begins anew."""

Answered = TypeVar("Answered")

Part = Callable[[Session], Step]
"""What comes next of a comparison."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One account's money of a window, at the merchant through whom it charges."""

    run: Run
    id: UUID
    account_id: UUID
    window: Window
    merchant: Merchant

    @property
    def asked_by(self) -> str:
        """What everything that a repair writes bears."""
        return f"reconciliation:{self.id}"

    def count(self, session: Session, **compared: int) -> None:
        """Add to the ``payments`` and such that were compared."""
        record = session.get_one(Reconciliation, self.id, populate_existing=True)
        for name, more in compared.items():
            setattr(record, name, getattr(record, name) + more)

    def write_down(self, session: Session, difference: Difference, **facts: object) -> None:
        """List a difference; those that are safe to mend were mended in this transaction."""
        session.execute(
            insert(ReconciliationDifference)
            .values(
                reconciliation_id=self.id,
                difference=difference,
                repaired=difference in REPAIRED,
                **facts,
            )
            .on_conflict_do_nothing()
        )


def asking(
    ask: Callable[[Gateways], Answered], record: Callable[[Session, Answered], Step]
) -> Call:
    """Ask Stripe; where it cannot be asked, the whole comparison waits and begins anew."""

    def answer(gateways: Gateways) -> Answered | CardsUnavailable:
        try:
            return ask(gateways)
        except CardsUnavailable as unavailable:
            return unavailable

    def recorded(session: Session, answer: Answered | CardsUnavailable) -> Step:
        if isinstance(answer, CardsUnavailable):
            return Snooze(answer.retry_after or AGAIN_AFTER, answer)
        return record(session, answer)

    return Call(answer, recorded)


def id_in(metadata: Mapping[str, str], name: str) -> UUID | None:
    """The id that we gave a thing at Stripe, if it is ours."""
    try:
        return UUID(metadata.get(name, ""))
    except ValueError:
        return None
