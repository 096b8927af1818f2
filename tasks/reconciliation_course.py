"""One reconciliation from its first page to its end, in runs that are short."""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar
from uuid import UUID

import structlog
from sqlalchemy import delete, func, literal, select, true
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.orm import Session

from billing.reconciliation import Compared, Difference, is_about
from gateways.cards import CardsUnavailable
from gateways.payment_records import RecordPage, Window
from models import (
    Account,
    PaymentAttempt,
    Reconciliation,
    ReconciliationDifference,
    ReconciliationRecord,
)
from models.reconciliation import is_acknowledged, standing_differences
from tasks.calls import Call, Gateways, Step
from tasks.comparing import Comparison, Kind, Looked
from tasks.kinds import Run
from tasks.merchants import merchant_by_id
from tasks.outcomes import Done, Outcome, Snooze
from tasks.reconciled_disputes import Disputes
from tasks.reconciled_payments import Payments
from tasks.reconciled_refunds import Refunds

RUN_SECONDS = 30.0
"""How long one run goes on before the next one takes over, at what it has not begun."""

AGAIN_AFTER = timedelta(minutes=5)
"""How long a comparison waits that Stripe could not be asked for; it then goes on where it was."""

PATIENCE = timedelta(days=1)
"""How long it waits for a Stripe account that is not charged through any more."""

REACH = timedelta(days=120)
"""How far back a payment may have been made of which there is still news: its dispute."""

Answered = TypeVar("Answered")

KINDS: Mapping[Compared, Kind[Any]] = MappingProxyType(
    {kind.compared: kind for kind in (Payments(), Refunds(), Disputes())}
)

_log = structlog.get_logger(__name__)


class Course:
    """One run of a reconciliation, which goes on where the last one ended, however that did.

    For payments, then refunds, then disputes: what earlier reconciliations found is doubted, and
    what of Stripe's lists differs from our record, and what of ours no list had. What is doubted is
    asked for by itself, as a list is old by the time that it has been read. Where this stands is
    committed before each call.
    """

    def __init__(self, run: Run, record: Reconciliation) -> None:
        self._run = run
        self._comparison = Comparison(
            run=run,
            id=record.id,
            account_id=record.account_id,
            window=Window(record.since, record.until),
        )
        self._ends_at = time.monotonic() + RUN_SECONDS
        self._has_asked = False

    def go_on(self, session: Session) -> Step:
        """Ask what comes next; end the run if it was long, and the job if that was all."""
        record = session.get_one(Reconciliation, self._comparison.id, populate_existing=True)
        if self._has_asked and time.monotonic() >= self._ends_at:
            return Snooze(timedelta(0))
        if record.comparing is None:
            self._begin(session, record, Compared.PAYMENTS)
        while not record.merchants_left:
            doubted = self._next_doubted(session, record)
            if doubted is not None:
                return self._ask(session, record, doubted)
            following = _after(_compared(record))
            if following is None:
                return self._finish(session, record)
            self._begin(session, record, following)
        return self._read(session, record)

    def _begin(self, session: Session, record: Reconciliation, compared: Compared) -> None:
        record.comparing, record.listed_after = compared, None
        record.merchants_left = [None if one is None else str(one) for one in self._all(session)]
        standing = [
            Looked(one.stripe_id, one.merchant_id, differs=True)
            for one in session.scalars(standing_differences(record.account_id))
            if is_about(Difference(one.difference)) == compared
        ]
        self._keep(session, record, standing)

    def _all(self, session: Session) -> Sequence[UUID | None]:
        """The Stripe accounts that may have news: the one charged through now comes first."""
        account_id = self._comparison.account_id
        since = min(self._comparison.window.since, self._run.now - REACH)
        current = session.scalars(select(Account.merchant_id).where(Account.id == account_id)).one()
        used = session.scalars(
            select(PaymentAttempt.merchant_id)
            .where(PaymentAttempt.account_id == account_id, PaymentAttempt.created_at >= since)
            .distinct()
            .order_by(PaymentAttempt.merchant_id)
        )
        return [current, *(one for one in used if one != current)]

    def _read(self, session: Session, record: Reconciliation) -> Call:
        """Read the next page of Stripe's list."""
        kind, after = KINDS[_compared(record)], record.listed_after
        merchant_id = _id(record.merchants_left[0])
        merchant = merchant_by_id(session, merchant_id)
        return self._asking(
            lambda gateways: kind.read(
                gateways.payment_records, self._comparison.window, merchant, after
            ),
            partial(self._compare, merchant_id),
            or_else=self._leave_merchant,
            merchant_id=merchant_id,
        )

    def _compare(
        self,
        merchant_id: UUID | None,
        session: Session,
        record: Reconciliation,
        page: RecordPage[Any],
    ) -> None:
        kind = KINDS[_compared(record)]
        looked = kind.compare(session, self._comparison, merchant_id, page.records)
        self._keep(session, record, looked)
        record.listed_after = page.after
        if page.after is None:
            self._leave_merchant(session, record)

    def _leave_merchant(self, session: Session, record: Reconciliation) -> None:
        """Go to the next merchant's list; after the last one, doubt what of ours none had."""
        record.merchants_left, record.listed_after = record.merchants_left[1:], None
        if record.merchants_left:
            return
        compared = _compared(record)
        ours = KINDS[compared].ours(self._comparison)
        rows = ours.add_columns(literal(record.id), literal(compared.value), true())
        columns = ["stripe_id", "merchant_id", "reconciliation_id", "compared", "is_doubted"]
        self._count(
            session, record, insert(ReconciliationRecord).from_select(columns, rows), compared
        )

    def _keep(self, session: Session, record: Reconciliation, looked: Sequence[Looked]) -> None:
        compared = _compared(record)
        rows = [
            {
                "reconciliation_id": record.id,
                "compared": compared,
                "stripe_id": one.stripe_id,
                "merchant_id": one.merchant_id,
                "is_doubted": one.differs,
            }
            # A list may hold one twice while it grows.
            for one in {one.stripe_id: one for one in looked}.values()
        ]
        if rows:
            self._count(session, record, insert(ReconciliationRecord).values(rows), compared)

    def _count(
        self, session: Session, record: Reconciliation, rows: Insert, compared: Compared
    ) -> None:
        """Keep what is new, and count it; what was doubted before still is."""
        new = rows.on_conflict_do_nothing().returning(ReconciliationRecord.stripe_id)
        kept = session.scalars(new).all()
        setattr(record, compared, getattr(record, compared) + len(kept))

    def _next_doubted(
        self, session: Session, record: Reconciliation
    ) -> ReconciliationRecord | None:
        return session.scalars(
            select(ReconciliationRecord)
            .where(
                ReconciliationRecord.reconciliation_id == record.id,
                ReconciliationRecord.compared == record.comparing,
                ReconciliationRecord.is_doubted,
            )
            .order_by(ReconciliationRecord.stripe_id)
            .limit(1)
        ).one_or_none()

    def _ask(self, session: Session, record: Reconciliation, doubted: ReconciliationRecord) -> Call:
        """Ask for one by itself, then look again with its locks held."""
        kind = KINDS[_compared(record)]
        asked = Looked(doubted.stripe_id, doubted.merchant_id, differs=True)
        merchant = merchant_by_id(session, asked.merchant_id)

        def settle(session: Session, record: Reconciliation, found: object) -> None:
            kind.settle(session, self._comparison, asked, found)
            leave(session, record)

        def leave(session: Session, record: Reconciliation) -> None:
            key = (record.id, record.comparing, asked.stripe_id)
            session.get_one(ReconciliationRecord, key).is_doubted = False

        return self._asking(
            lambda gateways: kind.ask(gateways.payment_records, asked.stripe_id, merchant),
            settle,
            or_else=leave,
            merchant_id=asked.merchant_id,
        )

    def _asking(
        self,
        ask: Callable[[Gateways], Answered],
        compare: Callable[[Session, Reconciliation, Answered], None],
        *,
        or_else: Callable[[Session, Reconciliation], None],
        merchant_id: UUID | None,
    ) -> Call:
        """Ask Stripe and go on; where it cannot be asked, wait and go on here.

        A Stripe account that was left may never be asked again: its key was taken back.
        """

        def answer(gateways: Gateways) -> Answered | CardsUnavailable:
            try:
                return ask(gateways)
            except CardsUnavailable as unavailable:
                return unavailable

        def recorded(session: Session, answer: Answered | CardsUnavailable) -> Step:
            self._has_asked = True
            record = session.get_one(Reconciliation, self._comparison.id, populate_existing=True)
            if not isinstance(answer, CardsUnavailable):
                compare(session, record, answer)
            elif self._may_leave(session, record, merchant_id):
                _log.error(
                    "former Stripe account not compared",
                    reconciliation=str(record.id),
                    merchant=str(merchant_id),
                    error=str(answer),
                )
                or_else(session, record)
            else:
                return Snooze(answer.retry_after or AGAIN_AFTER, answer)
            # In a transaction of its own: this one holds a client's locks.
            return Call(lambda _gateways: None, lambda session, _nothing: self.go_on(session))

        return Call(answer, recorded)

    def _may_leave(
        self, session: Session, record: Reconciliation, merchant_id: UUID | None
    ) -> bool:
        account = session.get_one(Account, record.account_id)
        return merchant_id != account.merchant_id and self._run.now > record.created_at + PATIENCE

    def _finish(self, session: Session, record: Reconciliation) -> Outcome:
        record.finished_at = self._run.now
        session.execute(
            delete(ReconciliationRecord).where(ReconciliationRecord.reconciliation_id == record.id),
            execution_options={"synchronize_session": False},
        )
        of_this = ReconciliationDifference.reconciliation_id == record.id
        found = session.execute(
            select(ReconciliationDifference.difference, func.count())
            .where(of_this)
            .group_by(ReconciliationDifference.difference)
            .order_by(ReconciliationDifference.difference)
        )
        differences = dict(found.all())
        is_left = of_this & ~ReconciliationDifference.repaired
        acknowledged = session.scalar(select(func.count()).where(is_left, is_acknowledged()))
        unrepaired = session.scalar(select(func.count()).where(is_left, ~is_acknowledged()))
        if unrepaired:
            _log.error(
                "our record and Stripe's differ",
                reconciliation=str(record.id),
                account=str(record.account_id),
                unrepaired=unrepaired,
                acknowledged=acknowledged,
                differences=differences,
            )
        return Done(
            {
                "reconciliation": str(record.id),
                "payments": record.payments,
                "refunds": record.refunds,
                "disputes": record.disputes,
                "differences": differences,
                "unrepaired": unrepaired,
                "acknowledged": acknowledged,
            }
        )


def _compared(record: Reconciliation) -> Compared:
    return Compared(str(record.comparing))


def _after(compared: Compared) -> Compared | None:
    order = list(Compared)
    following = order.index(compared) + 1
    return order[following] if following < len(order) else None


def _id(text: str | None) -> UUID | None:
    return None if text is None else UUID(text)
