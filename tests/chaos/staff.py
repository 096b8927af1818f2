"""Commands as staff and other systems give them, in transactions of their own."""

import random
from collections import defaultdict
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from models import Job, job_ledger
from tasks.enqueueing import enqueue
from tests.chaos.business import Business
from tests.chaos.doings import DOINGS
from tests.chaos.marks import marks_job
from tests.chaos.patience import patiently

REQUESTED_BY = "chaos"


@dataclass
class _Fates:
    """What became of the jobs of one transaction, if it commits."""

    accepted: list[UUID] = field(default_factory=list)
    rolled_back: list[UUID] = field(default_factory=list)
    cancelled: list[UUID] = field(default_factory=list)


class Staff:
    """Gives one command after another, each by ``rng``; of two, one that was never done before."""

    def __init__(self, business: Business, rng: random.Random) -> None:
        self._business = business
        self._rng = rng
        self._asked: defaultdict[str, list[UUID]] = defaultdict(list)
        self._done: set[str] = set()

    def do_something(self) -> None:
        """Give one command; some are taken back at once."""
        fates = patiently(self._business.engine, self._something)
        self._business.accepted += fates.accepted
        self._business.rolled_back += fates.rolled_back
        self._business.cancelled += fates.cancelled

    def never_done(self) -> list[str]:
        """What was never done, for want of a subject or of success."""
        patiently(self._business.engine, self._look)
        return [name for name in DOINGS if name not in self._done]

    def _something(self, session: Session) -> _Fates:
        job_id = self._ask(session)
        fate = self._rng.random()
        if fate < 0.03:
            session.flush()
            session.rollback()
            return _Fates(rolled_back=[job_id])
        if fate < 0.06 and job_ledger.cancel(session.connection(), job_id):
            return _Fates(cancelled=[job_id])
        return _Fates(accepted=[job_id])

    def _ask(self, session: Session) -> UUID:
        # Often enough that whoever is paused or killed is likely in the middle of one.
        if self._rng.random() < 0.25:
            new = marks_job(self._rng.uniform(0.1, 4.0))
            return job_ledger.enqueue(session.connection(), new).id
        for name in self._in_order(session):
            doing = DOINGS[name]
            subjects = session.execute(text(f"{doing.of} ORDER BY id")).all()
            if not subjects:
                continue
            found = dict(self._rng.choice(subjects)._mapping)
            account_id, subject = found.pop("account_id"), found.pop("id")
            doing.before(session, account_id, subject)
            arguments = {doing.subject: subject, **found, **doing.drawn(self._rng)}
            asked = enqueue(
                session, doing.kind, account_id=account_id, requested_by=REQUESTED_BY, **arguments
            )
            self._asked[name].append(asked.id)
            return asked.id
        raise LookupError("there is nobody to do anything for")

    def _in_order(self, session: Session) -> list[str]:
        """What to try to do, one after the other."""
        names = list(DOINGS)
        self._rng.shuffle(names)
        if self._rng.random() < 0.5:
            self._look(session)
            names.sort(key=lambda name: (name in self._done, len(self._asked[name])))
        return names

    def _look(self, session: Session) -> None:
        """See what has been done."""
        for name in DOINGS.keys() - self._done:
            done = select(Job.id).where(Job.id.in_(self._asked[name]), Job.state == "succeeded")
            if session.scalar(done.limit(1)) is not None:
                self._done.add(name)
