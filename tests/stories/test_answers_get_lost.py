"""Charges whose answer is lost or says nothing: asked after, and never made twice."""

from datetime import timedelta

from models import Client
from tests.stories.conftest import JUNE, Till
from tests.worlds import audited

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
EVERY_TRY = 3
"""One call is three tries under one key."""


def test_an_answer_lost_once_is_asked_for_again_at_once(till: Till) -> None:
    ada = till.client("Ada Imports")
    till.stripe.add_fault("lost_answer")

    till.bill_may()

    assert till.invoice(ada).status == "paid"
    assert till.requests(ada) == [None, 200]
    _is_charged_once(till, ada)


def test_an_answer_lost_after_success_is_asked_for_a_minute_later(till: Till) -> None:
    ada = till.client("Ada Imports")
    till.stripe.add_fault("lost_answer", times=EVERY_TRY)

    till.bill_may()
    assert [attempt.state for attempt in till.attempts(ada)] == ["unknown"]
    assert till.charged(ada) == [1_000]
    till.sweep(JUNE + MINUTE - timedelta(seconds=1))
    assert till.requests(ada) == [None] * EVERY_TRY

    till.sweep(JUNE + MINUTE)
    till.sweep(JUNE + DAY)

    assert till.invoice(ada).paid_at == JUNE + MINUTE
    assert till.requests(ada) == [*[None] * EVERY_TRY, 200]
    _is_charged_once(till, ada)


def test_a_webhook_that_is_faster_than_the_question_settles_it(till: Till) -> None:
    ada = till.client("Ada Imports")
    till.stripe.add_fault("lost_answer", times=EVERY_TRY)
    till.bill_may()

    assert till.hear("payment_intent.succeeded") == 1
    till.work(JUNE)
    assert till.invoice(ada).paid_at == JUNE
    till.sweep(JUNE + MINUTE)

    assert till.requests(ada) == [None] * EVERY_TRY
    _is_charged_once(till, ada)


def test_a_failure_that_stripe_replays_is_looked_behind(till: Till) -> None:
    """The key is answered 500 for good, though the card was charged."""
    ada = till.client("Ada Imports")
    till.stripe.add_fault("server_error_after")

    till.bill_may()
    assert [attempt.state for attempt in till.attempts(ada)] == ["unknown"]
    till.sweep(JUNE + MINUTE)

    assert till.invoice(ada).paid_at == JUNE + MINUTE
    assert set(till.requests(ada)) == {500}
    _is_charged_once(till, ada)


def test_a_charge_that_never_arrived_is_made_anew_after_a_day_of_asking(till: Till) -> None:
    ada = till.client("Ada Imports")
    till.stripe.add_fault("server_error", is_saved=True)

    till.bill_may()
    for later in (MINUTE, 5 * MINUTE, timedelta(hours=1), DAY - MINUTE):
        till.sweep(JUNE + later)
        assert [attempt.state for attempt in till.attempts(ada)] == ["unknown"]
    assert till.charged(ada) == []
    till.sweep(JUNE + DAY + timedelta(hours=1))
    till.sweep(JUNE + DAY + timedelta(hours=1) + MINUTE)

    assert [attempt.state for attempt in till.attempts(ada)] == ["canceled", "succeeded"]
    assert till.invoice(ada).status == "paid"
    _is_charged_once(till, ada)


def _is_charged_once(till: Till, client: Client) -> None:
    assert [charge["amount"] for charge in till.stripe.charges()] == [1_000]
    assert [payment.amount for payment in till.payments(client)] == [1_000]
    assert audited(till.engine, till.account) == []
