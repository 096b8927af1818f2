import pytest
import stripe

from gateways.sandbox.stripe.cardholders import make_cardholder
from gateways.sandbox.stripe.server import StripeSandbox
from tests.gateways.sandbox.stripe.paying import client_of, pay


def test_a_cardholder_can_be_charged_with_nobody_present(sandbox: StripeSandbox) -> None:
    holder = make_cardholder(sandbox.url, name="Bluebird")
    client = client_of(sandbox.url)
    assert pay(client, holder.customer, holder.payment_method).status == "succeeded"
    assert client.v1.customers.retrieve(holder.customer).name == "Bluebird"


def test_the_card_is_the_one_that_was_named(sandbox: StripeSandbox) -> None:
    holder = make_cardholder(sandbox.url, payment_method="pm_card_chargeDeclinedLostCard")
    with pytest.raises(stripe.CardError) as decline:
        pay(client_of(sandbox.url), holder.customer, holder.payment_method)
    assert decline.value.error is not None
    assert decline.value.error.decline_code == "lost_card"
    assert client_of(sandbox.url).v1.customers.retrieve(holder.customer).name is None


def test_a_card_that_is_not_there_is_told(sandbox: StripeSandbox) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="No such payment_method"):
        make_cardholder(sandbox.url, payment_method="pm_card_library")
