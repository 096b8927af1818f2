import html
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest

from models import BillingPeriod, Invoice
from tasks.letters import (
    Letter,
    LetterInvoice,
    LetterLinks,
    authentication_needed,
    invoice_ready,
    letter_invoice,
    payment_failed,
    receipt,
)
from tasks.links import Links

LINKS = LetterLinks(Links("https://pay.bluebird.example", "k" * 32), UUID(int=17))

DUE = LetterInvoice(
    id=UUID(int=42),
    number="INV-000042",
    total="1,234.50 USD",
    amount_due="1,234.50 USD",
    due_on="15 June 2026",
    status="Open",
    credit_applied=None,
    period="1 - 31 May 2026",
    is_due=True,
)
PARTLY = replace(
    DUE, number="INV-000043", amount_due="1,000.00 USD", credit_applied="234.50 USD", period=None
)
SETTLED = replace(
    DUE,
    number="INV-000041",
    total="80.00 USD",
    amount_due="0.00 USD",
    credit_applied="80.00 USD",
    status="Paid",
    is_due=False,
)
ADDRESSED: dict[str, Any] = {
    "account": "Bluebird Prep",
    "client": "Ada Imports",
    "links": LINKS,
}
REASON = "The card has insufficient funds."


def ready(*invoices: LetterInvoice, **facts: Any) -> Letter:
    return invoice_ready(**ADDRESSED | {"attached": 0} | facts, invoices=invoices)


def received(*invoices: LetterInvoice, **facts: Any) -> Letter:
    nothing = dict.fromkeys(("paid", "paid_on", "method", "credit_added"))
    given = ADDRESSED | nothing | {"settled_by_credit": False, "attached": 0} | facts
    return receipt(invoices=invoices, **given)


def failed(invoice: LetterInvoice = DUE, **facts: Any) -> Letter:
    plain = {"next_try": None, "needs_authentication": False, "needs_new_card": False}
    told = {"reason": REASON, "tried": "1,000.00 USD"}
    return payment_failed(**ADDRESSED | plain | told | facts, invoice=invoice)


def to_confirm(**facts: Any) -> Letter:
    plain = {"tried": "1,000.00 USD", "next_try": None}
    return authentication_needed(**ADDRESSED | plain | facts, invoice=DUE)


def read_out(letter: Letter) -> str:
    """What the HTML says, without its tags, on one line."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", letter.html)).split())


def says(letter: Letter, words: str) -> bool:
    """Whether the text and the HTML both say it; that one does and one does not fails."""
    in_text = words in " ".join(letter.text.split())
    in_html = words in read_out(letter)
    assert in_text == in_html, words
    return in_text


EVERY_KIND: dict[str, Callable[..., Letter]] = {
    "ready": lambda **names: ready(DUE, PARTLY, SETTLED, **names),
    "ready, card charged": lambda **names: ready(DUE, charged=[DUE.number], **names),
    "ready, three ways": lambda **names: ready(
        DUE,
        PARTLY,
        replace(DUE, number="INV-000044"),
        SETTLED,
        charged=[DUE.number],
        carried=[PARTLY.number],
        attached=2,
        **names,
    ),
    "ready, all settled": lambda **names: ready(SETTLED, **names),
    "paid": lambda **names: received(SETTLED, paid="80.00 USD", method="Bank transfer", **names),
    "paid by credit": lambda **names: received(SETTLED, settled_by_credit=True, **names),
    "deposit": lambda **names: received(credit_added="5.00 USD", **names),
    "receipt of nothing told": lambda **names: received(DUE, **names),
    "failed": lambda **names: failed(next_try="4 June 2026", **names),
    "to be confirmed": to_confirm,
    "failed, to be confirmed": lambda **names: failed(needs_authentication=True, **names),
    "failed, another card": lambda **names: failed(needs_new_card=True, **names),
    "failed, last": failed,
}
every_kind = pytest.mark.parametrize("write", EVERY_KIND.values(), ids=EVERY_KIND)


class Tags(HTMLParser):
    """Every tag is closed in its turn, and nothing is loaded."""

    VOID = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not {"src", "background"} & {name for name, _ in attrs}
        links = [str(value) for name, value in attrs if name == "href"]
        assert all(one.startswith("https://pay.bluebird.example/") for one in links)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@every_kind
def test_a_letter_is_well_formed_addressed_signed_and_loads_nothing(
    write: Callable[..., Letter],
) -> None:
    letter = write()
    tags = Tags()
    tags.feed(letter.html)
    tags.close()
    assert tags.open == []
    assert letter.html.startswith('<!doctype html>\n<html lang="en">')
    assert letter.text.startswith("Hello Ada Imports,\n\n")
    assert letter.text.endswith("\n\nKind regards,\nBluebird Prep\n")
    assert "\n\n\n" not in letter.text
    assert says(letter, "Hello Ada Imports,")
    assert "Bluebird Prep" in letter.subject
    hosts = {urlsplit(one).netloc for one in re.findall(r"\w+://\S+", letter.text)}
    assert hosts <= {"pay.bluebird.example"}


@every_kind
def test_markup_in_a_name_is_text_in_the_html_and_untouched_elsewhere(
    write: Callable[..., Letter],
) -> None:
    letter = write(account="A & Sons'", client="<b>&{{ 7 * 7 }}")
    assert "&lt;b&gt;&amp;{{ 7 * 7 }}," in letter.html
    assert "<b>" not in letter.html
    assert letter.text.startswith("Hello <b>&{{ 7 * 7 }},\n")
    assert letter.text.endswith("\nA & Sons'\n")
    assert "A & Sons'" in letter.subject


@every_kind
@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r", "\u2028", "\x85", "\x0b", "\x00"])
def test_a_subject_is_one_line_whatever_a_name_holds(
    write: Callable[..., Letter], line_break: str
) -> None:
    name = f"Bluebird{line_break}Bcc: all@example.com{line_break}"
    letter = write(account=name, client=name)
    assert len(letter.subject.splitlines()) == 1
    assert letter.subject.isprintable()
    assert "Bluebird Bcc: all@example.com" in letter.subject
    assert letter.text.startswith("Hello Bluebird Bcc: all@example.com,\n")


def test_one_invoice_ready_is_named_in_the_subject_with_what_is_due_until_when() -> None:
    letter = ready(DUE)
    assert letter.subject == "Invoice Ready For Payment: INV-000042 from Bluebird Prep"
    for words in ("INV-000042", "1 - 31 May 2026", "1,234.50 USD", "15 June 2026"):
        assert says(letter, words)
    assert not says(letter, "Already settled")
    assert not says(letter, "Credit applied")


def test_several_invoices_ready_are_counted() -> None:
    letter = ready(DUE, PARTLY)
    assert letter.subject == "Invoice Ready For Payment: 2 invoices from Bluebird Prep"
    assert says(letter, "2 new invoices are ready")
    assert says(letter, "mention the invoice numbers.")


def test_what_credit_took_off_is_shown_beside_the_total_and_the_rest() -> None:
    letter = ready(PARTLY)
    for words in ("1,000.00 USD", "1,234.50 USD", "234.50 USD"):
        assert says(letter, words)
    assert "Credit applied: 234.50 USD" in letter.text
    assert "None" not in letter.text + letter.html


def test_invoices_settled_already_are_listed_after_those_due_and_not_counted() -> None:
    letter = ready(SETTLED, DUE)
    assert letter.subject == "Invoice Ready For Payment: INV-000042 from Bluebird Prep"
    for said in (letter.text, read_out(letter)):
        due, settled = said.split("Already settled, nothing to pay:")
        assert "INV-000042" in due
        assert "INV-000041" not in due
        assert "INV-000041" in settled
        assert "Paid" in settled
        assert "0.00 USD" not in settled.replace("80.00 USD", "")


@pytest.mark.parametrize(
    ("settled", "words"),
    [
        ([SETTLED], "Your new invoice needs no payment"),
        ([SETTLED, replace(SETTLED, number="INV-000040")], "Your new invoices need no payment"),
    ],
)
def test_where_all_is_settled_nothing_is_asked_for(
    settled: list[LetterInvoice], words: str
) -> None:
    letter = ready(*settled)
    assert letter.subject.startswith("Invoice Ready For Payment: ")
    assert says(letter, words)
    assert not says(letter, "We will charge")
    assert not says(letter, "To pay")


def test_a_client_whose_card_is_charged_has_nothing_to_do() -> None:
    letter = ready(DUE, PARTLY, charged=[DUE.number, PARTLY.number])
    assert says(letter, "We will charge the card that you have on file with us.")
    assert says(letter, "There is nothing you need to do.")
    assert not says(letter, "To pay")


def test_a_client_whose_card_is_not_charged_is_told_how_to_pay() -> None:
    letter = ready(DUE)
    assert says(letter, "To pay in another way, reply to this email or contact us")
    assert not says(letter, "We will charge")


def test_each_invoice_is_paid_in_its_own_way() -> None:
    yen = replace(DUE, number="INV-000044")
    mixed = ready(DUE, PARTLY, yen, charged=[DUE.number], carried=[PARTLY.number])
    for words in (
        "We will charge the card that you have on file with us for INV-000042.",
        "INV-000043 comes to less than can be charged to a card. We will add it to your next",
        "To pay in another way, reply to this email or contact us as you usually do",
        "mention the invoice number.",
    ):
        assert says(mixed, words)
    assert not says(mixed, "nothing you need to do")

    by_card = ready(DUE, yen, PARTLY, charged=[DUE.number, yen.number], carried=[PARTLY.number])
    assert says(by_card, "for INV-000042 and INV-000044.")
    assert says(by_card, "There is nothing you need to do.")
    assert not says(by_card, "To pay")

    too_little = ready(DUE, PARTLY, yen, carried=[DUE.number, PARTLY.number, yen.number])
    assert says(
        too_little, "INV-000042, INV-000043 and INV-000044 come to less than can be charged"
    )
    assert says(
        too_little, "We will add them to your next invoice. There is nothing you need to do."
    )


@pytest.mark.parametrize(
    ("invoices", "attached", "words"),
    [
        ([DUE], 1, "The invoice is attached as a PDF."),
        ([DUE, SETTLED], 2, "The invoices are attached as PDFs."),
        ([DUE, SETTLED], 1, "The first of these invoices is attached as a PDF."),
        (
            [DUE] * 30,
            20,
            "The first 20 of these invoices are attached as PDFs. Ask us for the others.",
        ),
        ([DUE], 0, None),
    ],
)
def test_a_letter_says_which_invoices_are_attached(
    invoices: list[LetterInvoice], attached: int, words: str | None
) -> None:
    for letter in (
        ready(*invoices, attached=attached),
        received(*invoices, paid="80.00 USD", attached=attached),
    ):
        assert says(letter, words or "attached") is (words is not None)


def test_no_letter_speaks_of_an_invoice_that_is_not_attached() -> None:
    assert not says(failed(), "attached")
    assert not says(received(credit_added="5.00 USD"), "attached")


def test_a_receipt_says_what_was_paid_when_and_how() -> None:
    letter = received(
        SETTLED, paid="80.00 USD", paid_on="4 June 2026", method="Visa ending in 4242"
    )
    assert letter.subject == "Receipt: your payment of 80.00 USD to Bluebird Prep"
    for words in (
        "We received your payment of 80.00 USD",
        "4 June 2026",
        "Visa ending in 4242",
        "INV-000041",
        "There is nothing left to pay on this invoice.",
    ):
        assert says(letter, words)
    assert not says(letter, "credit balance")


def test_a_receipt_says_what_the_credit_balance_paid_besides() -> None:
    letter = received(SETTLED, paid="30.00 USD", settled_by_credit=True)
    assert says(letter, "We received your payment of 30.00 USD")
    assert says(letter, "Your credit balance paid the rest.")
    assert not says(letter, "Paid on")
    assert not says(letter, "Method")


def test_a_receipt_for_what_credit_alone_paid_thanks_for_no_payment() -> None:
    letter = received(SETTLED, replace(SETTLED, number="INV-000040"), settled_by_credit=True)
    assert letter.subject == "Receipt: 2 invoices from Bluebird Prep paid from your credit"
    assert says(letter, "Your credit balance paid the invoices below.")
    assert says(letter, "There is nothing left to pay on these invoices.")
    assert not says(letter, "We received")


def test_a_receipt_for_a_part_says_what_is_still_due() -> None:
    letter = received(PARTLY, paid="234.50 USD")
    assert says(letter, "1,000.00 USD")
    assert says(letter, "15 June 2026")
    assert not says(letter, "nothing left to pay")


def test_a_receipt_for_a_deposit_needs_no_invoice() -> None:
    letter = received(credit_added="40.00 USD")
    assert letter.subject == "Receipt: 40.00 USD added to your credit with Bluebird Prep"
    assert says(letter, "40.00 USD was added to your credit balance")
    assert not says(letter, "nothing left to pay")


def test_a_failed_payment_says_what_was_tried_why_it_failed_and_when_it_is_tried_next() -> None:
    letter = failed(PARTLY, next_try="4 June 2026")
    assert letter.subject == "Payment failed: INV-000043 from Bluebird Prep"
    for words in (
        "We tried to charge your card 1,000.00 USD for invoice INV-000043",
        f"Reason: {REASON}",
        "We will try again on 4 June 2026.",
        "You can give us another card before that",
        "Please do not send card details by email.",
    ):
        assert says(letter, words)
    assert not says(letter, "confirm")


def test_the_last_failed_payment_promises_no_other_try() -> None:
    letter = failed()
    assert says(letter, "We will not try again by ourselves.")
    assert says(letter, "give us another card")
    assert not says(letter, "We will try again")


def test_a_payment_the_bank_wants_confirmed_says_so() -> None:
    letter = failed(needs_authentication=True)
    assert letter.subject == "Please confirm your payment: INV-000042 from Bluebird Prep"
    assert says(letter, "Your bank wants you to confirm this payment.")
    assert says(letter, "You can also give us another card")
    assert not says(letter, "We will not try again")


def test_a_card_that_cannot_be_used_is_to_be_replaced() -> None:
    letter = failed(needs_new_card=True)
    assert letter.subject.startswith("Payment failed, another card is needed: INV-000042")
    assert says(letter, "This card cannot be used.")
    assert says(letter, "give us another card")
    assert not says(letter, "We will not try again")


def test_a_next_try_is_told_also_where_the_client_must_act() -> None:
    for letter in (
        failed(next_try="4 June 2026", needs_authentication=True),
        failed(next_try="4 June 2026", needs_new_card=True),
    ):
        assert says(letter, "We will try again on 4 June 2026.")


def test_a_letter_leads_to_the_page_of_each_invoice_and_to_the_clients_own() -> None:
    page, own = LINKS.to_invoice(DUE), LINKS.to_portal()
    for letter, pages in (
        (ready(DUE), [page]),
        (ready(SETTLED, DUE, charged=[DUE.number]), [page, LINKS.to_invoice(SETTLED)]),
        (received(SETTLED, paid="80.00 USD"), [LINKS.to_invoice(SETTLED)]),
        (failed(), [page, own]),
        (to_confirm(), [page]),
    ):
        assert all(f'href="{one}"' in letter.html for one in pages)
        assert all(one in letter.text for one in pages)


def test_one_invoice_to_pay_has_a_button_and_several_are_paid_by_their_numbers() -> None:
    assert "Pay 1,234.50 USD now" in read_out(ready(DUE))
    assert "now" not in read_out(ready(DUE, charged=[DUE.number]))
    both = ready(DUE, PARTLY)
    assert "now" not in read_out(both)
    assert "To pay, open each of them by its number above." in read_out(both)


def test_a_payment_to_be_confirmed_says_where_and_that_nothing_was_charged() -> None:
    letter = to_confirm(next_try="4 June 2026")
    assert letter.subject == "Please confirm your payment: INV-000042 from Bluebird Prep"
    for words in (
        "Your bank wants you to confirm this payment, so nothing was charged yet.",
        "open the invoice, press the button there, and follow what your bank asks",
        "If you do nothing, we will try your card again on 4 June 2026.",
    ):
        assert says(letter, words)
    assert "Confirm and pay 1,234.50 USD" in read_out(letter)
    assert not says(to_confirm(), "we will try")


def an_invoice(**fields: Any) -> Invoice:
    given = {
        "id": UUID(int=42),
        "number": "INV-000042",
        "currency": "usd",
        "status": "open",
        "total": 123450,
        "credit_applied": 0,
        "amount_due": 123450,
        "amount_written_off": 0,
        "due_on": date(2026, 6, 15),
    }
    return Invoice(**given | fields)


def test_an_invoice_is_listed_with_ready_strings() -> None:
    may = BillingPeriod(period_start=date(2026, 5, 1), period_end=date(2026, 6, 1))
    assert letter_invoice(an_invoice(), may) == DUE


@pytest.mark.parametrize(
    ("fields", "listed"),
    [
        (
            {"credit_applied": 23450, "amount_due": 100000},
            {"credit_applied": "234.50 USD", "amount_due": "1,000.00 USD"},
        ),
        (
            {"credit_applied": -30, "amount_due": 123480},
            {"credit_applied": "-0.30 USD", "amount_due": "1,234.80 USD"},
        ),
        (
            {"status": "paid", "credit_applied": 123450, "amount_due": 0},
            {
                "status": "Paid",
                "credit_applied": "1,234.50 USD",
                "amount_due": "0.00 USD",
                "is_due": False,
            },
        ),
        (
            {"status": "paid", "total": -4000, "credit_applied": -4000, "amount_due": 0},
            {
                "status": "Added to your credit",
                "total": "-40.00 USD",
                "amount_due": "0.00 USD",
                "is_due": False,
            },
        ),
        (
            {"status": "void", "amount_due": 0},
            {"status": "Void", "amount_due": "0.00 USD", "is_due": False},
        ),
        ({"status": "uncollectible", "amount_due": 0, "amount_written_off": 123450}, {}),
        (
            {"currency": "jpy", "total": 1200, "amount_due": 1200},
            {"total": "1,200 JPY", "amount_due": "1,200 JPY"},
        ),
    ],
)
def test_an_invoice_is_listed_as_it_stands(fields: dict[str, Any], listed: dict[str, Any]) -> None:
    assert letter_invoice(an_invoice(**fields), None) == replace(DUE, period=None, **listed)


def test_no_letter_mentions_a_draft() -> None:
    with pytest.raises(ValueError, match="draft"):
        letter_invoice(an_invoice(number=None, due_on=None), None)
