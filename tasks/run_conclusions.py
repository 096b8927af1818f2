"""The end of a billing run: its clients are told, once each, and their cards are due."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models import Account, BillingMethod, BillingRun, Client, Invoice, Mail
from tasks.collecting import due_to_collect, start_collections
from tasks.mailing import announcement, write_mails


def conclude_run(session: Session, run: BillingRun, *, now: datetime, requested_by: str) -> None:
    """End a run, however far it came: what it billed is announced and collected.

    Only at the end: a catch-up is one mail, and its oldest invoice is charged first. What the
    mails list is settled here, before any card is charged. The caller holds the run's lock: one
    that goes on after its end, because its job is retried, tells only what it did not tell before.
    """
    is_over = run.finished_at is not None
    run.finished_at = now
    session.flush()
    if run.dry_run:
        return
    invoices = _untold(session, run, told=_told(session, run) if is_over else frozenset())
    if not invoices:
        return
    _announce(session, run, invoices, is_over=is_over, requested_by=requested_by)
    due = due_to_collect(now).where(Invoice.run_id == run.id)
    start_collections(session, due, requested_by=requested_by)


def conclude_late_page(session: Session, run_id: UUID, *, now: datetime, requested_by: str) -> None:
    """Tell what a page billed that was run again after its run's end; no-op before that end."""
    if session.scalar(select(BillingRun.finished_at).where(BillingRun.id == run_id)) is None:
        return
    run = session.get_one(BillingRun, run_id, with_for_update=True, populate_existing=True)
    conclude_run(session, run, now=now, requested_by=requested_by)


def _told(session: Session, run: BillingRun) -> frozenset[UUID]:
    """The invoices that mails of this run list, sent or not."""
    return frozenset(
        session.scalars(
            select(func.unnest(Mail.invoice_ids)).where(
                Mail.account_id == run.account_id,
                # Ids follow time, and its mails were written after the run was.
                Mail.id > run.id,
                Mail.subject_key.startswith(f"run:{run.id}:"),
            )
        )
    )


def _untold(
    session: Session, run: BillingRun, *, told: frozenset[UUID]
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
    is_over: bool,
    requested_by: str,
) -> None:
    billed = select(Invoice.client_id).where(Invoice.run_id == run.id)
    clients = session.scalars(select(Client).where(Client.id.in_(billed)).order_by(Client.id)).all()
    methods = {
        method.client_id: method
        for method in session.scalars(
            select(BillingMethod).where(BillingMethod.client_id.in_(billed))
        )
    }
    mails = [
        announcement(
            client,
            invoices[client.id],
            methods.get(client.id),
            # A second mail of one run is about what its first could not tell.
            subject_key=f"run:{run.id}:{client.id}"
            + (f":{invoices[client.id][0].id}" if is_over else ""),
        )
        for client in clients
        if client.id in invoices
    ]
    write_mails(
        session,
        session.get_one(Account, run.account_id),
        [mail for mail in mails if mail is not None],
        requested_by=requested_by,
    )
