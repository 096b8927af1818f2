"""Debts that are not paid at the first try, told by the calendar."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy.orm import Session

from models import Account
from tests.stories.conftest import Till
from tests.worlds import audited, tick

SOFT = "pm_card_chargeDeclinedInsufficientFunds"
STOLEN = "pm_card_chargeDeclinedStolenCard"
BANK = "pm_usBankAccount_processing"
CHICAGO = ZoneInfo("America/Chicago")
FIRST_OF_JUNE = datetime(2026, 6, 1, tzinfo=CHICAGO)


def june(day: int, hour: int = 10) -> datetime:
    """A time in the client's June."""
    return datetime(2026, 6, day, hour, tzinfo=CHICAGO)


def sweep_daily(till: Till, until: datetime) -> None:
    """What the scheduler does about cards, at ten of every day until then."""
    at = june(1)
    while at <= until:
        till.sweep(at)
        at += timedelta(days=1)


def test_a_card_that_fails_three_times_pays_at_the_fourth_and_the_mails_say_when(
    till: Till,
) -> None:
    ada = till.client("Ada", SOFT, email="ada@example.com", time_zone=CHICAGO.key)
    tick(till.engine, now=FIRST_OF_JUNE)
    till.work(FIRST_OF_JUNE)
    sweep_daily(till, june(9))
    tried = till.attempts(ada)
    assert [attempt.state for attempt in tried] == ["declined"] * 3
    # Three days after the first, five after that; the next one seven later.
    assert [attempt.created_at for attempt in tried] == [FIRST_OF_JUNE, june(4), june(9)]
    assert till.invoice(ada).next_attempt_at == june(16)

    till.top_up(ada)
    sweep_daily(till, june(16))

    assert [attempt.state for attempt in till.attempts(ada)] == ["declined"] * 3 + ["succeeded"]
    assert till.invoice(ada).paid_at == june(16)
    assert till.charged(ada) == [1_000]
    assert [mail.kind for mail in till.mails(ada)] == [
        "invoice_ready",
        *["payment_failed"] * 3,
        "receipt",
    ]
    assert audited(till.engine, till.account) == []


@pytest.mark.parametrize("final", ["open", "uncollectible"])
def test_after_the_last_try_the_invoice_is_what_the_account_chose(till: Till, final: str) -> None:
    with Session(till.engine) as session, session.begin():
        session.get_one(Account, till.account.id).dunning_final = final
    ada = till.client("Ada", SOFT, time_zone=CHICAGO.key)
    tick(till.engine, now=FIRST_OF_JUNE)
    till.work(FIRST_OF_JUNE)

    sweep_daily(till, june(30))

    tried = [attempt.created_at for attempt in till.attempts(ada)]
    assert tried == [FIRST_OF_JUNE, june(4), june(9), june(16), june(23)]
    invoice = till.invoice(ada)
    assert (invoice.status, invoice.next_attempt_at) == (final, None)
    assert till.charged(ada) == []
    assert audited(till.engine, till.account) == []


def test_a_stolen_card_is_tried_once_and_a_new_one_pays_at_once(till: Till) -> None:
    ada = till.client("Ada", STOLEN, time_zone=CHICAGO.key)
    tick(till.engine, now=FIRST_OF_JUNE)
    till.work(FIRST_OF_JUNE)
    sweep_daily(till, june(20))
    assert [attempt.decline_code for attempt in till.attempts(ada)] == ["stolen_card"]
    assert till.invoice(ada).next_attempt_at is None

    till.put_on_card(ada, "pm_card_visa", now=june(20, 15))
    till.work(june(20, 15))

    assert [attempt.state for attempt in till.attempts(ada)] == ["declined", "succeeded"]
    assert till.invoice(ada).paid_at == june(20, 15)
    assert till.charged(ada) == [1_000]


def test_a_bank_debit_that_fails_on_the_fourth_day_is_tried_again_by_the_schedule(
    till: Till,
) -> None:
    ada = till.client("Ada", BANK, time_zone=CHICAGO.key)
    tick(till.engine, now=FIRST_OF_JUNE)
    till.work(FIRST_OF_JUNE)
    sweep_daily(till, june(4))
    [debit] = till.attempts(ada)
    assert (debit.state, till.invoice(ada).status) == ("processing", "open")

    returned_at = june(5, 3)
    till.stripe.settle(str(debit.payment_intent), "insufficient_funds")
    assert till.hear("payment_intent.payment_failed") == 1
    till.work(returned_at)
    [debit] = till.attempts(ada)
    assert (debit.state, debit.settled_at) == ("declined", returned_at)
    assert till.invoice(ada).next_attempt_at == june(8)
    till.top_up(ada)
    sweep_daily(till, june(8))

    assert [attempt.state for attempt in till.attempts(ada)] == ["declined", "succeeded"]
    assert till.invoice(ada).status == "paid"
    assert till.charged(ada) == [1_000]
    assert audited(till.engine, till.account) == []
