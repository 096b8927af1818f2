"""Whether everybody who knows of the demo's money and mails says the same, item by item."""

from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from billing.card_amounts import from_stripe
from billing.postings import LedgerAccount
from gateways.sandbox.sendgrid.client import SendGridControl
from gateways.sandbox.stripe.control import StripeSandboxControl
from models import CreditBalance, Invoice, LedgerEntry, LedgerPosting, Mail, Payment, PaymentSource

MAILS = "mails"
"""In place of a currency, where things are counted."""

Items = Mapping[tuple[str, str], int]
"""Minor units by what they are about, an id, and their currency."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """What several records say of one thing. They agree where each item is the same in all."""

    what: str
    said: Mapping[str, Items]

    @property
    def ok(self) -> bool:
        """Whether all say the same of every item."""
        return not self.differing

    @property
    def differing(self) -> list[str]:
        """Each item that is not the same in all, and what each says of it."""
        told = []
        for about, unit in sorted({item for said in self.said.values() for item in said}):
            amounts = {who: said.get((about, unit), 0) for who, said in self.said.items()}
            if len(set(amounts.values())) > 1:
                each = (f"{who} {amount:,} {unit}" for who, amount in amounts.items())
                told.append(f"{about}: {', '.join(each)}")
        return told

    def totals(self, who: str) -> dict[str, int]:
        """The sums by currency of what one says."""
        sums = Counter[str]()
        for (_, currency), amount in self.said[who].items():
            sums[currency] += amount
        return dict(sorted(sums.items()))

    def as_json(self) -> dict[str, Any]:
        """The same as JSON values; of the items only those that differ."""
        said = {who: self.totals(who) for who in self.said}
        return {"what": self.what, "ok": self.ok, "said": said, "differing": self.differing}


def agreements(
    session: Session, account_id: UUID, *, stripe_url: str, sendgrid_url: str
) -> list[Agreement]:
    """Each thing that two or three records tell, read from each of them.

    Raises:
        LocalServerError: The local Stripe does not answer.
    """
    with closing(SendGridControl(sendgrid_url)) as sendgrid:
        taken = Counter((mail.custom_args.get("mail", ""), MAILS) for mail in sendgrid.mails())
    return [
        Agreement(
            "paid by card",
            {
                "payments": _payments(session, account_id),
                "ledger: stripe": _posted_by_attempt(session, account_id),
                "Stripe's own log": _charged(StripeSandboxControl(stripe_url)),
            },
        ),
        Agreement(
            "credit in hand",
            {
                "balances": _balances(session, account_id),
                "ledger: credit": _posted(
                    session, account_id, LedgerAccount.CREDIT, LedgerEntry.client_id, sign=-1
                ),
            },
        ),
        Agreement(
            "still due",
            {
                "invoices": _due(session, account_id),
                "ledger: receivable": _posted(
                    session, account_id, LedgerAccount.RECEIVABLE, LedgerEntry.invoice_id
                ),
            },
        ),
        Agreement(
            "mails sent",
            {"mails accepted": _accepted(session, account_id), "SendGrid's own log": taken},
        ),
    ]


def _payments(session: Session, account_id: UUID) -> Items:
    rows = session.execute(
        select(Payment.attempt_id, Payment.currency, Payment.amount).where(
            Payment.account_id == account_id, Payment.source == PaymentSource.CARD
        )
    )
    return {(str(attempt), currency): amount for attempt, currency, amount in rows}


def _posted_by_attempt(session: Session, account_id: UUID) -> Items:
    rows = session.execute(
        select(Payment.attempt_id, LedgerEntry.currency, func.sum(LedgerPosting.amount))
        .select_from(LedgerPosting)
        .join(LedgerEntry, LedgerEntry.id == LedgerPosting.entry_id)
        .outerjoin(Payment, Payment.id == LedgerEntry.payment_id)
        .where(
            LedgerEntry.account_id == account_id,
            LedgerPosting.ledger_account == LedgerAccount.STRIPE,
        )
        .group_by(Payment.attempt_id, LedgerEntry.currency)
    )
    return {(str(attempt), currency): int(amount) for attempt, currency, amount in rows}


def _charged(stripe: StripeSandboxControl) -> Items:
    charged = Counter[tuple[str, str]]()
    for charge in stripe.charges():
        if charge["status"] == "succeeded":
            currency = str(charge["currency"])
            attempt = str(charge["metadata"].get("attempt"))
            charged[attempt, currency] += from_stripe(charge["amount_captured"], currency)
    return charged


def _posted(
    session: Session,
    account_id: UUID,
    ledger_account: LedgerAccount,
    by: InstrumentedAttribute[UUID] | InstrumentedAttribute[UUID | None],
    *,
    sign: int = 1,
) -> Items:
    rows = session.execute(
        select(by, LedgerEntry.currency, func.sum(LedgerPosting.amount))
        .join(LedgerEntry, LedgerEntry.id == LedgerPosting.entry_id)
        .where(LedgerEntry.account_id == account_id, LedgerPosting.ledger_account == ledger_account)
        .group_by(by, LedgerEntry.currency)
    )
    return {(str(one), currency): sign * int(amount) for one, currency, amount in rows}


def _balances(session: Session, account_id: UUID) -> Items:
    rows = session.scalars(select(CreditBalance).where(CreditBalance.account_id == account_id))
    return {(str(one.client_id), one.currency): one.balance for one in rows}


def _due(session: Session, account_id: UUID) -> Items:
    rows = session.execute(
        select(Invoice.id, Invoice.currency, Invoice.amount_due).where(
            Invoice.account_id == account_id, Invoice.finalized_at.is_not(None)
        )
    )
    return {(str(invoice), currency): amount for invoice, currency, amount in rows}


def _accepted(session: Session, account_id: UUID) -> Items:
    ids = session.scalars(
        select(Mail.id).where(Mail.account_id == account_id, Mail.message_id.is_not(None))
    )
    return {(str(mail), MAILS): 1 for mail in ids}
