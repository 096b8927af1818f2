from collections.abc import Callable, Sequence
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, select, text, update
from sqlalchemy.orm import Session

from billing.errors import RuleViolation
from billing.tax import TaxableLine, TaxRate, rates_on, tax_invoice
from models import (
    Account,
    Charge,
    Client,
    Invoice,
    InvoiceLine,
    InvoiceTax,
    LedgerEntry,
    LedgerPosting,
    TaxRateRow,
)
from tasks.accounts import change_account, create_account
from tasks.amending import remove_charge
from tasks.charges import NewCharge, Recorded, delete_charge, edit_charge, record_charges
from tasks.drafting import draft_invoice
from tasks.finalizing import finalize_invoice
from tasks.reissuing import reissue_invoice
from tasks.tax_rates import end_tax_rate
from tasks.taxing import _PARTS, tax_drafts
from tasks.voiding import void_invoice
from tests.money import assert_no_money_is_lost
from tests.worlds import (
    NOW,
    a_charge,
    a_client,
    a_rate,
    audited,
    bill,
    change,
    charges,
    counted,
    invoices_of,
    perform,
)

MAY = date(2026, 5, 1)
JULY = date(2026, 7, 1)


def change_the_account(engine: Engine, account: Account, **changes: Any) -> None:
    with Session(engine) as session, session.begin():
        change_account(session, account.id, changes, now=NOW)


def drafted(engine: Engine, account: Account, client: Client) -> Invoice:
    """The one draft of all of the client's open charges."""
    perform(engine, draft_invoice, account, client_id=client.id)
    return invoices_of(engine, client)[-1]


def finalized(engine: Engine, account: Account, client: Client) -> Invoice:
    """The same, finalized."""
    draft = drafted(engine, account, client)
    perform(engine, finalize_invoice, account, invoice_id=draft.id)
    return again(engine, draft)


def again(engine: Engine, invoice: Invoice) -> Invoice:
    with Session(engine) as session:
        return session.get_one(Invoice, invoice.id)


def totals(invoice: Invoice) -> tuple[int, int, int]:
    """Subtotal, tax and total."""
    return invoice.subtotal, invoice.tax, invoice.total


def lines_of(engine: Engine, invoice: Invoice) -> list[tuple[int, int, int]]:
    """Amount, net and tax of each line."""
    with Session(engine) as session:
        lines = session.scalars(
            select(InvoiceLine)
            .where(InvoiceLine.invoice_id == invoice.id)
            .order_by(InvoiceLine.position)
        )
        return [(line.amount, line.net, line.tax) for line in lines]


def taxes_of(engine: Engine, invoice: Invoice) -> list[tuple[str, int, int]]:
    """Name, net and tax of each rate."""
    with Session(engine) as session:
        taxes = session.scalars(
            select(InvoiceTax)
            .where(InvoiceTax.invoice_id == invoice.id)
            .order_by(InvoiceTax.position)
        )
        return [(tax.name, tax.net, tax.tax) for tax in taxes]


def booked_tax(engine: Engine, invoice: Invoice) -> dict[tuple[str, UUID | None], int]:
    """What the books have of an invoice's taxes, by event and rate."""
    with Session(engine) as session:
        rows = session.execute(
            select(LedgerEntry.event, LedgerPosting.tax_rate_id, LedgerPosting.amount)
            .join(LedgerPosting, LedgerPosting.entry_id == LedgerEntry.id)
            .where(LedgerEntry.invoice_id == invoice.id, LedgerPosting.ledger_account == "tax")
        )
        return {(event, rate): amount for event, rate, amount in rows}


def test_a_draft_comes_to_its_charges_and_their_taxes(engine: Engine, account: Account) -> None:
    client = a_client(engine, account, tax_rates=[a_rate(engine, account)])
    charges(engine, client, [(MAY, "10.00"), (MAY, "0.02")])

    assert totals(drafted(engine, account, client)) == (1002, 200, 1202)


@pytest.mark.parametrize(
    ("own", "tax"),
    [
        (("A", None, None), 100),
        (("A", "B", None), 200),
        (("A", "B", "C"), 300),
        (("A", "", None), 0),
        (("A", "B", ""), 0),
        (("", None, "C"), 300),
        (("", "AB", None), 300),
    ],
)
def test_a_charge_bears_its_own_rates_else_its_clients_else_the_accounts(
    engine: Engine,
    account: Account,
    own: tuple[str, str | None, str | None],
    tax: int,
) -> None:
    rates = {
        name: a_rate(engine, account, percent, name=name)
        for name, percent in (("A", "10"), ("B", "20"), ("C", "30"))
    }
    of_account, of_client, of_charge = (
        None if names is None else [rates[name] for name in names] for names in own
    )
    change_the_account(engine, account, tax_rates=of_account)
    client = a_client(engine, account, tax_rates=of_client)
    a_charge(engine, client, MAY, tax_rates=of_charge)

    assert finalized(engine, account, client).tax == tax
    assert audited(engine, account) == []


def test_finalizing_freezes_each_lines_share_and_each_rates_sum(
    engine: Engine, account: Account
) -> None:
    vat = a_rate(engine, account)
    city = a_rate(engine, account, "6", "inclusive", name="City")
    client = a_client(engine, account, tax_rates=[vat, city])
    charges(engine, client, [(MAY, "10.60"), (MAY, "-2.12")])
    a_charge(engine, client, MAY, "1.00", tax_rates=[])

    invoice = finalized(engine, account, client)

    assert totals(invoice) == (900, 208, 1108)
    assert lines_of(engine, invoice) == [(1060, 1000, 260), (-212, -200, -52), (100, 100, 0)]
    assert taxes_of(engine, invoice) == [("VAT", 800, 160), ("City", 800, 48)]
    assert booked_tax(engine, invoice) == {("finalize", vat): -160, ("finalize", city): -48}
    assert_no_money_is_lost(engine, account)


def test_a_void_takes_back_the_tax_of_each_rate(engine: Engine, account: Account) -> None:
    vat, city = a_rate(engine, account), a_rate(engine, account, "5", name="City")
    client = a_client(engine, account, tax_rates=[vat, city])
    a_charge(engine, client, MAY)
    invoice = finalized(engine, account, client)

    perform(engine, void_invoice, account, invoice_id=invoice.id)

    assert booked_tax(engine, invoice) == {
        ("finalize", vat): -200,
        ("finalize", city): -50,
        ("void", vat): 200,
        ("void", city): 50,
    }
    assert totals(again(engine, invoice)) == (1000, 250, 1250)
    assert_no_money_is_lost(engine, account)


def test_what_is_reissued_bears_the_same_taxes(engine: Engine, account: Account) -> None:
    city = a_rate(engine, account, "5", name="City")
    client = a_client(engine, account, tax_rates=[a_rate(engine, account)])
    a_charge(engine, client, MAY, tax_rates=[city])
    invoice = finalized(engine, account, client)
    perform(engine, void_invoice, account, invoice_id=invoice.id)

    perform(engine, reissue_invoice, account, invoice_id=invoice.id)

    assert totals(finalized(engine, account, client)) == (1000, 50, 1050)


def test_a_negative_invoice_gives_its_tax_back_as_credit(engine: Engine, account: Account) -> None:
    vat = a_rate(engine, account)
    client = a_client(engine, account, tax_rates=[vat])
    a_charge(engine, client, MAY, "-10.00")

    invoice = finalized(engine, account, client)

    assert totals(invoice) == (-1000, -200, -1200)
    assert (invoice.status, invoice.credit_applied, invoice.amount_due) == ("paid", -1200, 0)
    assert booked_tax(engine, invoice) == {("finalize", vat): 200}
    assert_no_money_is_lost(engine, account)


def test_taxes_of_lines_that_cancel_are_posted_all_the_same(
    engine: Engine, account: Account
) -> None:
    vat, city = a_rate(engine, account), a_rate(engine, account, name="City")
    client = a_client(engine, account)
    a_charge(engine, client, MAY, "10.00", tax_rates=[vat])
    a_charge(engine, client, MAY, "-10.00", tax_rates=[city])

    invoice = finalized(engine, account, client)

    assert (totals(invoice), invoice.status) == ((0, 0, 0), "paid")
    assert booked_tax(engine, invoice) == {("finalize", vat): -200, ("finalize", city): 200}
    assert_no_money_is_lost(engine, account)


def test_the_charges_date_decides_which_rates_are_valid(engine: Engine, account: Account) -> None:
    old = a_rate(engine, account, "20", name="old", valid_to=JULY)
    new = a_rate(engine, account, "25", name="new", valid_from=JULY)
    client = a_client(engine, account, tax_rates=[old, new])
    for day in (JULY - timedelta(days=1), JULY, date(2019, 12, 31)):
        a_charge(engine, client, day)

    invoice = finalized(engine, account, client)

    assert lines_of(engine, invoice) == [(1000, 1000, 0), (1000, 1000, 200), (1000, 1000, 250)]
    assert taxes_of(engine, invoice) == [("old", 1000, 200), ("new", 1000, 250)]


def test_a_charge_that_is_taxed_on_another_day_bears_that_days_rates(
    engine: Engine, session: Session, account: Account
) -> None:
    old = a_rate(engine, account, "20", valid_to=JULY)
    client = a_client(engine, account, tax_rates=[old])
    a_charge(engine, client, JULY, "-10.00")
    session.execute(update(Charge).values(taxed_on=MAY))
    session.commit()

    assert totals(finalized(engine, account, client)) == (-1000, -200, -1200)


def test_an_exempt_client_bears_no_tax_and_pays_none_that_prices_contain(
    engine: Engine, account: Account
) -> None:
    vat, included = a_rate(engine, account), a_rate(engine, account, "20", "inclusive")
    client = a_client(engine, account, tax_exempt=True)
    a_charge(engine, client, MAY, "10.00", tax_rates=[vat])
    a_charge(engine, client, MAY, "12.00", tax_rates=[included])

    invoice = finalized(engine, account, client)

    assert totals(invoice) == (2000, 0, 2000)
    assert lines_of(engine, invoice) == [(1000, 1000, 0), (1200, 1000, 0)]
    assert taxes_of(engine, invoice) == []
    assert booked_tax(engine, invoice) == {}
    assert invoice.bill_to is not None
    assert invoice.bill_to["tax_exempt"] is True
    with Session(engine) as session:
        borne = session.scalars(select(InvoiceLine.taxes).order_by(InvoiceLine.position)).all()
    assert borne == [{str(vat): 0}, {str(included): 0}]
    assert_no_money_is_lost(engine, account)


@pytest.mark.parametrize(
    ("currency", "price", "expected"),
    [
        ("jpy", "105", (105, 11, 116)),
        ("usd", "1.05", (105, 11, 116)),
        ("kwd", "0.105", (105, 11, 116)),
        ("kwd", "10.004", (10004, 1000, 11004)),
    ],
)
def test_tax_is_rounded_in_the_minor_units_of_its_currency(
    engine: Engine, account: Account, currency: str, price: str, expected: tuple[int, int, int]
) -> None:
    client = a_client(engine, account, tax_rates=[a_rate(engine, account, "10")])
    a_charge(engine, client, MAY, price, currency=currency)

    assert totals(finalized(engine, account, client)) == expected
    assert_no_money_is_lost(engine, account)


def test_each_currency_is_taxed_on_an_invoice_of_its_own(engine: Engine, account: Account) -> None:
    client = a_client(engine, account, tax_rates=[a_rate(engine, account)])
    for currency, price in (("usd", "10"), ("jpy", "7"), ("kwd", "0.007")):
        a_charge(engine, client, MAY, price, currency=currency)
    perform(engine, draft_invoice, account, client_id=client.id)

    taxed = {one.currency: totals(one) for one in invoices_of(engine, client)}

    assert taxed == {"usd": (1000, 200, 1200), "jpy": (7, 1, 8), "kwd": (7, 1, 8)}


EDITS: list[tuple[Callable[[Session, Account, UUID, UUID], object], tuple[int, int, int]]] = [
    (
        lambda session, account, charge, _: edit_charge(
            session, account.id, charge, {"unit_price": None, "amount": 500}
        ),
        (1500, 300, 1800),
    ),
    (
        lambda session, account, charge, _: edit_charge(
            session, account.id, charge, {"tax_rates": []}
        ),
        (2000, 200, 2200),
    ),
    (
        lambda session, account, charge, _: edit_charge(
            session, account.id, charge, {"charged_on": date(2019, 1, 1)}
        ),
        (2000, 200, 2200),
    ),
    (
        lambda session, account, charge, _: delete_charge(session, account.id, charge),
        (1000, 200, 1200),
    ),
    (
        lambda session, account, *_: change_account(
            session, account.id, {"tax_rates": []}, now=NOW
        ),
        (2000, 0, 2000),
    ),
    (
        lambda session, account, _, rate: end_tax_rate(
            session, account.id, rate, MAY + timedelta(days=1)
        ),
        (2000, 200, 2200),
    ),
]


@pytest.mark.parametrize(("edit", "expected"), EDITS)
def test_a_draft_follows_its_charges_and_what_they_are_taxed_by(
    engine: Engine,
    account: Account,
    edit: Callable[[Session, Account, UUID, UUID], object],
    expected: tuple[int, int, int],
) -> None:
    rate = a_rate(engine, account)
    change_the_account(engine, account, tax_rates=[rate])
    client = a_client(engine, account)
    charge = a_charge(engine, client, MAY + timedelta(days=1))
    a_charge(engine, client, MAY)
    draft = drafted(engine, account, client)
    assert totals(draft) == (2000, 400, 2400)

    with Session(engine) as session, session.begin():
        edit(session, account, charge, rate)

    assert totals(again(engine, draft)) == expected
    perform(engine, finalize_invoice, account, invoice_id=draft.id, expected_total=expected[2])
    assert totals(again(engine, draft)) == expected
    assert audited(engine, account) == []


def test_a_draft_follows_the_rates_and_the_exemption_of_its_client(
    engine: Engine, account: Account
) -> None:
    rate, other = a_rate(engine, account), a_rate(engine, account, "5")
    client = a_client(engine, account)
    a_charge(engine, client, MAY)
    draft = drafted(engine, account, client)

    for changes, expected in (
        ({"tax_rates": [rate]}, (1000, 200, 1200)),
        ({"tax_rates": [rate, other]}, (1000, 250, 1250)),
        ({"tax_exempt": True}, (1000, 0, 1000)),
        ({"tax_exempt": False}, (1000, 250, 1250)),
        ({"tax_rates": None}, (1000, 0, 1000)),
    ):
        change(engine, client, **changes)
        assert totals(again(engine, draft)) == expected
        assert audited(engine, account) == []


def test_what_is_finalized_keeps_what_it_says(engine: Engine, account: Account) -> None:
    rate = a_rate(engine, account)
    client = a_client(engine, account, tax_rates=[rate])
    a_charge(engine, client, MAY)
    invoice = finalized(engine, account, client)

    with Session(engine) as session, session.begin():
        end_tax_rate(session, account.id, rate, MAY)
    change(engine, client, tax_rates=[], tax_exempt=True)

    assert totals(again(engine, invoice)) == (1000, 200, 1200)
    assert taxes_of(engine, invoice) == [("VAT", 1000, 200)]
    assert audited(engine, account) == []


def test_a_draft_is_taxed_once_more_when_it_is_finalized(
    engine: Engine, session: Session, account: Account
) -> None:
    rate = a_rate(engine, account)
    client = a_client(engine, account)
    a_charge(engine, client, MAY)
    draft = drafted(engine, account, client)
    # As if something had changed the rates without a thought for drafts.
    session.execute(update(Client).values(tax_rates=[rate]))
    session.commit()

    with pytest.raises(RuleViolation) as refused:
        perform(engine, finalize_invoice, account, invoice_id=draft.id, expected_total=1000)
    assert refused.value.code == "total_changed"
    perform(engine, finalize_invoice, account, invoice_id=draft.id, expected_total=1200)

    assert totals(again(engine, draft)) == (1000, 200, 1200)
    assert_no_money_is_lost(engine, account)


def a_month(engine: Engine, account: Account, clients: int) -> None:
    """As many clients, each with three charges in May."""
    for number in range(clients):
        client = a_client(
            engine,
            account,
            name=f"client {number}",
            billing_cycle="monthly",
            billing_starts_on=MAY,
        )
        charges(engine, client, [(MAY + timedelta(days=day), "3.33") for day in range(3)])


def test_a_page_is_taxed_in_as_many_statements_whatever_its_size(
    engine: Engine, account: Account
) -> None:
    rate = a_rate(engine, account)
    change_the_account(engine, account, tax_rates=[rate])
    with Session(engine) as session, session.begin():
        other = create_account(session, "Other")
        session.expunge(other)
    change_the_account(engine, other, tax_rates=[a_rate(engine, other)])
    a_month(engine, account, 2)
    a_month(engine, other, 12)

    with counted(engine) as few:
        bill(engine, account, now=NOW)
    with counted(engine) as many:
        bill(engine, other, now=NOW)

    assert len(many) == len(few)
    assert {totals(one) for one in invoices_of(engine, other)} == {(999, 200, 1199)}
    assert audited(engine, account) == audited(engine, other) == []


def test_an_account_without_rates_is_asked_for_them_and_no_more(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    a_charge(engine, client, MAY)

    draft = drafted(engine, account, client)
    with counted(engine) as statements, Session(engine) as session:
        assert tax_drafts(session, [draft.id]) == {}
    assert len(statements) == 1

    explained = text(f"EXPLAIN (ANALYZE, COSTS off, TIMING off) {_PARTS.text}")
    with engine.connect() as connection:
        plan = connection.scalars(explained, {"ids": [draft.id]}).all()
    [of_charges] = [line for line in plan if " on charges" in line]
    assert "never executed" in of_charges


RATES = (
    ("20", "exclusive"),
    ("7.3333", "exclusive"),
    ("0.125", "exclusive"),
    ("20", "inclusive"),
    ("6", "inclusive"),
    ("0", "inclusive"),
)
LINES = st.lists(
    st.tuples(
        st.integers(-5_000, 5_000),
        st.lists(st.integers(0, len(RATES) - 1), unique=True, max_size=3).map(tuple),
        st.integers(0, 40),
    ),
    min_size=1,
    max_size=6,
)
WORLD = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def taxes(engine: Engine, account: Account) -> list[TaxRate]:
    """Rates of every kind; the first is another one from June on."""
    last = {0: date(2026, 6, 1)}
    ids = [
        a_rate(engine, account, percent, kind, name=str(number), valid_to=last.get(number))
        for number, (percent, kind) in enumerate(RATES)
    ]
    with Session(engine) as session:
        return [session.get_one(TaxRateRow, one).rate for one in ids]


def record(
    engine: Engine,
    client: Client,
    taxes: Sequence[TaxRate],
    lines: Sequence[tuple[int, tuple[int, ...], int]],
    **fields: Any,
) -> None:
    """A charge for each line: its amount, its rates and how many days after 1 May."""
    new = [
        NewCharge(
            client_id=client.id,
            description="Storage",
            currency=fields.get("currency", "usd"),
            charged_on=MAY + timedelta(days=day),
            amount=amount,
            tax_rates=[taxes[number].id for number in numbers],
        )
        for amount, numbers, day in lines
    ]
    with Session(engine) as session, session.begin():
        assert all(
            isinstance(one, Recorded) for one in record_charges(session, client.account_id, new)
        )


@WORLD
@given(lines=LINES, whose=st.tuples(st.booleans(), st.sampled_from(["usd", "jpy", "kwd"])))
def test_what_is_drafted_and_finalized_is_what_the_rules_say(
    engine: Engine,
    account: Account,
    taxes: list[TaxRate],
    lines: list[tuple[int, tuple[int, ...], int]],
    whose: tuple[bool, str],
) -> None:
    is_exempt, currency = whose
    client = a_client(engine, account, tax_exempt=is_exempt)
    record(engine, client, taxes, lines, currency=currency)
    in_order = sorted(lines, key=lambda line: line[2])
    expected = tax_invoice(
        [
            TaxableLine(
                amount,
                rates_on((taxes[one] for one in numbers), MAY + timedelta(days=day)),
                is_exempt,
            )
            for amount, numbers, day in in_order
        ],
    )

    draft = drafted(engine, account, client)
    perform(engine, finalize_invoice, account, invoice_id=draft.id, expected_total=expected.total)

    assert totals(draft) == totals(again(engine, draft))
    assert totals(draft) == (expected.subtotal, expected.tax, expected.total)
    assert lines_of(engine, draft) == [
        (amount, line.net, sum(line.taxes.values()))
        for (amount, _, _), line in zip(in_order, expected.lines, strict=True)
    ]
    assert taxes_of(engine, draft) == [
        (total.rate.name, total.net, total.tax) for total in expected.rates
    ]
    assert_no_money_is_lost(engine, account)


@WORLD
@given(lines=LINES, data=st.data())
def test_the_order_of_charges_changes_no_total(
    engine: Engine,
    account: Account,
    taxes: list[TaxRate],
    lines: list[tuple[int, tuple[int, ...], int]],
    data: st.DataObject,
) -> None:
    first, second = a_client(engine, account), a_client(engine, account)
    record(engine, first, taxes, lines)
    record(engine, second, taxes, data.draw(st.permutations(lines)))

    one, other = finalized(engine, account, first), finalized(engine, account, second)

    assert totals(one) == totals(other)
    assert sorted(taxes_of(engine, one)) == sorted(taxes_of(engine, other))


@WORLD
@given(lines=LINES)
def test_an_invoice_of_the_opposite_charges_cancels_the_first_line_by_line(
    engine: Engine,
    session: Session,
    account: Account,
    taxes: list[TaxRate],
    lines: list[tuple[int, tuple[int, ...], int]],
) -> None:
    client = a_client(engine, account)
    record(engine, client, taxes, lines)
    billed = finalized(engine, account, client)
    # As amendments do: dated today, and taxed by what the lines bore, on the day of the work.
    with session.begin():
        session.execute(
            text(
                "INSERT INTO charges (account_id, client_id, charged_on, description, quantity,"
                " amount, currency, tax_rates, taxed_on) SELECT charges.account_id, client_id,"
                " '2026-08-01', 'Less', 1, -lines.amount, currency,"
                " ARRAY(SELECT jsonb_object_keys(lines.taxes)) ::uuid[], charges.charged_on"
                " FROM invoice_lines AS lines JOIN charges ON charges.id = charge_id"
                " WHERE lines.invoice_id = :invoice ORDER BY position"
            ),
            {"invoice": billed.id},
        )

    back = finalized(engine, account, client)

    assert lines_of(engine, back) == [
        (-amount, -net, -tax) for amount, net, tax in lines_of(engine, billed)
    ]
    assert totals(back) == (-billed.subtotal, -billed.tax, -billed.total)
    assert_no_money_is_lost(engine, account)


@WORLD
@given(
    clients=st.lists(st.tuples(LINES, st.booleans()), min_size=1, max_size=3),
)
def test_a_dry_run_shows_the_totals_with_tax(
    engine: Engine, clients: list[tuple[list[tuple[int, tuple[int, ...], int]], bool]]
) -> None:
    with Session(engine, expire_on_commit=False) as session, session.begin():
        account = create_account(session, "Bluebird Prep")
    rates = [a_rate(engine, account, percent, kind) for percent, kind in RATES]
    change_the_account(engine, account, tax_rates=rates[:1])
    with Session(engine) as session:
        taxes = [session.get_one(TaxRateRow, one).rate for one in rates]
    for lines, is_exempt in clients:
        client = a_client(
            engine,
            account,
            tax_exempt=is_exempt,
            billing_cycle="monthly",
            billing_starts_on=MAY,
        )
        record(engine, client, taxes, lines)
        a_charge(engine, client, MAY, "0.99")

    shown = bill(engine, account, now=NOW, dry_run=True).preview
    bill(engine, account, now=NOW)

    assert shown is not None
    assert sorted((UUID(one["client"]), one["total"]) for one in shown["invoices"]) == sorted(
        (one.client_id, one.total) for one in invoices_of(engine, account)
    )


@pytest.mark.parametrize("was_exempt", [True, False])
@pytest.mark.parametrize("kind", ["exclusive", "inclusive"])
def test_a_correction_cancels_what_was_billed_whatever_the_client_and_its_rate_are_by_now(
    engine: Engine, account: Account, kind: str, *, was_exempt: bool
) -> None:
    rate = a_rate(engine, account, "20", kind)
    client = a_client(engine, account, tax_rates=[rate], tax_exempt=was_exempt)
    charge = a_charge(engine, client, MAY, "10.00")
    draft = drafted(engine, account, client)
    perform(engine, finalize_invoice, account, invoice_id=draft.id)
    change(engine, client, tax_exempt=not was_exempt)
    with Session(engine) as session, session.begin():
        end_tax_rate(session, account.id, rate, MAY - timedelta(days=5))
        remove_charge(session, account.id, charge, now=NOW)

    correction = drafted(engine, account, client)
    perform(engine, finalize_invoice, account, invoice_id=correction.id)

    billed, taken_back = again(engine, draft), again(engine, correction)
    assert (taken_back.subtotal, taken_back.tax, taken_back.total) == (
        -billed.subtotal,
        -billed.tax,
        -billed.total,
    )
    assert audited(engine, account) == []
