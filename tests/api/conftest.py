from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from api.app import create_app
from api.webhooks import EventReaders
from gateways.sandbox.sendgrid.signing import SigningKey
from gateways.sandbox.stripe.server import StripeSandbox
from gateways.sealing import Seal
from gateways.sendgrid_events import SendGridEvents
from gateways.stripe_events import StripeEvents
from models import Account, ApiKey, Scope
from tasks.accounts import create_account
from tasks.calls import Gateways
from tasks.links import Links
from tests.api.calls import a_card, a_charge, a_draft, done
from tests.processes import SECRET_KEY

Caller = Callable[..., TestClient]
PutCard = Callable[..., dict[str, Any]]
Finish = Callable[[Response], dict[str, Any]]


@pytest.fixture(scope="session")
def event_readers(directory: Path) -> EventReaders:
    """They trust a secret and a key that nobody has."""
    key = SigningKey(directory / "nobodys.pem").public_key
    return EventReaders(payments=StripeEvents("whsec_nobodys"), mails=SendGridEvents(key))


@pytest.fixture
def app(engine: Engine, event_readers: EventReaders) -> FastAPI:
    links = Links("http://testserver", SECRET_KEY)
    return create_app(engine, event_readers=event_readers, links=links, seal=Seal(SECRET_KEY))


@pytest.fixture
def caller(app: FastAPI, engine: Engine, account: Account) -> Iterator[Caller]:
    """Makes HTTP clients with a key of their own: all scopes and the test's account by default."""
    with ExitStack() as open_clients:

        def make(*scopes: Scope, of: Account = account) -> TestClient:
            with Session(engine) as session, session.begin():
                key, text = ApiKey.issue(of.id, set(scopes or Scope))
                session.add(key)
            headers = {"Authorization": f"Bearer {text}"}
            return open_clients.enter_context(
                TestClient(app, headers=headers, raise_server_exceptions=False)
            )

        yield make


@pytest.fixture
def api(caller: Caller) -> TestClient:
    return caller()


@pytest.fixture
def stranger(engine: Engine, caller: Caller) -> TestClient:
    """Another account's client, with every scope."""
    with Session(engine, expire_on_commit=False) as session, session.begin():
        other = create_account(session, "Rival Prep")
    return caller(of=other)


@pytest.fixture
def ada(api: TestClient) -> dict[str, Any]:
    """A client on no cycle, with an address to write to."""
    new = {"name": "Ada Imports", "external_ref": "merchant-17", "email": "ada@imports.example"}
    answer = api.post("/v1/clients", json=new)
    assert answer.status_code == 201, answer.text
    client: dict[str, Any] = answer.json()
    return client


@pytest.fixture
def charge(api: TestClient, ada: dict[str, Any]) -> dict[str, Any]:
    """An open charge of 11.00 usd."""
    return a_charge(api, ada)


@pytest.fixture
def draft(engine: Engine, api: TestClient, charge: dict[str, Any]) -> dict[str, Any]:
    """A draft with that charge."""
    return a_draft(engine, api, charge["client"])


@pytest.fixture
def invoice(engine: Engine, api: TestClient, draft: dict[str, Any]) -> dict[str, Any]:
    """The same, finalized."""
    job = done(engine, api, api.post(f"/v1/invoices/{draft['id']}/finalize"))
    assert job["state"] == "succeeded"
    found: dict[str, Any] = api.get(f"/v1/invoices/{draft['id']}").json()
    return found


@pytest.fixture
def put_card(api: TestClient, stripe_sandbox: StripeSandbox) -> PutCard:
    """Puts a client, by its id, on a card of the test's own Stripe."""

    def put(client_id: str, payment_method: str = "pm_card_visa") -> dict[str, Any]:
        return a_card(api, stripe_sandbox, client_id, payment_method)

    return put


@pytest.fixture
def finish(engine: Engine, api: TestClient, vendors: Gateways) -> Finish:
    """The job of an accepted command, after all work was done, cards and mails too."""

    def work_it_off(accepted: Response) -> dict[str, Any]:
        return done(engine, api, accepted, vendors)

    return work_it_off
