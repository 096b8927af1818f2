from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from io import BytesIO

import pytest
from pypdf import PdfReader

from gateways.documents import (
    DocumentLine,
    InvoiceDocument,
    OpenItemEntry,
    Party,
    StatementDocument,
    StatementEntry,
    TaxTotal,
)
from gateways.typst_documents import TypstDocuments

LINE = DocumentLine(
    date="3 Oct",
    description="FNSKU labelling",
    quantity="1,240",
    unit_price="$0.2500",
    amount="$310.00",
)
INVOICE = InvoiceDocument(
    title="Invoice",
    number="INV-2026-0042",
    issuer=Party(name="Bluebird Prep", address=("1200 Dock Street",), tax_id="93-1234567"),
    client=Party(name="Maple & Oak Goods", legal_name="Maple & Oak Ltd."),
    issued_on=date(2026, 11, 1),
    issued="1 November 2026",
    due="15 November 2026",
    lines=(LINE,),
    subtotal="$310.00",
    taxes=(TaxTotal("Sales tax 8.25% of $310.00", "$25.58"),),
    total="$335.58",
    credit="-$100.00",
    amount_due="$235.58",
    pay_url="https://pay.example/i/abc",
    notes=("Thank you.",),
)


@pytest.fixture(scope="module")
def documents() -> TypstDocuments:
    return TypstDocuments()


def text_of(pdf: bytes) -> str:
    """What a reader can copy, all pages, without spaces and line breaks."""
    return "".join("".join(page.extract_text().split()) for page in PdfReader(BytesIO(pdf)).pages)


def pages(pdf: bytes) -> int:
    return len(PdfReader(BytesIO(pdf)).pages)


def is_archival(pdf: bytes) -> bool:
    return b"<pdfaid:part>3</pdfaid:part>" in pdf


def test_an_invoice_is_an_archival_pdf_of_one_page(documents: TypstDocuments) -> None:
    pdf = documents.render_invoice_pdf(INVOICE)
    assert pdf.startswith(b"%PDF-1.7")
    assert is_archival(pdf)
    assert b"(https://pay.example/i/abc)" in pdf
    assert pages(pdf) == 1
    text = text_of(pdf)
    for shown in (
        "INV-2026-0042",
        "BluebirdPrep",
        "Maple&OakLtd.",
        "15November2026",
        "1,240$0.2500$310.00",
        "Salestax8.25%of$310.00$25.58",
        "Creditapplied-$100.00",
        "Amountdue$235.58",
        "Thankyou.",
        "Page1of1",
    ):
        assert shown in text


def test_equal_documents_are_equal_bytes_from_any_thread(documents: TypstDocuments) -> None:
    first = documents.render_invoice_pdf(INVOICE)
    with ThreadPoolExecutor(4) as threads:
        others = threads.map(documents.render_invoice_pdf, [INVOICE] * 8)
        assert all(other == first for other in others)
    assert TypstDocuments().render_invoice_pdf(replace(INVOICE)) == first
    assert documents.render_invoice_pdf(replace(INVOICE, number="INV-2026-0043")) != first


def test_many_lines_take_many_pages(documents: TypstDocuments) -> None:
    long = replace(LINE, description="Every step of the handling, the carton and the label " * 4)
    pdf = documents.render_invoice_pdf(replace(INVOICE, lines=(LINE, long) * 60))
    count = pages(pdf)
    assert count >= 5
    text = text_of(pdf)
    assert f"Page{count}of{count}" in text
    assert text.count("Unitprice") in (count, count - 1)


@pytest.mark.parametrize("paper", ["a4", "us-letter"])
def test_what_may_be_missing_may_be_missing(documents: TypstDocuments, paper: str) -> None:
    bare = InvoiceDocument(
        title="Credit note",
        number="CN-1",
        issuer=Party(name="Bluebird Prep"),
        client=Party(name="Maple"),
        issued_on=date(2026, 11, 1),
        issued="1 November 2026",
        lines=(replace(LINE, date=""),),
        total="-$40.00",
        amount_due="$0.00",
        paper="a4" if paper == "a4" else "us-letter",
    )
    assert pages(documents.render_invoice_pdf(bare)) == 1
    assert pages(documents.render_invoice_pdf(replace(bare, lines=()))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "#panic()",
        '#read("/etc/passwd") #include "x.typ"',
        "*bold* _it_ $x^2$ @ref <label> \\ // /* `code` [x] {y} = z",
        '"quotes" \' \\" \\u{41}',
        "SKU" + "X" * 400,
        "a\nb\tc",
        "",
        "株式会社さくら物流 中文",
        "شركة الخليج للشحن וכל",
        "Größe Ωμέγα Склад Łódź Tiếng",
    ],
)
def test_any_text_is_set_as_text_in_an_archival_pdf(documents: TypstDocuments, text: str) -> None:
    document = replace(
        INVOICE,
        number=f"1{text}",
        issuer=Party(name=f"I{text}", address=(text,), email=text),
        client=Party(name=text, legal_name=text, tax_id=text),
        lines=(replace(LINE, description=text, note=text),),
        taxes=(TaxTotal(text, "$1.00"),),
        notes=(text,),
    )
    pdf = documents.render_invoice_pdf(document)
    assert is_archival(pdf)


@pytest.mark.parametrize("text", ["📦 Box Co", "bell \x07", "한국어"])
def test_a_character_no_font_has_still_leaves_a_document(
    documents: TypstDocuments, text: str
) -> None:
    pdf = documents.render_invoice_pdf(replace(INVOICE, client=Party(name=text)))
    assert pages(pdf) == 1
    assert not is_archival(pdf)


def test_markup_in_data_stays_text(documents: TypstDocuments) -> None:
    markup = '#panic("x") *bold* _it_ $x^2$ <label> [y] https://a.example'
    document = replace(INVOICE, lines=(replace(LINE, description=markup),))
    assert "".join(markup.split()) in text_of(documents.render_invoice_pdf(document))


def test_currencies_without_and_with_three_decimals_are_shown_as_they_come(
    documents: TypstDocuments,
) -> None:
    for amount in ("￥1,234,567", "KWD 12,345.678", "12 345,678 د.ك", "1 234 567,89 €"):
        line = replace(LINE, unit_price="0.000000125", amount=amount)
        pdf = documents.render_invoice_pdf(
            replace(INVOICE, lines=(line,), total=amount, amount_due=amount)
        )
        assert is_archival(pdf)


ENTRY = StatementEntry(
    date="1 June 2026",
    kind="Invoice",
    reference="INV-2026-0042",
    amount="$335.58",
    balance="$335.58",
)
STATEMENT = StatementDocument(
    issuer=Party(name="Bluebird Prep", address=("1200 Dock Street",), tax_id="93-1234567"),
    client=Party(name="Maple & Oak Goods"),
    issued_on=date(2026, 7, 1),
    issued="1 July 2026",
    period="1 - 30 June 2026",
    opening_balance="$0.00",
    lines=(ENTRY,),
    closing_balance="$335.58",
    open_items=(
        OpenItemEntry(
            number="INV-2026-0042", issued="1 June 2026", due="15 June 2026", amount="$345.58"
        ),
    ),
    credit="-$10.00",
    notes=("Thank you.",),
)


def test_a_statement_is_an_archival_pdf_of_one_page(documents: TypstDocuments) -> None:
    pdf = documents.render_statement_pdf(STATEMENT)
    assert is_archival(pdf)
    assert pages(pdf) == 1
    text = text_of(pdf)
    for shown in (
        "Statement",
        "1-30June2026",
        "BluebirdPrep",
        "TaxID93-1234567",
        "Maple&OakGoods",
        "Openingbalance$0.00",
        "1June2026InvoiceINV-2026-0042$335.58$335.58",
        "Closingbalance$335.58",
        "INV-2026-00421June202615June2026$345.58",
        "Creditinhand-$10.00",
        "Thankyou.",
        "Page1of1",
    ):
        assert shown in text
    assert documents.render_statement_pdf(replace(STATEMENT)) == pdf
    # An invoice set in between by the same thread changes nothing.
    documents.render_invoice_pdf(INVOICE)
    assert documents.render_statement_pdf(STATEMENT) == pdf


def test_a_statement_may_have_many_lines_or_none(documents: TypstDocuments) -> None:
    many = documents.render_statement_pdf(replace(STATEMENT, lines=(ENTRY,) * 120))
    assert pages(many) >= 3
    assert text_of(many).count("Reference") >= pages(many)
    none = replace(STATEMENT, lines=(), open_items=(), credit=None, notes=(), paper="us-letter")
    assert pages(documents.render_statement_pdf(none)) == 1


@pytest.mark.parametrize("text", ['#read("/etc/passwd")', "*bold* $x$ @ref", "X" * 400, "中文"])
def test_any_text_of_a_statement_is_set_as_text(documents: TypstDocuments, text: str) -> None:
    document = replace(
        STATEMENT,
        client=Party(name=text, address=(text,)),
        lines=(replace(ENTRY, reference=text),),
        notes=(text,),
    )
    assert is_archival(documents.render_statement_pdf(document))
