"""Reissuing: what a voided invoice billed, to be billed again."""

from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from billing.errors import RuleViolation
from billing.invoice_states import InvoiceStatus
from models import Client, Invoice
from tasks.amending import reissue_amendments
from tasks.archiving import require_not_archived
from tasks.joining import join_drafts
from tasks.kinds import Run, job
from tasks.outcomes import Done, Outcome
from tasks.withdrawing import lock_invoice

# A reference names one charge of its account, so a copy has none.
_COPY = text("""
INSERT INTO charges (account_id, client_id, copy_of, amends, charged_on, description, category,
                     quantity, unit_price, amount, currency, tax_rates,
                     taxed_on, tax_exempt, metadata)
SELECT account_id, client_id, id, amends, charged_on, description, category, quantity, unit_price,
       amount, currency, tax_rates, taxed_on, tax_exempt, metadata
  FROM charges
 WHERE client_id = :client AND invoice_id = :invoice AND id <> ALL(:left_out ::uuid[])
 ORDER BY id
RETURNING id
""")


@job(queue="billing", subject="invoice")
def reissue_invoice(run: Run, session: Session, invoice_id: UUID) -> Outcome:
    """Open copies of a void invoice's charges, once."""
    invoice = lock_invoice(session, run, invoice_id)
    require_reissuable(invoice)
    return Done({"invoice": str(invoice_id), "charges": reissue_charges(session, run, invoice)})


def reissue_charges(session: Session, run: Run, invoice: Invoice) -> int:
    """Open copies of a locked invoice's charges, with their dates and prices; how many.

    A copied amendment goes on amending the same charge.

    Raises:
        RuleViolation: Its client is archived (``client_archived``).
    """
    require_not_archived(session.get_one(Client, invoice.client_id))
    invoice.reissued_at = run.now
    session.flush()
    left_out = reissue_amendments(session, invoice)
    wanted = {"client": invoice.client_id, "invoice": invoice.id, "left_out": left_out}
    copies = session.scalars(_COPY, wanted).all()
    join_drafts(session, copies)
    return len(copies)


def require_reissuable(invoice: Invoice) -> None:
    """Check that an invoice's charges may be opened again.

    Raises:
        RuleViolation: It is not void (``invoice_not_void``), or this was done before
            (``invoice_already_reissued``).
    """
    if invoice.status != InvoiceStatus.VOID:
        raise RuleViolation(
            "invoice_not_void", f"an invoice that is {invoice.status} still bills its charges"
        )
    if invoice.reissued_at is not None:
        raise RuleViolation(
            "invoice_already_reissued", "copies of this invoice's charges were opened before"
        )
