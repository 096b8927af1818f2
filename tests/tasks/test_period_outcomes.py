from datetime import date
from typing import Literal
from uuid import UUID

import pytest
from sqlalchemy import Engine, delete, update
from sqlalchemy.orm import Session

from billing.periods import PeriodReason, PeriodState
from models import Account, BillingPeriod, Charge, Client, Invoice
from tasks.finalizing import finalize_invoice
from tasks.period_outcomes import settle_period
from tests.worlds import NOW, a_charge, a_client, invoices_of, perform, periods_of

MAY_5 = date(2026, 5, 5)


@pytest.fixture
def client(engine: Engine, account: Account) -> Client:
    return a_client(engine, account, billing_cycle="monthly", billing_starts_on=date(2026, 5, 1))


def drafted(engine: Engine, client: Client, *currencies: str) -> list[UUID]:
    """Drafts of the client's first period, one in each currency."""
    period = periods_of(engine, client)[0].id
    ids = []
    for currency in currencies:
        charge = a_charge(engine, client, MAY_5, currency=currency)
        with Session(engine) as session, session.begin():
            invoice = Invoice(
                account_id=client.account_id,
                client_id=client.id,
                period_id=period,
                currency=currency,
                subtotal=1000,
                total=1000,
            )
            session.add(invoice)
            session.flush()
            session.execute(update(Charge).where(Charge.id == charge).values(invoice_id=invoice.id))
            ids.append(invoice.id)
    return ids


def settled(
    engine: Engine,
    client: Client,
    without: Literal[PeriodState.SKIPPED, PeriodState.EMPTY] = PeriodState.SKIPPED,
) -> tuple[str, str | None]:
    period = periods_of(engine, client)[0]
    with Session(engine) as session, session.begin():
        settle_period(session, period.id, NOW, without=without)
    period = periods_of(engine, client)[0]
    assert period.decided_at == NOW
    return period.state, period.reason


def forget(engine: Engine, invoice_id: UUID) -> None:
    with Session(engine) as session, session.begin():
        session.execute(
            update(Charge).where(Charge.invoice_id == invoice_id).values(invoice_id=None)
        )
        session.execute(delete(Invoice).where(Invoice.id == invoice_id))


def test_a_period_is_drafted_while_one_of_its_invoices_is_a_draft_and_billed_once_none_is(
    engine: Engine, account: Account, client: Client
) -> None:
    euros, dollars = drafted(engine, client, "eur", "usd")
    assert settled(engine, client) == ("drafted", None)

    perform(engine, finalize_invoice, account, invoice_id=euros)
    assert settled(engine, client) == ("drafted", None)

    perform(engine, finalize_invoice, account, invoice_id=dollars)
    assert settled(engine, client) == ("billed", None)


def test_a_period_with_one_invoice_that_is_final_is_billed_though_its_other_draft_was_deleted(
    engine: Engine, account: Account, client: Client
) -> None:
    euros, dollars = drafted(engine, client, "eur", "usd")
    settled(engine, client)
    perform(engine, finalize_invoice, account, invoice_id=euros)
    forget(engine, dollars)

    assert settled(engine, client) == ("billed", None)
    assert len(invoices_of(engine, client)) == 1


@pytest.mark.parametrize(
    ("without", "outcome"),
    [(PeriodState.SKIPPED, ("skipped", "draft_deleted")), (PeriodState.EMPTY, ("empty", None))],
)
def test_a_period_without_any_invoice_left_says_why(
    engine: Engine,
    client: Client,
    without: Literal[PeriodState.SKIPPED, PeriodState.EMPTY],
    outcome: tuple[str, str | None],
) -> None:
    (draft,) = drafted(engine, client, "usd")
    settled(engine, client)
    forget(engine, draft)

    assert settled(engine, client, without) == outcome


def test_what_else_a_period_left_out_stays_its_reason(engine: Engine, client: Client) -> None:
    drafted(engine, client, "usd")
    with Session(engine) as session, session.begin():
        session.execute(
            update(BillingPeriod)
            .where(BillingPeriod.client_id == client.id)
            .values(reason=PeriodReason.CHARGES_ON_MANUAL_DRAFT)
        )

    assert settled(engine, client) == ("drafted", "charges_on_manual_draft")
