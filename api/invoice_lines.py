"""The lines of an invoice and its taxes by rate: a draft's as they are now, others' as frozen."""

from datetime import date
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.orm import Session

from api.fields import plain
from billing.invoice_states import InvoiceStatus
from billing.tax import RateTotal
from models import Charge, Invoice, InvoiceLine, InvoiceTax
from tasks.taxing import taxed_drafts


class LineReport(BaseModel):
    """One charge on an invoice: `amount` as it was priced, `net` without the taxes in its price.

    `tax` is its part of the invoice's taxes, in its price or on top.
    """

    charge: UUID
    charged_on: date
    description: str
    quantity: str
    unit_price: str | None
    amount: int
    net: int
    tax: int

    @classmethod
    def of(cls, line: Charge | InvoiceLine, charge_id: UUID, *, net: int, tax: int) -> "LineReport":
        """The line as it is shown."""
        return cls(
            charge=charge_id,
            charged_on=line.charged_on,
            description=line.description,
            quantity=plain(line.quantity),
            unit_price=None if line.unit_price is None else plain(line.unit_price),
            amount=line.amount,
            net=net,
            tax=tax,
        )


class TaxReport(BaseModel):
    """One tax rate of an invoice: `tax`, taken of lines that are `net` without tax."""

    tax_rate: UUID
    name: str
    percent: str
    inclusive: bool
    net: int
    tax: int

    @classmethod
    def of(cls, tax: InvoiceTax) -> "TaxReport":
        """The rate as it was frozen."""
        return cls(
            tax_rate=tax.tax_rate_id,
            name=tax.name,
            percent=plain(tax.percent),
            inclusive=tax.inclusive,
            net=tax.net,
            tax=tax.tax,
        )

    @classmethod
    def of_draft(cls, total: RateTotal) -> "TaxReport":
        """The rate as finalizing now would freeze it."""
        rate = total.rate
        return cls(
            tax_rate=rate.id,
            name=rate.name,
            percent=plain(rate.percent),
            inclusive=rate.inclusive,
            net=total.net,
            tax=total.tax,
        )


def lines_and_taxes(session: Session, invoice: Invoice) -> tuple[list[LineReport], list[TaxReport]]:
    """What an invoice bills, line by line, and its taxes in the order of the lines."""
    if invoice.status == InvoiceStatus.DRAFT:
        return _of_draft(session, invoice)
    lines = session.scalars(
        select(InvoiceLine)
        .where(InvoiceLine.invoice_id == invoice.id)
        .order_by(InvoiceLine.position)
    )
    taxes = session.scalars(
        select(InvoiceTax).where(InvoiceTax.invoice_id == invoice.id).order_by(InvoiceTax.position)
    )
    return (
        [LineReport.of(line, line.charge_id, net=line.net, tax=line.tax) for line in lines],
        [TaxReport.of(tax) for tax in taxes],
    )


def _of_draft(session: Session, draft: Invoice) -> tuple[list[LineReport], list[TaxReport]]:
    charges = session.scalars(
        select(Charge)
        .where(Charge.client_id == draft.client_id, Charge.invoice_id == draft.id)
        .order_by(Charge.charged_on, Charge.id)
    ).all()
    taxed = {str(charge.id): (charge.amount, 0) for charge in charges}
    taxes: list[TaxReport] = []
    for now in taxed_drafts(session, [draft.id]).values():
        for some in now.lines:
            nets_and_taxes = zip(some.nets, some.sums, strict=True)
            taxed |= zip(some.charge_ids, nets_and_taxes, strict=True)
        taxes = [TaxReport.of_draft(total) for total in now.taxes.rates]
    lines = [
        LineReport.of(charge, charge.id, net=net, tax=tax)
        for charge in charges
        for net, tax in [taxed[str(charge.id)]]
    ]
    return lines, taxes
