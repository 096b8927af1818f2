"""Taxing: what drafts come to with the tax they bear, and what finalizing freezes of it."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, TextClause, Uuid, any_, case, cast, func, select, text
from sqlalchemy.orm import Session

from billing.invoice_states import InvoiceStatus
from billing.tax import (
    InvoiceTaxes,
    InvoiceTotals,
    TaxableGroup,
    TaxableLine,
    TaxRate,
    rates_on,
    tax_groups,
    tax_invoice,
)
from models import Account, Charge, Client, Invoice, InvoiceTax, TaxRateRow

RATES = func.coalesce(Charge.tax_rates, Client.tax_rates, Account.tax_rates)
"""The ids of the rates of a charge, where its client and account are in the statement."""

TAXED_ON = case((Charge.amends.is_(None), func.coalesce(Charge.taxed_on, Charge.charged_on)))
"""The day whose rates a charge bears; none for an amendment, whose rates were chosen before."""

IS_EXEMPT = func.coalesce(Charge.tax_exempt, Client.tax_exempt)
"""Whether a charge bears no tax: as its client, or as the charge that it amends did."""

# Charges of an invoice are one row where they bear the same rates: those that name the same, and
# whose days no rate of the account begins or ends between. All without rates are one sum: an
# account may tax few of its clients. One that has no rates is told from the others before any of
# its charges is looked at.
_GROUPS = """
WITH taxed_by AS (
    SELECT account_id FROM invoices WHERE id = (:ids ::uuid[])[1]
), turns AS (
    SELECT array_agg(DISTINCT turn ORDER BY turn) AS days
      FROM tax_rates JOIN taxed_by USING (account_id)
     CROSS JOIN LATERAL unnest(ARRAY[valid_from, valid_to]) AS turn
     WHERE turn IS NOT NULL
), lines AS (
    SELECT charges.invoice_id, charges.id, charges.charged_on, charges.amount, rates,
           COALESCE(charges.tax_exempt, clients.tax_exempt) AS is_exempt,
           CASE WHEN rates <> '{{}}' AND charges.amends IS NULL
                THEN COALESCE(charges.taxed_on, charges.charged_on) END AS day
      FROM invoices
      JOIN clients ON clients.id = invoices.client_id
      JOIN accounts ON accounts.id = invoices.account_id
      JOIN charges ON charges.client_id = invoices.client_id
                  AND charges.invoice_id = invoices.id
     CROSS JOIN LATERAL (
           SELECT COALESCE(charges.tax_rates, clients.tax_rates, accounts.tax_rates) AS rates)
           AS borne
     WHERE invoices.id = ANY(:ids ::uuid[])
       AND EXISTS (SELECT FROM tax_rates JOIN taxed_by USING (account_id))
)
SELECT invoice_id, is_exempt, rates, min(day) AS day, sum(amount)::bigint AS amount{of_lines}
  FROM {lines} CROSS JOIN turns
 GROUP BY invoice_id, is_exempt, rates, width_bucket(day, days)
 ORDER BY invoice_id, min(charged_on)
"""

_PARTS = text(_GROUPS.format(of_lines="", lines="lines"))

_LINES = text(
    _GROUPS.format(
        of_lines=""",
       array_agg(id ::text ORDER BY position) FILTER (WHERE rates <> '{}') AS charge_ids,
       array_agg(amount ORDER BY position) FILTER (WHERE rates <> '{}') AS amounts,
       array_agg(position ORDER BY position) FILTER (WHERE rates <> '{}') AS positions""",
        lines="""(
       SELECT *, row_number() OVER (PARTITION BY invoice_id ORDER BY charged_on, id) AS position
         FROM lines) AS numbered""",
    )
)

_WRITE_TOTALS = text("""
UPDATE invoices SET subtotal = taxed.subtotal, tax = taxed.tax, total = taxed.subtotal + taxed.tax
  FROM unnest(:ids ::uuid[], :subtotals ::bigint[], :taxes ::bigint[])
       AS taxed (id, subtotal, tax)
 WHERE invoices.id = taxed.id
   AND (invoices.subtotal, invoices.tax) IS DISTINCT FROM (taxed.subtotal, taxed.tax)
""")

_FREEZE_TAXES = text("""
INSERT INTO invoice_taxes (invoice_id, position, tax_rate_id, name, percent, inclusive, net, tax)
SELECT taxes.invoice_id, taxes.position, rates.id, rates.name, rates.percent, rates.inclusive,
       taxes.net, taxes.tax
  FROM unnest(:invoices ::uuid[], :positions ::int[], :rates ::uuid[], :nets ::bigint[],
              :taxes ::bigint[]) AS taxes (invoice_id, position, rate_id, net, tax)
  JOIN tax_rates AS rates ON rates.id = taxes.rate_id
""")


@dataclass(frozen=True, slots=True)
class TaxPart:
    """Charges that bear the same rates on the same day: their sum, in minor units.

    Without a day all of the rates apply: they were chosen when what is amended was billed.
    """

    amount: int
    rate_ids: Sequence[UUID]
    day: date | None
    is_exempt: bool


@dataclass(frozen=True, slots=True)
class TaxedLines:
    """Lines of a draft that bear the same rates, by their charges, in the lines' order.

    Those of an exempt client name the rates too, with nothing of them: what corrects them later is
    taxed in the same way.
    """

    charge_ids: Sequence[str]
    nets: Sequence[int]
    taxes: Mapping[UUID, Sequence[int]]

    @property
    def sums(self) -> Iterator[int]:
        """The tax of each line."""
        return map(sum, zip(*self.taxes.values(), strict=True))


@dataclass(frozen=True, slots=True)
class TaxedDraft:
    """A draft with its taxes, and those of its lines that have rates."""

    taxes: InvoiceTotals
    lines: Sequence[TaxedLines]


def taxed_drafts(session: Session, invoice_ids: Sequence[UUID]) -> dict[UUID, TaxedDraft]:
    """Drafts of one account as their charges and the rates of now tax them, line by line.

    Returns:
        All of the drafts, by id; none where the account has no rates, so that they come to what
        their charges sum to.
    """
    rows, rates = _read(session, _LINES, invoice_ids)
    return {invoice_id: _taxed(of_draft, rates) for invoice_id, of_draft in rows.items()}


def tax_drafts(session: Session, invoice_ids: Sequence[UUID]) -> dict[UUID, int]:
    """Write down what drafts of one account come to with tax. Hold their locks, or have made them.

    To be called whenever a draft's charges, or what they are taxed by, have changed. A constant
    number of statements; one where the account has no rates, and nothing is written then.

    Returns:
        The total of each, in minor units; none where the account has no rates.
    """
    parts, rates = _read(session, _PARTS, invoice_ids)
    if not parts:
        return {}
    taxed = {
        invoice_id: tax_parts([_part(row) for row in rows], rates=rates)
        for invoice_id, rows in parts.items()
    }
    session.execute(
        _WRITE_TOTALS,
        {
            "ids": list(taxed),
            "subtotals": [one.subtotal for one in taxed.values()],
            "taxes": [one.tax for one in taxed.values()],
        },
    )
    return {invoice_id: one.total for invoice_id, one in taxed.items()}


def retax_drafts(session: Session, *whose: ColumnElement[bool]) -> None:
    """Tax the drafts again of those clients of one account, after their rates have changed.

    Takes the clients' locks, and then the drafts': what is drafted, finalized or edited meanwhile
    is taxed by the old rates and seen here, or waits and is taxed by the new ones.
    """
    session.flush()
    session.execute(
        select(Client.id).where(*whose).order_by(Client.id).with_for_update(key_share=True)
    )
    drafts = session.scalars(
        select(Invoice.id)
        .join(Client, Client.id == Invoice.client_id)
        .where(*whose, Invoice.status == InvoiceStatus.DRAFT)
        .order_by(Invoice.id)
        .with_for_update(of=Invoice)
    ).all()
    if drafts:
        tax_drafts(session, drafts)


def tax_parts(parts: Iterable[TaxPart], *, rates: Mapping[UUID, TaxRate]) -> InvoiceTaxes:
    """The taxes of an invoice of these charges; of ``rates`` those that each names.

    Summed charges come to the same totals as their lines: what a rate takes is exact until it is
    rounded on the whole invoice.
    """
    return tax_invoice([_taxable(part, rates) for part in parts])


def rates_by_id(session: Session, ids: AbstractSet[UUID]) -> dict[UUID, TaxRate]:
    """These rates as they are now."""
    if not ids:
        return {}
    rows = session.scalars(
        select(TaxRateRow)
        .where(TaxRateRow.id == any_(cast(list(ids), ARRAY(Uuid))))
        .execution_options(populate_existing=True)
    )
    return {row.id: row.rate for row in rows}


def freeze_taxes(session: Session, drafts: Mapping[UUID, TaxedDraft]) -> None:
    """Write down the rates of drafts that are being finalized, as they are now."""
    totals = [
        (invoice_id, position, total)
        for invoice_id, draft in drafts.items()
        for position, total in enumerate(draft.taxes.rates, start=1)
    ]
    if not totals:
        return
    session.execute(
        _FREEZE_TAXES,
        {
            "invoices": [invoice_id for invoice_id, _, _ in totals],
            "positions": [position for _, position, _ in totals],
            "rates": [total.rate.id for _, _, total in totals],
            "nets": [total.net for _, _, total in totals],
            "taxes": [total.tax for _, _, total in totals],
        },
    )


def taxes_of(session: Session, invoice_id: UUID) -> dict[UUID, int]:
    """The tax of a finalized invoice by the rate's id, in minor units."""
    rows = session.execute(
        select(InvoiceTax.tax_rate_id, InvoiceTax.tax)
        .where(InvoiceTax.invoice_id == invoice_id)
        .order_by(InvoiceTax.position)
    )
    return dict(rows.all())


def _read(
    session: Session, statement: TextClause, invoice_ids: Sequence[UUID]
) -> tuple[dict[UUID, list[Any]], dict[UUID, TaxRate]]:
    """The parts of each draft, and all of their rates."""
    parts: dict[UUID, list[Any]] = defaultdict(list)
    for row in session.execute(statement, {"ids": list(invoice_ids)}).all():
        parts[row.invoice_id].append(row)
    wanted = {rate for rows in parts.values() for row in rows for rate in row.rates}
    return parts, rates_by_id(session, wanted)


def _taxed(rows: Sequence[Any], rates: Mapping[UUID, TaxRate]) -> TaxedDraft:
    """A draft of these rows of _LINES."""
    bare = sum(row.amount for row in rows if not row.rates)
    with_rates = [row for row in rows if row.rates]
    groups = [
        TaxableGroup(row.amounts, row.positions, _borne(_part(row), rates), row.is_exempt)
        for row in with_rates
    ]
    taxes = tax_groups(groups)
    lines = [
        TaxedLines(
            row.charge_ids,
            taxed.nets,
            {rate.id: taxed.taxes.get(rate.id, [0] * len(taxed.nets)) for rate in group.rates},
        )
        for row, group, taxed in zip(with_rates, groups, taxes.groups, strict=True)
        if group.rates
    ]
    return TaxedDraft(InvoiceTotals(bare + taxes.subtotal, taxes.rates), lines)


def _part(row: Any) -> TaxPart:  # noqa: ANN401 - a row of _PARTS or _LINES
    return TaxPart(row.amount, row.rates, row.day, row.is_exempt)


def _taxable(part: TaxPart, rates: Mapping[UUID, TaxRate]) -> TaxableLine:
    return TaxableLine(part.amount, _borne(part, rates), part.is_exempt)


def _borne(part: TaxPart, rates: Mapping[UUID, TaxRate]) -> tuple[TaxRate, ...]:
    borne = tuple(rates[one] for one in part.rate_ids)
    return borne if part.day is None else rates_on(borne, part.day)
