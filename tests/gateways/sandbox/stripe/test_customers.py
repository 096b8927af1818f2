import pytest
import stripe

from tests.gateways.sandbox.stripe.paying import card, pay


def test_a_customer_keeps_what_is_written(client: stripe.StripeClient) -> None:
    made = client.v1.customers.create(
        {
            "name": "Bluebird",
            "email": "a@example.com",
            "metadata": {"client": "1"},
            "address": {"city": "Oslo"},
            "preferred_locales": ["nb"],
        }
    )
    client.v1.customers.update(made.id, {"name": "Kestrel", "email": "", "metadata": {"x": "y"}})
    found = client.v1.customers.retrieve(made.id)
    assert (found.name, found.email) == ("Kestrel", None)
    assert found.metadata is not None
    assert found.metadata.to_dict() == {"client": "1", "x": "y"}
    assert found.address is not None
    assert (found.address.city, found.address.line1) == ("Oslo", None)
    assert found.preferred_locales == ["nb"]
    cleared = client.v1.customers.update(made.id, {"metadata": ""}).metadata
    assert cleared is not None
    assert cleared.to_dict() == {}


def test_customers_are_found_by_their_address(client: stripe.StripeClient) -> None:
    first = client.v1.customers.create({"email": "one@example.com"})
    client.v1.customers.create({"email": "two@example.com"})
    assert [found.id for found in client.v1.customers.list({"email": "one@example.com"})] == [
        first.id
    ]


def test_an_attached_card_is_the_customers_until_it_is_detached(
    client: stripe.StripeClient, customer: str
) -> None:
    one, two = card(client, customer), card(client, customer, "pm_card_mastercard")
    bank = card(client, customer, "pm_usBankAccount_success")
    assert one.startswith("pm_")
    assert one != two

    def listed(kind: str) -> list[str]:
        methods = client.v1.customers.payment_methods.list(customer, {"type": kind})
        return [method.id for method in methods]

    assert listed("card") == [two, one]
    assert listed("us_bank_account") == [bank]
    assert client.v1.payment_methods.detach(one).customer is None
    assert listed("card") == [two]
    assert [m.id for m in client.v1.payment_methods.list({"customer": customer})] == [bank, two]
    with pytest.raises(stripe.InvalidRequestError, match="may not be used again"):
        pay(client, customer, one)
    with pytest.raises(stripe.InvalidRequestError, match="may not be used again"):
        card(client, customer, one)
    with pytest.raises(stripe.InvalidRequestError, match="not attached to a customer"):
        client.v1.payment_methods.detach(one)


def test_a_card_is_only_ones(client: stripe.StripeClient, customer: str) -> None:
    method = card(client, customer)
    assert card(client, customer, method) == method
    other = client.v1.customers.create().id
    with pytest.raises(stripe.InvalidRequestError, match="already been attached"):
        card(client, other, method)


def test_the_default_card_is_one_of_the_customers_and_goes_with_it(
    client: stripe.StripeClient, customer: str
) -> None:
    method = card(client, customer)
    updated = client.v1.customers.update(
        customer, {"invoice_settings": {"default_payment_method": method}}
    )
    assert updated.invoice_settings is not None
    assert updated.invoice_settings.default_payment_method == method
    other = client.v1.customers.create().id
    with pytest.raises(stripe.InvalidRequestError, match="No such PaymentMethod"):
        client.v1.customers.update(other, {"invoice_settings": {"default_payment_method": method}})
    client.v1.payment_methods.detach(method)
    settings = client.v1.customers.retrieve(customer).invoice_settings
    assert settings is not None
    assert settings.default_payment_method is None


def test_a_customer_can_be_made_with_a_card(client: stripe.StripeClient) -> None:
    made = client.v1.customers.create({"payment_method": "pm_card_visa"})
    assert len(client.v1.customers.payment_methods.list(made.id).data) == 1


def test_the_customer_in_a_path_must_exist(client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.customers.payment_methods.list("cus_x")
    assert refusal.value.http_status == 404
    assert client.v1.payment_methods.list().data == []
