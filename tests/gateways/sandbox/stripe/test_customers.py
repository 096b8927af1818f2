import pytest
import stripe

from gateways.sandbox.stripe.control import StripeSandboxControl
from tests.gateways.sandbox.stripe.paying import card, pay, types


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


def test_a_deleted_customer_is_gone_with_its_cards_and_said_to_be_deleted(
    client: stripe.StripeClient, customer: str, account: str, control: StripeSandboxControl
) -> None:
    method = card(client, customer)
    paid = pay(client, customer, method)
    assert client.v1.customers.delete(customer).deleted
    assert client.v1.customers.retrieve(customer).to_dict() == {
        "id": customer,
        "object": "customer",
        "deleted": True,
    }
    assert client.v1.payment_methods.retrieve(method).customer is None
    assert types(control.events(account=account))[-2:] == [
        "payment_method.detached",
        "customer.deleted",
    ]
    (told,) = control.events("customer.deleted", account=account)
    assert (told["data"]["object"]["id"], told["data"]["object"]["name"]) == (customer, "Bluebird")
    assert client.v1.customers.list().data == []
    found = client.v1.payment_intents.retrieve(paid.id, {"expand": ["customer"]})
    assert found.to_dict()["customer"]["deleted"]


def test_nothing_more_is_done_with_a_deleted_customer(
    client: stripe.StripeClient, customer: str, control: StripeSandboxControl
) -> None:
    method = card(client, customer)
    assert control.delete_customer(customer)["deleted"]
    for call, status in (
        (lambda: client.v1.customers.delete(customer), 404),
        (lambda: client.v1.customers.update(customer, {"name": "x"}), 404),
        (lambda: client.v1.customers.payment_methods.list(customer), 404),
        (lambda: client.v1.payment_intents.list({"customer": customer}), 400),
        (lambda: card(client, customer), 400),
        (lambda: pay(client, customer, method), 400),
    ):
        with pytest.raises(stripe.InvalidRequestError, match="No such customer") as refusal:
            call()
        assert (refusal.value.code, refusal.value.http_status) == ("resource_missing", status)


def test_a_card_s_month_is_changed_and_told(
    client: stripe.StripeClient, customer: str, account: str, control: StripeSandboxControl
) -> None:
    method = card(client, customer)
    changed = client.v1.payment_methods.update(
        method, {"card": {"exp_month": 7, "exp_year": 2034}, "metadata": {"a": "b"}}
    )
    assert changed.card is not None
    assert (changed.card.exp_month, changed.card.exp_year, changed.card.last4) == (7, 2034, "4242")
    (told,) = control.events("payment_method.updated", account=account)
    assert told["data"] == {
        "object": client.v1.payment_methods.retrieve(method).to_dict(),
        "previous_attributes": {"card": {"exp_month": 12}, "metadata": {}},
    }
    bank = card(client, customer, "pm_usBankAccount_success")
    with pytest.raises(stripe.InvalidRequestError, match="no card"):
        client.v1.payment_methods.update(bank, {"card": {"exp_month": 7}})
    client.v1.payment_methods.detach(method)
    with pytest.raises(stripe.InvalidRequestError, match="save this PaymentMethod to a customer"):
        client.v1.payment_methods.update(method, {"card": {"exp_month": 8}})


def test_a_card_that_its_bank_renewed_is_told_as_such(
    client: stripe.StripeClient, customer: str, account: str, control: StripeSandboxControl
) -> None:
    method = card(client, customer)
    control.update_card(method, exp_year=2040, last4="1881")
    (told,) = control.events("payment_method.automatically_updated", account=account)
    assert told["data"]["previous_attributes"] == {"card": {"exp_year": 2034, "last4": "4242"}}
    found = client.v1.payment_methods.retrieve(method).card
    assert found is not None
    assert (found.exp_month, found.exp_year, found.last4) == (12, 2040, "1881")
