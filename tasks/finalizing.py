"""Finalizing: numbers, frozen lines and parties, the entry in the books, and credit applied."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import chain
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import Row, select, text
from sqlalchemy.orm import Session

from billing.credit import CreditEntryKind
from billing.cycles import local_date
from billing.dates import InvoiceDate, due_on, issued_on
from billing.errors import NotFound, RuleViolation
from billing.invoice_states import InvoiceStatus, events_when_finalized, transition
from billing.number_formats import DocumentType
from billing.postings import (
    LedgerEvent,
    credit_applied_when_finalized,
    postings_for_finalizing,
)
from models import Account, Invoice
from models.client import clients_for_update
from tasks.collecting import wake_collection
from tasks.credit_balances import CreditMove, apply_credit, move_credit
from tasks.kinds import Run, job
from tasks.mailing import announce_invoice, announce_reviewed
from tasks.numbering import number_documents
from tasks.outcomes import Done, Outcome
from tasks.period_outcomes import settle_period
from tasks.posting import Entry, post
from tasks.taxing import TaxedDraft, TaxedLines, freeze_taxes, taxed_drafts

_LOCK = text("""
SELECT invoices.id, invoices.client_id, invoices.currency, invoices.status, invoices.subtotal,
       invoices.tax, invoices.total, invoices.due_on AS chosen_due_on,
       periods.period_end AS boundary,
       COALESCE(clients.net_days, accounts.net_days) AS net_days,
       accounts.invoice_date,
       invoices.period_id IS NOT NULL AND COALESCE(clients.auto_collect, accounts.auto_collect)
       AS auto_collect,
       EXISTS (SELECT FROM billing_methods AS method
                WHERE method.client_id = invoices.client_id AND method.stopped_for IS NULL)
       AS has_card,
       (SELECT min(earlier.period_end) FROM billing_periods AS earlier
         WHERE earlier.client_id = invoices.client_id AND earlier.run_id = invoices.run_id
           AND earlier.state <> 'skipped')
       AS oldest_boundary,
       last.issued_on AS last_issued_on
  FROM invoices
  JOIN clients ON clients.id = invoices.client_id
  JOIN accounts ON accounts.id = invoices.account_id
  LEFT JOIN billing_periods AS periods ON periods.id = invoices.period_id
  LEFT JOIN LATERAL (
       SELECT issued_on FROM invoices AS cycle
        WHERE cycle.client_id = invoices.client_id AND cycle.period_id IS NOT NULL
          AND cycle.issued_on IS NOT NULL
        ORDER BY cycle.id DESC LIMIT 1) AS last ON true
 WHERE invoices.account_id = :account AND invoices.id = ANY(:ids)
 ORDER BY invoices.client_id, periods.period_end, invoices.currency, invoices.id
   FOR UPDATE OF invoices
""")

_FREEZE_LINES = text("""
INSERT INTO invoice_lines (invoice_id, position, charge_id, charged_on, description, quantity,
                           unit_price, amount, net, tax, taxes)
SELECT charges.invoice_id,
       row_number() OVER (PARTITION BY charges.invoice_id ORDER BY charged_on, charges.id),
       charges.id, charged_on, description, quantity, unit_price, amount,
       COALESCE(taxed.net, amount), COALESCE(taxed.tax, 0), COALESCE(taxed.taxes ::jsonb, '{}')
  FROM invoices
  JOIN charges ON charges.client_id = invoices.client_id AND charges.invoice_id = invoices.id
  LEFT JOIN ROWS FROM (unnest(:charges ::uuid[], :nets ::bigint[], :sums ::bigint[]),
                       json_array_elements(:taxes ::json))
       AS taxed (charge_id, net, tax, taxes) ON taxed.charge_id = charges.id
 WHERE invoices.id = ANY(:ids)
""")

_FREEZE = text("""
UPDATE invoices
   SET status = final.status, number = final.number, sequence = final.sequence, series_year = final.year,
       subtotal = final.subtotal, tax = final.tax, total = final.subtotal + final.tax,
       issued_on = final.issued_on,
       due_on = final.due_on, credit_applied = final.credit_applied, finalized_at = :now,
       paid_at = CASE WHEN final.status = 'paid' THEN :now ::timestamptz END,
       review_ends_at = NULL, auto_collect = final.auto_collect,
       -- Not before an older one that was declined is tried again.
       next_attempt_at = CASE WHEN final.status = 'open' AND final.charges_card THEN GREATEST(
           :now ::timestamptz,
           (SELECT max(declined.next_attempt_at) FROM invoices AS declined
             WHERE declined.client_id = invoices.client_id AND declined.status = 'open'
               AND declined.failures > 0)) END,
       bill_from = jsonb_build_object(
           'name', accounts.name, 'legal_name', accounts.legal_name,
           'address', accounts.address, 'tax_ids', accounts.tax_ids),
       bill_to = jsonb_build_object(
           'name', clients.name, 'legal_name', clients.legal_name, 'email', clients.email,
           'address', clients.address, 'tax_ids', clients.tax_ids)
           || CASE WHEN clients.tax_exempt THEN '{"tax_exempt": true}' ELSE '{}' END ::jsonb
  FROM unnest(:ids ::uuid[], :statuses ::text[], :numbers ::text[], :issued ::date[],
              :due ::date[], :credits ::bigint[], :collected ::boolean[],
              :charged ::boolean[], :sequences ::bigint[], :years ::int[],
              :subtotals ::bigint[], :taxes ::bigint[])
       AS final (id, status, number, issued_on, due_on, credit_applied, auto_collect,
                 charges_card, sequence, year, subtotal, tax),
       clients, accounts
 WHERE invoices.id = final.id AND clients.id = invoices.client_id
   AND accounts.id = invoices.account_id
""")


@dataclass(frozen=True, slots=True)
class _Final:
    """What finalizing decides for one invoice, but for its number."""

    id: UUID
    client_id: UUID
    currency: str
    status: InvoiceStatus
    issued_on: date
    due_on: date
    subtotal: int
    tax: int
    auto_collect: bool
    has_card: bool

    @property
    def total(self) -> int:
        """What the client owes, before credit."""
        return self.subtotal + self.tax


def finalize_invoices(
    session: Session,
    account: Account,
    ids: Sequence[UUID],
    *,
    now: datetime,
    requested_by: str,
    collect: bool = False,
    expected_total: int | None = None,
) -> int:
    """Number, freeze and post drafts of one account, in a constant number of statements.

    They are taxed by the rates of now. Credit that their clients have is applied at once. The caller holds the clients' locks, so
    that a deposit meanwhile waits for the invoice, or the invoice finds the deposit.

    Args:
        session: The transaction to do it in.
        account: Whose drafts they are.
        ids: The drafts.
        now: When they are finalized.
        requested_by: Who asks.
        collect: Charge also those automatically that were drafted by hand.
        expected_total: What each must still come to, in minor units; anything when ``None``.

    Returns:
        How many were finalized; one that owes nothing is paid at once.

    Raises:
        IllegalTransition: One of them is not a draft (``invoice_not_draft``).
        RuleViolation: One comes to another total by now (``total_changed``).
    """
    today = local_date(now, ZoneInfo(account.time_zone))
    drafts = session.execute(_LOCK, {"account": account.id, "ids": list(ids)}).all()
    taxed = taxed_drafts(session, [draft.id for draft in drafts])
    finals = list(_decide_all(drafts, taxed, today, collect=collect))
    for final in finals:
        require_total(final.total, expected_total)
    if not finals:
        return 0
    _freeze_lines(session, finals, taxed)
    freeze_taxes(session, taxed)
    post(
        session,
        LedgerEvent.FINALIZE,
        [_entry(account, final, taxed.get(final.id)) for final in finals],
    )
    # The series stays locked from here to the commit, so all that needs no number comes before.
    numbers = number_documents(
        session, account, DocumentType.INVOICE, [final.issued_on for final in finals]
    )
    session.execute(
        _FREEZE,
        {
            "ids": [final.id for final in finals],
            "statuses": [final.status for final in finals],
            "numbers": [number.text for number in numbers],
            "sequences": [number.sequence for number in numbers],
            "years": [number.series_year for number in numbers],
            "subtotals": [final.subtotal for final in finals],
            "taxes": [final.tax for final in finals],
            "issued": [final.issued_on for final in finals],
            "due": [final.due_on for final in finals],
            "credits": [credit_applied_when_finalized(final.total) for final in finals],
            "collected": [final.auto_collect for final in finals],
            "charged": [final.auto_collect and final.has_card for final in finals],
            "now": now,
        },
    )
    _use_credit(session, account, finals, now=now, requested_by=requested_by)
    return len(finals)


def _freeze_lines(
    session: Session, finals: Sequence[_Final], taxed: Mapping[UUID, TaxedDraft]
) -> None:
    lines = [lines for draft in taxed.values() for lines in draft.lines]
    session.execute(
        _FREEZE_LINES,
        {
            "ids": [final.id for final in finals],
            "charges": [charge_id for some in lines for charge_id in some.charge_ids],
            "nets": [net for some in lines for net in some.nets],
            "sums": [tax for some in lines for tax in some.sums],
            "taxes": f"[{','.join(chain.from_iterable(map(_taxes_as_json, lines)))}]",
        },
    )


def _taxes_as_json(lines: TaxedLines) -> Iterator[str]:
    """Each line's tax by its rate. There may be very many, so that the json module is too slow."""
    template = "{" + ", ".join(f'"{rate_id}": %d' for rate_id in lines.taxes) + "}"
    return (template % taxes for taxes in zip(*lines.taxes.values(), strict=True))


def _use_credit(
    session: Session,
    account: Account,
    finals: Sequence[_Final],
    *,
    now: datetime,
    requested_by: str,
) -> None:
    """Apply credit and debits to new invoices; what negative ones give, to older ones as well."""
    apply_credit(
        session,
        account,
        [final.client_id for final in finals],
        invoice_ids=[final.id for final in finals],
        takes_debits=True,
        now=now,
        requested_by=requested_by,
    )
    negative = [final for final in finals if final.total < 0]
    move_credit(session, [_credit_of(account, final, requested_by) for final in negative])
    # By currency: a credit note in one is no reason to spend what a client keeps in another.
    for currency in sorted({final.currency for final in negative}):
        apply_credit(
            session,
            account,
            [final.client_id for final in negative if final.currency == currency],
            currency=currency,
            now=now,
            requested_by=requested_by,
        )


def _credit_of(account: Account, final: _Final, requested_by: str) -> CreditMove:
    return CreditMove(
        account_id=account.id,
        client_id=final.client_id,
        currency=final.currency,
        kind=CreditEntryKind.NEGATIVE_INVOICE,
        amount=-final.total,
        invoice_id=final.id,
        requested_by=requested_by,
    )


def _entry(account: Account, final: _Final, taxed: TaxedDraft | None) -> Entry:
    taxes = {} if taxed is None else {one.rate.id: one.tax for one in taxed.taxes.rates}
    return Entry(
        account_id=account.id,
        client_id=final.client_id,
        currency=final.currency,
        effective_on=final.issued_on,
        invoice_id=final.id,
        postings=postings_for_finalizing(final.total, taxes),
    )


def _decide_all(
    drafts: Sequence[Row[Any]], taxed: Mapping[UUID, TaxedDraft], today: date, *, collect: bool
) -> Iterator[_Final]:
    """What finalizing decides for each, where a client's oldest boundary comes first."""
    last_issued: dict[UUID, date] = {}
    for draft in drafts:
        last = last_issued.get(draft.client_id)
        final = _decide(draft, taxed.get(draft.id), today, last, collect=collect)
        if draft.boundary is not None:
            last_issued[draft.client_id] = final.issued_on
        yield final


def _decide(
    draft: Row[Any],
    taxed: TaxedDraft | None,
    today: date,
    last_issued_here: date | None,
    *,
    collect: bool,
) -> _Final:
    totals = draft if taxed is None else taxed.taxes
    status = InvoiceStatus(draft.status)
    for event in events_when_finalized(totals.total):
        status = transition(status, event)
    issued = issued_on(
        boundary=draft.boundary,
        finalized_on=today,
        oldest_boundary=draft.oldest_boundary,
        last_issued_on=last_issued_here or draft.last_issued_on,
        invoice_date=InvoiceDate(draft.invoice_date),
    )
    return _Final(
        id=draft.id,
        client_id=draft.client_id,
        currency=draft.currency,
        status=status,
        issued_on=issued,
        due_on=due_on(
            issued_on=issued,
            finalized_on=today,
            net_days=draft.net_days,
            chosen=draft.chosen_due_on,
        ),
        subtotal=totals.subtotal,
        tax=totals.tax,
        auto_collect=draft.auto_collect or collect,
        has_card=draft.has_card,
    )


def require_total(total: int, expected_total: int | None) -> None:
    """Refuse a draft, of ``total`` by now, that is not what was looked at.

    Raises:
        RuleViolation: It comes to another total (``total_changed``).
    """
    if expected_total not in {None, total}:
        raise RuleViolation(
            "total_changed", f"the draft comes to {total} now, not to {expected_total}"
        )


@job(queue="billing", subject="invoice")
def finalize_invoice(
    run: Run,
    session: Session,
    *,
    invoice_id: UUID,
    collect: bool | None = None,
    expected_total: int | None = None,
) -> Outcome:
    """Finalize and lock one draft: its client is told, and charged where ``collect`` says so.

    With ``expected_total``, in minor units, only if that is still what it comes to.
    """
    account = None if run.account_id is None else session.get(Account, run.account_id)
    found = session.execute(
        select(Invoice.client_id, Invoice.period_id).where(
            Invoice.id == invoice_id, Invoice.account_id == run.account_id
        )
    ).one_or_none()
    if account is None or found is None:
        raise NotFound("invoice", str(invoice_id))
    client_id, period_id = found
    client = session.scalars(clients_for_update([client_id])).one()
    asked_by = f"job:{run.job_id}"
    finalized = finalize_invoices(
        session,
        account,
        [invoice_id],
        now=run.now,
        requested_by=run.requested_by,
        collect=bool(collect),
        expected_total=expected_total,
    )
    if finalized == 0:
        raise NotFound("invoice", str(invoice_id))
    if period_id is None:
        announce_invoice(session, account, invoice_id, requested_by=asked_by)
    else:
        settle_period(session, period_id, run.now)
        announce_reviewed(session, account, client, [invoice_id], requested_by=asked_by)
    wake_collection(session, [client_id], now=run.now, requested_by=asked_by)
    return Done({"invoice": str(invoice_id)})
