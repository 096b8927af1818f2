"""The end of a billing run: its clients are told, once each, and their cards are due."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from uuid import UUID

from sqlalchemy import Select, func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from models import Account, BillingMethod, BillingRun, Client, Invoice, Job, Mail
from tasks.collecting import due_to_collect, start_collections
from tasks.mailing import announcement, write_mails


def run_for_update(run_id: UUID) -> Select[BillingRun]:
    """One run, locked, as the last writer left it.

    NO KEY: pages that write invoices of the run, which only refer to it, need not wait.
    """
    return (
        select(BillingRun)
        .where(BillingRun.id == run_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )


def conclude_run(session: Session, run: BillingRun, *, now: datetime, requested_by: str) -> None:
    """End a run, however far it came: what it billed is announced and collected.

    Only at the end: a catch-up is one mail, and its oldest invoice is charged first. What the
    mails list is settled here, before any card is charged. The caller holds the run's lock: one
    that ends again, because it went on, tells only what it did not tell before.
    """
    run.finished_at = now
    session.flush()
    if run.dry_run:
        return
    told = _told(session, run)
    invoices = _untold(session, run, told)
    if not invoices:
        return
    _announce(session, run, invoices, told_before={*told.values()}, requested_by=requested_by)
    due = due_to_collect(now).where(Invoice.run_id == run.id)
    start_collections(session, due, requested_by=requested_by)


def resume_run(session: Session, run: BillingRun) -> bool:
    """Take back the end of a run whose job has more to do, so that it tells once, at its next end.

    The caller holds the run's lock.

    Returns:
        Whether it may go on: not beside another scheduled run of its account.
    """
    if run.finished_at is None:
        return True
    try:
        with session.begin_nested():
            run.finished_at = None
            session.flush()
    except IntegrityError:
        return False
    return True


def conclude_late_page(session: Session, run_id: UUID, *, now: datetime, requested_by: str) -> None:
    """Tell what a page billed that was run again after its run's end; no-op before that end.

    A run whose own job is to go on tells of it at its next end. The page keeps the run's lock until
    it is committed, so that no end comes in between and overlooks what it billed.
    """
    run = session.scalars(run_for_update(run_id)).one()
    if run.finished_at is None or (_goes_on(session, run) and resume_run(session, run)):
        return
    conclude_run(session, run, now=now, requested_by=requested_by)


def _goes_on(session: Session, run: BillingRun) -> bool:
    """Whether the run's own job, which unlike its pages has no parent, is still to end."""
    own = select(Job.id).where(
        Job.subject_id == run.id, Job.parent_id.is_(None), Job.finished_at.is_(None)
    )
    return session.scalar(own.limit(1)) is not None


def _told(session: Session, run: BillingRun) -> Mapping[UUID, UUID]:
    """The invoices that mails of this run list, sent or not, and their clients.

    Or mails about reviews: a draft of the run that was finalized after it was told of then.
    """
    listed = select(func.unnest(Mail.invoice_ids), Mail.client_id).where(
        Mail.account_id == run.account_id,
        # Ids follow time, and its mails were written after the run was.
        Mail.id > run.id,
        or_(
            Mail.subject_key.startswith(f"run:{run.id}:"),
            Mail.subject_key.startswith("review:"),
        ),
    )
    return dict(session.execute(listed).all())


def _untold(
    session: Session, run: BillingRun, told: Mapping[UUID, UUID]
) -> Mapping[UUID, Sequence[Invoice]]:
    """The run's invoices by client, but for those that were told."""
    untold: dict[UUID, list[Invoice]] = defaultdict(list)
    for invoice in session.scalars(
        select(Invoice).where(Invoice.run_id == run.id).order_by(Invoice.client_id, Invoice.id)
    ):
        if invoice.id not in told:
            untold[invoice.client_id].append(invoice)
    return untold


def _announce(
    session: Session,
    run: BillingRun,
    invoices: Mapping[UUID, Sequence[Invoice]],
    *,
    told_before: AbstractSet[UUID],
    requested_by: str,
) -> None:
    account = session.get_one(Account, run.account_id)
    billed = select(Invoice.client_id).where(Invoice.run_id == run.id)
    clients = session.scalars(select(Client).where(Client.id.in_(billed)).order_by(Client.id)).all()
    methods = {
        method.client_id: method
        for method in session.scalars(
            select(BillingMethod).where(
                BillingMethod.client_id.in_(billed),
                BillingMethod.merchant_id.is_not_distinct_from(account.merchant_id),
            )
        )
    }
    mails = [
        announcement(
            client,
            invoices[client.id],
            None if client.is_collection_paused(account) else methods.get(client.id),
            # A second mail of one run is about what its first could not tell.
            subject_key=f"run:{run.id}:{client.id}"
            + (f":{invoices[client.id][0].id}" if client.id in told_before else ""),
        )
        for client in clients
        if client.id in invoices
    ]
    write_mails(
        session,
        account,
        [mail for mail in mails if mail is not None],
        requested_by=requested_by,
    )
