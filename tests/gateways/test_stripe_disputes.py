from datetime import UTC, datetime
from typing import Any

import pytest

from gateways.cards import CardsUnavailable
from gateways.disputes import DisputeReport, DisputeStatus
from gateways.merchants import DEPLOYMENT
from gateways.payment_events import RefundedCharge
from gateways.sandbox.stripe.cardholders import make_cardholder
from gateways.sandbox.stripe.server import StripeSandbox
from gateways.stripe_api import StripeApi
from gateways.stripe_disputes import dispute_report, refunded_charge
from gateways.stripe_events import event_from
from gateways.stripe_records import StripeRecords

DISPUTE: dict[str, Any] = {
    "id": "du_1",
    "object": "dispute",
    "amount": 1000,
    "currency": "usd",
    "payment_intent": "pi_1",
    "status": "needs_response",
    "reason": "fraudulent",
    "evidence_details": {"due_by": 1_781_000_000},
    "created": 1_780_000_000,
}
CHARGE: dict[str, Any] = {
    "id": "ch_1",
    "object": "charge",
    "currency": "usd",
    "payment_intent": "pi_1",
    "amount_refunded": 400,
}


def told(kind: str, about: dict[str, Any]) -> dict[str, Any]:
    return {"id": "evt_1", "type": kind, "created": 1_780_000_001, "data": {"object": about}}


def test_a_dispute_is_read_from_its_events() -> None:
    event = event_from(told("charge.dispute.created", DISPUTE))

    assert event.dispute == DisputeReport(
        dispute="du_1",
        payment_intent="pi_1",
        amount=1000,
        currency="usd",
        status=DisputeStatus.NEEDS_RESPONSE,
        reason="fraudulent",
        evidence_due_at=datetime.fromtimestamp(1_781_000_000, UTC),
        created_at=datetime.fromtimestamp(1_780_000_000, UTC),
    )
    assert (event.report, event.refund, event.refunded) == (None, None, None)


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        ({"payment_intent": {"id": "pi_2", "object": "payment_intent"}}, ("pi_2", 1000)),
        ({"payment_intent": None}, (None, 1000)),
        ({"currency": "jpy"}, ("pi_1", 1000)),
        ({"currency": "isk", "amount": 500}, ("pi_1", 5)),
        ({"evidence_details": None}, ("pi_1", 1000)),
    ],
)
def test_a_dispute_is_read_in_our_units(changes: dict[str, Any], seen: object) -> None:
    report = dispute_report({**DISPUTE, **changes})

    assert report is not None
    assert (report.payment_intent, report.amount) == seen


@pytest.mark.parametrize(
    "changes", [{"status": "newly_invented"}, {"currency": "isk", "amount": 550}, {"amount": 0}]
)
def test_what_we_have_no_words_for_is_no_report(changes: dict[str, Any]) -> None:
    assert dispute_report({**DISPUTE, **changes}) is None


def test_what_is_no_dispute_is_refused() -> None:
    with pytest.raises(ValueError, match="no dispute"):
        dispute_report({**DISPUTE, "object": "charge"})
    with pytest.raises(ValueError, match="no charge"):
        refunded_charge(DISPUTE)


def test_what_was_refunded_of_a_charge_is_read() -> None:
    event = event_from(told("charge.refunded", CHARGE))

    assert event.refunded == RefundedCharge(payment_intent="pi_1", amount=400)
    assert refunded_charge({**CHARGE, "payment_intent": None}) is None
    assert refunded_charge({**CHARGE, "currency": "isk", "amount_refunded": 150}) is None


def test_a_dispute_is_looked_up(stripe_sandbox: StripeSandbox) -> None:
    holder = make_cardholder(stripe_sandbox.url, payment_method="pm_card_createDispute")
    with StripeApi("sk_test_tests", base_url=stripe_sandbox.url) as api:
        api.v1.payment_intents.create(
            {
                "amount": 1200,
                "currency": "usd",
                "customer": holder.customer,
                "payment_method": holder.payment_method,
                "confirm": True,
                "off_session": True,
            }
        )
        [made] = stripe_sandbox.control.objects("dispute")

        records = StripeRecords(api)
        assert records.dispute(made["id"], DEPLOYMENT) == dispute_report(made)
        assert records.dispute("du_nothing", DEPLOYMENT) is None


def test_a_stripe_that_is_away_can_be_asked_again(stripe_sandbox: StripeSandbox) -> None:
    stripe_sandbox.control.add_fault("server_error", method="GET", times=None)
    with (
        StripeApi("sk_test_tests", base_url=stripe_sandbox.url) as api,
        pytest.raises(CardsUnavailable),
    ):
        StripeRecords(api).dispute("du_1", DEPLOYMENT)
