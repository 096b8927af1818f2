"""The local Stripe's pages, paid on and left by hand."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import expect

from gateways.checkout import CheckoutGateway, CheckoutOrder, CheckoutStatus
from gateways.merchants import DEPLOYMENT
from gateways.sandbox.stripe.cardholders import make_cardholder
from gateways.sandbox.stripe.control import StripeSandboxControl
from gateways.sandbox.stripe.server import StripeSandbox
from gateways.stripe_api import StripeApi
from gateways.stripe_checkout import StripeCheckout
from tests.browser.conftest import OpenPage


@pytest.fixture
def control(stripe_sandbox: StripeSandbox) -> StripeSandboxControl:
    return stripe_sandbox.control


@pytest.fixture
def checkout(control: StripeSandboxControl) -> Iterator[CheckoutGateway]:
    with StripeApi("sk_test_browser", base_url=control.url) as api:
        yield StripeCheckout(api)


def order(control: StripeSandboxControl, amount: int | None) -> CheckoutOrder:
    """A page that sends the client back to the local Stripe, where there is some page."""
    return CheckoutOrder(
        amount=amount,
        currency="usd",
        customer=make_cardholder(control.url).customer,
        idempotency_key="one",
        description="INV-1 of Bluebird" if amount else "",
        metadata={"attempt": "7"},
        expires_at=datetime.now(UTC) + timedelta(hours=1),
        success_url=f"{control.url}/_sandbox/health?paid={{CHECKOUT_SESSION_ID}}",
        cancel_url=f"{control.url}/_sandbox/health?left",
    )


def test_a_client_is_declined_pays_with_another_card_and_comes_back(
    open_page: OpenPage, checkout: CheckoutGateway, control: StripeSandboxControl
) -> None:
    opened = checkout.open(order(control, 12_34))
    assert opened.url is not None
    page = open_page(opened.url)
    expect(page.get_by_role("heading")).to_have_text("Pay")
    expect(page.get_by_text("12.34 USD")).to_be_visible()
    expect(page.get_by_text("INV-1 of Bluebird")).to_be_visible()

    page.get_by_label("insufficient funds").check()
    page.get_by_role("button", name="Pay").click()
    expect(page.get_by_role("alert")).to_have_text("Your card has insufficient funds.")

    page.get_by_label("the bank asks whether it is you").check()
    page.get_by_role("button", name="Pay").click()
    page.get_by_role("button", name="It is me", exact=True).click()
    page.wait_for_url(f"**/health?paid={opened.session}")
    assert checkout.retrieve(opened.session, DEPLOYMENT).status is CheckoutStatus.COMPLETE
    assert [charge["status"] for charge in control.charges()] == ["failed", "succeeded"]


def test_a_client_leaves_a_card_after_coming_back_once(
    open_page: OpenPage, checkout: CheckoutGateway, control: StripeSandboxControl
) -> None:
    opened = checkout.open(order(control, None))
    assert opened.url is not None
    page = open_page(opened.url)
    page.get_by_role("link", name="Back").click()
    page.wait_for_url("**/health?left")
    assert checkout.retrieve(opened.session, DEPLOYMENT) == opened

    page.goto(opened.url)
    page.get_by_label("Mastercard").check()
    page.get_by_role("button", name="Save card").click()
    page.wait_for_url(f"**/health?paid={opened.session}")
    report = checkout.retrieve(opened.session, DEPLOYMENT)
    assert report.status is CheckoutStatus.COMPLETE
    assert report.payment_method is not None
