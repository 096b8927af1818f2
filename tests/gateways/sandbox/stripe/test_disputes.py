from collections.abc import Callable

import pytest
import stripe

from gateways.sandbox.processes import LocalServerError
from gateways.sandbox.stripe.control import StripeSandboxControl
from tests.gateways.sandbox.stripe.paying import card, pay, problem, types


def told(control: StripeSandboxControl, account: str) -> list[str]:
    """The types of the events of disputes, in order."""
    return [
        name.removeprefix("charge.dispute.")
        for name in types(control.events(account=account))
        if name.startswith("charge.dispute.")
    ]


def test_a_test_card_disputes_what_it_pays(
    client: stripe.StripeClient, customer: str, control: StripeSandboxControl, account: str
) -> None:
    paid = pay(client, customer, card(client, customer, "pm_card_createDispute"))

    [dispute] = client.v1.disputes.list({"payment_intent": paid.id}).data
    assert (dispute.status, dispute.reason, dispute.amount) == (
        "needs_response",
        "fraudulent",
        1200,
    )
    assert [entry.amount for entry in dispute.balance_transactions] == [-1200]
    assert client.v1.charges.retrieve(str(paid.latest_charge)).disputed
    assert told(control, account) == ["created", "funds_withdrawn"]
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.refunds.create({"payment_intent": paid.id})
    assert problem(refused.value).code == "charge_disputed"


def test_another_is_only_asked_about(
    client: stripe.StripeClient, customer: str, control: StripeSandboxControl, account: str
) -> None:
    paid = pay(client, customer, card(client, customer, "pm_card_createDisputeInquiry"))

    [dispute] = client.v1.disputes.list({"charge": str(paid.latest_charge)}).data
    assert (dispute.status, dispute.balance_transactions) == ("warning_needs_response", [])
    assert told(control, account) == ["created"]
    client.v1.refunds.create({"payment_intent": paid.id, "amount": 100})

    control.escalate_dispute(dispute.id)

    assert client.v1.disputes.retrieve(dispute.id).status == "needs_response"
    assert told(control, account) == ["created", "updated", "funds_withdrawn"]


def test_the_bank_decides_for_the_merchant(
    client: stripe.StripeClient, customer: str, control: StripeSandboxControl, account: str
) -> None:
    paid = pay(client, customer, card(client, customer))
    dispute = control.dispute(paid.id, 500, reason="product_not_received")

    control.close_dispute(dispute["id"], "won")

    found = client.v1.disputes.retrieve(dispute["id"])
    assert (found.status, found.amount, found.reason) == ("won", 500, "product_not_received")
    assert [entry.net for entry in found.balance_transactions] == [-2000, 500]
    assert told(control, account)[2:] == ["closed", "funds_reinstated"]
    client.v1.refunds.create({"payment_intent": paid.id})


def test_a_merchant_may_give_up(
    client: stripe.StripeClient, customer: str, control: StripeSandboxControl, account: str
) -> None:
    paid = pay(client, customer, card(client, customer))
    dispute = control.dispute(str(paid.latest_charge))

    assert client.v1.disputes.close(dispute["id"]).status == "lost"

    assert told(control, account)[2:] == ["closed"]
    with pytest.raises(stripe.InvalidRequestError, match="charged back"):
        client.v1.refunds.create({"payment_intent": paid.id})
    with pytest.raises(stripe.InvalidRequestError, match="already closed"):
        client.v1.disputes.close(dispute["id"])


def test_an_inquiry_may_come_to_nothing(
    client: stripe.StripeClient, customer: str, control: StripeSandboxControl, account: str
) -> None:
    dispute = control.dispute(pay(client, customer, card(client, customer)).id, inquiry=True)

    assert control.close_dispute(dispute["id"], "warning_closed")["status"] == "warning_closed"

    assert told(control, account) == ["created", "closed"]


def test_disputes_are_listed_by_time(
    client: stripe.StripeClient, customer: str, control: StripeSandboxControl
) -> None:
    made = [
        control.dispute(pay(client, customer, card(client, customer)).id)["id"] for _ in range(2)
    ]
    at = client.v1.disputes.retrieve(made[0]).created

    since = client.v1.disputes.list({"created": {"gte": at}, "limit": 1})
    assert [one.id for one in since.auto_paging_iter()] == [*reversed(made)]
    assert client.v1.disputes.list({"created": {"lt": at}}).data == []


def test_what_cannot_be_is_refused(
    client: stripe.StripeClient, customer: str, control: StripeSandboxControl
) -> None:
    intent = pay(client, customer, card(client, customer)).id
    dispute = control.dispute(intent)["id"]
    wrongs: list[Callable[[], object]] = [
        lambda: control.dispute(intent, 1201),
        lambda: control.dispute(intent, reason="boredom"),
        lambda: control.dispute("pi_nothing"),
        lambda: control.escalate_dispute(dispute),
        lambda: control.close_dispute(dispute, "warning_closed"),
        lambda: control.close_dispute("du_nothing", "won"),
    ]
    for wrong in wrongs:
        with pytest.raises(LocalServerError):
            wrong()


def test_what_was_never_paid_is_not_disputed(
    client: stripe.StripeClient, customer: str, control: StripeSandboxControl
) -> None:
    with pytest.raises(stripe.CardError) as declined:
        pay(client, customer, card(client, customer, "pm_card_chargeDeclined"))

    with pytest.raises(LocalServerError, match="not succeeded"):
        control.dispute(problem(declined.value).charge)
