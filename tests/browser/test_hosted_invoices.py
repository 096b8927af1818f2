"""A client opens its invoice, pays at the local Stripe's page, and sees that it is paid."""

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import Engine

from gateways.sandbox.server import free_port
from gateways.sandbox.stripe.server import StripeSandbox
from models import Account
from tasks.links import Links
from tests.browser.conftest import OpenPage
from tests.cards import an_open_invoice, assert_books_agree, attempt_states
from tests.processes import SECRET_KEY, Stack
from tests.waiting import wait_for
from tests.worlds import a_client


@pytest.fixture
def invoice_id(engine: Engine, account: Account) -> UUID:
    """An open invoice of 10.00 usd."""
    client = a_client(engine, account, email="ada@imports.example")
    return an_open_invoice(engine, account, client, collect=False)


@pytest.fixture
def address(
    stack: Stack,
    vendor_settings: dict[str, str],
    stripe_sandbox: StripeSandbox,
    invoice_id: UUID,
) -> str:
    """Where the client finds it, in processes that Stripe tells of what happens."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    stack.know({**vendor_settings, "PUBLIC_URL": url, "PORT": str(port)})
    stripe_sandbox.control.set_webhook(
        f"{url}/webhooks/stripe", vendor_settings["STRIPE_WEBHOOK_SECRET"]
    )
    for process in ("web", "dispatcher", "everything"):
        stack.start(process)
    return Links(url, SECRET_KEY).to_invoice(invoice_id)


def is_served(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own address
            return bool(answer.status == 200)
    except OSError:
        return False


def wide_enough(page: Page) -> bool:
    """Whether nothing sticks out at the side."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))


@contextmanager
def on_a_phone(page: Page) -> Iterator[None]:
    page.set_viewport_size({"width": 360, "height": 740})
    yield
    page.set_viewport_size({"width": 1280, "height": 800})


def test_a_client_opens_its_invoice_pays_and_sees_that_it_is_paid(
    engine: Engine,
    account: Account,
    stripe_sandbox: StripeSandbox,
    *,
    open_page: OpenPage,
    address: str,
    invoice_id: UUID,
) -> None:
    wait_for(lambda: is_served(address), what="the page is served")
    page = open_page(address)
    expect(page.get_by_role("heading", level=1)).to_have_text("Invoice INV-000001")
    assert wide_enough(page)
    with on_a_phone(page):
        expect(page.get_by_text("FNSKU labelling")).to_be_visible()
        assert wide_enough(page)
    page.emulate_media(media="print")
    expect(page.get_by_role("button", name="Pay 10.00 USD")).to_be_hidden()
    page.emulate_media(media="screen")

    page.get_by_role("button", name="Pay 10.00 USD").click()
    page.wait_for_url(f"{stripe_sandbox.url}/**")
    page.get_by_label("insufficient funds").check()
    page.get_by_role("button", name="Pay").click()
    expect(page.get_by_role("alert")).to_be_visible()
    # Having gone back, the client finds the same page again.
    page.get_by_role("link", name="Back").click()
    page.wait_for_url(address)
    page.get_by_role("button", name="Pay 10.00 USD").click()
    page.wait_for_url(f"{stripe_sandbox.url}/**")
    page.get_by_label("the bank asks whether it is you").check()
    page.get_by_role("button", name="Pay").click()
    page.get_by_role("button", name="It is me", exact=True).click()

    page.wait_for_url(f"{address}?paid")
    expect(page.get_by_role("status")).to_contain_text("Paid. There is nothing left to pay.")
    assert attempt_states(engine, invoice_id) == ["succeeded"]
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])
