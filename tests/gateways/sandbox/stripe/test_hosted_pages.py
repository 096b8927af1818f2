"""The pages as a browser without scripts uses them."""

from collections.abc import Iterator
from typing import Any

import pytest
import stripe
import urllib3

from gateways.sandbox.stripe.control import StripeSandboxControl
from gateways.sandbox.stripe.hosted_pages import CARDS
from tests.gateways.sandbox.stripe.test_sessions import page, setup_page


@pytest.fixture
def browser() -> Iterator[urllib3.PoolManager]:
    with urllib3.PoolManager() as pool:
        yield pool


def made(client: stripe.StripeClient, order: Any) -> tuple[str, str]:  # noqa: ANN401 - typed there.
    """A new session's id and address."""
    session = client.v1.checkout.sessions.create(order)
    assert session.url is not None
    return session.id, session.url


def shown(browser: urllib3.PoolManager, url: str) -> str:
    answer = browser.request("GET", url)
    assert answer.status == 200
    assert answer.headers["Cache-Control"] == "no-store"
    return answer.data.decode()


def pressed(browser: urllib3.PoolManager, url: str, **fields: str) -> str:
    """Where the page sends a client who pressed a button."""
    answer = browser.request("POST", url, fields=fields, encode_multipart=False, redirect=False)
    assert answer.status == 303
    return answer.headers["Location"]


def test_the_page_shows_what_is_paid_and_the_way_back(
    browser: urllib3.PoolManager, client: stripe.StripeClient, customer: str
) -> None:
    _, url = made(client, page(customer, cancel_url="https://pay.example/back?a=1&b=<2>"))
    text = shown(browser, url)
    assert "12.00 USD" in text
    assert "INV-1" in text
    assert 'href="https://pay.example/back?a=1&amp;b=&lt;2&gt;"' in text
    assert all(f'value="{card}"' in text for card in CARDS)
    assert "<script" not in text


def test_paying_sends_the_client_to_where_the_session_said(
    browser: urllib3.PoolManager, client: stripe.StripeClient, customer: str
) -> None:
    session, url = made(client, page(customer))
    assert pressed(browser, url, card="pm_card_visa") == (
        f"https://pay.example/done?session={session}"
    )
    assert client.v1.checkout.sessions.retrieve(session).payment_status == "paid"
    assert "You are done here" in shown(browser, url)
    again = browser.request(
        "POST", url, fields={"card": "pm_card_visa"}, encode_multipart=False, redirect=False
    )
    assert again.status == 200
    assert len(client.v1.charges.list().data) == 1


def test_a_decline_is_said_and_another_card_can_be_tried(
    browser: urllib3.PoolManager, client: stripe.StripeClient, customer: str
) -> None:
    session, url = made(client, page(customer))
    back = pressed(browser, url, card="pm_card_chargeDeclinedInsufficientFunds")
    assert url.endswith(back)
    assert "Your card has insufficient funds." in shown(browser, url)
    pressed(browser, url, card="pm_card_visa")
    assert client.v1.checkout.sessions.retrieve(session).payment_status == "paid"


@pytest.mark.parametrize("mode", ["payment", "setup"])
def test_the_bank_s_question_is_asked_on_the_page(
    browser: urllib3.PoolManager, client: stripe.StripeClient, customer: str, mode: str
) -> None:
    session, url = made(client, (page if mode == "payment" else setup_page)(customer))
    pressed(browser, url, card="pm_card_authenticationRequired")
    assert "It is me" in shown(browser, url)
    pressed(browser, url, authenticates="no")
    assert "unable to authenticate" in shown(browser, url)
    pressed(browser, url, card="pm_card_authenticationRequired")
    assert session in pressed(browser, url, authenticates="yes")
    assert client.v1.checkout.sessions.retrieve(session).status == "complete"


def test_a_card_is_saved_with_a_button_that_says_so(
    browser: urllib3.PoolManager, client: stripe.StripeClient, customer: str
) -> None:
    _, url = made(client, setup_page(customer))
    text = shown(browser, url)
    assert "Save card" in text
    assert "USD" not in text
    pressed(browser, url, card="pm_card_mastercard")
    (kept,) = client.v1.customers.payment_methods.list(customer)
    assert kept.card is not None
    assert kept.card.brand == "mastercard"


def test_a_page_shows_only_methods_that_it_takes(
    browser: urllib3.PoolManager, client: stripe.StripeClient, customer: str
) -> None:
    _, url = made(client, setup_page(customer, allowed_payment_method_types=["card"]))
    assert "bank account" not in shown(browser, url)


def test_an_expired_page_says_so(
    browser: urllib3.PoolManager,
    client: stripe.StripeClient,
    customer: str,
    control: StripeSandboxControl,
) -> None:
    session, url = made(client, page(customer))
    control.expire_session(session)
    text = shown(browser, url)
    assert "This page has expired" in text
    assert "<form" not in text


@pytest.mark.parametrize("fields", [{}, {"card": "pm_nothing"}, {"authenticates": "yes"}])
def test_what_cannot_be_done_is_said_on_the_page(
    browser: urllib3.PoolManager,
    client: stripe.StripeClient,
    customer: str,
    fields: dict[str, str],
) -> None:
    session, url = made(client, page(customer))
    answer = browser.request("POST", url, fields=fields, encode_multipart=False, redirect=False)
    assert answer.status == 200
    assert 'role="alert"' in answer.data.decode()
    assert client.v1.checkout.sessions.retrieve(session).status == "open"


def test_there_is_no_page_for_what_is_no_session(
    browser: urllib3.PoolManager, control: StripeSandboxControl, customer: str
) -> None:
    for method in ("GET", "POST"):
        assert browser.request(method, f"{control.url}/c/pay/{customer}").status == 404
