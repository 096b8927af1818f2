"""What the demo begins with: a month of charges, and clients who have cards, credit and mail."""

import csv
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from billing.cycles import BillingCycle
from billing.mails import MailKind
from cli.context import Context
from cli.importing import ImportOptions, ImportReport, import_charges
from cli.output import Output
from cli.patience import Patience
from cli.sample_month import SampleMonth, Warehouse, write_csv
from cli.sample_payers import Payer, payers
from gateways.sandbox.stripe.cardholders import Cardholder, make_cardholder
from models import Account, Client
from models.database import database_now
from tasks.accounts import change_account
from tasks.billing_methods import set_billing_method
from tasks.clients import NewClient, change_client, create_clients
from tasks.crediting import deposit_credit
from tasks.enqueueing import enqueue

Sums = Mapping[tuple[str, str], Decimal]
"""Major units by client and currency."""

ASKED_BY = "cli"
ACCOUNT = {
    "name": "Bluebird Prep",
    "legal_name": "Bluebird Prep LLC",
    "address": {
        "line1": "2210 West Pershing Road",
        "line2": "Chicago, IL 60609",
        "country": "United States",
    },
    "tax_ids": ["36-4112233"],
}
"""Who bills: what the invoices and mails say of it."""

# Enough to keep the local Stripe busy, which answers one after another.
STRIPE_THREADS = 4
CENT = Decimal("0.01")


@dataclass(slots=True)
class Prepared:
    """What stands before the month is billed.

    ``paid_ahead`` holds, by currency, how many deposits and their total in minor units.
    """

    files: dict[str, Path]
    imports: dict[str, ImportReport]
    cards: int = 0
    emails: int = 0
    paid_ahead: dict[str, Counter[str]] = field(default_factory=dict)


def record_month(context: Context, output: Output, month: SampleMonth, directory: Path) -> Prepared:
    """Write each warehouse's file, and import it."""
    files = {one: directory / f"charges-{one.name.lower()}.csv" for one in month.rows}
    for warehouse, path in files.items():
        write_csv(path, month.rows[warehouse])
    imports = {
        warehouse.name: _import(context, output, warehouse, month, path)
        for warehouse, path in files.items()
    }
    return Prepared({one.name: path for one, path in files.items()}, imports)


def make_payers(
    context: Context,
    output: Output,
    prepared: Prepared,
    *,
    stripe_url: str,
    tend: Callable[[], None],
) -> None:
    """Give the clients with work an address, a card at Stripe, and what they paid ahead.

    Their deposits are jobs, like any deposit: when this returns, they are done.
    """
    owed = sums_of_files(list(prepared.files.values()))
    ours = payers(list(dict.fromkeys(client for client, _ in owed)))
    holders = _cardholders(output, ours, stripe_url)
    with context.transaction() as session, output.progress() as bars:
        account = context.account(session, None)
        now = database_now(session)
        change_account(session, account.id, ACCOUNT, now=now)
        found = select(Client.external_ref, Client).where(Client.account_id == account.id)
        clients = {ref: client for ref, client in session.execute(found) if ref is not None}
        deposits: list[UUID] = []
        for number, payer in enumerate(ours, start=1):
            client = clients[payer.client]
            _describe(session, account, client, payer, now)
            holder = holders.get(payer.client)
            if holder is not None:
                set_billing_method(
                    session,
                    account.id,
                    client.id,
                    stripe_customer=holder.customer,
                    payment_method=holder.payment_method,
                    now=now,
                    requested_by=ASKED_BY,
                )
            deposits += _deposit(session, client, payer, owed, prepared)
            bars.update("clients", number, len(ours))
    prepared.cards = len(holders)
    prepared.emails = sum(payer.email is not None for payer in ours)
    Patience(context, output, tend).wait_for_jobs(deposits)


def sums_of_files(paths: Sequence[Path]) -> Sums:
    """What each client owes in each currency, read and computed apart from all other code."""
    sums: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for path in paths:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                amount = Decimal(row["quantity"]) * Decimal(row["unit_price"])
                sums[row["client"], row["currency"]] += amount.quantize(CENT, ROUND_HALF_UP)
    return dict(sums)


def _import(
    context: Context, output: Output, warehouse: Warehouse, month: SampleMonth, path: Path
) -> ImportReport:
    """Import one warehouse's file, and create the clients that it does not name."""
    options = ImportOptions(billing_cycle=BillingCycle.MONTHLY, time_zone=warehouse.time_zone)
    with (
        context.transaction() as session,
        path.open("rb") as file,
        output.progress() as bars,
    ):
        account = context.account(session, None)
        report = import_charges(
            session,
            account,
            file,
            options,
            lambda stage, done, total: bars.update(f"{stage} {path.name}", done, total),
        )
        create_clients(
            session,
            account,
            [
                NewClient(
                    name=name,
                    external_ref=name,
                    time_zone=warehouse.time_zone,
                    billing_cycle=BillingCycle.MONTHLY,
                    billing_starts_on=month.first_day,
                )
                for name in month.idle[warehouse]
            ],
            now=database_now(session),
        )
    return report


def _cardholders(output: Output, ours: Sequence[Payer], stripe_url: str) -> dict[str, Cardholder]:
    """Each client's customer at Stripe, with the card attached; by the client's name."""
    made: dict[str, Cardholder] = {}
    wanted = {one.client: one.payment_method for one in ours if one.payment_method is not None}

    def make(client: str) -> tuple[str, Cardholder]:
        return client, make_cardholder(stripe_url, payment_method=wanted[client], name=client)

    with output.progress() as bars, ThreadPoolExecutor(STRIPE_THREADS) as threads:
        try:
            for client, holder in threads.map(make, wanted):
                made[client] = holder
                bars.update("cards at Stripe", len(made), len(wanted))
        finally:
            threads.shutdown(cancel_futures=True)
    return made


def _describe(
    session: Session, account: Account, client: Client, payer: Payer, now: datetime
) -> None:
    wants = None if payer.wants_ready_mail else False  # None: as the account has it.
    changes = {"email": payer.email, "notifications": {MailKind.INVOICE_READY: wants}}
    change_client(session, account, client.id, changes, now=now)


def _deposit(
    session: Session, client: Client, payer: Payer, owed: Sums, prepared: Prepared
) -> list[UUID]:
    """Enqueue what a client paid ahead in the currency of most of its work; the job, if any."""
    amount, currency = max(
        (amount, currency) for (name, currency), amount in owed.items() if name == payer.client
    )
    minor = int(payer.deposit(amount) / CENT)
    if not minor:
        return []
    prepared.paid_ahead.setdefault(currency, Counter()).update(deposits=1, total=minor)
    enqueued = enqueue(
        session,
        deposit_credit,
        account_id=client.account_id,
        requested_by=ASKED_BY,
        client_id=client.id,
        amount=minor,
        currency=currency,
        reference="Paid ahead",
    )
    return [enqueued.id]
