"""A client's own page: what it shows, what its buttons do, and what keeps it private."""

import re
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import anyio
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from api import client_pages
from gateways.sandbox.stripe.server import StripeSandbox
from models import BackupMethod, BillingMethod, CardSetup
from tasks.calls import Gateways
from tasks.links import PORTAL_LINKS_LIVE, Links
from tests.api.calls import a_card, a_charge, a_draft, an_invoice, deposit, problem
from tests.api.conftest import Finish, PutCard
from tests.processes import SECRET_KEY
from tests.worlds import work

HOST = "http://testserver"
LINKS = Links(HOST, SECRET_KEY)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody works meanwhile, so waiting is in vain."""
    monkeypatch.setattr(client_pages, "OPENED_IN_SECONDS", 0.0)
    monkeypatch.setattr(client_pages, "TOLD_IN_SECONDS", 0.0)


@pytest.fixture
def browser(app: FastAPI) -> Iterator[TestClient]:
    """The client's, without any key of ours."""
    with TestClient(app, base_url=HOST, follow_redirects=False) as client:
        yield client


@pytest.fixture
def page(api: TestClient, ada: dict[str, Any]) -> str:
    """The path of Ada's page."""
    made = api.post(f"/v1/clients/{ada['id']}/portal-link")
    assert made.status_code == 201, made.text
    return str(made.json()["url"]).removeprefix(HOST)


Work = Callable[[], None]


@pytest.fixture
def work_off(engine: Engine, vendors: Gateways) -> Work:
    def work_it_off() -> None:
        work(engine, gateways=vendors)

    return work_it_off


def card_of(engine: Engine, client_id: str) -> BillingMethod | None:
    with Session(engine) as session:
        return session.get(BillingMethod, UUID(client_id))


def backup_of(engine: Engine, client_id: str) -> BackupMethod | None:
    with Session(engine) as session:
        return session.get(BackupMethod, UUID(client_id))


def session_of(engine: Engine) -> str:
    """The last page at Stripe for a card."""
    with Session(engine) as session:
        setup = session.query(CardSetup).order_by(CardSetup.id.desc()).first()
        assert setup is not None
        return str(setup.checkout_session)


def give_backup(api: TestClient, sandbox: StripeSandbox, client_id: str) -> str:
    """A second card; its id."""
    method = a_card(api, sandbox, client_id, "pm_card_mastercard")
    api.delete(f"/v1/clients/{client_id}/billing-method")
    given = {name: method[name] for name in ("stripe_customer", "payment_method")}
    assert api.put(f"/v1/clients/{client_id}/backup-method", json=given).status_code == 200
    return str(given["payment_method"])


def test_a_link_leads_to_the_page_for_thirty_days(
    api: TestClient, stranger: TestClient, ada: dict[str, Any], browser: TestClient
) -> None:
    url = f"/v1/clients/{ada['id']}/portal-link"
    made = api.post(url)

    assert made.status_code == 201
    assert browser.get(made.json()["url"]).status_code == 200
    assert made.json()["expires_at"].endswith("Z")
    problem(stranger.post(url), 404, "client_not_found")


def test_without_a_key_to_sign_with_there_are_no_links(
    app: FastAPI, api: TestClient, ada: dict[str, Any], browser: TestClient, page: str
) -> None:
    app.state.links = None

    problem(api.post(f"/v1/clients/{ada['id']}/portal-link"), 503, "links_not_configured")
    assert browser.get(page).status_code == 404


def test_the_page_shows_what_is_owed_and_paid_and_the_credit(
    engine: Engine, api: TestClient, ada: dict[str, Any], browser: TestClient, page: str
) -> None:
    paid = an_invoice(engine, api, ada["id"])
    deposit(engine, api, ada["id"], 1_500)
    owed = an_invoice(engine, api, ada["id"], unit_price="7.00")
    a_charge(api, ada)
    draft = a_draft(engine, api, ada["id"])

    shown = browser.get(page).text

    assert f"/i/{LINKS.to_invoice(UUID(owed['id'])).rpartition('/')[2]}" in shown
    assert owed["number"] in shown
    assert paid["number"] in shown
    assert draft["id"] not in shown
    assert "There is no card on file" in shown
    assert "4.00 USD" not in shown
    assert "Add card" in shown


def test_the_page_shows_the_cards_and_whether_they_were_declined(
    engine: Engine,
    *,
    api: TestClient,
    ada: dict[str, Any],
    browser: TestClient,
    page: str,
    put_card: PutCard,
    finish: Finish,
    work_off: Work,
) -> None:
    put_card(ada["id"])
    work_off()
    shown = browser.get(page).text
    assert "Visa ending in 4242" in shown
    assert "Good until" in shown
    assert "declined" not in shown
    assert "backup" not in shown.lower()

    put_card(ada["id"], "pm_card_chargeDeclinedStolenCard")
    a_charge(api, ada)
    draft = a_draft(engine, api, ada["id"])
    finish(api.post(f"/v1/invoices/{draft['id']}/finalize", json={"collect": True}))

    shown = browser.get(page).text
    assert "This card was declined" in shown
    assert "stolen" not in shown


def test_a_card_is_left_on_stripes_page_and_charged_from_then_on(
    engine: Engine,
    *,
    ada: dict[str, Any],
    browser: TestClient,
    page: str,
    stripe_sandbox: StripeSandbox,
    work_off: Work,
) -> None:
    waiting = browser.post(f"{page}/card/add")
    assert waiting.status_code == 303
    assert browser.get(waiting.headers["location"]).status_code == 200
    work_off()
    to_stripe = browser.get(waiting.headers["location"])
    assert to_stripe.headers["location"].startswith(stripe_sandbox.url)
    # Once it is open, the button leads there at once.
    assert browser.post(f"{page}/card/add").headers["location"] == to_stripe.headers["location"]

    left = stripe_sandbox.control.save_card(session_of(engine))
    back = browser.get(left["success_url"].removeprefix(HOST))
    shown = browser.get(back.headers["location"]).text
    assert "waiting to hear from Stripe" in shown
    assert 'http-equiv="refresh"' in shown
    work_off()

    shown = browser.get(back.headers["location"]).text
    assert "Your card was saved" in shown
    assert "Visa ending in 4242" in shown
    assert card_of(engine, ada["id"]) is not None


def test_a_click_waits_a_little_for_stripes_page(
    browser: TestClient,
    page: str,
    stripe_sandbox: StripeSandbox,
    work_off: Work,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_pages, "OPENED_IN_SECONDS", 5.0)

    async def work_instead_of_waiting(_seconds: float) -> None:
        work_off()

    monkeypatch.setattr(anyio, "sleep", work_instead_of_waiting)

    answer = browser.post(f"{page}/card/add")

    assert answer.headers["location"].startswith(stripe_sandbox.url)


def test_a_second_card_may_be_left_where_it_would_be_used(
    engine: Engine,
    *,
    api: TestClient,
    ada: dict[str, Any],
    browser: TestClient,
    page: str,
    put_card: PutCard,
    stripe_sandbox: StripeSandbox,
    work_off: Work,
) -> None:
    put_card(ada["id"])
    assert browser.post(f"{page}/backup-card/add").headers["location"] == page
    api.patch(f"/v1/clients/{ada['id']}", json={"use_backup_card": True})
    assert "Add backup card" in browser.get(page).text

    browser.post(f"{page}/backup-card/add")
    work_off()
    stripe_sandbox.control.save_card(session_of(engine), "pm_card_mastercard")
    with Session(engine) as session:
        setup = session.query(CardSetup).one()
    browser.get(f"{page}/left/{setup.id}")
    work_off()

    backup = backup_of(engine, ada["id"])
    assert backup is not None
    assert backup.brand == "mastercard"
    assert "Mastercard ending in 4444" in browser.get(page).text


def test_the_cards_change_places_and_are_removed(
    engine: Engine,
    *,
    api: TestClient,
    ada: dict[str, Any],
    browser: TestClient,
    page: str,
    put_card: PutCard,
    stripe_sandbox: StripeSandbox,
) -> None:
    second = give_backup(api, stripe_sandbox, ada["id"])
    first = put_card(ada["id"])["payment_method"]

    assert browser.post(f"{page}/use-as-backup").headers["location"] == page
    card, backup = card_of(engine, ada["id"]), backup_of(engine, ada["id"])
    assert card is not None
    assert backup is not None
    assert (card.payment_method, backup.payment_method) == (second, first)

    browser.post(f"{page}/backup-card/remove")
    assert backup_of(engine, ada["id"]) is None
    for _ in range(2):
        assert browser.post(f"{page}/card/remove").headers["location"] == page
    assert card_of(engine, ada["id"]) is None
    assert browser.post(f"{page}/use-as-backup").headers["location"] == page


@pytest.mark.parametrize("token", ["nonsense", "IjAxOWFlOGEz.aSrq4A.kQx5"])
def test_a_link_that_nobody_signed_leads_nowhere(browser: TestClient, token: str) -> None:
    for method, path in (
        ("GET", ""),
        ("POST", "/card/add"),
        ("POST", "/card/remove"),
        ("POST", "/use-as-backup"),
        ("GET", "/left/1"),
        ("GET", "/opening/1"),
    ):
        answer = browser.request(method, f"/p/{token}{path}")
        assert answer.status_code == 404
        assert "There is nothing here" in answer.text


def test_an_old_link_says_that_it_has_expired(
    browser: TestClient, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.links.PORTAL_LINKS_LIVE", -PORTAL_LINKS_LIVE)

    answer = browser.get(page)

    assert answer.status_code == 410
    assert "This link has expired" in answer.text


def test_another_clients_page_at_stripe_is_not_reached(
    engine: Engine, api: TestClient, browser: TestClient, page: str, work_off: Work
) -> None:
    bea = api.post("/v1/clients", json={"name": "Bea"}).json()
    theirs = api.post(f"/v1/clients/{bea['id']}/portal-link").json()["url"].removeprefix(HOST)
    browser.post(f"{theirs}/card/add")
    work_off()
    with Session(engine) as session:
        setup = session.query(CardSetup).one()

    assert browser.get(f"{page}/opening/{setup.id}").headers["location"] == page
    assert browser.get(f"{page}/left/{setup.id}").headers["location"] == page


def test_forms_from_elsewhere_are_refused(
    engine: Engine, ada: dict[str, Any], browser: TestClient, page: str, put_card: PutCard
) -> None:
    put_card(ada["id"])
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://elsewhere.example"},
    ):
        for path in ("card/add", "card/remove", "use-as-backup"):
            answer = browser.post(f"{page}/{path}", headers=headers)
            assert answer.status_code == 403
            assert f'href="{page}"' in answer.text
    assert card_of(engine, ada["id"]) is not None
    own = browser.post(f"{page}/card/remove", headers={"Sec-Fetch-Site": "same-origin"})
    assert own.status_code == 303


def test_the_page_is_private_and_needs_nothing_from_elsewhere(
    engine: Engine, api: TestClient, browser: TestClient
) -> None:
    name = "<script>alert(1)</script>"
    client = api.post("/v1/clients", json={"name": name}).json()
    an_invoice(engine, api, client["id"])
    page = api.post(f"/v1/clients/{client['id']}/portal-link").json()["url"].removeprefix(HOST)

    answer = browser.get(page)

    assert "&lt;script&gt;" in answer.text
    assert not re.findall(r"<script|<link|<img|url\(|style=", answer.text)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    assert "noindex" in answer.headers["x-robots-tag"]
    assert "set-cookie" not in answer.headers
