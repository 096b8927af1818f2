"""The audit: what must be true of the books at any time, and every place where it is not."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from billing.job_states import FINAL, JobState
from models import Account, Job
from models.database import database_now
from tasks.audit_rules import CHECKS
from tasks.enqueueing import enqueue
from tasks.kinds import BULK_PRIORITY, Run, job
from tasks.outcomes import AwaitChildren, Done, Fail, Outcome

MAX_DIFFERENCES_LISTED = 100

RULES = tuple(CHECKS)


class AuditUnfinished(Exception):  # noqa: N818 - named as the fact it states
    """The audit of an account ended dead or was cancelled: nothing is proved of it."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One place where a rule does not hold: the rule's name, where, and what was found."""

    rule: str
    subject: str
    found: str


def audit(session: Session, account_id: UUID, *, now: datetime | None = None) -> list[Difference]:
    """Check every rule for one account, in the caller's transaction; all differences found.

    At most ``MAX_DIFFERENCES_LISTED`` are listed for each rule. What should have happened by
    ``now`` is judged by the database's clock unless a story has its own.
    """
    facts = {"account": account_id, "now": now or database_now(session)}
    return [
        Difference(rule, subject, found)
        for rule, query in CHECKS.items()
        for subject, found in session.execute(
            text(f"{query} LIMIT {MAX_DIFFERENCES_LISTED}"), facts
        )
    ]


@job(queue="ops", priority=BULK_PRIORITY)
def audit_account(run: Run, session: Session, account: UUID) -> Outcome:
    """Audit one account; the result counts the differences by rule."""
    found = Counter(difference.rule for difference in audit(session, account, now=run.now))
    return Done({"differences": _by_rule(found)})


@job(queue="ops")
def audit_books(run: Run, session: Session) -> Outcome:
    """Audit every account in a job of its own; the result sums up the differences by rule."""
    audits = session.execute(
        select(Job.id, Job.state, Job.result).where(Job.parent_id == run.job_id)
    ).all()
    if not audits:
        accounts = session.scalars(select(Account.id).order_by(Account.id)).all()
        for account_id in accounts:
            enqueue(
                session,
                audit_account,
                account_id=account_id,
                requested_by=f"job:{run.job_id}",
                parent_id=run.job_id,
                account=account_id,
            )
        if accounts:
            return AwaitChildren(len(accounts))
    found: Counter[str] = Counter()
    for job_id, state, result in audits:
        if state not in FINAL:
            return AwaitChildren(0)
        if state != JobState.SUCCEEDED:
            return Fail(
                AuditUnfinished(f"the audit {job_id} was not finished: retry that job first"),
                "audit_unfinished",
            )
        found.update(result["differences"])
    return Done({"accounts": len(audits), "differences": _by_rule(found)})


def _by_rule(found: Counter[str]) -> dict[str, int]:
    return {rule: found[rule] for rule in RULES}
