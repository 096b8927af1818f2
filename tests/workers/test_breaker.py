"""Stripe's outages, noticed and waited out."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from gateways.cards import CardsUnavailable, ChargeOutcomeUnknown
from gateways.merchants import DEPLOYMENT, Merchant
from gateways.sandbox.stripe.server import StripeSandbox
from gateways.stripe_api import StripeApi
from gateways.stripe_cards import StripeCards
from models import Queue
from models.queue import PAUSED_FOR_OUTAGE
from tasks.operating import pause_queue, resume_queue
from tasks.outages import pause_for_outage
from tests.conftest import STRIPE_KEY
from workers.breaker import Answers, Breaker

FAILURES = 10


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def api(stripe_sandbox: StripeSandbox, answers: Answers) -> Iterator[StripeApi]:
    with StripeApi(STRIPE_KEY, base_url=stripe_sandbox.url, heard=answers.heard) as api:
        yield api


def paused_by(engine: Engine) -> str | None:
    with Session(engine) as session:
        return session.get_one(Queue, "payments").paused_by


def fail(answers: Answers, times: int = FAILURES) -> None:
    for _ in range(times):
        answers.heard(False)  # noqa: FBT003 - it is what was heard


def test_an_outage_pauses_payments_and_a_probe_that_is_answered_resumes_them(
    engine: Engine, answers: Answers, clock: Clock
) -> None:
    probes: list[bool] = []
    is_back = [False, False, True]

    def probe() -> bool:
        probes.append(is_back[len(probes)])
        return probes[-1]

    breaker = Breaker(engine, answers, probe, clock=clock)
    fail(answers, FAILURES - 1)
    breaker.look()
    assert paused_by(engine) is None

    fail(answers, 1)
    breaker.look()
    assert paused_by(engine) == PAUSED_FOR_OUTAGE == "breaker: Stripe is not reachable"

    waited = []
    while paused_by(engine):
        before, known = clock.now, len(probes)
        while len(probes) == known:
            clock.now += 1
            breaker.look()
        waited.append(clock.now - before)
    assert probes == is_back
    assert waited == [2, 4, 8]


def test_an_answer_between_failures_is_no_outage(
    engine: Engine, answers: Answers, clock: Clock
) -> None:
    breaker = Breaker(engine, answers, lambda: True, clock=clock)
    for _ in range(3):
        fail(answers, FAILURES - 1)
        answers.heard(True)  # noqa: FBT003 - it is what was heard

    breaker.look()

    assert paused_by(engine) is None


def test_a_persons_pause_is_never_lifted(engine: Engine, answers: Answers, clock: Clock) -> None:
    breaker = Breaker(engine, answers, lambda: True, clock=clock)
    with Session(engine) as session, session.begin():
        pause_queue(session, "payments", "api:ada")
    fail(answers)
    for _ in range(100):
        clock.now += 1
        breaker.look()
    assert paused_by(engine) == "api:ada"

    with Session(engine) as session, session.begin():
        resume_queue(session, "payments")
        pause_for_outage(session)
        pause_queue(session, "payments", "api:bob")
    for _ in range(100):
        clock.now += 1
        breaker.look()
    assert paused_by(engine) == "api:bob"


def test_another_process_goes_on_probing_for_one_that_died(engine: Engine, clock: Clock) -> None:
    with Session(engine) as session, session.begin():
        pause_for_outage(session)
    another = Breaker(engine, Answers(), lambda: True, clock=clock)

    another.look()
    clock.now += 2
    another.look()

    assert paused_by(engine) is None


def test_what_fails_again_soon_is_probed_more_and_more_rarely(
    engine: Engine, answers: Answers, clock: Clock
) -> None:
    breaker = Breaker(engine, answers, lambda: True, clock=clock)
    waited = []
    for _ in range(4):
        fail(answers)
        before = clock.now
        breaker.look()
        while paused_by(engine):
            clock.now += 1
            breaker.look()
        waited.append(clock.now - before)

    assert waited == [2, 4, 8, 16]


def test_what_is_heard_of_calls_is_whether_stripe_answered(
    stripe_sandbox: StripeSandbox, api: StripeApi, answers: Answers
) -> None:
    cards = StripeCards(api)
    for kind in ("server_error", "reset"):
        stripe_sandbox.control.add_fault(kind, times=None, method=None)
        for _ in range(FAILURES):
            with pytest.raises((CardsUnavailable, ChargeOutcomeUnknown)):
                cards.retrieve("pi_1", DEPLOYMENT)
        assert answers.say_down
        assert not api.is_reachable()
        stripe_sandbox.control.clear_faults()
        assert api.is_reachable()
        assert not answers.say_down


def test_neither_too_much_at_once_nor_one_merchants_key_is_an_outage(
    stripe_sandbox: StripeSandbox, api: StripeApi, answers: Answers
) -> None:
    cards = StripeCards(api)
    stripe_sandbox.control.add_fault("rate_limit", times=None, method=None)
    for _ in range(FAILURES):
        with pytest.raises(CardsUnavailable):
            cards.retrieve("pi_1", DEPLOYMENT)
    stripe_sandbox.control.clear_faults()
    for _ in range(FAILURES):
        with pytest.raises(CardsUnavailable):
            cards.retrieve("pi_1", Merchant(stripe_account="not_one"))

    assert not answers.say_down
