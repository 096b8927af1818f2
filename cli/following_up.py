"""What follows a billing run: credit, cards and mails, waited for and told about."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from rich.table import Table
from rich.text import Text
from sqlalchemy import ColumnElement, Select, and_, cast, exists, func, literal, or_, select
from sqlalchemy import Text as SqlText
from sqlalchemy.orm import Session

from billing.collection import AttemptState, Collection, collection_of
from billing.credit import CreditEntryKind
from billing.invoice_states import InvoiceStatus
from billing.job_states import FINAL, JobState
from billing.mails import MailState
from billing.money import format_amount
from cli.context import Context
from cli.output import Output, table
from cli.patience import COUNTING_SHARE, Patience
from models import (
    Account,
    BillingMethod,
    Client,
    CreditEntry,
    Invoice,
    Job,
    Mail,
    Payment,
    PaymentAttempt,
)
from models.payment_attempt import STILL_OPEN
from tasks.merchants import is_of_current_merchant

QUEUES = {"payments": "cards", "mail": "mails"}
"""Where the jobs wait that follow a run, and what they are about."""

DECLINED, WRITTEN_OFF, VOIDED = "declined", "written_off", "void"

SENT = frozenset({MailState.CLAIMED, MailState.ACCEPTED, MailState.DELIVERED})
"""Handed over, as far as is known."""

# In the order in which they are told.
_WORDS = {
    CreditEntryKind.APPLIED: ("paid by credit", ""),
    "card": ("paid by card", ""),
    "outside": ("paid another way", ""),
    CreditEntryKind.CARRIED: ("left for the next invoice", "too little for a card"),
    CreditEntryKind.NEGATIVE_INVOICE: ("owed to the client", "now credit"),
    DECLINED: ("declined", ""),
    Collection.NEEDS_ACTION: ("waiting for the client", "has to confirm at the bank"),
    Collection.IN_FLIGHT: ("not settled", "Stripe will tell"),
    Collection.SCHEDULED: ("held", "an older invoice was declined"),
    Collection.EXHAUSTED: ("held", "the card was declined for good"),
    Collection.NO_BILLING_METHOD: ("open without card", ""),
    Collection.PAUSED: ("held", "collection is paused"),
    Collection.MANUAL: ("open", "collected by hand"),
    WRITTEN_OFF: ("given up", "bad debt"),
    VOIDED: ("void", ""),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A part of what was invoiced, and what became of it.

    ``outcome`` is a kind of credit entry, a source of payments, ``declined``, ``written_off``, ``void``, or how
    what is due is being collected; ``amount`` is in minor units. An invoice that was paid in two
    ways is counted in two shares.
    """

    currency: str
    outcome: str
    invoices: int
    amount: int
    decline_code: str | None = None
    next_try_on: date | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MailCount:
    """How many mails of a kind ended in a state, and why those that were not sent were not."""

    kind: str
    state: str
    reason: str | None
    mails: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowUp:
    """What became of some runs' invoices, and of the mails about them.

    The shares of a currency sum to its ``invoiced``. ``dead`` are the jobs that gave up.
    """

    invoiced: dict[str, int]
    shares: list[Share]
    mails: list[MailCount]
    dead: list[UUID]
    seconds: float

    @property
    def adds_up(self) -> bool:
        """Whether the shares are all that was invoiced, in every currency."""
        sums: dict[str, int] = defaultdict(int)
        for share in self.shares:
            sums[share.currency] += share.amount
        return all(sums[currency] == total for currency, total in self.invoiced.items())

    @property
    def found_a_problem(self) -> bool:
        """Whether something went wrong that no schedule mends; a declined card is none."""
        return bool(self.dead) or not self.adds_up

    def as_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {
            "invoiced": self.invoiced,
            "adds_up": self.adds_up,
            "outcomes": [
                {
                    "currency": share.currency,
                    "outcome": share.outcome,
                    "decline_code": share.decline_code,
                    "next_try_on": share.next_try_on,
                    "invoices": share.invoices,
                    "amount": share.amount,
                }
                for share in self.shares
            ],
            "mails": [
                {
                    "kind": one.kind,
                    "state": one.state,
                    "sent": one.state in SENT,
                    "reason": one.reason,
                    "mails": one.mails,
                }
                for one in self.mails
            ],
            "dead_jobs": [str(job_id) for job_id in self.dead],
            "seconds": round(self.seconds, 3),
        }


def follow_up(
    context: Context,
    account_id: UUID,
    runs: Sequence[UUID],
    output: Output,
    *,
    tend: Callable[[], None] = lambda: None,
) -> FollowUp:
    """Wait for an account's cards and mails, and say what became of the runs' invoices.

    What waits for another day is not waited for: a declined card's next try, or a charge that
    Stripe will tell of.
    """
    seconds = wait_for_all(context, account_id, min(runs), output, tend=tend)
    with context.transaction() as session:
        return what_followed(session, account_id, runs, seconds=seconds)


def wait_for_all(
    context: Context,
    account_id: UUID,
    first_run: UUID,
    output: Output,
    *,
    tend: Callable[[], None] = lambda: None,
) -> float:
    """Wait until nothing is left to do now; how many seconds it took.

    Jobs since ``first_run`` are counted for those who watch.
    """
    began = time.monotonic()
    patience = Patience(context, output, tend)
    counted = _counted(account_id, first_run)
    count_at, left = 0.0, set(QUEUES)
    with output.progress() as bars:
        while left:
            now = time.monotonic()
            if now >= count_at:
                with context.transaction() as session:
                    rows = session.execute(counted).all()
                for queue, total, waiting in rows:
                    bars.update(QUEUES[queue], total - waiting, total)
                left = {queue for queue, _, waiting in rows if waiting}
                count_at = time.monotonic() + (time.monotonic() - now) / COUNTING_SHARE
            if left:
                patience.wait(left)
    return time.monotonic() - began


def what_followed(
    session: Session, account_id: UUID, runs: Sequence[UUID], *, seconds: float
) -> FollowUp:
    """What has become of the runs' invoices and of the mails about them, by now."""
    return FollowUp(
        invoiced=_invoiced(session, runs),
        shares=sorted([*_paid(session, runs), *_due(session, runs)], key=_order),
        mails=_mails(session, account_id, runs),
        dead=list(session.scalars(_dead(account_id, min(runs)))),
        seconds=seconds,
    )


def show_follow_up(output: Output, followed: FollowUp) -> None:
    """Tell people what became of the invoices, and of the mails."""
    told = []
    if followed.shares:
        told.append(shares_table(followed))
    if followed.mails:
        told.append(mails_table(followed))
    output.beside(*told)
    for job_id in followed.dead:
        output.say(f"[red]gave up[/]: duecourse jobs show {job_id}")
    if not followed.adds_up:
        output.say("[red]the outcomes do not sum to what was invoiced[/]: duecourse audit")


def shares_table(followed: FollowUp) -> Table:
    """Every share of what was invoiced, a section a currency."""
    numbers = ("invoices", "amount")
    rows = table("What became of the invoices", "outcome", *numbers, "why", numbers=numbers)
    for currency, total in sorted(followed.invoiced.items()):
        for share in followed.shares:
            if share.currency == currency:
                words, why = _told(share)
                rows.add_row(
                    words,
                    f"{share.invoices:,}",
                    format_amount(share.amount, currency),
                    Text(why, style="dim"),
                )
        rows.add_row("", "", format_amount(total, currency), style="bold", end_section=True)
    return rows


def mails_table(followed: FollowUp) -> Table:
    """Mails by kind and state, and why those that were not sent were not."""
    rows = table("Mails", "mail", "state", "mails", "why not", numbers=("mails",))
    for one in followed.mails:
        why = "" if one.state in SENT else (one.reason or "").replace("_", " ")
        rows.add_row(
            one.kind.replace("_", " "), one.state, f"{one.mails:,}", Text(why, style="dim")
        )
    return rows


def _told(share: Share) -> tuple[str, str]:
    words, why = _WORDS[share.outcome]
    if share.outcome == DECLINED:
        then = "no further try" if share.next_try_on is None else f"next try {share.next_try_on}"
        why = f"{(share.decline_code or 'no reason').replace('_', ' ')}; {then}"
    elif share.next_try_on is not None:
        why = f"{why}; next try {share.next_try_on}"
    return words, why


def _order(share: Share) -> tuple[str, int, date, str]:
    return (
        share.currency,
        list(_WORDS).index(share.outcome),
        share.next_try_on or date.max,
        share.decline_code or "",
    )


def _counted(account_id: UUID, first_run: UUID) -> Select[str, int, int]:
    """Jobs by queue: those since the first run and those not done, and how many are not done."""
    waits = _waits()
    return (
        select(Job.queue, func.count(), func.count().filter(waits))
        .where(Job.account_id == account_id, Job.queue.in_(QUEUES), or_(Job.id > first_run, waits))
        .group_by(Job.queue)
    )


def _waits() -> ColumnElement[bool]:
    """Whether a job is to be waited for: not done, and due; a mail that is queued is always due."""
    is_queued = exists().where(
        cast(Mail.id, SqlText) == Job.args["mail_id"].astext, Mail.state == MailState.QUEUED
    )
    is_later = and_(Job.state == JobState.SCHEDULED, Job.run_at > func.now())
    return and_(Job.state.not_in(FINAL), or_(~is_later, is_queued))


def _dead(account_id: UUID, first_run: UUID) -> Select[UUID]:
    return (
        select(Job.id)
        .where(
            Job.account_id == account_id,
            Job.id > first_run,
            Job.queue.in_(QUEUES),
            Job.state == JobState.DEAD,
        )
        .order_by(Job.id)
    )


def _invoiced(session: Session, runs: Sequence[UUID]) -> dict[str, int]:
    rows = session.execute(
        select(Invoice.currency, func.sum(Invoice.total))
        .where(Invoice.run_id.in_(runs), Invoice.status != InvoiceStatus.DRAFT)
        .group_by(Invoice.currency)
        .order_by(Invoice.currency)
    )
    return {currency: int(total) for currency, total in rows}


def _paid(session: Session, runs: Sequence[UUID]) -> list[Share]:
    """What credit and payments settled, and what was given up or voided since."""
    ours = Invoice.run_id.in_(runs)
    is_void = Invoice.status == InvoiceStatus.VOID
    number = func.count(Invoice.id.distinct())
    by_credit = (
        select(Invoice.currency, CreditEntry.kind, number, -func.sum(CreditEntry.amount))
        .join(CreditEntry, CreditEntry.invoice_id == Invoice.id)
        .where(
            ours,
            ~is_void,
            CreditEntry.kind.in_(
                (
                    CreditEntryKind.APPLIED,
                    CreditEntryKind.CARRIED,
                    CreditEntryKind.NEGATIVE_INVOICE,
                )
            ),
        )
        .group_by(Invoice.currency, CreditEntry.kind)
    )
    by_payment = (
        select(Invoice.currency, Payment.source, number, func.sum(Payment.applied))
        .join(Payment, Payment.invoice_id == Invoice.id)
        .where(ours, ~is_void, Payment.applied > 0)
        .group_by(Invoice.currency, Payment.source)
    )
    voided = (
        select(Invoice.currency, literal(VOIDED), number, func.sum(Invoice.total))
        .where(ours, is_void)
        .group_by(Invoice.currency)
    )
    written_off = (
        select(Invoice.currency, literal(WRITTEN_OFF), number, func.sum(Invoice.amount_written_off))
        .where(ours, Invoice.amount_written_off > 0)
        .group_by(Invoice.currency)
    )
    return [
        Share(currency=currency, outcome=outcome, invoices=invoices, amount=int(amount))
        for statement in (by_credit, by_payment, written_off, voided)
        for currency, outcome, invoices, amount in session.execute(statement)
    ]


def _due(session: Session, runs: Sequence[UUID]) -> list[Share]:
    """What is still due, by how it is being collected."""
    zone = func.coalesce(Client.time_zone, Account.time_zone)
    next_day = func.date(func.timezone(zone, Invoice.next_attempt_at))
    grouped = (
        Invoice.currency,
        Invoice.auto_collect,
        next_day,
        PaymentAttempt.state,
        PaymentAttempt.decline_code,
        BillingMethod.client_id.is_not(None),
        Client.collection_paused | Account.collection_paused,
    )
    rows = session.execute(
        select(*grouped, func.count(), func.sum(Invoice.amount_due))
        .join(Client, Client.id == Invoice.client_id)
        .join(Account, Account.id == Invoice.account_id)
        .outerjoin(
            BillingMethod,
            and_(BillingMethod.client_id == Invoice.client_id, is_of_current_merchant()),
        )
        .outerjoin(
            PaymentAttempt,
            # The last one.
            and_(
                PaymentAttempt.invoice_id == Invoice.id,
                PaymentAttempt.ordinal == Invoice.attempt_count,
            ),
        )
        .where(Invoice.run_id.in_(runs), Invoice.status == InvoiceStatus.OPEN)
        .group_by(*grouped)
    )
    shares = []
    for currency, is_automatic, day, state, code, has_card, is_paused, invoices, amount in rows:
        attempt = None if state is None else AttemptState(state)
        how: str = collection_of(
            status=InvoiceStatus.OPEN,
            is_automatic=is_automatic,
            attempt=attempt if attempt in STILL_OPEN else None,
            has_next_try=day is not None,
            has_card=has_card,
            is_paused=is_paused,
        )
        next_try_on = day if how == Collection.SCHEDULED else None
        if attempt == AttemptState.DECLINED and how in {Collection.SCHEDULED, Collection.EXHAUSTED}:
            how = DECLINED
        shares.append(
            Share(
                currency=currency,
                outcome=how,
                invoices=invoices,
                amount=int(amount),
                decline_code=code if how == DECLINED else None,
                next_try_on=next_try_on,
            )
        )
    return shares


def _mails(session: Session, account_id: UUID, runs: Sequence[UUID]) -> list[MailCount]:
    """Those about the runs' invoices, by kind and what is known of them."""
    about_ours = exists().where(Invoice.id == Mail.invoice_ids.any_(), Invoice.run_id.in_(runs))
    rows = session.execute(
        select(Mail.kind, Mail.state, Mail.reason, func.count())
        .where(Mail.account_id == account_id, Mail.id > min(runs), about_ours)
        .group_by(Mail.kind, Mail.state, Mail.reason)
        .order_by(Mail.kind, Mail.state, Mail.reason)
    )
    return [
        MailCount(kind=kind, state=state, reason=reason, mails=mails)
        for kind, state, reason, mails in rows
    ]
