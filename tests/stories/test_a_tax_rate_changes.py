"""A rate changes in the middle of the year, and work done before it bears the old one."""

from datetime import UTC, date, datetime
from uuid import UUID

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from models import Account, Client, Invoice, InvoiceLine, InvoiceTax
from tasks.accounts import change_account
from tasks.charges import edit_charge
from tasks.drafting import draft_invoice
from tasks.tax_rates import end_tax_rate
from tasks.trial_balances import Balance, trial_balance
from tasks.voiding import void_invoice
from tests.money import assert_no_money_is_lost
from tests.worlds import a_charge, a_client, a_rate, invoices_of, perform, tick

JUNE = datetime(2026, 6, 1, 12, tzinfo=UTC)
JULY = datetime(2026, 7, 1, 12, tzinfo=UTC)
AUGUST = datetime(2026, 8, 1, 12, tzinfo=UTC)
SEPTEMBER = datetime(2026, 9, 1, 12, tzinfo=UTC)


def told(engine: Engine, invoice: Invoice) -> tuple[list[tuple[date, int]], list[tuple[str, int]]]:
    """Date and tax of an invoice's lines, and its tax by rate."""
    with Session(engine) as session:
        lines = session.execute(
            select(InvoiceLine.charged_on, InvoiceLine.tax)
            .where(InvoiceLine.invoice_id == invoice.id)
            .order_by(InvoiceLine.position)
        )
        taxes = session.execute(
            select(InvoiceTax.name, InvoiceTax.tax)
            .where(InvoiceTax.invoice_id == invoice.id)
            .order_by(InvoiceTax.position)
        )
        return [(day, tax) for day, tax in lines], [(name, tax) for name, tax in taxes]


def put_on_the_account(engine: Engine, account: Account, rates: list[UUID]) -> None:
    with Session(engine) as session, session.begin():
        change_account(session, account.id, {"tax_rates": rates}, now=JUNE)


def on_the_cycle(engine: Engine, account: Account, name: str) -> Client:
    return a_client(
        engine,
        account,
        name=name,
        now=JUNE,
        billing_cycle="monthly",
        billing_starts_on=date(2026, 6, 1),
    )


def test_a_late_charge_bears_the_rate_of_its_own_date(
    engine: Engine, session: Session, account: Account
) -> None:
    old = a_rate(engine, account, "19", name="VAT 2020")
    put_on_the_account(engine, account, [old])
    ada, bob = on_the_cycle(engine, account, "ada"), on_the_cycle(engine, account, "bob")
    by_hand = a_client(engine, account, name="cid", now=JUNE)
    for client in (ada, bob, by_hand):
        a_charge(engine, client, date(2026, 6, 30), "100.00")
    of_july = a_charge(engine, by_hand, date(2026, 7, 3), "100.00")
    perform(engine, draft_invoice, account, client_id=by_hand.id, now=JUNE)
    [draft] = invoices_of(engine, by_hand)
    assert draft.total == 23800

    # The law changes: the old rate ends, and a new one is on the account beside it.
    with Session(engine) as ending, ending.begin():
        end_tax_rate(ending, account.id, old, date(2026, 7, 1))
    new = a_rate(engine, account, "21", name="VAT 2026", valid_from=date(2026, 7, 1))
    put_on_the_account(engine, account, [old, new])
    [draft] = invoices_of(engine, by_hand)
    assert (draft.total, draft.tax) == (24000, 4000)

    tick(engine, now=JULY)
    for client in (ada, bob):
        [june] = invoices_of(engine, client)
        assert told(engine, june) == ([(date(2026, 6, 30), 1900)], [("VAT 2020", 1900)])

    # Found in July, done in June.
    a_charge(engine, ada, date(2026, 6, 12), "10.00")
    a_charge(engine, ada, date(2026, 7, 12), "10.00")
    tick(engine, now=AUGUST)
    [_, july] = invoices_of(engine, ada)
    assert told(engine, july) == (
        [(date(2026, 6, 12), 190), (date(2026, 7, 12), 210)],
        [("VAT 2020", 190), ("VAT 2026", 210)],
    )
    assert (july.subtotal, july.tax, july.total) == (2000, 400, 2400)

    # What is billed again in autumn was worked in June all the same.
    [june] = invoices_of(engine, bob)
    perform(engine, void_invoice, account, invoice_id=june.id, reissue=True, now=AUGUST)
    tick(engine, now=SEPTEMBER)
    again = invoices_of(engine, bob)[-1]
    assert told(engine, again) == ([(date(2026, 6, 30), 1900)], [("VAT 2020", 1900)])

    with Session(engine) as editing, editing.begin():
        edit_charge(editing, account.id, of_july, {"charged_on": date(2026, 6, 29)})
    [draft] = invoices_of(engine, by_hand)
    assert draft.total == 23800

    by_rate = [one for one in trial_balance(session, account.id) if one.tax_rate_id is not None]
    assert by_rate == [
        Balance("tax", "usd", 1900, 1900 * 3 + 190, old, "VAT 2020"),
        Balance("tax", "usd", 0, 210, new, "VAT 2026"),
    ]
    assert_no_money_is_lost(engine, account)
