import time
from collections.abc import Callable
from typing import Any, cast

import pytest
import stripe
from stripe.params.checkout import SessionCreateParams

from gateways.sandbox.processes import LocalServerError
from gateways.sandbox.stripe.control import StripeSandboxControl
from tests.gateways.sandbox.stripe.paying import card, client_of, pay, problem, types

TYPES = ("checkout.session.", "payment_intent.", "setup_intent.", "payment_method.")


def page(customer: str, /, **changes: object) -> SessionCreateParams:
    """A page where 12 dollars are paid, with changes; ``None`` leaves one out."""
    params: dict[str, object] = {
        "mode": "payment",
        "customer": customer,
        "line_items": [
            {
                "price_data": {
                    "currency": "usd",
                    "product_data": {"name": "INV-1"},
                    "unit_amount": 1200,
                },
                "quantity": 1,
            }
        ],
        "payment_intent_data": {
            "description": "INV-1 of Bluebird",
            "metadata": {"attempt": "7"},
            "statement_descriptor_suffix": "INV 1",
        },
        "metadata": {"attempt": "7"},
        "success_url": "https://pay.example/done?session={CHECKOUT_SESSION_ID}",
        "cancel_url": "https://pay.example/back",
        **changes,
    }
    given = {name: value for name, value in params.items() if value is not None}
    return cast("SessionCreateParams", given)


def setup_page(customer: str, **changes: object) -> SessionCreateParams:
    """A page where a card is left."""
    return page(
        customer,
        **{
            "mode": "setup",
            "line_items": None,
            "payment_intent_data": None,
            "setup_intent_data": {"metadata": {"card_setup": "8"}},
            "metadata": {"card_setup": "8"},
            "currency": "usd",
            **changes,
        },
    )


Told = Callable[[], list[str]]


@pytest.fixture
def told(control: StripeSandboxControl, account: str) -> Told:
    """The types of the events so far, of sessions and what belongs to them."""

    def made() -> list[str]:
        return [kind for kind in types(control.events(account=account)) if kind.startswith(TYPES)]

    return made


def looked_up(client: stripe.StripeClient, session: str) -> dict[str, Any]:
    found = client.v1.checkout.sessions.retrieve(
        session, {"expand": ["payment_intent", "setup_intent"]}
    )
    return found.to_dict()


def test_a_new_page_is_open_and_nothing_is_tried(
    client: stripe.StripeClient, customer: str, told: Told
) -> None:
    made = client.v1.checkout.sessions.create(page(customer, client_reference_id="ours"))
    assert made.id.startswith("cs_test_")
    assert (made.status, made.payment_status, made.mode) == ("open", "unpaid", "payment")
    assert (made.amount_total, made.currency, made.customer) == (1200, "usd", customer)
    assert made.url == f"{client._requestor.base_addresses['api']}/c/pay/{made.id}"
    assert made.expires_at == made.created + 24 * 3600
    assert made.payment_intent is None
    assert made.client_reference_id == "ours"
    assert told() == []
    assert looked_up(client, made.id) == made.to_dict()


def test_a_page_that_is_paid_is_complete_and_the_payment_carries_what_was_given(
    client: stripe.StripeClient,
    customer: str,
    account: str,
    control: StripeSandboxControl,
    told: Told,
) -> None:
    made = client.v1.checkout.sessions.create(page(customer))
    session = control.pay_session(made.id)
    assert (session["status"], session["payment_status"], session["url"]) == (
        "complete",
        "paid",
        None,
    )
    assert told() == [
        "payment_intent.created",
        "payment_intent.succeeded",
        "checkout.session.completed",
    ]
    (charge,) = control.charges(account=account)
    intent = looked_up(client, made.id)["payment_intent"]
    assert (charge["status"], charge["payment_intent"]) == ("succeeded", intent["id"])
    assert (intent["amount_received"], intent["customer"]) == (1200, customer)
    assert intent["metadata"] == {"attempt": "7"}
    assert intent["description"] == "INV-1 of Bluebird"
    assert intent["statement_descriptor_suffix"] == "INV 1"
    (completed,) = control.events("checkout.session.completed", account=account)
    assert completed["data"]["object"] == session
    with pytest.raises(LocalServerError, match="complete"):
        control.pay_session(made.id)


def test_a_declined_card_leaves_the_page_open_for_another(
    client: stripe.StripeClient,
    customer: str,
    account: str,
    control: StripeSandboxControl,
    told: Told,
) -> None:
    made = client.v1.checkout.sessions.create(page(customer))
    session = control.pay_session(made.id, "pm_card_chargeDeclinedInsufficientFunds")
    assert (session["status"], session["payment_status"]) == ("open", "unpaid")
    intent = looked_up(client, made.id)["payment_intent"]
    assert intent["status"] == "requires_payment_method"
    assert intent["last_payment_error"]["decline_code"] == "insufficient_funds"
    assert control.pay_session(made.id)["payment_status"] == "paid"
    assert told() == [
        "payment_intent.created",
        "payment_intent.payment_failed",
        "payment_intent.succeeded",
        "checkout.session.completed",
    ]
    (paid,) = control.payment_intents(account=account)
    assert (paid["id"], paid["status"]) == (intent["id"], "succeeded")
    assert [charge["status"] for charge in control.charges(account=account)] == [
        "failed",
        "succeeded",
    ]


def test_a_card_of_3_d_secure_is_charged_once_its_holder_authenticated(
    client: stripe.StripeClient, customer: str, control: StripeSandboxControl, told: Told
) -> None:
    name = "pm_card_authenticationRequired"
    made = client.v1.checkout.sessions.create(page(customer))
    assert control.pay_session(made.id, name, authenticates=None)["status"] == "open"
    assert looked_up(client, made.id)["payment_intent"]["status"] == "requires_action"
    assert control.pay_session(made.id, name, authenticates=False)["status"] == "open"
    assert control.pay_session(made.id, name)["payment_status"] == "paid"
    assert told()[-4:] == [
        "payment_intent.payment_failed",
        "payment_intent.requires_action",
        "payment_intent.succeeded",
        "checkout.session.completed",
    ]


@pytest.mark.parametrize("status", ["paid", "unpaid"])
def test_a_bank_debit_completes_the_page_and_is_settled_later(
    client: stripe.StripeClient,
    customer: str,
    control: StripeSandboxControl,
    told: Told,
    status: str,
) -> None:
    made = client.v1.checkout.sessions.create(page(customer))
    session = control.pay_session(made.id, "pm_usBankAccount_success")
    assert (session["status"], session["payment_status"]) == ("complete", "unpaid")
    assert told()[-2:] == ["payment_intent.processing", "checkout.session.completed"]
    outcome = "succeeded" if status == "paid" else "insufficient_funds"
    control.settle(session["payment_intent"], outcome)
    after = looked_up(client, made.id)
    assert (after["status"], after["payment_status"]) == ("complete", status)
    ending = "succeeded" if status == "paid" else "failed"
    assert told()[-1] == f"checkout.session.async_payment_{ending}"


def test_a_bank_debit_settles_by_itself(
    client: stripe.StripeClient, customer: str, control: StripeSandboxControl
) -> None:
    control.set(settle_after=0)
    made = client.v1.checkout.sessions.create(page(customer))
    control.pay_session(made.id, "pm_usBankAccount_success")
    deadline = time.monotonic() + 10
    while looked_up(client, made.id)["payment_status"] != "paid":
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_card_can_be_kept_by_the_payment(
    client: stripe.StripeClient, customer: str, control: StripeSandboxControl
) -> None:
    made = client.v1.checkout.sessions.create(
        page(customer, payment_intent_data={"setup_future_usage": "off_session"})
    )
    control.pay_session(made.id)
    (kept,) = client.v1.customers.payment_methods.list(customer)
    assert pay(client, customer, kept.id).status == "succeeded"


def test_a_page_in_setup_mode_keeps_a_card_and_charges_nothing(
    client: stripe.StripeClient,
    customer: str,
    account: str,
    control: StripeSandboxControl,
    told: Told,
) -> None:
    made = client.v1.checkout.sessions.create(setup_page(customer))
    assert (made.payment_status, made.amount_total) == ("no_payment_required", None)
    assert told() == ["setup_intent.created"]
    session = control.save_card(made.id)
    assert session["status"] == "complete"
    assert told()[1:] == [
        "payment_method.attached",
        "setup_intent.succeeded",
        "checkout.session.completed",
    ]
    setup = looked_up(client, made.id)["setup_intent"]
    assert setup == client.v1.setup_intents.retrieve(setup["id"]).to_dict()
    assert setup["metadata"] == {"card_setup": "8"}
    (kept,) = client.v1.customers.payment_methods.list(customer)
    assert kept.id == setup["payment_method"]
    assert control.charges(account=account) == []
    assert pay(client, customer, kept.id).status == "succeeded"


def test_a_card_that_is_not_authenticated_is_not_kept(
    client: stripe.StripeClient, customer: str, control: StripeSandboxControl, told: Told
) -> None:
    name = "pm_card_authenticationRequired"
    made = client.v1.checkout.sessions.create(setup_page(customer))
    assert control.save_card(made.id, name, authenticates=False)["status"] == "open"
    assert told()[-2:] == ["setup_intent.requires_action", "setup_intent.setup_failed"]
    assert client.v1.customers.payment_methods.list(customer).data == []
    assert control.save_card(made.id, name)["status"] == "complete"


def test_a_card_that_declines_is_not_kept_where_stripe_s_check_is_on(
    client: stripe.StripeClient, customer: str, control: StripeSandboxControl, told: Told
) -> None:
    control.set(refuse_declining_cards=True)
    made = client.v1.checkout.sessions.create(setup_page(customer))
    assert control.save_card(made.id, "pm_card_chargeDeclinedStolenCard")["status"] == "open"
    assert told()[-1] == "setup_intent.setup_failed"
    error = looked_up(client, made.id)["setup_intent"]["last_setup_error"]
    assert (error["code"], error["decline_code"]) == ("card_declined", "stolen_card")


def test_an_expired_page_cannot_be_paid_and_its_payment_is_cancelled(
    client: stripe.StripeClient, customer: str, control: StripeSandboxControl, told: Told
) -> None:
    made = client.v1.checkout.sessions.create(page(customer))
    control.pay_session(made.id, "pm_card_authenticationRequired", authenticates=None)
    after = client.v1.checkout.sessions.expire(made.id)
    assert (after.status, after.payment_status, after.url) == ("expired", "unpaid", None)
    assert told()[-2:] == ["payment_intent.canceled", "checkout.session.expired"]
    assert looked_up(client, made.id)["payment_intent"]["status"] == "canceled"
    with pytest.raises(LocalServerError, match="expired"):
        control.pay_session(made.id)


@pytest.mark.parametrize("ending", ["complete", "expired"])
def test_only_an_open_page_can_be_expired(
    client: stripe.StripeClient, customer: str, control: StripeSandboxControl, ending: str
) -> None:
    made = client.v1.checkout.sessions.create(page(customer))
    if ending == "complete":
        control.pay_session(made.id)
    else:
        client.v1.checkout.sessions.expire(made.id)
    with pytest.raises(stripe.InvalidRequestError, match=f"has a status of `{ending}`") as refusal:
        client.v1.checkout.sessions.expire(made.id)
    assert refusal.value.http_status == 400


def test_a_page_expires_when_its_time_has_come(
    client: stripe.StripeClient, customer: str, control: StripeSandboxControl, told: Told
) -> None:
    paid = client.v1.checkout.sessions.create(page(customer))
    kept = client.v1.checkout.sessions.create(setup_page(customer))
    control.pay_session(paid.id)
    assert control.expire_session(kept.id)["status"] == "expired"
    assert told()[-2:] == ["setup_intent.canceled", "checkout.session.expired"]
    with pytest.raises(LocalServerError, match="complete"):
        control.expire_session(paid.id)


def test_the_payment_of_a_page_is_not_confirmed_or_cancelled_without_it(
    client: stripe.StripeClient, customer: str, control: StripeSandboxControl
) -> None:
    made = client.v1.checkout.sessions.create(page(customer))
    control.pay_session(made.id, "pm_card_chargeDeclined")
    intent = looked_up(client, made.id)["payment_intent"]["id"]
    with pytest.raises(stripe.InvalidRequestError, match="Expire the Checkout Session"):
        client.v1.payment_intents.cancel(intent)
    with pytest.raises(stripe.InvalidRequestError, match="created by a Checkout Session"):
        client.v1.payment_intents.confirm(intent, {"payment_method": "pm_card_visa"})


def _line(**changes: object) -> list[dict[str, object]]:
    price = {"currency": "usd", "product_data": {"name": "INV-1"}, "unit_amount": 1200, **changes}
    return [{"price_data": price, "quantity": 1}]


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"mode": None}, "mode"),
        ({"mode": "subscription"}, "mode"),
        ({"success_url": None}, "success_url"),
        ({"customer": "cus_nobody"}, "customer"),
        ({"line_items": None}, "line_items"),
        ({"line_items": _line() * 2}, "line_items"),
        ({"line_items": [{"price_data": _line()[0]["price_data"], "quantity": 2}]}, None),
        ({"line_items": [{"quantity": 1}]}, "line_items[0][price_data]"),
        ({"line_items": _line(unit_amount=10)}, "amount"),
        ({"line_items": _line(currency="xxx")}, "currency"),
        ({"line_items": _line(product_data={})}, None),
        ({"setup_intent_data": {"metadata": {"a": "b"}}}, "setup_intent_data"),
        ({"allowed_payment_method_types": ["card", "cash"]}, "allowed_payment_method_types[1]"),
    ],
)
def test_a_page_that_stripe_would_not_make_is_refused(
    client: stripe.StripeClient, customer: str, changes: dict[str, object], param: str | None
) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.checkout.sessions.create(page(customer, **changes))
    assert param in {None, problem(refusal.value).param}
    assert client.v1.checkout.sessions.list().data == []


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"currency": None}, "currency"),
        ({"line_items": _line()}, "line_items"),
        ({"payment_intent_data": {"description": "x"}}, "payment_intent_data"),
    ],
)
def test_a_page_for_a_card_is_asked_for_no_payment(
    client: stripe.StripeClient, customer: str, changes: dict[str, object], param: str
) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.checkout.sessions.create(setup_page(customer, **changes))
    assert problem(refusal.value).param == param


@pytest.mark.parametrize(("seconds", "words"), [(29 * 60, "30 minutes"), (25 * 3600, "24 hours")])
def test_a_page_lives_for_30_minutes_to_24_hours(
    client: stripe.StripeClient, customer: str, seconds: int, words: str
) -> None:
    with pytest.raises(stripe.InvalidRequestError, match=words) as refusal:
        client.v1.checkout.sessions.create(page(customer, expires_at=int(time.time()) + seconds))
    assert problem(refusal.value).param == "expires_at"
    at = int(time.time()) + 31 * 60
    assert client.v1.checkout.sessions.create(page(customer, expires_at=at)).expires_at == at


def test_a_page_takes_the_methods_that_it_shows(
    client: stripe.StripeClient, customer: str, control: StripeSandboxControl
) -> None:
    made = client.v1.checkout.sessions.create(page(customer, allowed_payment_method_types=["card"]))
    with pytest.raises(LocalServerError, match="us_bank_account is not one"):
        control.pay_session(made.id, "pm_usBankAccount_success")
    with pytest.raises(LocalServerError, match="mode is payment"):
        control.save_card(made.id)
    assert looked_up(client, made.id)["payment_intent"] is None


def test_pages_are_listed_by_customer_payment_and_time(
    client: stripe.StripeClient, customer: str, control: StripeSandboxControl
) -> None:
    other = client.v1.customers.create().id
    first = client.v1.checkout.sessions.create(page(customer))
    second = client.v1.checkout.sessions.create(page(other))
    intent = control.pay_session(first.id)["payment_intent"]

    def listed(**params: Any) -> list[str]:
        return [found.id for found in client.v1.checkout.sessions.list(cast("Any", params))]

    assert listed() == [second.id, first.id]
    assert listed(customer=other) == [second.id]
    assert listed(payment_intent=intent) == [first.id]
    assert listed(created={"gt": second.created}) == []
    assert set(listed(created={"gte": first.created})) == {first.id, second.id}


def test_a_page_is_its_account_s_alone(
    client: stripe.StripeClient, customer: str, control: StripeSandboxControl
) -> None:
    made = client.v1.checkout.sessions.create(page(customer))
    other = client_of(control.url, "acct_other")
    for call in (other.v1.checkout.sessions.retrieve, other.v1.checkout.sessions.expire):
        with pytest.raises(stripe.InvalidRequestError, match="No such checkout") as refusal:
            call(made.id)
        assert refusal.value.http_status == 404


def test_a_page_is_made_once_under_a_key_also_when_its_answer_is_lost(
    patient: stripe.StripeClient, customer: str, control: StripeSandboxControl
) -> None:
    control.add_fault("lost_answer", path="/v1/checkout/sessions")
    made = patient.v1.checkout.sessions.create(page(customer), {"idempotency_key": "attempt-7"})
    again = patient.v1.checkout.sessions.create(page(customer), {"idempotency_key": "attempt-7"})
    assert again.to_dict() == made.to_dict()
    assert len(patient.v1.checkout.sessions.list().data) == 1


def test_a_customer_who_is_gone_cannot_pay(
    client: stripe.StripeClient, customer: str, control: StripeSandboxControl
) -> None:
    made = client.v1.checkout.sessions.create(page(customer))
    control.delete_customer(customer)
    with pytest.raises(LocalServerError, match="No such customer"):
        control.pay_session(made.id, card(client, client.v1.customers.create().id))
