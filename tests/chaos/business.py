"""A business with work to do while things break: clients, cards, charges, and commands on them."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from billing.cycles import BillingCycle
from gateways.sandbox.stripe.cardholders import make_cardholder
from models import Invoice, job_ledger
from models.database import database_now
from tasks.accounts import create_account
from tasks.billing_methods import set_billing_method
from tasks.billing_runs import request_run
from tasks.charges import NewCharge, record_charges
from tasks.charging import charge_invoice
from tasks.clients import NewClient, create_clients
from tasks.crediting import adjust_credit, apply_client_credit, deposit_credit
from tasks.drafting import draft_invoice
from tasks.enqueueing import enqueue
from tasks.finalizing import finalize_invoice
from tasks.kinds import JobKind
from tasks.marking_paid import mark_invoice_paid
from tasks.voiding import void_invoice

ACCOUNTS = 3
MONTHS = 2
KEEP_TRYING_SECONDS = 90.0

CARDS = (
    *("pm_card_visa",) * 5,
    "pm_card_chargeDeclinedInsufficientFunds",
    "pm_card_chargeDeclinedStolenCard",
    "pm_card_authenticationRequired",
    None,
)


_Command = tuple[JobKind, dict[str, Any]]


@dataclass
class Business:
    """Who is billed, and what was asked for; ids as they were committed.

    ``rolled_back`` and ``cancelled`` are jobs that must never start.
    """

    engine: Engine
    rng: random.Random
    accounts: list[UUID] = field(default_factory=list)
    clients: list[tuple[UUID, UUID]] = field(default_factory=list)
    accepted: list[UUID] = field(default_factory=list)
    rolled_back: list[UUID] = field(default_factory=list)
    cancelled: list[UUID] = field(default_factory=list)

    def open(self, clients: int, stripe_url: str) -> None:
        """Make accounts and clients with cards, and charges of the last months for each."""
        cards = {
            (number, card): make_cardholder(stripe_url, payment_method=card)
            for number in range(ACCOUNTS)
            for card in dict.fromkeys(CARDS)
            if card is not None
        }
        now = datetime.now(UTC)
        first = _months_ago(now.date(), MONTHS)
        with Session(self.engine) as session, session.begin():
            now = database_now(session)
            for number in range(ACCOUNTS):
                account = create_account(session, f"Account {number}")
                self.accounts.append(account.id)
                made = create_clients(
                    session,
                    account,
                    [_client(n, first) for n in range(clients // ACCOUNTS)],
                    now=now,
                )
                self.clients += [(account.id, client.id) for client in made]
                for client in made:
                    card = self.rng.choice(CARDS)
                    if card is not None:
                        set_billing_method(
                            session,
                            account.id,
                            client.id,
                            stripe_customer=cards[number, card].customer,
                            payment_method=cards[number, card].payment_method,
                            now=now,
                            requested_by="chaos",
                        )
                    days = [first + timedelta(days=self.rng.randrange(28)) for _ in range(3)]
                    record_charges(session, account.id, [_charge(client.id, day) for day in days])
                    if self.rng.random() < 0.3:
                        self._ask(
                            session,
                            account.id,
                            deposit_credit,
                            client_id=client.id,
                            amount=self.rng.choice((300, 1_000, 5_000)),
                            currency="usd",
                        )

    def bill(self) -> None:
        """Ask for every account's billing run."""
        for account_id in self.accounts:

            def ask(session: Session, account_id: UUID = account_id) -> None:
                now = database_now(session)
                run = request_run(session, account_id, now=now, requested_by="chaos", as_of=now)
                self.accepted.append(run.job_id)

            self._patiently(ask)

    def do_something(self) -> None:
        """One command that staff or another system might give just now."""
        self._patiently(self._something)

    def _something(self, session: Session) -> None:
        account_id, client_id = self.rng.choice(self.clients)
        invoice = session.scalar(
            select(Invoice).where(Invoice.client_id == client_id).order_by(func.random()).limit(1)
        )
        if invoice is not None and self.rng.random() < 0.6:
            kind, arguments = self._of_invoice(invoice)
        else:
            kind, arguments = self._of_client(session, account_id, client_id)
        job_id = self._ask(session, account_id, kind, **arguments)
        fate = self.rng.random()
        if fate < 0.03:
            session.flush()
            session.rollback()
            self.accepted.remove(job_id)
            self.rolled_back.append(job_id)
        elif fate < 0.06 and job_ledger.cancel(session.connection(), job_id):
            self.accepted.remove(job_id)
            self.cancelled.append(job_id)

    def _of_invoice(self, invoice: Invoice) -> _Command:
        wanted: dict[str, Any] = {"invoice_id": invoice.id}
        if invoice.status == "draft":
            return finalize_invoice, {**wanted, "collect": self.rng.random() < 0.5}
        kind = self.rng.choice((charge_invoice, charge_invoice, mark_invoice_paid, void_invoice))
        if kind is mark_invoice_paid and self.rng.random() < 0.5:
            wanted["amount"] = 100
        return kind, wanted

    def _of_client(self, session: Session, account_id: UUID, client_id: UUID) -> _Command:
        wanted: dict[str, Any] = {"client_id": client_id}
        match self.rng.randrange(4):
            case 0:
                record_charges(session, account_id, [_charge(client_id, date(2026, 1, 1))])
                return draft_invoice, wanted
            case 1:
                amount = self.rng.randrange(1, 4_000)
                return deposit_credit, {**wanted, "amount": amount, "currency": "usd"}
            case 2:
                amount = self.rng.choice((-700, -20, 50, 600))
                note = "a correction"
                return adjust_credit, {**wanted, "amount": amount, "currency": "usd", "note": note}
            case _:
                return apply_client_credit, wanted

    def _ask(self, session: Session, account_id: UUID, kind: JobKind, **arguments: Any) -> UUID:
        job_id = enqueue(session, kind, account_id=account_id, requested_by="chaos", **arguments).id
        self.accepted.append(job_id)
        return job_id

    def _patiently(self, ask: Callable[[Session], None]) -> None:
        """Ask until the database takes it: what it did not take was not accepted."""
        deadline = time.monotonic() + KEEP_TRYING_SECONDS
        while True:
            before = len(self.accepted), len(self.rolled_back), len(self.cancelled)
            try:
                with Session(self.engine) as session, session.begin():
                    ask(session)
            except SQLAlchemyError:
                for ids, length in zip(
                    (self.accepted, self.rolled_back, self.cancelled), before, strict=True
                ):
                    del ids[length:]
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return


def _client(number: int, first: date) -> NewClient:
    return NewClient(
        name=f"Client {number}",
        email=f"client{number}@example.com",
        billing_cycle=BillingCycle.MONTHLY,
        billing_starts_on=first,
    )


def _charge(client_id: UUID, day: date) -> NewCharge:
    return NewCharge(
        client_id=client_id,
        description="Prep",
        currency="usd",
        charged_on=day,
        unit_price=Decimal("7.30"),
    )


def _months_ago(day: date, months: int) -> date:
    index = day.year * 12 + day.month - 1 - months
    return date(index // 12, index % 12 + 1, 1)
