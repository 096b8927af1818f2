import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from api import hosted_invoices
from api.app import create_app
from gateways.sandbox.stripe.server import StripeSandbox
from tasks.calls import Gateways
from tasks.links import Links
from tasks.pay_pages import open_pay_page
from tests.api.calls import an_invoice, deposit, done
from tests.api.conftest import Finish, PutCard
from tests.cards import attempt_states, jobs_of, tell_all
from tests.mailbox import pdf_text
from tests.pay_pages import pages, pay_on_page
from tests.processes import SECRET_KEY
from tests.worlds import counted, work


@pytest.fixture
def browser(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A client's browser; a click waits for its page only as long as it must."""
    monkeypatch.setattr(hosted_invoices, "OPENED_IN_SECONDS", 0.0)
    with TestClient(app, follow_redirects=False) as client:
        yield client


@pytest.fixture
def here(invoice: dict[str, Any]) -> str:
    """The path of an open invoice's page; 11.00 usd are due."""
    return str(urlsplit(invoice["hosted_url"]).path)


def reading(page: str) -> str:
    """What a page says, on one line."""
    return " ".join(re.sub(r"<[^>]*>", " ", re.sub(r"(?s)<style>.*</style>", "", page)).split())


def refreshed(page: str) -> bool:
    return 'http-equiv="refresh"' in page


def test_an_invoice_is_shown_with_what_it_bills_and_a_button_to_pay_it(
    browser: TestClient, here: str
) -> None:
    answer = browser.get(here)

    assert answer.status_code == 200
    said = reading(answer.text)
    for words in (
        "Bluebird Prep Invoice INV-000001",
        "Amount due 11.00 USD",
        "Ada Imports",
        "12 May 2026 FNSKU labelling 40 0.275 11.00 USD",
        "Pay 11.00 USD",
        "Download as PDF",
    ):
        assert words in said
    assert f'action="{here}/pay"' in answer.text
    assert f'href="{here}.pdf"' in answer.text


def test_a_page_loads_nothing_runs_nothing_and_is_kept_by_nobody(
    browser: TestClient, here: str
) -> None:
    for path in (here, f"{here}.pdf", "/i/nonsense"):
        headers = browser.get(path).headers
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-content-type-options"] == "nosniff"
        assert "no-store" in headers["cache-control"]
        assert "noindex" in headers["x-robots-tag"] or path == "/i/nonsense"
    answer = browser.get(here)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script" not in policy + answer.text.replace("Description", "")
    assert not re.findall(r"https?://|<link|<img|url\(", answer.text)


def test_the_button_may_lead_to_stripe_by_https_alone_where_the_page_is_so_reached(
    engine: Engine, invoice: dict[str, Any]
) -> None:
    links = Links("https://billing.example", SECRET_KEY)
    with TestClient(create_app(engine, links=links)) as browser:
        path = urlsplit(links.to_invoice(UUID(invoice["id"]))).path
        policy = browser.get(path).headers["content-security-policy"]
    assert "form-action 'self' https:;" in policy


def test_looking_at_the_headers_alone_works(browser: TestClient, here: str) -> None:
    for path in (here, f"{here}.pdf"):
        answer = browser.head(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == browser.get(path).headers["content-type"]


def test_the_document_is_the_one_that_was_mailed(browser: TestClient, here: str) -> None:
    answer = browser.get(f"{here}.pdf")
    assert answer.headers["content-type"] == "application/pdf"
    assert 'filename="INV-000001.pdf"' in answer.headers["content-disposition"]
    assert "Amountdue11.00USD" in pdf_text(answer.content)


def test_drafts_unknown_invoices_and_links_nobody_signed_look_alike(
    engine: Engine, browser: TestClient, draft: dict[str, Any]
) -> None:
    links = Links("http://testserver", SECRET_KEY)
    others = Links("http://testserver", "another secret, also of enough characters")
    tokens = [
        urlsplit(links.to_invoice(UUID(draft["id"]))).path,
        urlsplit(links.to_invoice(uuid4())).path,
        urlsplit(others.to_invoice(UUID(draft["id"]))).path,
        urlsplit(links.to_portal(UUID(draft["client"]))).path.replace("/p/", "/i/"),
        "/i/x",
    ]
    assert draft["hosted_url"] is None
    for end in ("", ".pdf", "/pay", "/paid"):
        answers = [browser.get(token + end) for token in tokens]
        assert {answer.status_code for answer in answers} == {404}
        assert len({answer.text for answer in answers}) == 1
    posted = [browser.post(f"{token}/pay") for token in tokens]
    assert {answer.status_code for answer in posted} == {404}
    assert jobs_of(engine, open_pay_page) == []
    with counted(engine) as statements:
        browser.get("/i/x")
        browser.get(tokens[2])
    assert statements == []


def test_a_long_invoice_takes_no_more_statements(
    engine: Engine, api: TestClient, browser: TestClient, here: str, ada: dict[str, Any]
) -> None:
    with counted(engine) as short:
        browser.get(here)
    for day in range(1, 10):
        api.post(
            "/v1/charges",
            json={
                "client": ada["id"],
                "description": f"Day {day}",
                "quantity": "1",
                "unit_price": "1.00",
                "charged_on": f"2026-05-{day:02}",
            },
        )
    long = urlsplit(an_invoice(engine, api, ada["id"])["hosted_url"]).path
    with counted(engine) as statements:
        assert "Day 9" in browser.get(long).text
    assert len(statements) == len(short)


def test_what_markup_says_in_a_name_is_text(
    engine: Engine, api: TestClient, browser: TestClient, ada: dict[str, Any]
) -> None:
    text = "<script>alert(1)</script>"
    api.patch(f"/v1/clients/{ada['id']}", json={"name": text})
    path = urlsplit(an_invoice(engine, api, ada["id"], description=text)["hosted_url"]).path
    page = browser.get(path).text
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 2


def test_a_click_leads_to_stripe_and_back_to_an_invoice_that_is_paid(
    engine: Engine,
    browser: TestClient,
    here: str,
    *,
    invoice: dict[str, Any],
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
) -> None:
    waits = browser.post(f"{here}/pay")
    assert (waits.status_code, waits.headers["location"]) == (303, f"{here}/pay")
    one_moment = browser.get(f"{here}/pay")
    assert "One moment" in reading(one_moment.text)
    assert refreshed(one_moment.text)
    work(engine, gateways=vendors)

    gone = browser.get(f"{here}/pay")
    assert gone.status_code == 303
    assert gone.headers["location"].startswith(stripe_sandbox.url)
    # Pressed again, it leads to the same page, and asks for no other.
    assert browser.post(f"{here}/pay").headers["location"] == gone.headers["location"]
    assert len(jobs_of(engine, open_pay_page)) == 1

    pay_on_page(engine, stripe_sandbox, UUID(invoice["id"]))
    back = browser.get(f"{here}/paid")
    assert back.headers["location"] == f"{here}?paid"
    awaited = browser.get(f"{here}?paid")
    assert "Thank you. We are waiting to hear" in reading(awaited.text)
    assert refreshed(awaited.text)
    # Stripe is asked: its events may be late.
    work(engine, gateways=vendors)

    paid = browser.get(f"{here}?paid")
    assert "Paid. There is nothing left to pay." in reading(paid.text)
    assert "Card or bank debit 11.00 USD" in reading(paid.text)
    assert not refreshed(paid.text)
    assert browser.post(f"{here}/pay").headers["location"] == here


def test_a_click_waits_for_its_page(
    engine: Engine,
    browser: TestClient,
    here: str,
    *,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hosted_invoices, "OPENED_IN_SECONDS", 30.0)
    with ThreadPoolExecutor() as threads:
        clicks = [threads.submit(browser.post, f"{here}/pay") for _ in range(2)]
        while not pages(stripe_sandbox):
            work(engine, gateways=vendors)
        led_to = {click.result().headers["location"] for click in clicks}
    assert len(led_to) == 1
    assert led_to.pop().startswith(stripe_sandbox.url)
    assert pages(stripe_sandbox) == ["open"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 303),
        ({"Sec-Fetch-Site": "same-origin"}, 303),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://testserver"}, 303),
        ({"Origin": "null"}, 303),
        ({"Origin": "https://elsewhere.example"}, 403),
    ],
)
def test_only_our_own_button_begins_a_payment(
    engine: Engine, browser: TestClient, here: str, headers: dict[str, str], status: int
) -> None:
    answer = browser.post(f"{here}/pay", headers=headers)
    assert answer.status_code == status
    assert len(jobs_of(engine, open_pay_page)) == (status == 303)


def test_a_page_that_cannot_be_opened_for_long_is_said_to_be_out_of_reach(
    engine: Engine, browser: TestClient, here: str
) -> None:
    browser.post(f"{here}/pay")
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE jobs SET created_at = created_at - interval '2 minutes'")
    page = reading(browser.get(f"{here}/pay").text)
    assert "cannot be reached right now. Nothing was charged." in page


def test_a_void_invoice_asks_for_nothing(
    engine: Engine, api: TestClient, browser: TestClient, here: str, invoice: dict[str, Any]
) -> None:
    done(engine, api, api.post(f"/v1/invoices/{invoice['id']}/void"))
    page = browser.get(here).text
    assert "Void. Nothing is to be paid" in reading(page)
    assert "<form" not in page


def test_what_was_given_up_is_as_open_to_its_client_as_before(
    engine: Engine, api: TestClient, browser: TestClient, here: str, invoice: dict[str, Any]
) -> None:
    before = browser.get(here).text
    done(engine, api, api.post(f"/v1/invoices/{invoice['id']}/write-off"))
    assert browser.get(here).text == before


def test_parts_paid_and_credit_notes_are_listed(
    engine: Engine,
    api: TestClient,
    browser: TestClient,
    here: str,
    *,
    invoice: dict[str, Any],
    vendors: Gateways,
) -> None:
    url = f"/v1/invoices/{invoice['id']}"
    deposit(engine, api, invoice["client"], 100)
    paid = {"amount": 300, "method": "bank_transfer", "paid_on": "2026-06-10"}
    done(engine, api, api.post(f"{url}/mark-paid", json=paid))
    note = {"amount": 200, "to": "credit", "reason": "A box was late"}
    done(engine, api, api.post(f"{url}/credit-notes", json=note), vendors)
    said = reading(browser.get(here).text)
    for words in (
        "Credit applied -1.00 USD",
        "Paid -3.00 USD",
        "Credit notes -2.00 USD",
        "10 June 2026 Bank transfer 3.00 USD",
        "Credit note CN-000001 2.00 USD",
        "Pay 5.00 USD",
    ):
        assert words in said


def test_what_the_bank_wants_confirmed_is_confirmed_here(
    browser: TestClient,
    here: str,
    invoice: dict[str, Any],
    *,
    put_card: PutCard,
    finish: Finish,
    api: TestClient,
) -> None:
    put_card(invoice["client"], "pm_card_authenticationRequired")
    finish(api.post(f"/v1/invoices/{invoice['id']}/charge"))
    said = reading(browser.get(here).text)
    assert "Your bank asks you to confirm this payment." in said
    assert "Confirm and pay 11.00 USD" in said


def test_a_debit_that_takes_days_is_being_paid(
    engine: Engine,
    browser: TestClient,
    here: str,
    *,
    invoice: dict[str, Any],
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
) -> None:
    stripe_sandbox.control.set(settle_after=None)
    browser.post(f"{here}/pay")
    work(engine, gateways=vendors)
    pay_on_page(engine, stripe_sandbox, UUID(invoice["id"]), "pm_usBankAccount_success")
    tell_all(engine, stripe_sandbox)
    work(engine, gateways=vendors)

    assert attempt_states(engine) == ["processing"]
    page = browser.get(here).text
    assert "Your payment is under way." in reading(page)
    assert "<form" not in page
    assert browser.post(f"{here}/pay").headers["location"] == here


def test_an_amount_that_stripe_does_not_take_says_whom_to_ask(
    engine: Engine, api: TestClient, browser: TestClient, ada: dict[str, Any]
) -> None:
    invoice = an_invoice(engine, api, ada["id"], quantity="1", unit_price="0.49")
    page = browser.get(urlsplit(invoice["hosted_url"]).path).text
    assert "cannot be paid by card here. Please ask Bluebird Prep" in reading(page)
    assert "<form" not in page


def test_every_finalized_invoice_has_its_link_in_the_api(
    api: TestClient, invoice: dict[str, Any], browser: TestClient
) -> None:
    listed = api.get("/v1/invoices").json()["data"]
    assert [one["hosted_url"] for one in listed] == [invoice["hosted_url"]]
    assert invoice["hosted_url"].startswith("http://testserver/i/")
    assert browser.get(invoice["hosted_url"]).status_code == 200


def test_a_card_that_is_charged_by_itself_is_said_to_be(
    engine: Engine, api: TestClient, browser: TestClient, ada: dict[str, Any], put_card: PutCard
) -> None:
    put_card(ada["id"])
    api.post(
        "/v1/charges",
        json={
            "client": ada["id"],
            "description": "Labels",
            "quantity": "1",
            "unit_price": "9.00",
            "charged_on": "2026-05-12",
        },
    )
    job = done(engine, api, api.post("/v1/invoices", json={"client": ada["id"]}))
    url = f"/v1/invoices/{job['result']['invoices'][0]}"
    done(engine, api, api.post(f"{url}/finalize", json={"collect": True}))
    path = urlsplit(api.get(url).json()["hosted_url"]).path
    said = reading(browser.get(path).text)
    assert "Your card on file is charged on" in said
    assert "You can also pay now." in said
