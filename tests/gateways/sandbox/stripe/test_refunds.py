from collections.abc import Callable

import pytest
import stripe

from gateways.sandbox.stripe.control import StripeSandboxControl
from tests.gateways.sandbox.stripe.paying import card, pay


@pytest.fixture
def paid(client: stripe.StripeClient, customer: str) -> stripe.PaymentIntent:
    return pay(client, customer, card(client, customer))


def test_a_refund_sends_all_of_it_back(
    client: stripe.StripeClient, paid: stripe.PaymentIntent, control: StripeSandboxControl
) -> None:
    refund = client.v1.refunds.create(
        {"payment_intent": paid.id, "reason": "duplicate", "metadata": {"note": "cn_1"}}
    )
    assert (refund.amount, refund.status, refund.reason) == (1200, "succeeded", "duplicate")
    charge = client.v1.charges.retrieve(str(paid.latest_charge))
    assert (charge.amount_refunded, charge.refunded) == (1200, True)
    assert client.v1.refunds.retrieve(refund.id)["metadata"]["note"] == "cn_1"
    kinds = [
        event["type"]
        for event in control.events()
        if event["data"]["object"]["id"] in {refund.id, charge.id}
    ]
    assert kinds[-2:] == ["charge.refunded", "refund.created"]


def test_parts_add_up_and_never_exceed_the_charge(
    client: stripe.StripeClient, paid: stripe.PaymentIntent
) -> None:
    charge = str(paid.latest_charge)
    client.v1.refunds.create({"charge": charge, "amount": 500})
    with pytest.raises(stripe.InvalidRequestError, match=r"\(7\.01 usd\) is greater than") as no:
        client.v1.refunds.create({"charge": charge, "amount": 701})
    assert no.value.param == "amount"
    assert client.v1.refunds.create({"charge": charge}).amount == 700
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.refunds.create({"charge": charge, "amount": 1})
    assert refusal.value.code == "charge_already_refunded"
    assert [refund.amount for refund in client.v1.refunds.list({"charge": charge})] == [700, 500]


def test_only_money_that_came_is_sent_back(client: stripe.StripeClient, customer: str) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="One of the following params"):
        client.v1.refunds.create({"amount": 5})
    unpaid = client.v1.payment_intents.create({"amount": 500, "currency": "usd"})
    with pytest.raises(stripe.InvalidRequestError, match="does not have a successful charge"):
        client.v1.refunds.create({"payment_intent": unpaid.id})
    with pytest.raises(stripe.CardError) as decline:
        pay(client, customer, card(client, customer, "pm_card_chargeDeclined"))
    assert decline.value.error is not None
    with pytest.raises(stripe.InvalidRequestError, match="has not succeeded"):
        client.v1.refunds.create({"charge": str(decline.value.error.charge)})
    with pytest.raises(stripe.InvalidRequestError, match="No such charge"):
        client.v1.refunds.create({"charge": "ch_x"})


def test_a_part_must_be_something(client: stripe.StripeClient, paid: stripe.PaymentIntent) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.refunds.create({"payment_intent": paid.id, "amount": 0})
    assert refusal.value.param == "amount"


def test_a_refund_can_fail_at_the_bank_and_gives_the_charge_its_amount_back(
    client: stripe.StripeClient, paid: stripe.PaymentIntent, control: StripeSandboxControl
) -> None:
    refund = client.v1.refunds.create({"payment_intent": paid.id})
    assert control.settle_refund(refund.id, "failed")["failure_reason"]
    assert client.v1.refunds.retrieve(refund.id).status == "failed"
    charge = client.v1.charges.retrieve(str(paid.latest_charge))
    assert (charge.amount_refunded, charge.refunded) == (0, False)
    assert control.events("refund.failed")[-1]["data"]["object"]["id"] == refund.id
    assert client.v1.refunds.create({"payment_intent": paid.id}).status == "succeeded"


@pytest.mark.parametrize(
    ("name", "at_first", "in_the_end"),
    [
        ("pm_card_pendingRefund", "pending", "succeeded"),
        ("pm_card_refundFail", "succeeded", "failed"),
    ],
)
@pytest.mark.usefixtures("settling_at_once")
def test_some_cards_take_their_time(
    client: stripe.StripeClient,
    customer: str,
    eventually: Callable[[Callable[[], bool]], None],
    *,
    name: str,
    at_first: str,
    in_the_end: str,
) -> None:
    intent = pay(client, customer, card(client, customer, name))
    refund = client.v1.refunds.create({"payment_intent": intent.id})
    assert refund.status == at_first
    eventually(lambda: client.v1.refunds.retrieve(refund.id).status == in_the_end)


def test_a_refund_to_a_bank_account_is_pending(
    client: stripe.StripeClient, customer: str, control: StripeSandboxControl
) -> None:
    intent = pay(client, customer, card(client, customer, "pm_usBankAccount_success"))
    control.settle(intent.id)
    refund = client.v1.refunds.create({"payment_intent": intent.id})
    assert (refund.status, refund.pending_reason) == ("pending", "processing")
    assert control.settle_refund(refund.id)["status"] == "succeeded"
