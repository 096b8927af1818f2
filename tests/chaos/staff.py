"""Commands as staff and other systems give them, in transactions of their own."""

import random
from dataclasses import dataclass, field
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models import Invoice, Payment, job_ledger
from tasks.card_deposits import deposit_by_card
from tasks.charges import record_charges
from tasks.charging import charge_invoice
from tasks.crediting import adjust_credit, apply_client_credit, deposit_credit
from tasks.drafting import draft_invoice
from tasks.enqueueing import enqueue
from tasks.finalizing import finalize_invoice
from tasks.granting import grant_credit
from tasks.invoice_credits import credit_invoice
from tasks.kinds import JobKind
from tasks.marking_paid import mark_invoice_paid
from tasks.payment_refunds import refund_payment
from tasks.voiding import void_invoice
from tasks.writing_off import write_off_invoice
from tests.chaos.business import Business, a_charge
from tests.chaos.marks import marks_job
from tests.chaos.patience import patiently

_Command = tuple[JobKind, dict[str, Any]]

_OF_ANY_INVOICE = (charge_invoice, charge_invoice, mark_invoice_paid, void_invoice)
_DESTINATIONS = ("card", "card", "credit", "outside")


@dataclass
class _Fates:
    """What became of the jobs of one transaction, if it commits."""

    accepted: list[UUID] = field(default_factory=list)
    rolled_back: list[UUID] = field(default_factory=list)
    cancelled: list[UUID] = field(default_factory=list)


class Staff:
    """Gives one command after another, each by ``rng``."""

    def __init__(self, business: Business, rng: random.Random) -> None:
        self._business = business
        self._rng = rng

    def do_something(self) -> None:
        """Give one command; some are taken back at once."""
        fates = patiently(self._business.engine, self._something)
        self._business.accepted += fates.accepted
        self._business.rolled_back += fates.rolled_back
        self._business.cancelled += fates.cancelled

    def _something(self, session: Session) -> _Fates:
        job_id = self._ask(session)
        fate = self._rng.random()
        if fate < 0.03:
            session.flush()
            session.rollback()
            return _Fates(rolled_back=[job_id])
        if fate < 0.06 and job_ledger.cancel(session.connection(), job_id):
            return _Fates(cancelled=[job_id])
        return _Fates(accepted=[job_id])

    def _ask(self, session: Session) -> UUID:
        # Often enough that whoever is paused or killed is likely in the middle of one.
        if self._rng.random() < 0.25:
            new = marks_job(self._rng.uniform(0.1, 4.0))
            return job_ledger.enqueue(session.connection(), new).id
        account_id, client_id = self._rng.choice(self._business.clients)
        invoice = session.scalar(
            select(Invoice).where(Invoice.client_id == client_id).order_by(func.random()).limit(1)
        )
        if invoice is not None and self._rng.random() < 0.6:
            kind, arguments = self._of_invoice(session, invoice)
        else:
            kind, arguments = self._of_client(session, account_id, client_id)
        return enqueue(session, kind, account_id=account_id, requested_by="chaos", **arguments).id

    def _of_invoice(self, session: Session, invoice: Invoice) -> _Command:
        wanted: dict[str, Any] = {"invoice_id": invoice.id}
        if invoice.status == "draft":
            expected = self._rng.choice((None, invoice.total))
            wanted |= {"collect": self._rng.random() < 0.5, "expected_total": expected}
            return finalize_invoice, wanted
        if self._rng.random() < 0.4:
            return self._money_back(session, invoice)
        kind = self._rng.choice(_OF_ANY_INVOICE)
        if kind is mark_invoice_paid and self._rng.random() < 0.5:
            wanted["amount"] = 100
        if kind is void_invoice:
            wanted |= {
                "settle": self._rng.choice((None, "credit")),
                "reissue": self._rng.random() < 0.5,
            }
        return kind, wanted

    def _money_back(self, session: Session, invoice: Invoice) -> _Command:
        """A refund of what paid the invoice, a note that takes a part of it, or nothing more due."""
        payment_id = session.scalar(
            select(Payment.id).where(Payment.invoice_id == invoice.id).limit(1)
        )
        wanted: dict[str, Any] = {"to": self._rng.choice(_DESTINATIONS)}
        if payment_id is None and self._rng.random() < 0.3:
            return write_off_invoice, {"invoice_id": invoice.id}
        if payment_id is None or self._rng.random() < 0.3:
            return credit_invoice, {**wanted, "invoice_id": invoice.id, "amount": 200}
        wanted |= {
            "amount": self._rng.choice((None, 100, 300)),
            "credit_note": self._rng.random() < 0.5,
        }
        return refund_payment, {**wanted, "payment_id": payment_id}

    def _of_client(self, session: Session, account_id: UUID, client_id: UUID) -> _Command:
        wanted: dict[str, Any] = {"client_id": client_id}
        match self._rng.randrange(6):
            case 0:
                record_charges(session, account_id, [a_charge(client_id, date(2026, 1, 1))])
                return draft_invoice, wanted
            case 1:
                amount = self._rng.randrange(1, 4_000)
                return deposit_credit, {**wanted, "amount": amount, "currency": "usd"}
            case 2:
                amount = self._rng.choice((-700, -20, 50, 600))
                note = "a correction"
                return adjust_credit, {**wanted, "amount": amount, "currency": "usd", "note": note}
            case 3:
                amount = self._rng.choice((50, 1_500))
                return deposit_by_card, {**wanted, "amount": amount, "currency": "usd"}
            case 4:
                amount = self._rng.choice((10, 900))
                return grant_credit, {**wanted, "amount": amount, "currency": "usd"}
            case _:
                return apply_client_credit, wanted
