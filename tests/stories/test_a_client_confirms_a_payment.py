"""A card whose bank wants to be asked, told by the calendar."""

from datetime import datetime, timedelta
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import pytest
from fastapi.testclient import TestClient

from api import hosted_invoices
from api.app import create_app
from gateways.sandbox.sendgrid.client import SendGridControl
from gateways.sandbox.stripe.server import StripeSandbox
from tasks.calls import Gateways
from tests.mailbox import inbox
from tests.pay_pages import leave_page, of_today, pay_on_page, press_pay
from tests.stories.conftest import Till
from tests.worlds import audited, tick

NEW_YORK = ZoneInfo("America/New_York")
FIRST_OF_JUNE = datetime(2026, 6, 1, tzinfo=NEW_YORK)
EVENING = datetime(2026, 6, 1, 19, 30, tzinfo=NEW_YORK)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
AUTHENTICATED = "pm_card_authenticationRequired"


def test_a_client_is_asked_to_confirm_does_so_in_the_evening_and_has_paid(
    till: Till,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    sendgrid_control: SendGridControl,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hosted_invoices, "OPENED_IN_SECONDS", 0.0)
    pay_vendors = of_today(vendors)
    ada = till.client("Ada Imports", AUTHENTICATED, email="ada@example.com", time_zone=NEW_YORK.key)
    tick(till.engine, now=FIRST_OF_JUNE)
    till.work(FIRST_OF_JUNE, gateways=pay_vendors)
    assert [mail.kind for mail in till.mails(ada)] == ["invoice_ready", "authentication_needed"]
    # Nothing happens by itself: it is the client's turn.
    for day in (1, 3):
        till.sweep(FIRST_OF_JUNE + timedelta(days=day), gateways=pay_vendors)
    assert [attempt.state for attempt in till.attempts(ada)] == ["needs_action"]

    link = pay_vendors.links.to_invoice(till.invoice(ada).id)
    asked = next(one for one in inbox(sendgrid_control) if one.subject.startswith("Please confirm"))
    assert asked.says(link)
    path = urlsplit(link).path
    with TestClient(
        create_app(till.engine, links=pay_vendors.links), follow_redirects=False
    ) as browser:
        assert "Confirm and pay 10.00 USD" in browser.get(path).text
        browser.post(f"{path}/pay")
        till.work(EVENING, gateways=pay_vendors)
        assert [attempt.state for attempt in till.attempts(ada)] == ["canceled", "needs_action"]
        pay_on_page(till.engine, stripe_sandbox, till.invoice(ada).id, AUTHENTICATED)
        browser.get(f"{path}/paid")
        till.work(EVENING + MINUTE, gateways=pay_vendors)
        assert "There is nothing left to pay." in browser.get(path).text

    invoice = till.invoice(ada)
    assert (invoice.status, invoice.paid_at) == ("paid", EVENING + MINUTE)
    # Stripe's own word comes after all that, and says nothing new.
    till.hear("payment_intent.succeeded")
    till.hear("checkout.session.completed")
    till.sweep(EVENING + HOUR, gateways=pay_vendors)
    assert [payment.amount for payment in till.payments(ada)] == [1_000]
    assert till.charged(ada) == [1_000]
    assert [mail.kind for mail in till.mails(ada)] == [
        "invoice_ready",
        "authentication_needed",
        "receipt",
    ]
    assert audited(till.engine, till.account, now=EVENING + HOUR) == []


def test_a_client_who_leaves_the_page_is_asked_again_by_the_schedule(
    till: Till, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    pay_vendors = of_today(vendors)
    ada = till.client("Ada Imports", AUTHENTICATED, email="ada@example.com", time_zone=NEW_YORK.key)
    tick(till.engine, now=FIRST_OF_JUNE)
    till.work(FIRST_OF_JUNE, gateways=pay_vendors)
    invoice_id = till.invoice(ada).id
    press_pay(till.engine, pay_vendors, till.account, invoice_id, now=EVENING)
    leave_page(till.engine, stripe_sandbox, invoice_id)

    till.sweep(EVENING + HOUR + MINUTE, gateways=pay_vendors)
    assert [attempt.state for attempt in till.attempts(ada)] == ["canceled", "canceled"]
    # Three days after the try that nobody confirmed.
    assert till.invoice(ada).next_attempt_at == datetime(2026, 6, 4, 10, tzinfo=NEW_YORK)
    till.sweep(datetime(2026, 6, 4, 10, tzinfo=NEW_YORK), gateways=pay_vendors)

    assert [attempt.state for attempt in till.attempts(ada)] == [
        "canceled",
        "canceled",
        "needs_action",
    ]
    assert [mail.kind for mail in till.mails(ada)].count("authentication_needed") == 2
    assert till.charged(ada) == []
    assert audited(till.engine, till.account, now=datetime(2026, 6, 4, 10, tzinfo=NEW_YORK)) == []
