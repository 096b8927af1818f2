"""What a story needs: a business with history, and ways to look at how it ends."""

from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from billing.cycles import boundary_after
from models import Account, BillingPeriod, BillingRun, Client, Invoice, Job
from scheduler.firing import write_schedules
from scheduler.schedules import SCHEDULES
from tasks.audits import audit
from tests.worlds import a_client, charges


class Business:
    """A business whose clients went on a monthly cycle some months ago, and what it sees now."""

    def __init__(self, engine: Engine, account: Account) -> None:
        self.engine = engine
        self.account = account
        # The stories run on the real clock, so their months are counted back from today.
        self.today = datetime.now(UTC).date()

    def month_start(self, months_ago: int) -> date:
        """The first day of the month that lies ``months_ago`` before this one."""
        start = self.today.replace(day=1)
        for _ in range(months_ago):
            start = (start - timedelta(days=1)).replace(day=1)
        return start

    def monthly_client(self, name: str, *, months_ago: int, charges_per_month: int = 2) -> Client:
        """A client on the cycle since ``months_ago``, with charges of 10.00 in every full month."""
        start = self.month_start(months_ago)
        since = datetime.combine(start, datetime.min.time(), UTC)
        client = a_client(self.engine, self.account, now=since, name=name, billing_cycle="monthly")
        month = start
        while (end := boundary_after(month, 1)) <= self.today:
            charges(
                self.engine,
                client,
                [(month + timedelta(days=day), "10.00") for day in range(charges_per_month)],
            )
            month = end
        return client

    def scheduler_was_down_since(self, months_ago: int) -> None:
        """Let the schedules' next fire lie in the past, so that a scheduler fires at once."""
        down = datetime.combine(self.month_start(months_ago), datetime.min.time(), UTC)
        with Session(self.engine) as session, session.begin():
            write_schedules(session, SCHEDULES, now=down)

    def invoices(self) -> list[Invoice]:
        """All invoices, by number."""
        with Session(self.engine) as session:
            return list(session.scalars(select(Invoice).order_by(Invoice.number)))

    def months_by_number(self) -> list[tuple[str | None, date]]:
        """Each invoice's number and the start of its period, by number."""
        with Session(self.engine) as session:
            rows = session.execute(
                select(Invoice.number, BillingPeriod.period_start)
                .join(BillingPeriod, BillingPeriod.id == Invoice.period_id)
                .order_by(Invoice.number)
            )
            return [(number, start) for number, start in rows]

    def periods(self, client: Client) -> list[tuple[date, str]]:
        """When each of a client's periods starts, and what became of it."""
        with Session(self.engine) as session:
            return [
                (period.period_start, period.state)
                for period in session.scalars(
                    select(BillingPeriod)
                    .where(BillingPeriod.client_id == client.id)
                    .order_by(BillingPeriod.period_start)
                )
            ]

    def jobs(self, *conditions: object) -> int:
        """How many jobs meet the conditions."""
        with Session(self.engine) as session:
            counted = select(func.count()).select_from(Job).where(*conditions)  # type: ignore[arg-type]  # SQL expressions.
            return session.scalar(counted) or 0

    def all_is_billed(self) -> bool:
        """Whether nothing is due any more and every run has ended."""
        with Session(self.engine) as session:
            due = session.scalar(
                select(BillingPeriod.id)
                .where(
                    BillingPeriod.state == "open",
                    BillingPeriod.reason.is_(None),
                    BillingPeriod.ends_at <= func.now(),
                )
                .limit(1)
            )
            unfinished = session.scalar(
                select(BillingRun.id).where(BillingRun.finished_at.is_(None)).limit(1)
            )
            return due is None and unfinished is None

    def audit_is_clean(self) -> bool:
        """Whether every rule of the books holds."""
        with Session(self.engine) as session:
            return audit(session, self.account.id) == []


@pytest.fixture
def business(engine: Engine, account: Account) -> Business:
    """An empty business on the test's database."""
    return Business(engine, account)
