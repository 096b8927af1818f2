from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import Engine, insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from gateways.cards import CardCharge
from gateways.sandbox.stripe.server import StripeSandbox
from models import Account, Client, PaymentAttempt
from tasks.attempts import order_of
from tasks.calls import Gateways
from tests.cards import (
    QUEUES,
    SOFT,
    a_pending_attempt,
    assert_books_agree,
    attempt_states,
    attempts_of,
    give_card,
    restart,
    sweep,
)
from tests.worlds import NOW, work


@pytest.fixture
def pending(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> UUID:
    return a_pending_attempt(engine, account, vendors, stripe_sandbox).id


def test_there_are_never_two_open_attempts_at_one_invoice(engine: Engine, pending: UUID) -> None:
    [attempt] = attempts_of(engine)
    columns = {
        column.key: getattr(attempt, column.key)
        for column in PaymentAttempt.__table__.columns
        if column.key != "id"
    }
    again = {**columns, "ordinal": 2, "idempotency_key": "another"}
    with pytest.raises(IntegrityError, match="still_open"), engine.begin() as connection:
        connection.execute(insert(PaymentAttempt).values(again))
    assert pending == attempt.id


def test_an_attempt_is_of_its_own_card_and_not_sent_again_once_the_client_has_another(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    pending: UUID,
) -> None:
    def order() -> CardCharge:
        with Session(engine) as session:
            return order_of(session, session.get_one(PaymentAttempt, pending))

    first = order()
    [attempt] = attempts_of(engine)
    with Session(engine) as session:
        client = session.get_one(Client, attempt.client_id)
    give_card(engine, stripe_sandbox, client, SOFT)
    assert order() == first

    restart(engine)
    work(engine, now=NOW + timedelta(minutes=1), gateways=vendors, queues=QUEUES)
    # It may be on its way, so the other card waits too.
    assert attempt_states(engine) == ["pending"]

    for days in range(1, 4):
        sweep(engine, vendors, now=NOW + timedelta(days=days))
    assert attempt_states(engine) == ["canceled", "declined"]
    assert_books_agree(engine, account, stripe_sandbox, charges=[])
