import pytest
import stripe

from gateways.sandbox.stripe.control import StripeSandboxControl
from tests.gateways.sandbox.stripe.paying import card, pay, problem, types

DECLINES = [
    ("pm_card_chargeDeclined", "card_declined", "generic_decline"),
    ("pm_card_visa_chargeDeclined", "card_declined", "generic_decline"),
    ("pm_card_chargeCustomerFail", "card_declined", "generic_decline"),
    ("pm_card_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
    ("pm_card_visa_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
    ("pm_card_chargeDeclinedLostCard", "card_declined", "lost_card"),
    ("pm_card_chargeDeclinedStolenCard", "card_declined", "stolen_card"),
    ("pm_card_chargeDeclinedFraudulent", "card_declined", "fraudulent"),
    ("pm_card_radarBlock", "card_declined", "fraudulent"),
    (
        "pm_card_visa_chargeDeclinedVelocityLimitExceeded",
        "card_declined",
        "card_velocity_exceeded",
    ),
    ("pm_card_chargeDeclinedExpiredCard", "expired_card", None),
    ("pm_card_chargeDeclinedIncorrectCvc", "incorrect_cvc", None),
    ("pm_card_chargeDeclinedProcessingError", "processing_error", None),
    ("pm_card_authenticationRequired", "authentication_required", "authentication_required"),
]


@pytest.mark.parametrize(("name", "code", "decline_code"), DECLINES)
def test_a_card_that_declines_says_so_and_keeps_its_intent(
    client: stripe.StripeClient, customer: str, name: str, code: str, decline_code: str | None
) -> None:
    method = card(client, customer, name)
    with pytest.raises(stripe.CardError) as decline:
        pay(client, customer, method, metadata={"invoice": "in_1"})
    error = problem(decline.value)
    assert decline.value.http_status == 402
    assert (error.type, error.code, error.decline_code) == ("card_error", code, decline_code)
    intent = client.v1.payment_intents.retrieve(error.payment_intent.id)
    assert intent.status == "requires_payment_method"
    assert intent.payment_method is None
    assert intent.metadata["invoice"] == "in_1"
    assert intent.latest_charge == error.charge
    last = intent.last_payment_error
    assert last is not None
    assert (last.type, last.code) == ("card_error", code)
    assert last.message == decline.value.user_message
    assert last.payment_method is not None
    assert last.payment_method.id == method
    charge = client.v1.charges.retrieve(error.charge)
    assert (charge.status, charge.paid, charge.failure_code) == ("failed", False, code)
    assert charge.outcome is not None
    assert charge.outcome.reason == decline_code or code


def test_a_decline_makes_its_events(
    client: stripe.StripeClient, customer: str, account: str, control: StripeSandboxControl
) -> None:
    with pytest.raises(stripe.CardError):
        pay(client, customer, card(client, customer, "pm_card_chargeDeclined"))
    made = control.events(account=account)
    assert types(made)[2:] == [
        "payment_intent.created",
        "charge.failed",
        "payment_intent.payment_failed",
    ]


@pytest.mark.parametrize("brand", ["visa", "mastercard"])
def test_a_card_shows_what_a_client_may_see(
    client: stripe.StripeClient, customer: str, brand: str
) -> None:
    method = client.v1.payment_methods.retrieve(card(client, customer, f"pm_card_{brand}"))
    assert method.card is not None
    assert (method.type, method.card.brand, method.card.exp_month) == ("card", brand, 12)
    assert len(method.card.last4) == 4


def test_a_cardholder_who_is_present_is_asked_and_pays(
    client: stripe.StripeClient, customer: str, control: StripeSandboxControl
) -> None:
    method = card(client, customer, "pm_card_authenticationRequired")
    back = "https://example.com/back"
    asked = pay(client, customer, method, off_session=False, return_url=back)
    assert asked.status == "requires_action"
    assert asked.next_action is not None
    assert asked.next_action.redirect_to_url is not None
    assert asked.next_action.redirect_to_url.return_url == back
    assert control.events("payment_intent.requires_action")[-1]["data"]["object"]["id"] == asked.id
    assert control.authenticate(asked.id)["status"] == "succeeded"
    paid = client.v1.payment_intents.retrieve(asked.id)
    assert (paid.status, paid.amount_received) == ("succeeded", 1200)


def test_a_cardholder_who_fails_to_answer_has_not_paid(
    client: stripe.StripeClient, customer: str, control: StripeSandboxControl
) -> None:
    method = card(client, customer, "pm_card_authenticationRequired")
    cards_only = {"enabled": True, "allow_redirects": "never"}
    asked = pay(client, customer, method, off_session=False, automatic_payment_methods=cards_only)
    assert asked.next_action is not None
    assert asked.next_action.type == "use_stripe_sdk"
    failed = control.authenticate(asked.id, successful=False)
    assert failed["status"] == "requires_payment_method"
    assert failed["last_payment_error"]["code"] == "payment_intent_authentication_failure"


def test_a_payment_that_waits_for_the_cardholder_can_be_cancelled(
    client: stripe.StripeClient, customer: str
) -> None:
    method = card(client, customer, "pm_card_authenticationRequired")
    asked = pay(client, customer, method, off_session=False, return_url="https://example.com")
    assert client.v1.payment_intents.cancel(asked.id).status == "canceled"


def test_a_declining_card_is_refused_at_attaching_where_that_is_wanted(
    client: stripe.StripeClient, customer: str, control: StripeSandboxControl
) -> None:
    control.set(refuse_declining_cards=True)
    with pytest.raises(stripe.CardError) as decline:
        card(client, customer, "pm_card_chargeDeclinedLostCard")
    assert problem(decline.value).decline_code == "lost_card"
    later = card(client, customer, "pm_card_chargeCustomerFail")
    with pytest.raises(stripe.CardError):
        pay(client, customer, later)
