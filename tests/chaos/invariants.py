"""What must hold after everything that broke: in our tables, and in the vendors' own logs."""

from collections import Counter
from collections.abc import Iterator
from itertools import chain
from uuid import UUID

from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from billing.collection import AttemptState
from gateways.disputes import DisputeStatus
from gateways.sandbox.sendgrid.client import SendGridControl
from gateways.sandbox.stripe.books import PLATFORM
from gateways.sandbox.stripe.control import StripeSandboxControl
from gateways.sandbox.stripe.errors import JsonObject
from models import Job
from tasks.audits import audit
from tasks.disputes import STATES
from tests.chaos.business import Business
from tests.chaos.events import (
    taken_events,
    taken_mail_events,
    untold_events,
    untold_mail_events,
)
from tests.chaos.marks import wrong_marks
from tests.chaos.settling import LAST

_UNFINISHED = """
SELECT id, kind, state, reason, error FROM jobs
 WHERE state NOT IN ('succeeded', 'skipped', 'cancelled')
   AND NOT (state = 'scheduled' AND run_at > now() + interval '20 seconds')
"""
_PAYMENTS = """
SELECT attempt_id, amount FROM payments WHERE source = 'card'
"""
_FINALIZED_TWICE = """
SELECT invoice_id FROM ledger_entries WHERE event = 'finalize' GROUP BY invoice_id
HAVING count(*) > 1
"""
# A draft may wait for a person for ever.
_PERIODS = """
SELECT id, state, error FROM billing_periods AS periods
 WHERE ends_at < now() AND state NOT IN ('billed', 'empty', 'skipped')
   AND NOT (state = 'drafted' AND EXISTS (
       SELECT FROM invoices WHERE period_id = periods.id AND status = 'draft'
                              AND review_ends_at IS NULL))
"""
_LEFT_BEHIND = """
SELECT charges.id FROM charges JOIN billing_periods AS periods USING (client_id)
 WHERE charges.invoice_id IS NULL AND charges.created_at < periods.decided_at
   AND periods.state IN ('billed', 'empty') AND charges.charged_on < periods.period_end
   AND charges.copy_of IS NULL
"""
_NOT_FIRED = """
SELECT schedule, fire_at FROM schedule_fires
 WHERE NOT EXISTS (SELECT FROM jobs WHERE jobs.id = schedule_fires.job_id)
"""
_SAME_PERIOD = """
SELECT client_id, period_id, currency FROM invoices
 WHERE period_id IS NOT NULL AND status <> 'void'
 GROUP BY client_id, period_id, currency HAVING count(*) > 1
"""
_FIRED_FOR_NOTHING = """
SELECT id FROM jobs WHERE requested_by LIKE 'schedule:%'
   AND NOT EXISTS (SELECT FROM schedule_fires WHERE job_id = jobs.id)
"""
_MAILED_TWICE = """
SELECT kind, subject_key, recipient FROM mails WHERE id::text = ANY(:sent)
 GROUP BY kind, subject_key, recipient, sending HAVING count(*) > 1
"""
_RECORDED = """
SELECT description FROM charges WHERE description LIKE 'call-%' AND copy_of IS NULL
"""
_DEPOSITED = "SELECT note FROM credit_entries WHERE note LIKE 'call-%'"
_EVENTS = "SELECT event_id, handled_at FROM webhook_events"
_PAID_TOO_MUCH = """
SELECT invoice_id, amount, applied FROM payments
 WHERE source = 'card' AND applied < amount AND invoice_id IS NOT NULL
"""
_UNSETTLED = """
SELECT 'attempt' AS what, id FROM payment_attempts
 WHERE state IN ('pending', 'processing', 'unknown')
 UNION ALL
SELECT 'refund', id FROM refunds WHERE state IN ('pending', 'processing', 'unknown')
"""
# One that the bank gave back had succeeded before: at Stripe it has failed, as it has here.
_REFUNDS = """
SELECT refunds.id, refunds.amount, refunds.currency, stripe_refund, payment_intent
  FROM refunds
  LEFT JOIN payments ON payments.id = payment_id
  LEFT JOIN payment_attempts AS attempts ON attempts.id = attempt_id
 WHERE destination = 'card' AND refunds.state = 'succeeded'
"""
# What an amendment bills is void with its invoice: what the charge is to come to is, too.
_AMENDED = """
WITH billed AS (
    SELECT charges.id, COALESCE(amends, charges.id) AS charge_id, amount,
           COALESCE(status = 'void', false) AS is_void
      FROM charges LEFT JOIN invoices ON invoices.id = invoice_id
     WHERE COALESCE(amends, charges.id) = ANY(:ids ::uuid[])
)
SELECT charge_id, sum(amount) AS amount FROM billed GROUP BY charge_id HAVING NOT bool_or(is_void)
"""
_CARD_PAGE_STATES = {"open": "open", "complete": "completed", "expired": "expired"}
# One of which nobody here knows the address is open at Stripe for nobody.
_PAGES = """
SELECT checkout_session, attempts.id, attempts.state, status, outstanding
  FROM payment_attempts AS attempts
  JOIN (SELECT id, status, total - credit_applied - amount_paid - amount_credited + amount_refunded
                 - amount_written_off AS outstanding FROM invoices) AS invoices
    ON invoices.id = invoice_id
 WHERE checkout_session IS NOT NULL
"""
_CARD_PAGES = """
SELECT checkout_session, id, state, payment_method FROM card_setups
 WHERE checkout_session IS NOT NULL
"""
_DISPUTES = """
SELECT stripe_dispute, disputes.state, disputes.amount, payment_intent,
       COALESCE((SELECT sum(postings.amount) FROM ledger_postings AS postings
                   JOIN ledger_entries ON ledger_entries.id = entry_id
                  WHERE dispute_id = disputes.id AND ledger_account = 'stripe'), 0) AS posted
  FROM disputes
  LEFT JOIN payments ON payments.id = payment_id
  LEFT JOIN payment_attempts AS attempts ON attempts.id = attempt_id
"""
# What a card paid, less what went back to it and what its bank has taken back.
_HELD_FOR_INVOICES = """
SELECT invoice_id, sum(amount) AS held FROM (
    SELECT invoice_id, amount FROM payments WHERE source = 'card'
     UNION ALL
    SELECT payments.invoice_id, -refunds.amount FROM refunds JOIN payments ON payments.id = payment_id
     WHERE destination = 'card' AND refunds.state = 'succeeded'
     UNION ALL
    SELECT payments.invoice_id, -disputes.amount FROM disputes
      JOIN payments ON payments.id = payment_id
     WHERE disputes.state IN ('open', 'lost')
) AS moved WHERE invoice_id IS NOT NULL GROUP BY invoice_id
"""
_POSTED_TO_STRIPE = """
SELECT client_id, sum(amount) AS held FROM ledger_postings
  JOIN ledger_entries ON ledger_entries.id = entry_id
 WHERE ledger_account = 'stripe' GROUP BY client_id
"""
_RECONCILING = "SELECT id FROM reconciliations WHERE finished_at IS NULL"
# The last ones come after everything: there is nothing left to mend.
_DIFFERENCES = """
SELECT difference, stripe_id, ours, theirs, our_amount, their_amount
  FROM reconciliation_differences JOIN reconciliations ON reconciliations.id = reconciliation_id
 WHERE NOT repaired AND rechecked_at IS NULL OR requested_by = :last
"""
_POSTED_INTO_CLOSED = """
SELECT id, effective_on FROM ledger_entries
 WHERE account_id = :account AND posted_at > :since AND effective_on <= :through
"""


def violations(
    engine: Engine, business: Business, stripe: StripeSandboxControl, sendgrid: SendGridControl
) -> list[str]:
    """Every promise that was broken, in words; none when all were kept."""
    with Session(engine) as session:
        return [
            *_of_jobs(session, business),
            *wrong_marks(session),
            *_of_schedules(session),
            *_of_requests(session, business),
            *_of_amendments(session, business),
            *_of_events(session, stripe, sendgrid),
            *_of_money(session, stripe),
            *_of_merchants(business, stripe),
            *_of_refunds(session, stripe),
            *_of_pages(session, stripe),
            *_of_disputes(session, stripe),
            *_of_sums(session, stripe),
            *_of_reconciling(session),
            *_of_mails(session, sendgrid),
            *_of_books(session, business),
        ]


def _of_jobs(session: Session, business: Business) -> Iterator[str]:
    for row in session.execute(text(_UNFINISHED)):
        yield f"job {row.kind} {row.id} is {row.state} ({row.reason} {row.error})"
    known = set(session.scalars(select(Job.id)))
    for job_id in business.accepted:
        if job_id not in known:
            yield f"job {job_id} was accepted and is gone"
    for job_id in business.rolled_back:
        if job_id in known:
            yield f"job {job_id} was rolled back and is there"
    started = select(Job.id).where(Job.id.in_(business.cancelled), Job.started_at.is_not(None))
    for job_id in session.scalars(started):
        yield f"job {job_id} was cancelled and started all the same"


def _of_schedules(session: Session) -> Iterator[str]:
    for (job_id,) in session.execute(text(_FIRED_FOR_NOTHING)):
        yield f"job {job_id} was fired by no schedule's time"
    for row in session.execute(text(_NOT_FIRED)):
        yield f"{row.schedule} fired for {row.fire_at} and has no job"


def _of_requests(session: Session, business: Business) -> Iterator[str]:
    """Each request over HTTP was done once, however often it was made."""
    for what, wanted, statement in (
        ("charge", business.recorded, _RECORDED),
        ("deposit", business.deposited, _DEPOSITED),
    ):
        found = Counter(session.scalars(text(statement)))
        for key in wanted:
            if found[key] != 1:
                yield f"the {what} {key} was asked for once and made {found[key]} times"
        for key in found.keys() - set(wanted):
            yield f"the {what} {key} was made and never answered"


def _of_amendments(session: Session, business: Business) -> Iterator[str]:
    """What was asked for last is what a charge comes to, with all that amends it."""
    ids = {"ids": list(business.amended)}
    for row in session.execute(text(_AMENDED), ids):
        wanted = business.amended[row.charge_id]
        if row.amount != wanted:
            yield f"charge {row.charge_id} was to come to {wanted} and comes to {row.amount}"


def _of_events(
    session: Session, stripe: StripeSandboxControl, sendgrid: SendGridControl
) -> Iterator[str]:
    """What we told Stripe and SendGrid that we took is stored, and handled."""
    handled = {row.event_id: row.handled_at for row in session.execute(text(_EVENTS))}
    for event in chain(untold_events(stripe), untold_mail_events(sendgrid)):
        yield f"event {event} could not be told"
    for event in chain(taken_events(stripe), taken_mail_events(sendgrid)):
        if event not in handled:
            yield f"event {event} was taken and is gone"
        elif handled[event] is None:
            yield f"event {event} was taken and not handled"


def _of_money(session: Session, stripe: StripeSandboxControl) -> Iterator[str]:
    charged: Counter[UUID] = Counter()
    amounts: dict[UUID, int] = {}
    for intent in stripe.payment_intents():
        if intent["status"] == "succeeded":
            attempt = UUID(intent["metadata"]["attempt"])
            charged[attempt] += 1
            amounts[attempt] = intent["amount_received"]
    recorded = {row.attempt_id: row.amount for row in session.execute(text(_PAYMENTS))}
    for attempt, times in charged.items():
        if times > 1:
            yield f"attempt {attempt} was charged {times} times"
        if recorded.get(attempt) != amounts[attempt]:
            yield f"attempt {attempt} was charged {amounts[attempt]}, recorded {recorded.get(attempt)}"
    for attempt in recorded.keys() - charged.keys():
        yield f"attempt {attempt} is recorded as paid and was never charged"
    for row in session.execute(text(_PAID_TOO_MUCH)):
        yield f"invoice {row.invoice_id} took {row.applied} of {row.amount} that its card paid"
    for row in session.execute(text(_UNSETTLED)):
        yield f"{row.what} {row.id} has no outcome"


def _of_refunds(session: Session, stripe: StripeSandboxControl) -> Iterator[str]:
    """Every refund to a card is one of Stripe's, item by item, and each of those is one of ours."""
    given_back: Counter[UUID] = Counter()
    items: dict[UUID, JsonObject] = {}
    for one in stripe.objects("refund"):
        if one["status"] == "succeeded":
            refund = UUID(one["metadata"]["refund"])
            given_back[refund] += 1
            items[refund] = one
    recorded = {row.id: row for row in session.execute(text(_REFUNDS))}
    for refund, times in given_back.items():
        if times > 1:
            yield f"refund {refund} was given back {times} times"
        ours, item = recorded.get(refund), items[refund]
        amount = None if ours is None else ours.amount
        if amount != item["amount"]:
            yield f"refund {refund} gave back {item['amount']}, recorded {amount}"
        if ours is None:
            continue
        for what, here, there in (
            ("is", ours.stripe_refund, item["id"]),
            # That its payment is gone is told of the attempt.
            ("is of", ours.payment_intent or item["payment_intent"], item["payment_intent"]),
            ("is in", ours.currency, item["currency"]),
        ):
            if here != there:
                yield f"refund {refund} {what} {here} here and {there} at Stripe"
    for refund in recorded.keys() - given_back.keys():
        yield f"refund {refund} is recorded as given back and never was"


def _of_merchants(business: Business, stripe: StripeSandboxControl) -> Iterator[str]:
    """Each account charges at its own Stripe account, and at no other's."""
    for at in sorted({PLATFORM, *business.stripe_accounts.values()}):
        for intent in stripe.payment_intents(account=at):
            of = business.stripe_accounts[UUID(intent["metadata"]["account"])]
            if of != at:
                yield f"attempt {intent['metadata']['attempt']} is of {of} and was made at {at}"


def _of_pages(session: Session, stripe: StripeSandboxControl) -> Iterator[str]:
    """A page stands here as it does at Stripe, and an open one asks for what is due."""
    at_stripe = {one["id"]: one for one in stripe.objects("checkout.session")}
    for row in session.execute(text(_PAGES)):
        page = at_stripe[row.checkout_session]
        is_open = row.state == AttemptState.NEEDS_ACTION
        if is_open != (page["status"] == "open"):
            yield f"page {row.id} is {row.state} here and {page['status']} at Stripe"
        elif is_open and row.status not in {"open", "uncollectible"}:
            yield f"page {row.id} is open, and its invoice is {row.status}"
        elif is_open and page["amount_total"] != row.outstanding:
            yield f"page {row.id} asks for {page['amount_total']}, and {row.outstanding} is due"
    for row in session.execute(text(_CARD_PAGES)):
        page = at_stripe[row.checkout_session]
        if _CARD_PAGE_STATES[page["status"]] != row.state:
            yield f"page {row.id} for a card is {row.state} here and {page['status']} at Stripe"


def _of_disputes(session: Session, stripe: StripeSandboxControl) -> Iterator[str]:
    """Every dispute stands here as it does at Stripe, and took what it took there."""
    here = {row.stripe_dispute: row for row in session.execute(text(_DISPUTES))}
    for one in stripe.objects("dispute"):
        row = here.pop(one["id"], None)
        if row is None:
            yield f"dispute {one['id']} is {one['status']} at Stripe and not known here"
            continue
        state = STATES[DisputeStatus(one["status"])]
        moved = _moved_by(one)
        for what, ours, theirs in (
            ("is", row.state, state),
            ("is about", row.amount, one["amount"]),
            ("is of", row.payment_intent or one["payment_intent"], one["payment_intent"]),
            ("moved", row.posted, moved),
        ):
            if ours != theirs:
                yield f"dispute {one['id']} {what} {ours} here and {theirs} at Stripe"
    for dispute in here:
        yield f"dispute {dispute} is known here and not at Stripe"


def _moved_by(dispute: JsonObject) -> int:
    """What a bank took, below zero, and gave back, without fees."""
    return sum(entry["amount"] for entry in dispute["balance_transactions"])


def _of_sums(session: Session, stripe: StripeSandboxControl) -> Iterator[str]:
    """What Stripe holds is what we say, for each invoice, and for each client by its ledger."""
    invoices: Counter[UUID] = Counter()
    clients: Counter[UUID] = Counter()
    for intent, held in _held_at_stripe(stripe):
        if "invoice" in intent["metadata"]:
            invoices[UUID(intent["metadata"]["invoice"])] += held
        clients[UUID(intent["metadata"]["client"])] += held
    for what, theirs, statement, who in (
        ("invoice", invoices, _HELD_FOR_INVOICES, "our payments say"),
        ("client", clients, _POSTED_TO_STRIPE, "its ledger says"),
    ):
        ours = Counter({one: int(held) for one, held in session.execute(text(statement)).all()})
        for one in sorted(ours.keys() | theirs.keys()):
            if ours[one] != theirs[one]:
                yield f"Stripe holds {theirs[one]} for {what} {one}, {who} {ours[one]}"


def _held_at_stripe(stripe: StripeSandboxControl) -> Iterator[tuple[JsonObject, int]]:
    """Each payment that succeeded, and what Stripe has of it by now."""
    gone: Counter[str] = Counter()
    for refund in stripe.objects("refund"):
        if refund["status"] == "succeeded":
            gone[refund["payment_intent"]] += refund["amount"]
    for dispute in stripe.objects("dispute"):
        gone[dispute["payment_intent"]] -= _moved_by(dispute)
    for intent in stripe.payment_intents():
        if intent["status"] == "succeeded":
            yield intent, intent["amount_received"] - gone[intent["id"]]


def _of_reconciling(session: Session) -> Iterator[str]:
    """Every comparison with Stripe's record ended, and the last ones found nothing."""
    for (reconciliation,) in session.execute(text(_RECONCILING)):
        yield f"reconciliation {reconciliation} has not finished"
    for row in session.execute(text(_DIFFERENCES), {"last": LAST}):
        yield (
            f"reconciling found {row.difference} of {row.stripe_id}:"
            f" {row.ours} {row.our_amount} here, {row.theirs} {row.their_amount} at Stripe"
        )


def _of_mails(session: Session, sendgrid: SendGridControl) -> Iterator[str]:
    sent = Counter(mail.custom_args["mail"] for mail in sendgrid.mails())
    for mail, times in sent.items():
        if times > 1:
            yield f"mail {mail} went out {times} times"
    for row in session.execute(text(_MAILED_TWICE), {"sent": list(sent)}):
        yield f"{row.recipient} had two mails {row.kind} about {row.subject_key}"
    known = {
        str(mail): state for mail, state in session.execute(text("SELECT id, state FROM mails"))
    }
    for mail in sent:
        if known.get(mail) not in {"accepted", "delivered", "claimed", "unknown"}:
            yield f"mail {mail} went out and is {known.get(mail)}"
    for mail, state in known.items():
        if state in {"accepted", "delivered"} and mail not in sent:
            yield f"mail {mail} is {state} and never went out"
        if state == "queued":
            yield f"mail {mail} waits to be sent"


def _of_books(session: Session, business: Business) -> Iterator[str]:
    for (invoice,) in session.execute(text(_FINALIZED_TWICE)):
        yield f"invoice {invoice} was finalized twice"
    for row in session.execute(text(_SAME_PERIOD)):
        yield f"client {row.client_id} has two invoices in {row.currency} for {row.period_id}"
    for (charge,) in session.execute(text(_LEFT_BEHIND)):
        yield f"charge {charge} was left behind by its period's invoice"
    for row in session.execute(text(_PERIODS)):
        yield f"period {row.id} is {row.state} ({row.error})"
    for account_id, (through, since) in business.closed.items():
        closed = {"account": account_id, "through": through, "since": since}
        for row in session.execute(text(_POSTED_INTO_CLOSED), closed):
            yield f"entry {row.id} counts for {row.effective_on}, in books that were closed"
    for account_id in business.accounts:
        for difference in audit(session, account_id):
            yield f"audit: {difference.rule}: {difference.subject} {difference.found}"
