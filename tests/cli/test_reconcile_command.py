from collections.abc import Iterator

import pytest
import stripe as sdk
from sqlalchemy import Engine

from gateways.sandbox.stripe.server import StripeSandbox
from models import Account, Payment
from tasks.calls import Gateways
from tests.cli.conftest import Command, Working
from tests.refunds import a_card_payment


@pytest.fixture
def payment(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> Payment:
    """10.00 by card for an invoice of as much."""
    return a_card_payment(engine, account, vendors, stripe_sandbox)


@pytest.fixture
def shop(stripe_sandbox: StripeSandbox) -> Iterator[sdk.StripeClient]:
    """Somebody at Stripe's own pages."""
    connections = sdk.RequestsClient(timeout=10)
    yield sdk.StripeClient(
        "sk_test_shop", base_addresses={"api": stripe_sandbox.url}, http_client=connections
    )
    connections.close()  # type: ignore[no-untyped-call]  # The SDK's own has no types.


@pytest.mark.usefixtures("payment")
def test_records_that_agree_say_so_and_how_much_was_compared(
    command: Command, working_with_vendors: Working
) -> None:
    with working_with_vendors():
        answer = command("reconcile", "--since", "2026-01-01")
        document = command("reconcile", "--since", "2026-01-01T00:00:00Z", "--json").document
    assert answer.code == 0
    assert "1 payment and 0 refunds compared, no difference found" in answer.stdout
    assert (document["ok"], document["payments"], document["differences"]) == (True, 1, [])


@pytest.mark.usefixtures("payment")
def test_what_differs_is_shown_and_is_a_problem_unless_repaired(
    stripe_sandbox: StripeSandbox,
    shop: sdk.StripeClient,
    command: Command,
    working_with_vendors: Working,
) -> None:
    [intent] = stripe_sandbox.control.payment_intents()
    shop.v1.refunds.create({"payment_intent": intent["id"], "amount": 250})
    with working_with_vendors():
        answer = command("reconcile", "--since", "2026-01-01")
        document = command("reconcile", "--since", "2026-01-01", "--json")
    assert answer.code == document.code == 1
    assert "refund_made_elsewhere" in answer.stdout
    assert "0 of 1 difference repaired" in answer.stdout
    [one] = document.document["differences"]
    assert (one["difference"], one["their_amount"]) == ("refund_made_elsewhere", 250)


@pytest.mark.usefixtures("payment")
def test_what_is_acknowledged_is_shown_as_that_and_is_no_problem(
    stripe_sandbox: StripeSandbox,
    shop: sdk.StripeClient,
    command: Command,
    working_with_vendors: Working,
) -> None:
    [intent] = stripe_sandbox.control.payment_intents()
    refund = shop.v1.refunds.create({"payment_intent": intent["id"], "amount": 250})
    with working_with_vendors():
        assert command("reconcile", "--since", "2026-01-01").code == 1
        command("differences", "acknowledge", refund.id, "--reason", "By hand")
        answer = command("reconcile", "--since", "2026-01-01")
        document = command("reconcile", "--since", "2026-01-01", "--json").document
    assert answer.code == 0
    assert "by cli: By hand" in answer.stdout
    assert "0 of 1 difference repaired, 1 acknowledged" in answer.stdout
    assert document["ok"] is True
    [one] = document["differences"]
    assert one["acknowledgement"]["acknowledged_by"] == "cli"


@pytest.mark.parametrize("since", ["tomorrow", "2199-01-01"])
def test_a_wrong_beginning_is_named(account: Account, command: Command, since: str) -> None:
    answer = command("reconcile", "--since", since)
    assert account.name
    assert answer.code == 2
    assert "since" in answer.stderr
