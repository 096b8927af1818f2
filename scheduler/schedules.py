"""The table of schedules: everything that happens by itself, and when."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from cronsim import CronSim

from tasks.audits import audit_books
from tasks.billing_runs import start_due_runs
from tasks.card_setups import settle_due_setups
from tasks.due_collections import collect_due
from tasks.expiring import expire_due_credit
from tasks.expiring_cards import warn_of_expiring_cards
from tasks.kinds import JobKind
from tasks.pruning import prune
from tasks.reconciling import reconcile_accounts
from tasks.reviewing import finalize_due_reviews
from tasks.top_ups import top_up_due


@dataclass(frozen=True, slots=True, kw_only=True)
class CronLine:
    """One schedule. ``takes_fire_at`` hands the job the time it was fired for."""

    name: str
    cron: str
    kind: JobKind
    description: str
    time_zone: str = "UTC"
    takes_fire_at: bool = False

    def next_after(self, instant: datetime) -> datetime:
        """The first fire time after ``instant``, in UTC; a local time the clock repeats counts once."""
        return next(self.times_after(instant))

    def times_after(self, instant: datetime) -> Iterator[datetime]:
        """Every fire time after ``instant``; to ask for one after the other costs five times more."""
        times = CronSim(self.cron, instant.astimezone(ZoneInfo(self.time_zone)))
        # Within a repeated hour the first ones are those of its first pass, which is over.
        return (utc for time in times if (utc := time.astimezone(UTC)) > instant)

    def arguments(self, fire_at: datetime) -> Mapping[str, Any]:
        """What the job of one fire is given."""
        return {"fire_at": fire_at} if self.takes_fire_at else {}


SCHEDULES = (
    CronLine(
        name="bill-due-periods",
        cron="* * * * *",
        kind=start_due_runs,
        takes_fire_at=True,
        description="Bill every client whose period has ended",
    ),
    CronLine(
        name="finalize-due-reviews",
        cron="* * * * *",
        kind=finalize_due_reviews,
        description="Finalize drafts whose review is over",
    ),
    CronLine(
        name="collect-due",
        cron="* * * * *",
        kind=collect_due,
        description="Charge cards whose try is due, and ask after charges without an answer",
    ),
    CronLine(
        name="expire-credit",
        # Somewhere a day begins every quarter of an hour.
        cron="*/15 * * * *",
        kind=expire_due_credit,
        description="Write down what has expired of promotional credit",
    ),
    CronLine(
        name="top-up-credit",
        cron="*/5 * * * *",
        kind=top_up_due,
        description="Charge cards of clients whose credit is below its threshold",
    ),
    CronLine(
        name="settle-card-pages",
        cron="*/10 * * * *",
        kind=settle_due_setups,
        description="Ask after pages for cards that ended and were not told of",
    ),
    CronLine(
        name="warn-of-expiring-cards",
        cron="20 9 * * *",
        kind=warn_of_expiring_cards,
        description="Tell clients whose card expires within 30 days",
    ),
    CronLine(
        name="audit-books",
        cron="30 3 * * *",
        kind=audit_books,
        description="Prove that the books agree with the invoices",
    ),
    CronLine(
        name="reconcile",
        # Before the audit, which tells of what it could not mend.
        cron="10 2 * * *",
        kind=reconcile_accounts,
        takes_fire_at=True,
        description="Compare payments and refunds with Stripe's own record",
    ),
    CronLine(
        name="prune",
        cron="17 * * * *",
        kind=prune,
        description="Forget finished jobs and other records past their keeping time",
    ),
)
