import pytest
import stripe

from gateways.sandbox.stripe.control import StripeSandboxControl
from tests.gateways.sandbox.stripe.paying import card, pay, payment, problem, types


def test_an_off_session_payment_succeeds_and_has_its_charge(
    client: stripe.StripeClient, customer: str, account: str, control: StripeSandboxControl
) -> None:
    method = card(client, customer)
    intent = pay(client, customer, method, metadata={"invoice": "in_1"})
    assert (intent.status, intent.amount_received) == ("succeeded", 1200)
    assert intent.metadata["invoice"] == "in_1"
    assert intent.last_payment_error is None
    assert not intent.livemode
    assert isinstance(intent.latest_charge, str)
    charge = client.v1.charges.retrieve(intent.latest_charge)
    assert (charge.amount, charge.paid, charge.status) == (1200, True, "succeeded")
    assert (charge.customer, charge.payment_intent) == (customer, intent.id)
    assert [charge.id] == [charge["id"] for charge in control.charges(account=account)]


def test_its_events_tell_the_story_in_order(
    client: stripe.StripeClient, customer: str, account: str, control: StripeSandboxControl
) -> None:
    pay(client, customer, card(client, customer))
    events = control.events(account=account)
    assert types(events) == [
        "customer.created",
        "payment_method.attached",
        "payment_intent.created",
        "charge.succeeded",
        "payment_intent.succeeded",
    ]
    assert events[-1]["data"]["object"]["status"] == "succeeded"
    assert events[2]["data"]["object"]["status"] == "requires_confirmation"
    assert events[-1]["request"]["idempotency_key"]


def test_expanding_puts_objects_in_place_of_ids(client: stripe.StripeClient, customer: str) -> None:
    intent = pay(
        client,
        customer,
        card(client, customer),
        expand=["latest_charge.customer", "payment_method"],
    )
    assert isinstance(intent.latest_charge, stripe.Charge)
    assert isinstance(intent.latest_charge.customer, stripe.Customer)
    assert isinstance(intent.payment_method, stripe.PaymentMethod)
    with pytest.raises(stripe.InvalidRequestError, match="cannot be expanded"):
        client.v1.payment_intents.retrieve(intent.id, {"expand": ["amount"]})


def test_an_intent_can_be_made_first_and_confirmed_later(
    client: stripe.StripeClient, customer: str
) -> None:
    made = client.v1.payment_intents.create(
        {"amount": 500, "currency": "EUR", "customer": customer}
    )
    assert (made.status, made.currency) == ("requires_payment_method", "eur")
    with pytest.raises(stripe.InvalidRequestError, match="missing a payment method") as refusal:
        client.v1.payment_intents.confirm(made.id)
    assert problem(refusal.value).payment_intent.id == made.id
    done = client.v1.payment_intents.confirm(
        made.id, {"payment_method": card(client, customer), "off_session": True}
    )
    assert done.status == "succeeded"
    with pytest.raises(stripe.InvalidRequestError, match="already succeeded") as refusal:
        client.v1.payment_intents.confirm(made.id)
    assert refusal.value.code == "payment_intent_unexpected_state"


def test_a_declined_intent_can_be_confirmed_again_with_another_card(
    client: stripe.StripeClient, customer: str
) -> None:
    with pytest.raises(stripe.CardError) as decline:
        pay(client, customer, card(client, customer, "pm_card_chargeDeclined"))
    intent = problem(decline.value).payment_intent
    again = client.v1.payment_intents.confirm(
        intent.id, {"payment_method": card(client, customer), "off_session": True}
    )
    assert again.status == "succeeded"
    assert again.last_payment_error is None
    charges = client.v1.charges.list({"payment_intent": intent.id}).data
    assert [charge.status for charge in charges] == ["succeeded", "failed"]


def test_a_cancelled_intent_takes_no_money(client: stripe.StripeClient, customer: str) -> None:
    intent = client.v1.payment_intents.create(
        {"amount": 500, "currency": "usd", "payment_method": "pm_card_visa"}
    )
    cancelled = client.v1.payment_intents.cancel(
        intent.id, {"cancellation_reason": "requested_by_customer"}
    )
    assert (cancelled.status, cancelled.cancellation_reason) == (
        "canceled",
        "requested_by_customer",
    )
    assert cancelled.canceled_at
    with pytest.raises(stripe.InvalidRequestError, match="status of canceled"):
        client.v1.payment_intents.confirm(intent.id)
    paid = pay(client, customer, card(client, customer))
    with pytest.raises(stripe.InvalidRequestError, match="status of succeeded"):
        client.v1.payment_intents.cancel(paid.id)


def test_an_unpaid_intent_can_be_changed(client: stripe.StripeClient) -> None:
    intent = client.v1.payment_intents.create(
        {"amount": 500, "currency": "usd", "metadata": {"a": "1", "b": "2"}}
    )
    changed = client.v1.payment_intents.update(
        intent.id, {"amount": 700, "metadata": {"a": "", "c": "3"}}
    )
    assert changed.amount == 700
    assert changed.metadata.to_dict() == {"b": "2", "c": "3"}


def test_a_customer_who_is_present_must_be_able_to_come_back(
    client: stripe.StripeClient, customer: str
) -> None:
    method = card(client, customer)
    with pytest.raises(stripe.InvalidRequestError, match="you must provide a `return_url`"):
        pay(client, customer, method, off_session=False)
    on_page = pay(client, customer, method, off_session=False, return_url="https://example.com")
    assert on_page.status == "succeeded"
    cards_only = {"enabled": True, "allow_redirects": "never"}
    assert (
        pay(
            client, customer, method, off_session=False, automatic_payment_methods=cards_only
        ).status
        == "succeeded"
    )


def test_off_session_needs_confirm(client: stripe.StripeClient, customer: str) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="without also setting 'confirm'"):
        pay(client, customer, card(client, customer), confirm=False)


def test_a_payment_needs_a_customer_and_a_card_that_exist(
    client: stripe.StripeClient, customer: str
) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="No such customer: 'cus_x'") as refusal:
        pay(client, "cus_x", "pm_card_visa")
    assert (refusal.value.code, refusal.value.param) == ("resource_missing", "customer")
    assert refusal.value.http_status == 400
    with pytest.raises(stripe.InvalidRequestError, match="No such payment_method: 'pm_x'"):
        pay(client, customer, "pm_x")
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.payment_intents.retrieve("pi_x")
    assert (refusal.value.code, refusal.value.http_status) == ("resource_missing", 404)


def test_a_card_pays_only_for_its_own_customer(client: stripe.StripeClient, customer: str) -> None:
    method = card(client, customer)
    other = client.v1.customers.create().id
    with pytest.raises(stripe.InvalidRequestError, match=f"belongs to the Customer {customer}"):
        pay(client, other, method)
    with pytest.raises(stripe.InvalidRequestError, match="belongs to a Customer"):
        client.v1.payment_intents.create(
            {"amount": 500, "currency": "usd", "payment_method": method}
        )


def test_a_card_of_nobodys_pays_once_unless_the_payment_saves_it(
    client: stripe.StripeClient, customer: str
) -> None:
    once = pay(client, customer, "pm_card_visa").payment_method
    with pytest.raises(stripe.InvalidRequestError, match="may not be used again"):
        pay(client, customer, str(once))
    saved = pay(client, customer, "pm_card_visa", setup_future_usage="off_session").payment_method
    assert client.v1.payment_methods.retrieve(str(saved)).customer == customer
    assert pay(client, customer, str(saved)).status == "succeeded"


def test_accounts_do_not_see_each_other(client: stripe.StripeClient, customer: str) -> None:
    intent = pay(client, customer, card(client, customer))
    stranger: stripe.RequestOptions = {"stripe_account": "acct_stranger"}
    with pytest.raises(stripe.InvalidRequestError, match="No such payment_intent"):
        client.v1.payment_intents.retrieve(intent.id, {}, stranger)
    assert client.v1.payment_intents.list({}, stranger).data == []
    with pytest.raises(stripe.PermissionError):
        client.v1.payment_intents.list({}, {"stripe_account": "somebody"})


@pytest.mark.parametrize("key", ["sk_live_x", "pk_test_x", "sk_test_"])
def test_only_a_secret_test_key_opens_it(client: stripe.StripeClient, key: str) -> None:
    with pytest.raises(stripe.AuthenticationError, match="Invalid API Key provided"):
        client.v1.customers.list({}, {"api_key": key})


@pytest.mark.parametrize(
    ("currency", "amount", "code"),
    [
        ("usd", 49, "amount_too_small"),
        ("usd", 0, "parameter_invalid_integer"),
        ("usd", -100, "parameter_invalid_integer"),
        ("usd", 100_000_000, "amount_too_large"),
        ("jpy", 49, "amount_too_small"),
        ("gbp", 29, "amount_too_small"),
        ("huf", 17_499, "amount_too_small"),
        ("kwd", 1_005, None),
        ("ugx", 250, None),
        ("isk", 50_050, None),
        ("zzz", 500, None),
    ],
)
def test_an_amount_that_stripe_does_not_take_is_refused(
    client: stripe.StripeClient, customer: str, currency: str, amount: int, code: str | None
) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        pay(client, customer, "pm_card_visa", amount=amount, currency=currency)
    assert refusal.value.code == code
    assert client.v1.payment_intents.list().data == []


@pytest.mark.parametrize(
    ("currency", "amount"), [("usd", 50), ("jpy", 50), ("gbp", 30), ("kwd", 1_010), ("ugx", 200)]
)
def test_amounts_are_stripes_units(
    client: stripe.StripeClient, customer: str, currency: str, amount: int
) -> None:
    intent = pay(client, customer, "pm_card_visa", amount=amount, currency=currency)
    assert (intent.amount, intent.currency) == (amount, currency)


def test_the_minimum_is_named_in_the_currencys_own_decimals(
    client: stripe.StripeClient, customer: str
) -> None:
    with pytest.raises(stripe.InvalidRequestError, match=r"at least 0\.50 usd"):
        client.v1.payment_intents.create(payment(customer, "pm_card_visa", amount=10))
    with pytest.raises(stripe.InvalidRequestError, match="at least 50 jpy"):
        pay(client, customer, "pm_card_visa", amount=10, currency="jpy")
