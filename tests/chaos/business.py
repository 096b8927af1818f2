"""A business to work for while things break: accounts, clients, cards, charges, credit."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Literal
from uuid import UUID

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from billing.cycles import BillingCycle
from gateways.sandbox.stripe.books import PLATFORM
from gateways.sandbox.stripe.cardholders import Cardholder, make_cardholder
from gateways.sealing import Seal
from models import Account, ApiKey, Client, Scope
from models.database import database_now
from tasks.accounts import change_account, create_account
from tasks.billing_methods import set_backup_method, set_billing_method
from tasks.billing_runs import request_run
from tasks.charges import NewCharge, record_charges
from tasks.clients import NewClient, create_clients
from tasks.crediting import deposit_credit
from tasks.enqueueing import enqueue
from tasks.merchants import charge_by_own_key, charge_through
from tasks.tax_rates import create_tax_rate
from tests.chaos.marks import create_table
from tests.chaos.patience import patiently
from tests.processes import SECRET_KEY

MONTHS = 2

CYCLES = (*(BillingCycle.MONTHLY,) * 8, BillingCycle.SEMIMONTHLY, BillingCycle.WEEKLY)
"""How often clients are billed, each as often as it stands here."""

CARDS = (
    *("pm_card_visa",) * 5,
    "pm_card_chargeDeclinedInsufficientFunds",
    "pm_card_chargeDeclinedStolenCard",
    "pm_card_authenticationRequired",
    "pm_usBankAccount_success",
    "pm_usBankAccount_insufficientFunds",
    "pm_card_pendingRefund",
    None,
)
"""What clients pay with, each as often as it stands here."""

BACKUPS = (*(None,) * 3, "pm_card_mastercard", "pm_card_chargeDeclinedLostCard")
"""What they have behind it, each as often as it stands here."""

REVIEW_HOURS: Sequence[int | Literal["person"]] = (*(0,) * 5, 1, "person")
"""How long clients' drafts are looked at, each as often as it stands here."""

TOP_UPS = (*(None,) * 5, {"threshold": 400, "target": 2_000, "currency": "usd"})
"""What clients' credit is kept above, each as often as it stands here."""

TAXES: Sequence[Sequence[tuple[str, bool, int]]] = (
    (),
    (("20", False, 0), ("5.5", False, 1)),
    (("19", True, 0), ("1.25", False, 0)),
)
"""The rates of each account: percents, whether prices contain them, from which month on."""

CONNECTED, OWN = "acct_connected", "acct_own"
STRIPE_ACCOUNTS = (PLATFORM, CONNECTED, OWN)
"""Where each account charges: at the deployment, at one connected to it, and by a key of its own."""

OWN_KEY, OWN_SECRET = f"sk_test_{OWN}_1", "whsec_of_the_third_account"


@dataclass
class Business:
    """Who is billed, and what was asked for; ids as they were committed.

    Attributes:
        stripe_accounts: Where each account charges.
        keys: The accounts' API keys.
        clients: Account and client of each.
        accepted: Jobs that were committed, and must end.
        rolled_back: Jobs that were not, and must not be there.
        cancelled: Jobs that must never start.
        recorded: Descriptions of charges that were asked for over HTTP, one each.
        deposited: Notes of deposits that were, one each.
        amended: What locked charges are to come to, with their amendments, in minor units.
        closed: Through which day an account's books are closed, and since when.
    """

    engine: Engine
    rng: random.Random
    accounts: list[UUID] = field(default_factory=list)
    stripe_accounts: dict[UUID, str] = field(default_factory=dict)
    keys: dict[UUID, str] = field(default_factory=dict)
    clients: list[tuple[UUID, UUID]] = field(default_factory=list)
    accepted: list[UUID] = field(default_factory=list)
    rolled_back: list[UUID] = field(default_factory=list)
    cancelled: list[UUID] = field(default_factory=list)
    recorded: list[str] = field(default_factory=list)
    deposited: list[str] = field(default_factory=list)
    amended: dict[UUID, int] = field(default_factory=dict)
    closed: dict[UUID, tuple[date, datetime]] = field(default_factory=dict)

    def open(self, clients: int, stripe_url: str) -> None:
        """Make accounts and clients with cards, and charges of the last months for each."""
        kinds = [card for card in dict.fromkeys((*CARDS, *BACKUPS)) if card is not None]
        of_accounts = [
            {
                kind: make_cardholder(stripe_url, payment_method=kind, stripe_account=at)
                for kind in kinds
            }
            for at in STRIPE_ACCOUNTS
        ]
        with Session(self.engine) as session, session.begin():
            create_table(session)
            for number, holders in enumerate(of_accounts):
                account = create_account(session, f"Account {number}")
                self.accounts.append(account.id)
                self.stripe_accounts[account.id] = STRIPE_ACCOUNTS[number]
                _place(session, account, STRIPE_ACCOUNTS[number])
                _regulate(session, account, TAXES[number])
                key, self.keys[account.id] = ApiKey.issue(account.id, set(Scope))
                session.add(key)
                new = [_client(n) for n in range(clients // len(STRIPE_ACCOUNTS))]
                now = database_now(session)
                for client in create_clients(session, account, new, now=now):
                    self.clients.append((account.id, client.id))
                    self._furnish(session, client, holders, now)

    def bill(self) -> None:
        """Ask for every account's billing run."""
        for account_id in self.accounts:

            def ask(session: Session, account_id: UUID = account_id) -> UUID:
                now = database_now(session)
                run = request_run(session, account_id, now=now, requested_by="chaos", as_of=now)
                return run.job_id

            self.accepted.append(patiently(self.engine, ask))

    def _furnish(
        self, session: Session, client: Client, holders: dict[str, Cardholder], now: datetime
    ) -> None:
        kind = self.rng.choice(CARDS)
        if kind is not None:
            set_billing_method(
                session,
                client.account_id,
                client.id,
                stripe_customer=holders[kind].customer,
                payment_method=holders[kind].payment_method,
                now=now,
                requested_by="chaos",
            )
            backup = self.rng.choice(BACKUPS)
            if backup is not None:
                set_backup_method(
                    session,
                    client.account_id,
                    client.id,
                    stripe_customer=holders[backup].customer,
                    payment_method=holders[backup].payment_method,
                    now=now,
                    requested_by="chaos",
                )
        record_charges(session, client.account_id, self._charges(client))
        if self.rng.random() < 0.3:
            job = enqueue(
                session,
                deposit_credit,
                account_id=client.account_id,
                requested_by="chaos",
                client_id=client.id,
                amount=self.rng.choice((300, 1_000, 5_000)),
                currency="usd",
            )
            self.accepted.append(job.id)

    def _charges(self, client: Client) -> Sequence[NewCharge]:
        days = [_first_day() + timedelta(days=self.rng.randrange(28)) for _ in range(3)]
        return [a_charge(client.id, day) for day in days]


def a_charge(client_id: UUID, day: date) -> NewCharge:
    """One that Stripe would take a card for."""
    return NewCharge(
        client_id=client_id,
        description="Prep",
        currency="usd",
        charged_on=day,
        unit_price=Decimal("7.30"),
    )


def _place(session: Session, account: Account, stripe_account: str) -> None:
    """Have the account charge there."""
    if stripe_account == CONNECTED:
        charge_through(session, account, stripe_account)
    elif stripe_account == OWN:
        charge_by_own_key(
            session,
            account,
            Seal(SECRET_KEY),
            secret_key=OWN_KEY,
            webhook_secret=OWN_SECRET,
            same_stripe_account=None,
        )


def _regulate(session: Session, account: Account, taxes: Sequence[tuple[str, bool, int]]) -> None:
    """Have the account's clients bear taxes, and its voids make notes if they do."""
    rates = [
        create_tax_rate(
            session,
            account.id,
            name=f"Tax {percent}",
            percent=Decimal(percent),
            inclusive=is_inclusive,
            valid_from=_first_day(month),
        ).id
        for percent, is_inclusive, month in taxes
    ]
    changes = {"tax_rates": rates, "void_makes_credit_note": bool(rates)}
    change_account(session, account.id, changes, now=database_now(session))


def _client(number: int) -> NewClient:
    return NewClient(
        name=f"Client {number}",
        email=f"client{number}@example.com",
        billing_cycle=CYCLES[number % len(CYCLES)],
        # One whose oldest boundary is long ago has all of its invoices dated when they are finalized.
        billing_starts_on=_first_day(number % 2),
        review_hours=REVIEW_HOURS[number % len(REVIEW_HOURS)],
        auto_top_up=TOP_UPS[number % len(TOP_UPS)],
        tax_exempt=number % 9 == 8,
    )


def _first_day(month: int = 0) -> date:
    """Of the first month that is billed, or one that comes after."""
    today = datetime.now(UTC).date()
    index = today.year * 12 + today.month - 1 - MONTHS + month
    return date(index // 12, index % 12 + 1, 1)
