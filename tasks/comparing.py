"""What every comparison of our record with Stripe's has in common: its window, and its findings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar
from uuid import UUID

from sqlalchemy import Select, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from billing.reconciliation import Compared, Difference
from gateways.merchants import Merchant
from gateways.payment_records import PaymentRecords, RecordPage, Window
from models import Reconciliation, ReconciliationDifference
from models.reconciliation import FACTS, still_stands
from tasks.acknowledging import acknowledged_about, keep_differences_of
from tasks.kinds import Run

Record = TypeVar("Record")


@dataclass(frozen=True, slots=True)
class Comparison:
    """One account's money of a window."""

    run: Run
    id: UUID
    account_id: UUID
    window: Window

    @property
    def asked_by(self) -> str:
        """What everything that a repair writes bears."""
        return f"reconciliation:{self.id}"

    def look_again(self, session: Session, stripe_id: str) -> Sequence[ReconciliationDifference]:
        """What earlier comparisons found of this stands no more: this one says how it is now.

        Returns what of that was acknowledged, for ``write_down``. Nobody else says anything of it
        until the transaction ends.
        """
        keep_differences_of(session, self.account_id, stripe_id)
        acknowledged = acknowledged_about(session, self.account_id, stripe_id)
        session.execute(
            update(ReconciliationDifference)
            .where(
                ReconciliationDifference.stripe_id == stripe_id,
                ReconciliationDifference.reconciliation_id.in_(
                    select(Reconciliation.id).where(Reconciliation.account_id == self.account_id)
                ),
                still_stands(),
            )
            .values(rechecked_at=self.run.now),
            execution_options={"synchronize_session": False},
        )
        return acknowledged

    def write_down(
        self,
        session: Session,
        difference: Difference,
        *,
        repaired: bool,
        acknowledged: Sequence[ReconciliationDifference],
        **facts: object,
    ) -> None:
        """List a difference, and whether it was repaired, in this transaction.

        What was ``acknowledged`` with the same facts stays so; anything else is told again.
        """
        known = {"difference": difference, **facts}
        as_before = (one for one in acknowledged if one.facts == {n: known[n] for n in FACTS})
        same = None if repaired else next(as_before, None)
        session.execute(
            insert(ReconciliationDifference)
            .values(
                reconciliation_id=self.id,
                difference=difference,
                repaired=repaired,
                acknowledgement_id=None if same is None else same.acknowledgement_id,
                **facts,
            )
            .on_conflict_do_nothing()
        )


@dataclass(frozen=True, slots=True)
class Looked:
    """One of Stripe's records that concerns us, by its id there, and whose Stripe account it is at."""

    stripe_id: str
    merchant_id: UUID | None
    differs: bool


class Kind(Protocol[Record]):
    """How records of one kind are read, compared and settled."""

    compared: Compared

    def read(
        self, records: PaymentRecords, window: Window, merchant: Merchant, after: str | None
    ) -> RecordPage[Record]:
        """A page of Stripe's list."""
        ...

    def compare(
        self,
        session: Session,
        comparison: Comparison,
        merchant_id: UUID | None,
        page: Sequence[Record],
    ) -> list[Looked]:
        """Those of a page that concern us."""
        ...

    def ours(self, comparison: Comparison) -> Select[str | None, UUID | None]:
        """Those of our record that must be asked for if Stripe did not list them: id and merchant."""
        ...

    def ask(self, records: PaymentRecords, stripe_id: str, merchant: Merchant) -> Record | None:
        """One of Stripe's."""
        ...

    def settle(
        self, session: Session, comparison: Comparison, asked: Looked, found: Record | None
    ) -> None:
        """Look again, now that nobody else can write our record; mend what is safe, list the rest."""
        ...


def id_in(metadata: Mapping[str, str], name: str) -> UUID | None:
    """The id that we gave a thing at Stripe, if it is ours."""
    try:
        return UUID(metadata.get(name, ""))
    except ValueError:
        return None
