"""The audit: what must be true of the books at any time, and every place where it is not."""

from collections import Counter
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from billing.job_states import FINAL, JobState
from models import Account, Job
from tasks.enqueueing import enqueue
from tasks.kinds import BULK_PRIORITY, Run, job
from tasks.outcomes import AwaitChildren, Done, Fail, Outcome

MAX_DIFFERENCES_LISTED = 100


class AuditUnfinished(Exception):  # noqa: N818 - named as the fact it states
    """The audit of an account ended dead or was cancelled: nothing is proved of it."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One place where a rule does not hold: the rule's name, where, and what was found."""

    rule: str
    subject: str
    found: str


# Each query returns a row (subject, found) for every place where its rule is broken.
_CHECKS = {
    "ledger_entries_balance": """
        SELECT entries.id::text, concat('sides sum to ', sum(amount), ' ', entries.currency)
          FROM ledger_entries AS entries JOIN ledger_postings ON entry_id = entries.id
         WHERE entries.account_id = :account
         GROUP BY entries.id HAVING sum(amount) <> 0
    """,
    "invoices_agree_with_ledger": """
        SELECT invoices.id::text,
               concat(number, ' is due ', amount_due, ', its receivable is ',
                      COALESCE(booked.amount, 0), ' ', invoices.currency)
          FROM invoices LEFT JOIN (
               SELECT entries.invoice_id, sum(amount) AS amount
                 FROM ledger_entries AS entries JOIN ledger_postings ON entry_id = entries.id
                WHERE entries.account_id = :account AND ledger_account = 'receivable'
                GROUP BY entries.invoice_id) AS booked ON booked.invoice_id = invoices.id
         WHERE account_id = :account AND status <> 'draft'
           AND COALESCE(booked.amount, 0) <> amount_due
    """,
    "finalized_invoices_are_posted_once": """
        SELECT invoices.id::text, concat(number, ' has ', count(entries.id), ' finalize entries')
          FROM invoices LEFT JOIN ledger_entries AS entries
            ON entries.invoice_id = invoices.id AND entries.event = 'finalize'
         WHERE invoices.account_id = :account AND status <> 'draft'
         GROUP BY invoices.id HAVING count(entries.id) <> (invoices.total <> 0)::int
    """,
    "entries_follow_the_postings_table": """
        SELECT entries.id::text,
               concat(event, ' of ', number, ' (', total, ' ', entries.currency, ') posts ',
                      receivable, ' to receivable, ', revenue, ' to revenue, ', credit, ' to credit')
          FROM ledger_entries AS entries
          JOIN invoices ON invoices.id = entries.invoice_id
         CROSS JOIN LATERAL (
               SELECT COALESCE(sum(amount) FILTER (WHERE ledger_account = 'receivable'), 0)
                      AS receivable,
                      COALESCE(sum(amount) FILTER (WHERE ledger_account = 'revenue'), 0) AS revenue,
                      COALESCE(sum(amount) FILTER (WHERE ledger_account = 'credit'), 0) AS credit
                 FROM ledger_postings WHERE entry_id = entries.id) AS sides
         WHERE entries.account_id = :account
           AND (receivable <> CASE event WHEN 'finalize' THEN GREATEST(total, 0) ELSE -total END
                OR revenue <> CASE event WHEN 'finalize' THEN -total ELSE total END
                OR credit <> CASE event WHEN 'finalize' THEN LEAST(total, 0) ELSE 0 END)
    """,
    "drafts_are_not_posted": """
        SELECT invoices.id::text, 'a draft has entries in the books'
          FROM invoices JOIN ledger_entries AS entries ON entries.invoice_id = invoices.id
         WHERE invoices.account_id = :account AND status = 'draft'
    """,
    "lines_sum_to_totals": """
        SELECT invoices.id::text,
               concat(number, ' says ', subtotal, ', its lines sum to ', COALESCE(sum(amount), 0))
          FROM invoices LEFT JOIN invoice_lines AS lines ON lines.invoice_id = invoices.id
         WHERE account_id = :account AND status <> 'draft'
         GROUP BY invoices.id HAVING COALESCE(sum(amount), 0) <> subtotal
    """,
    "lines_match_charges": """
        SELECT invoice_id::text, concat('its lines differ from charge ', charge_id)
          FROM (SELECT invoice_id, charges.id AS charge_id, charges.amount AS charged
                  FROM charges JOIN invoices ON invoices.id = invoice_id
                 WHERE charges.account_id = :account AND status <> 'draft') AS charges
          FULL JOIN (SELECT invoice_id, charge_id, amount AS billed
                       FROM invoice_lines JOIN invoices ON invoices.id = invoice_id
                      WHERE account_id = :account) AS lines USING (invoice_id, charge_id)
         WHERE charged IS DISTINCT FROM billed
    """,
    "draft_totals_match_charges": """
        SELECT invoices.id::text,
               concat('says ', total, ', its charges sum to ', COALESCE(sum(amount), 0))
          FROM invoices LEFT JOIN charges
            ON charges.client_id = invoices.client_id AND charges.invoice_id = invoices.id
         WHERE invoices.account_id = :account AND status = 'draft'
         GROUP BY invoices.id HAVING COALESCE(sum(amount), 0) <> total
    """,
    "numbers_are_gapless": """
        SELECT 'invoice', concat('next is ', COALESCE(next_number, 1), ', ', finalized,
                                 ' are finalized, the last is ', COALESCE(highest, 0))
          FROM (SELECT count(*) AS finalized,
                       max(substring(number FROM '[0-9]+$')::bigint) AS highest
                  FROM invoices WHERE account_id = :account AND number IS NOT NULL) AS given
          LEFT JOIN number_series ON account_id = :account AND document = 'invoice'
         WHERE (finalized, COALESCE(highest, 0))
               <> (COALESCE(next_number, 1) - 1, COALESCE(next_number, 1) - 1)
    """,
    "periods_tile_time": """
        SELECT client_id::text,
               concat('period ', period_start, ' follows one that ended on ', last_end)
          FROM (SELECT client_id, period_start, starts_at, reason,
                       lag(period_end) OVER chain AS last_end, lag(ends_at) OVER chain AS last_at,
                       lag(reason) OVER chain AS last_reason
                  FROM billing_periods WHERE account_id = :account
                WINDOW chain AS (PARTITION BY client_id ORDER BY period_start)) AS periods
         WHERE last_end IS NOT NULL AND (last_end > period_start OR (
               -- Of a start long ago, the periods in between are written down as they are billed.
               (last_end < period_start OR last_at <> starts_at)
               AND last_reason IS DISTINCT FROM 'before_activation'))
    """,
    "billed_periods_have_invoices": """
        SELECT periods.id::text, concat('is ', state, ' with ', count(invoices.id), ' invoices')
          FROM billing_periods AS periods LEFT JOIN invoices ON period_id = periods.id
         WHERE periods.account_id = :account
         GROUP BY periods.id
        HAVING (state IN ('drafted', 'billed')) <> (count(invoices.id) > 0)
    """,
}

RULES = tuple(_CHECKS)


def audit(session: Session, account_id: UUID) -> list[Difference]:
    """Check every rule for one account, in the caller's transaction; all differences found.

    At most ``MAX_DIFFERENCES_LISTED`` are listed for each rule.
    """
    return [
        Difference(rule, subject, found)
        for rule, query in _CHECKS.items()
        for subject, found in session.execute(
            text(f"{query} LIMIT {MAX_DIFFERENCES_LISTED}"), {"account": account_id}
        )
    ]


@job(queue="ops", priority=BULK_PRIORITY)
def audit_account(_run: Run, session: Session, account: UUID) -> Outcome:
    """Audit one account; the result counts the differences by rule."""
    found = Counter(difference.rule for difference in audit(session, account))
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
