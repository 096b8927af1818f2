import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import stripe

from gateways.sandbox.stripe.control import StripeSandboxControl
from gateways.sandbox.stripe.server import StripeSandbox
from gateways.sandbox.stripe.settings import Settings
from tests.gateways.sandbox.stripe.paying import Receiver, client_of

MEMORY = Path("/dev/shm")  # noqa: S108 - only a parent: the folder made in it has a random name.

_numbers = count(1)


@pytest.fixture(scope="session")
def sandbox() -> Iterator[StripeSandbox]:
    """One for all tests: each has a connected account of its own."""
    parent = MEMORY if MEMORY.is_dir() else None
    with (
        tempfile.TemporaryDirectory(prefix="stripe sandbox ", dir=parent) as directory,
        StripeSandbox(Path(directory)) as sandbox,
    ):
        yield sandbox


@pytest.fixture(autouse=True)
def control(sandbox: StripeSandbox) -> StripeSandboxControl:
    """The sandbox's control side, with nothing of an earlier test switched on."""
    sandbox.control.clear_faults()
    sandbox.control.set(**Settings().as_json())
    return sandbox.control


@pytest.fixture
def settling_at_once(control: StripeSandboxControl) -> None:
    """Bank debits and slow refunds come to their end by themselves, at once."""
    control.set(settle_after=0)


@pytest.fixture
def account() -> str:
    return f"acct_test{next(_numbers)}"


@pytest.fixture
def client(sandbox: StripeSandbox, account: str) -> stripe.StripeClient:
    """The real SDK, which tries each request once."""
    return client_of(sandbox.url, account)


@pytest.fixture
def patient(sandbox: StripeSandbox, account: str) -> stripe.StripeClient:
    """The real SDK, which tries a request again as it does in production."""
    return client_of(sandbox.url, account, max_network_retries=2)


@pytest.fixture
def customer(client: stripe.StripeClient) -> str:
    return client.v1.customers.create({"name": "Bluebird"}).id


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver
