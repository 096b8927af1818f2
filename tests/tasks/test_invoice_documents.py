from datetime import UTC, date, datetime
from decimal import Decimal
from io import BytesIO
from typing import Any

import pytest
from pypdf import PdfReader
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from gateways.documents import Party, TaxTotal
from gateways.typst_documents import TypstDocuments
from models import Account, BillingPeriod, Client, Invoice
from tasks.accounts import change_account
from tasks.draft_editing import edit_draft
from tasks.drafting import draft_invoice
from tasks.finalizing import finalize_invoice
from tasks.invoice_documents import filename, invoice_document, written_period
from tasks.voiding import void_invoice
from tests.money import an_invoice, deposit, owe
from tests.worlds import (
    NOW,
    a_charge,
    a_client,
    a_rate,
    change,
    charges,
    invoices_of,
    perform,
    tick,
)

MAY = date(2026, 5, 1)


def finalized(engine: Engine, account: Account, client: Client) -> Invoice:
    """All of the client's open charges, on an invoice of 1 June."""
    perform(engine, draft_invoice, account, client_id=client.id)
    [invoice] = invoices_of(engine, client)
    perform(engine, finalize_invoice, account, invoice_id=invoice.id)
    return invoices_of(engine, client)[0]


def text_of(pdf: bytes) -> str:
    """What a reader can copy, without spaces and line breaks."""
    return "".join("".join(page.extract_text().split()) for page in PdfReader(BytesIO(pdf)).pages)


def test_what_was_written_on_the_draft_is_on_the_document(
    engine: Engine, session: Session, account: Account
) -> None:
    client = a_client(engine, account)
    a_charge(engine, client, MAY)
    perform(engine, draft_invoice, account, client_id=client.id)
    [draft] = invoices_of(engine, client)
    written = {
        "po_number": "PO-7781",
        "memo": "Dock 4 is closed.\n\nUse dock 5. #let",
        "due_on": date(2026, 8, 1),
    }
    edit_draft(session, account.id, draft.id, written, now=NOW)
    session.commit()
    perform(engine, finalize_invoice, account, invoice_id=draft.id)

    document = invoice_document(session, invoices_of(engine, client)[0])

    assert (document.reference, document.labels.reference) == ("PO-7781", "PO number")
    assert document.notes == ("Dock 4 is closed.", "Use dock 5. #let")
    assert document.due == "1 August 2026"
    text = text_of(TypstDocuments().render_invoice_pdf(document))
    for shown in ("PO-7781", "Dock4isclosed.", "Usedock5.#let", "1August2026"):
        assert shown in text


def unsaved(invoice: Invoice, **changes: Any) -> Invoice:
    """The same with other values, in memory alone."""
    columns = {column.name: getattr(invoice, column.name) for column in Invoice.__table__.columns}
    return Invoice(**columns | changes)


def test_a_cycles_invoice_is_set_with_its_number_parties_period_lines_and_amounts(
    engine: Engine, session: Session, account: Account
) -> None:
    address = {"line1": "1 Dock Street", "city": "Reno", "state": "NV", "country": "US"}
    change_account(
        session,
        account.id,
        {"legal_name": "Bluebird Prep LLC", "address": address, "tax_ids": ["93-1", "DE 2"]},
        now=NOW,
    )
    session.commit()
    client = a_client(
        engine,
        account,
        billing_cycle="monthly",
        billing_starts_on=MAY,
        now=datetime(2026, 5, 2, tzinfo=UTC),
        email="ada@example.com",
    )
    charges(engine, client, [(date(2026, 5, 20), "0.0825")], quantity=Decimal(1240))
    a_charge(engine, client, date(2026, 5, 2), "1200.00", description="Storage")

    tick(engine, now=NOW)
    [invoice] = invoices_of(engine, client)
    document = invoice_document(session, invoice)

    assert (document.title, document.number) == ("Invoice", "INV-000001")
    assert (document.issued, document.due) == ("1 June 2026", "15 June 2026")
    assert document.period == "1 - 31 May 2026"
    assert document.issuer == Party(
        name="Bluebird Prep",
        legal_name="Bluebird Prep LLC",
        address=("1 Dock Street", "Reno", "NV", "US"),
        tax_id="93-1, DE 2",
    )
    assert document.client == Party(name="Ada Imports", email="ada@example.com")
    assert [(line.date, line.description, line.quantity) for line in document.lines] == [
        ("2 May 2026", "Storage", "1"),
        ("20 May 2026", "FNSKU labelling", "1240"),
    ]
    assert [(line.unit_price, line.amount) for line in document.lines] == [
        ("1200.00", "1,200.00 USD"),
        ("0.0825", "102.30 USD"),
    ]
    assert document.total == document.amount_due == "1,302.30 USD"
    assert (document.credit, document.paid, document.subtotal) == (None, None, None)
    text = text_of(TypstDocuments().render_invoice_pdf(document))
    for shown in (
        "INV-000001",
        "BluebirdPrepLLC",
        "AdaImports",
        "1-31May2026",
        "12400.0825102.30USD",
        "Total1,302.30USD",
        "Amountdue1,302.30USD",
    ):
        assert shown in text
    assert "Creditapplied" not in text


def test_a_negative_invoice_is_a_credit_note_that_asks_for_nothing(
    engine: Engine, session: Session, account: Account
) -> None:
    client = a_client(engine, account)
    a_charge(engine, client, MAY, "-40.00")
    invoice = finalized(engine, account, client)

    document = invoice_document(session, invoice)

    assert (document.title, document.number) == ("Credit note", "INV-000001")
    assert (document.total, document.amount_due) == ("-40.00 USD", "0.00 USD")
    assert document.due is None
    text = text_of(TypstDocuments().render_invoice_pdf(document))
    for shown in ("Creditnote", "Total-40.00USD", "Addedtoyourcredit40.00USD", "Amountdue0.00USD"):
        assert shown in text


def test_what_was_settled_is_taken_off_the_total(
    engine: Engine, session: Session, account: Account
) -> None:
    client = a_client(engine, account)
    a_charge(engine, client, MAY, "100.00")
    invoice = finalized(engine, account, client)

    paid = invoice_document(
        session, unsaved(invoice, credit_applied=2500, amount_paid=4000, amount_due=3500)
    )
    owed_before = invoice_document(session, unsaved(invoice, credit_applied=-30, amount_due=10030))

    assert (paid.credit, paid.paid, paid.amount_due) == ("-25.00 USD", "-40.00 USD", "35.00 USD")
    assert paid.labels.credit == "Credit applied"
    assert (owed_before.credit, owed_before.amount_due) == ("0.30 USD", "100.30 USD")
    assert owed_before.labels.credit == "Brought forward"


def test_what_was_too_little_for_a_card_is_said_to_come_with_the_next_invoice(
    engine: Engine, session: Session, account: Account
) -> None:
    client = a_client(engine, account)
    carried = owe(engine, account, client, 30)
    deposit(engine, account, client, 1030)
    next_one = an_invoice(engine, account, client, "10.00")

    document = invoice_document(session, carried)
    assert (document.credit, document.amount_due) == ("-0.30 USD", "0.00 USD")
    assert document.labels.credit == "Carried to your next invoice"
    assert document.notes == (
        "0.30 USD is too little for a card, and is carried to your next invoice.",
    )
    settled = invoice_document(session, next_one)
    assert (settled.credit, settled.labels.credit, settled.notes) == (
        "-10.00 USD",
        "Credit applied",
        (),
    )


def test_tax_stands_between_the_subtotal_and_the_total(
    engine: Engine, session: Session, account: Account
) -> None:
    client = a_client(
        engine, account, tax_rates=[a_rate(engine, account, "8.25", name="Sales tax")]
    )
    a_charge(engine, client, MAY, "100.00")
    invoice = finalized(engine, account, client)

    document = invoice_document(session, invoice)

    assert document.subtotal == "100.00 USD"
    assert document.taxes == (TaxTotal("Sales tax 8.25% of 100.00 USD", "8.25 USD"),)
    assert document.total == "108.25 USD"
    assert [line.note for line in document.lines] == [None]
    assert "Salestax8.25%of100.00USD8.25USD" in text_of(
        TypstDocuments().render_invoice_pdf(document)
    )


def test_lines_say_what_they_bear_where_they_differ(
    engine: Engine, session: Session, account: Account
) -> None:
    vat, included = a_rate(engine, account), a_rate(engine, account, "5.5", "inclusive", name="GST")
    client = a_client(engine, account, tax_rates=[vat])
    for price, rates in (("10.00", [vat]), ("10.55", [vat, included]), ("1.00", [])):
        a_charge(engine, client, MAY, price, tax_rates=rates)
    invoice = finalized(engine, account, client)

    document = invoice_document(session, invoice)

    assert [(line.amount, line.note) for line in document.lines] == [
        ("10.00 USD", "VAT 20%"),
        ("10.55 USD", "VAT 20%, GST 5.5% in the price"),
        ("1.00 USD", "No tax"),
    ]
    assert (document.subtotal, document.total) == ("21.00 USD", "25.55 USD")
    assert document.taxes == (
        TaxTotal("VAT 20% of 20.00 USD", "4.00 USD"),
        TaxTotal("GST 5.5% of 10.00 USD, in the prices", "0.55 USD"),
    )
    text = text_of(TypstDocuments().render_invoice_pdf(document))
    assert "GST5.5%intheprice" in text
    assert "GST5.5%of10.00USD,intheprices" in text


def test_an_exempt_clients_document_says_so(
    engine: Engine, session: Session, account: Account
) -> None:
    rates = [a_rate(engine, account, "20", "inclusive")]
    client = a_client(engine, account, tax_exempt=True, tax_ids=["DE 7"], tax_rates=rates)
    a_charge(engine, client, MAY, "12.00")
    a_charge(engine, client, MAY, "1.00", tax_rates=[])
    invoice = finalized(engine, account, client)
    change(engine, client, tax_exempt=False)

    document = invoice_document(session, invoice)

    assert document.notes == ("Exempt from tax.",)
    assert document.client.tax_id == "DE 7"
    assert [line.note for line in document.lines] == ["10.00 USD without tax", None]
    assert (document.subtotal, document.taxes, document.total) == (None, (), "11.00 USD")


def test_a_void_invoice_says_so_and_asks_for_nothing(
    engine: Engine, session: Session, account: Account
) -> None:
    client = a_client(engine, account)
    a_charge(engine, client, MAY)
    invoice = finalized(engine, account, client)
    perform(engine, void_invoice, account, invoice_id=invoice.id)
    [void] = invoices_of(engine, client)

    document = invoice_document(session, void)

    assert (document.total, document.amount_due, document.due) == ("10.00 USD", "0.00 USD", None)
    assert document.notes == ("This invoice is void. Nothing is to be paid on it.",)
    note = invoice_document(session, unsaved(void, total=-1000, credit_applied=-1000))
    assert (note.credit, note.notes) == (None, ("This credit note is void.",))


def test_an_amount_given_outright_has_no_unit_price(
    engine: Engine, session: Session, account: Account
) -> None:
    client = a_client(engine, account)
    a_charge(engine, client, MAY, unit_price=None, amount=1234, quantity=Decimal("2.5"))
    invoice = finalized(engine, account, client)

    [line] = invoice_document(session, invoice).lines

    assert (line.quantity, line.unit_price, line.amount) == ("2.5", "", "12.34 USD")


def test_a_currency_without_a_minor_unit_has_no_decimals(
    engine: Engine, session: Session, account: Account
) -> None:
    client = a_client(engine, account)
    a_charge(engine, client, MAY, "1200", currency="jpy")
    invoice = finalized(engine, account, client)

    document = invoice_document(session, invoice)

    assert document.total == "1,200 JPY"
    assert [line.unit_price for line in document.lines] == ["1200"]


def test_names_and_addresses_are_those_of_the_day_it_was_finalized(
    engine: Engine, session: Session, account: Account
) -> None:
    old = {"line2": "Floor 2", "line1": "1 Quay", "postal_code": "89501", "city": "Reno"}
    client = a_client(engine, account, legal_name="Ada Imports", address=old)
    a_charge(engine, client, MAY)
    invoice = finalized(engine, account, client)
    change(engine, client, name="Renamed", address={"line1": "Elsewhere"})

    document = invoice_document(session, invoice)

    assert document.client == Party(
        name="Ada Imports", address=("1 Quay", "Floor 2", "Reno", "89501")
    )


def test_a_draft_has_no_document(engine: Engine, session: Session, account: Account) -> None:
    client = a_client(engine, account)
    a_charge(engine, client, MAY)
    perform(engine, draft_invoice, account, client_id=client.id)
    [draft] = invoices_of(engine, client)

    with pytest.raises(ValueError, match="draft"):
        invoice_document(session, draft)


@pytest.mark.parametrize(
    ("start", "end", "written"),
    [
        ((2026, 5, 1), (2026, 6, 1), "1 - 31 May 2026"),
        ((2026, 5, 16), (2026, 6, 16), "16 May - 15 June 2026"),
        ((2025, 12, 16), (2026, 1, 16), "16 December 2025 - 15 January 2026"),
        ((2025, 12, 1), (2026, 1, 1), "1 - 31 December 2025"),
        ((2026, 5, 31), (2026, 6, 1), "31 May 2026"),
    ],
)
def test_a_period_is_written_with_its_first_and_its_last_day(
    start: tuple[int, int, int], end: tuple[int, int, int], written: str
) -> None:
    period = BillingPeriod(period_start=date(*start), period_end=date(*end))
    assert written_period(period) == written


@pytest.mark.parametrize(
    ("number", "name"),
    [
        ("INV-000042", "INV-000042.pdf"),
        ('../A/7 \n"é', "A-7.pdf"),
        ("é", "invoice.pdf"),
        (None, "invoice.pdf"),
    ],
)
def test_a_file_is_named_by_safe_characters_of_its_number(number: str | None, name: str) -> None:
    assert filename(Invoice(number=number)) == name
