"""Customers with a test card, ready to be charged with nobody present."""

from dataclasses import dataclass

import stripe

ANSWER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Cardholder:
    """Stripe's ids of a customer, and of a payment method that is the customer's."""

    customer: str
    payment_method: str


def make_cardholder(
    sandbox_url: str,
    *,
    payment_method: str = "pm_card_visa",
    name: str = "",
    stripe_account: str | None = None,
) -> Cardholder:
    """A new customer of the sandbox, with one of ``behaviours.TEST_PAYMENT_METHODS`` attached.

    It is one of the sandbox's own, or of ``stripe_account``.

    Raises:
        stripe.StripeError: The sandbox is not there, or has no such payment method.
    """
    connections = stripe.RequestsClient(timeout=ANSWER_SECONDS)
    client = stripe.StripeClient(
        "sk_test_cardholders",
        stripe_account=stripe_account,
        base_addresses={"api": sandbox_url},
        http_client=connections,
    )
    try:
        customer = client.v1.customers.create({"name": name} if name else {})
        attached = client.v1.payment_methods.attach(payment_method, {"customer": customer.id})
    finally:
        connections.close()  # type: ignore[no-untyped-call]  # The SDK's own has no types.
    return Cardholder(customer.id, attached.id)
