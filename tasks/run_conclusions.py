"""The end of a billing run: its clients are told, once each, and their cards are due."""

from collections import defaultdict
from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from models import Account, BillingMethod, BillingRun, Client, Invoice
from tasks.collecting import due_to_collect, start_collections
from tasks.mailing import announcement, write_mails


def conclude_run(session: Session, run: BillingRun, *, now: datetime, requested_by: str) -> None:
    """End a run, however far it came: what it billed is announced and collected.

    Only at the end: a catch-up is one mail, and its oldest invoice is charged first. What the
    mails list is settled here, before any card is charged.
    """
    run.finished_at = now
    session.flush()
    if run.dry_run:
        return
    invoices: dict[UUID, list[Invoice]] = defaultdict(list)
    for invoice in session.scalars(
        select(Invoice).where(Invoice.run_id == run.id).order_by(Invoice.client_id, Invoice.id)
    ):
        invoices[invoice.client_id].append(invoice)
    if not invoices:
        return
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
            subject_key=f"run:{run.id}:{client.id}",
        )
        for client in clients
    ]
    write_mails(
        session,
        session.get_one(Account, run.account_id),
        [mail for mail in mails if mail is not None],
        requested_by=requested_by,
    )
    due = due_to_collect(now).where(Invoice.run_id == run.id)
    start_collections(session, due, requested_by=requested_by)
