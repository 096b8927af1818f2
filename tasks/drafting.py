"""Drafting invoices: taking open charges, and giving them back."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from uuid import UUID

from sqlalchemy import delete, select, text, update
from sqlalchemy.orm import Session

from billing.errors import NotFound, RuleViolation
from billing.invoice_states import InvoiceStatus
from billing.periods import PeriodState
from models import Charge, Client, Invoice
from models.client import clients_for_update
from models.database import database_now
from tasks.archiving import require_not_archived
from tasks.kinds import Run, job
from tasks.outcomes import Done, Outcome
from tasks.period_outcomes import settle_period
from tasks.taxing import tax_drafts
from tasks.withdrawing import lock_invoice


@dataclass(frozen=True, slots=True)
class DraftFor:
    """Whose charges to draft, and for which period and run, if any."""

    client_id: UUID
    period_id: UUID | None = None
    run_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Drafted:
    """One new draft. Amounts are in ``currency``'s minor units, ``total`` with tax."""

    invoice_id: UUID
    client_id: UUID
    period_id: UUID | None
    currency: str
    total: int
    charges: int


# One statement, so one snapshot: exactly the charges that were summed are the ones taken. Locking
# them first means that a charge edited meanwhile is summed as edited.
_DRAFT = text("""
WITH wanted AS (
    SELECT * FROM unnest(:clients ::uuid[], :periods ::uuid[], :runs ::uuid[])
                  AS wanted (client_id, period_id, run_id)
), taken AS (
    SELECT id, account_id, client_id, currency, amount FROM charges
     WHERE client_id = ANY(:clients) AND invoice_id IS NULL
       AND (:before ::date IS NULL OR charged_on < :before)
       AND (:charges ::uuid[] IS NULL OR id = ANY(:charges))
     ORDER BY id FOR UPDATE
), drafted AS (
    INSERT INTO invoices (account_id, client_id, period_id, run_id, currency, subtotal, total)
    SELECT account_id, client_id, period_id, run_id, currency, sum(amount), sum(amount)
      FROM taken JOIN wanted USING (client_id)
     GROUP BY account_id, client_id, period_id, run_id, currency
     ORDER BY client_id, currency
    RETURNING id, client_id, period_id, currency, total
), assigned AS (
    UPDATE charges SET invoice_id = drafted.id
      FROM taken JOIN drafted USING (client_id, currency)
     WHERE charges.id = taken.id
    RETURNING charges.invoice_id
), counted AS (
    SELECT invoice_id AS id, count(*) AS charges FROM assigned GROUP BY invoice_id
)
SELECT id, client_id, period_id, currency, total, charges
  FROM drafted JOIN counted USING (id) ORDER BY client_id, currency
""")


_SUM = text("""
UPDATE invoices SET subtotal = summed.amount, tax = 0, total = summed.amount
  FROM (SELECT invoices.id, sum(charges.amount) AS amount
          FROM invoices
          JOIN charges ON charges.client_id = invoices.client_id
                      AND charges.invoice_id = invoices.id
         WHERE invoices.id = ANY(:ids)
         GROUP BY invoices.id) AS summed
 WHERE invoices.id = summed.id
""")


def draft_invoices(
    session: Session,
    wanted: Sequence[DraftFor],
    *,
    before: date | None = None,
    charge_ids: Sequence[UUID] | None = None,
) -> list[Drafted]:
    """Draft the open charges of each client of one account, one invoice per currency.

    The caller holds the clients' locks.

    Args:
        session: The transaction to do it in.
        wanted: Each client once.
        before: Take only charges dated before this day.
        charge_ids: Take only these.

    Returns:
        The drafts, by client and currency; none for a client with nothing to take.
    """
    rows = session.execute(
        _DRAFT,
        {
            "clients": [one.client_id for one in wanted],
            "periods": [one.period_id for one in wanted],
            "runs": [one.run_id for one in wanted],
            "before": before,
            "charges": None if charge_ids is None else list(charge_ids),
        },
    )
    drafts = [Drafted(*row) for row in rows]
    totals = tax_drafts(session, [draft.invoice_id for draft in drafts])
    return [replace(one, total=totals.get(one.invoice_id, one.total)) for one in drafts]


@job(queue="billing", subject="client")
def draft_invoice(
    run: Run, session: Session, client_id: UUID, charge_ids: list[UUID] | None = None
) -> Outcome:
    """Draft a client's open charges, whatever their date, or the selected ones."""
    find = clients_for_update([client_id]).where(Client.account_id == run.account_id)
    client = session.scalars(find).one_or_none()
    if client is None:
        raise NotFound("client", str(client_id))
    require_not_archived(client)
    if charge_ids is not None:
        require_open(session, client_id, charge_ids)
    drafts = draft_invoices(session, [DraftFor(client_id)], charge_ids=charge_ids)
    if not drafts:
        raise RuleViolation("nothing_to_bill", "the client has no open charges")
    return Done({"invoices": [str(draft.invoice_id) for draft in drafts]})


@job(queue="billing", subject="invoice")
def delete_draft(run: Run, session: Session, invoice_id: UUID) -> Outcome:
    """Delete a draft; its charges are open again. A billing period that it was for is skipped."""
    invoice = lock_invoice(session, run, invoice_id)
    require_draft(InvoiceStatus(invoice.status))
    session.execute(
        update(Charge)
        .where(Charge.client_id == invoice.client_id, Charge.invoice_id == invoice_id)
        .values(invoice_id=None)
        .execution_options(synchronize_session=False)
    )
    session.execute(
        delete(Invoice).where(Invoice.id == invoice_id).execution_options(synchronize_session=False)
    )
    if invoice.period_id is not None:
        settle_period(session, invoice.period_id, run.now)
    return Done({"deleted": str(invoice_id)})


def require_draft(status: InvoiceStatus) -> None:
    """Check that an invoice may be deleted.

    Raises:
        RuleViolation: It is finalized (``invoice_not_draft``).
    """
    if status != InvoiceStatus.DRAFT:
        raise RuleViolation("invoice_not_draft", f"cannot delete an invoice that is {status}")


def require_open(session: Session, client_id: UUID, charge_ids: Sequence[UUID]) -> None:
    """Check that these charges are the client's, and open.

    Raises:
        NotFound: One is not a charge of this client.
        RuleViolation: One is on an invoice already (``charge_already_invoiced``).
    """
    found = {
        row.id: row.invoice_id
        for row in session.execute(
            select(Charge.id, Charge.invoice_id).where(
                Charge.client_id == client_id, Charge.id.in_(charge_ids)
            )
        )
    }
    for charge_id in charge_ids:
        if charge_id not in found:
            raise NotFound("charge", str(charge_id))
        if found[charge_id] is not None:
            raise RuleViolation(
                "charge_already_invoiced",
                f"charge {charge_id} is on invoice {found[charge_id]}",
            )


def refresh_totals(session: Session, invoice: Invoice) -> None:
    """Sum and tax a draft's charges again. Hold its client's lock and its own.

    A draft left without charges is deleted, and a billing period that it was for is empty.
    """
    left = session.scalar(
        select(Charge.id)
        .where(Charge.client_id == invoice.client_id, Charge.invoice_id == invoice.id)
        .limit(1)
    )
    if left is not None:
        sum_drafts(session, [invoice.id])
        session.refresh(invoice)
        return
    session.delete(invoice)
    if invoice.period_id is not None:
        settle_period(session, invoice.period_id, database_now(session), without=PeriodState.EMPTY)


def sum_drafts(session: Session, invoice_ids: Sequence[UUID]) -> None:
    """Write down what the charges of drafts of one account, all of which have some, come to.

    Hold their locks.
    """
    session.flush()
    session.execute(_SUM, {"ids": list(invoice_ids)})
    tax_drafts(session, invoice_ids)
