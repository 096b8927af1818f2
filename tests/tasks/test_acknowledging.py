"""Acknowledging differences: told no more, as long as their facts stay as they were."""

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from billing.errors import InvalidInput, NotFound, RuleViolation
from billing.reconciliation import Difference
from gateways.payment_records import Window
from gateways.sandbox.stripe.server import StripeSandbox
from models import Account, DifferenceAcknowledgement, Payment, ReconciliationDifference
from models.reconciliation import standing_differences
from tasks.accounts import create_account
from tasks.acknowledging import (
    acknowledge_difference,
    acknowledgements_about,
    acknowledgements_of,
    withdraw_acknowledgement,
)
from tasks.calls import Gateways
from tasks.comparing import Comparison
from tasks.kinds import Run
from tasks.reconciling import reconcile_account, request_reconciliation
from tests.cards import jobs_of
from tests.refunds import a_card_payment
from tests.tasks.test_audits import tamper
from tests.tasks.test_crediting_races import committed, meet, one_before_the_other
from tests.tasks.test_reconciliation_course import an_unheard_success
from tests.tasks.test_reconciling import DAY, daily, found, reconcile, rewrite
from tests.worlds import NOW, audited

RULE = "our_record_agrees_with_stripe_s"
REASON = "Refunded by hand, and credited by us"
WINDOW = Window(NOW - DAY, NOW)
REFUND = {"ours": None, "our_amount": None, "theirs": "succeeded", "their_amount": 250}


def find(
    account: Account,
    session: Session,
    difference: Difference | None = Difference.REFUND_MADE_ELSEWHERE,
    *,
    stripe_id: str = "re_1",
    repaired: bool = False,
    **other: Any,
) -> None:
    """What a reconciliation does when it looks at a thing at Stripe: by default a refund of 2.50."""
    asked = request_reconciliation(session, account.id, WINDOW, requested_by="test")
    run = Run(job_id=uuid4(), account_id=account.id, attempt=1, now=NOW, requested_by="test")
    comparison = Comparison(run=run, id=asked.id, account_id=account.id, window=WINDOW)
    acknowledged = comparison.look_again(session, stripe_id)
    if difference is not None:
        comparison.write_down(
            session,
            difference,
            repaired=repaired,
            acknowledged=acknowledged,
            stripe_id=stripe_id,
            **{"currency": "usd", "subject_id": None, **REFUND, **other},
        )


def found_by_a_run(engine: Engine, account: Account, *named: Any, **other: Any) -> None:
    committed(engine, lambda session: find(account, session, *named, **other))


def standing(engine: Engine, account: Account) -> Sequence[ReconciliationDifference]:
    """Oldest first."""
    with Session(engine) as session:
        rows = standing_differences(account.id).order_by(ReconciliationDifference.id)
        return session.scalars(rows).all()


def acknowledge(account: Account, difference_id: UUID, session: Session) -> UUID:
    return acknowledge_difference(
        session, account.id, difference_id, REASON, requested_by="api:ada"
    ).id


def withdraw(account: Account, difference_id: UUID, session: Session) -> UUID:
    return withdraw_acknowledgement(
        session, account.id, difference_id, requested_by="api:bob", now=NOW
    ).id


def acknowledged(engine: Engine, account: Account) -> list[bool]:
    """Of every difference that stands, whether it is acknowledged."""
    rows = standing(engine, account)
    with Session(engine) as session:
        given = acknowledgements_of(session, rows)
    return [row.id in given for row in rows]


def trail(
    engine: Engine, account: Account, stripe_id: str = "re_1"
) -> list[tuple[str, str, str | None, datetime | None]]:
    with Session(engine) as session:
        return [
            (one.acknowledged_by, one.reason, one.withdrawn_by, one.withdrawn_at)
            for one in acknowledgements_about(session, account.id, stripe_id)
        ]


@pytest.fixture
def difference(engine: Engine, account: Account) -> UUID:
    """A refund of 2.50 that somebody made at Stripe."""
    found_by_a_run(engine, account)
    [one] = standing(engine, account)
    return one.id


def told(engine: Engine, account: Account) -> list[str]:
    """What the audit says of Stripe's record; it names no other rule."""
    named = audited(engine, account)
    assert {one.rule for one in named} <= {RULE}
    return [one.found for one in named]


def test_an_acknowledged_difference_stands_and_is_not_told_by_the_audit(
    engine: Engine, account: Account, difference: UUID
) -> None:
    assert len(told(engine, account)) == 1

    committed(engine, partial(acknowledge, account, difference))

    assert told(engine, account) == []
    assert acknowledged(engine, account) == [True]
    assert trail(engine, account) == [("api:ada", REASON, None, None)]


def test_it_stays_acknowledged_when_the_same_is_found_again_under_the_newest_of_its_ids(
    engine: Engine, account: Account, difference: UUID
) -> None:
    committed(engine, partial(acknowledge, account, difference))
    for _ in range(2):
        found_by_a_run(engine, account)

    [one] = standing(engine, account)
    assert one.id != difference
    assert acknowledged(engine, account) == [True]
    assert told(engine, account) == []
    # Whoever still has the first one's id means this one.
    assert committed(engine, partial(withdraw, account, difference)) == one.id
    assert acknowledged(engine, account) == [False]
    assert committed(engine, partial(acknowledge, account, difference)) == one.id
    assert acknowledged(engine, account) == [True]


@pytest.mark.parametrize(
    "other",
    [
        {"their_amount": 300},
        {"theirs": "processing"},
        {"our_amount": 250, "ours": "failed"},
        {"currency": "eur"},
        {"subject_id": UUID(int=1)},
        {"difference": Difference.REFUND_AMOUNT},
    ],
)
def test_whatever_else_is_found_is_told_again_and_so_is_the_first_when_it_comes_back(
    engine: Engine, account: Account, difference: UUID, other: dict[str, Any]
) -> None:
    committed(engine, partial(acknowledge, account, difference))

    found_by_a_run(engine, account, **other)
    assert (len(told(engine, account)), acknowledged(engine, account)) == (1, [False])
    with pytest.raises(RuleViolation) as refused:
        committed(engine, partial(acknowledge, account, difference))
    assert refused.value.code == "difference_not_standing"

    found_by_a_run(engine, account)
    assert (len(told(engine, account)), acknowledged(engine, account)) == (1, [False])


def test_one_that_agreed_meanwhile_is_told_when_it_differs_again(
    engine: Engine, account: Account, difference: UUID
) -> None:
    committed(engine, partial(acknowledge, account, difference))
    found_by_a_run(engine, account, None)
    assert (told(engine, account), standing(engine, account)) == ([], [])
    for act in (acknowledge, withdraw):
        with pytest.raises(RuleViolation) as refused:
            committed(engine, partial(act, account, difference))
        assert refused.value.code == "difference_not_standing"

    found_by_a_run(engine, account)

    assert (len(told(engine, account)), acknowledged(engine, account)) == (1, [False])


def test_what_is_repaired_bears_no_acknowledgement(
    engine: Engine, account: Account, difference: UUID
) -> None:
    committed(engine, partial(acknowledge, account, difference))

    found_by_a_run(engine, account, repaired=True)

    assert standing(engine, account) == []
    with Session(engine) as session:
        newest = session.scalars(
            select(ReconciliationDifference).order_by(ReconciliationDifference.id.desc()).limit(1)
        ).one()
    assert (newest.repaired, newest.acknowledgement_id) == (True, None)


def test_a_withdrawn_one_is_told_again_and_who_knew_what_stays_on_record(
    engine: Engine, account: Account, difference: UUID
) -> None:
    committed(engine, partial(acknowledge, account, difference))

    committed(engine, partial(withdraw, account, difference))

    assert len(told(engine, account)) == 1
    assert trail(engine, account) == [("api:ada", REASON, "api:bob", NOW)]
    found_by_a_run(engine, account)
    assert acknowledged(engine, account) == [False]
    committed(engine, partial(acknowledge, account, difference))
    assert trail(engine, account) == [
        ("api:ada", REASON, "api:bob", NOW),
        ("api:ada", REASON, None, None),
    ]


def test_what_nobody_acknowledged_cannot_be_withdrawn(
    engine: Engine, account: Account, difference: UUID
) -> None:
    with pytest.raises(RuleViolation) as refused:
        committed(engine, partial(withdraw, account, difference))
    assert refused.value.code == "difference_not_acknowledged"


@pytest.mark.parametrize("reason", ["", "  ", "x" * 1_001, "a\x00b"])
def test_a_reason_is_wanted(
    engine: Engine, account: Account, difference: UUID, reason: str
) -> None:
    with pytest.raises(InvalidInput, match="reason"), Session(engine) as session:
        acknowledge_difference(session, account.id, difference, reason, requested_by="cli")


def test_another_account_s_difference_is_not_found_and_the_same_of_its_own_is_not_touched(
    engine: Engine, account: Account, difference: UUID
) -> None:
    with Session(engine, expire_on_commit=False) as session, session.begin():
        other = create_account(session, "Other")
    found_by_a_run(engine, other)
    for act in (acknowledge, withdraw):
        with pytest.raises(NotFound, match="no difference"):
            committed(engine, partial(act, other, difference))

    committed(engine, partial(acknowledge, account, difference))

    assert acknowledged(engine, other) == [False]
    assert len(told(engine, other)) == 1
    assert trail(engine, other) == []


def test_of_two_who_acknowledge_at_once_one_is_told_that_it_is_done(
    engine: Engine, account: Account
) -> None:
    for round_ in range(6):
        stripe_id = f"re_{round_}"
        found_by_a_run(engine, account, stripe_id=stripe_id)
        named = standing(engine, account)[-1].id
        act = partial(acknowledge, account, named)

        outcomes = meet(engine, round_, act, act)

        [refused] = [one for one in outcomes if isinstance(one, Exception)]
        assert isinstance(refused, RuleViolation), refused
        assert refused.code == "difference_already_acknowledged"
        assert len(trail(engine, account, stripe_id)) == 1
    assert acknowledged(engine, account) == [True] * 6


def test_of_two_who_withdraw_at_once_one_is_told_that_it_is_done(
    engine: Engine, account: Account
) -> None:
    for round_ in range(6):
        stripe_id = f"re_{round_}"
        found_by_a_run(engine, account, stripe_id=stripe_id)
        named = standing(engine, account)[-1].id
        committed(engine, partial(acknowledge, account, named))
        act = partial(withdraw, account, named)

        outcomes = meet(engine, round_, act, act)

        [refused] = [one for one in outcomes if isinstance(one, Exception)]
        assert isinstance(refused, RuleViolation), refused
        assert refused.code == "difference_not_acknowledged"
        assert len(trail(engine, account, stripe_id)) == 1
    assert acknowledged(engine, account) == [False] * 6


def test_what_is_acknowledged_while_the_same_is_found_again_is_the_new_one(
    engine: Engine, account: Account
) -> None:
    for round_ in range(6):
        stripe_id = f"re_{round_}"
        found_by_a_run(engine, account, stripe_id=stripe_id)
        named = standing(engine, account)[-1].id

        meet(
            engine,
            round_,
            partial(acknowledge, account, named),
            partial(find, account, stripe_id=stripe_id),
        )

        assert standing(engine, account)[-1].id != named
        assert acknowledged(engine, account) == [True] * (round_ + 1)
    assert told(engine, account) == []


def test_what_is_acknowledged_while_something_else_is_found_is_never_that(
    engine: Engine, account: Account
) -> None:
    for round_ in range(6):
        stripe_id = f"re_{round_}"
        found_by_a_run(engine, account, stripe_id=stripe_id)
        named = standing(engine, account)[-1].id

        given, _ = meet(
            engine,
            round_,
            partial(acknowledge, account, named),
            partial(find, account, stripe_id=stripe_id, their_amount=300),
        )

        assert given == named or given.code == "difference_not_standing"
        assert acknowledged(engine, account) == [False] * (round_ + 1)
        assert len(told(engine, account)) == round_ + 1


def test_two_reconciliations_at_once_leave_one_of_the_same_standing(
    engine: Engine, account: Account, difference: UUID
) -> None:
    committed(engine, partial(acknowledge, account, difference))

    look = partial(find, account)
    assert one_before_the_other(engine, look, look) == [None, None]

    assert acknowledged(engine, account) == [True]


@pytest.fixture
def payment(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> Payment:
    """10.00 by card, of which Stripe says that it were 9.99."""
    paid = a_card_payment(engine, account, vendors, stripe_sandbox)
    take(stripe_sandbox, 999)
    return paid


def take(stripe: StripeSandbox, amount: int) -> None:
    """Have Stripe say that it took another amount."""
    rewrite(
        stripe,
        f"UPDATE objects SET body = json_set(body, '$.amount_received', {amount})"  # noqa: S608 - the test's own
        " WHERE kind = 'payment_intent'",
    )


def acknowledge_all(engine: Engine, account: Account) -> None:
    for one in standing(engine, account):
        committed(engine, partial(acknowledge, account, one.id))


@pytest.mark.usefixtures("payment")
def test_daily_reconciliations_list_it_and_tell_of_it_again_only_once_stripe_says_otherwise(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    reconcile(engine, vendors, account)
    acknowledge_all(engine, account)
    with capture_logs() as quiet:
        daily(engine, vendors, 1)
    job = jobs_of(engine, reconcile_account)[-1]
    assert job.result is not None
    assert job.result["differences"] == {"payment_amount": 1}
    assert (job.result["unrepaired"], job.result["acknowledged"]) == (0, 1)
    assert told(engine, account) == []

    take(stripe_sandbox, 998)
    with capture_logs() as loud:
        daily(engine, vendors, 2)

    job = jobs_of(engine, reconcile_account)[-1]
    assert job.result is not None
    assert (job.result["unrepaired"], job.result["acknowledged"]) == (1, 0)
    [line] = told(engine, account)
    assert "998" in line
    event = "our record and Stripe's differ"
    assert [line for line in quiet if line["event"] == event] == []
    assert [line["unrepaired"] for line in loud if line["event"] == event] == [1]


@pytest.mark.usefixtures("payment")
def test_one_that_is_acknowledged_and_then_agrees_is_gone(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    reconcile(engine, vendors, account)
    acknowledge_all(engine, account)
    take(stripe_sandbox, 1000)

    daily(engine, vendors, 1)

    assert (standing(engine, account), told(engine, account)) == ([], [])
    assert len(trail(engine, account, stripe_id_of_the_intent(stripe_sandbox))) == 1


def test_one_that_is_acknowledged_and_then_repaired_is_gone(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    intent = an_unheard_success(engine, account, vendors, stripe_sandbox)
    take(stripe_sandbox, 999)
    reconcile(engine, vendors, account)
    acknowledge_all(engine, account)
    assert acknowledged(engine, account) == [True]
    take(stripe_sandbox, 1000)

    daily(engine, vendors, 1)

    job = jobs_of(engine, reconcile_account)[-1]
    assert found(engine, job) == [("payment_unheard", "unknown", "succeeded", True)]
    assert (standing(engine, account), told(engine, account)) == ([], [])
    assert len(trail(engine, account, intent)) == 1


def stripe_id_of_the_intent(stripe: StripeSandbox) -> str:
    [intent] = stripe.control.payment_intents()
    return str(intent["id"])


@pytest.mark.usefixtures("payment")
def test_it_alone_has_its_account_reconciled_daily_for_as_long_as_there_may_be_news_of_its_money(
    engine: Engine, account: Account, vendors: Gateways, session: Session
) -> None:
    reconcile(engine, vendors, account)
    acknowledge_all(engine, account)
    day_30 = (NOW + 30 * DAY).isoformat()
    tamper(session, f"UPDATE difference_acknowledgements SET acknowledged_at = '{day_30}'")  # noqa: S608
    session.commit()

    ran = []
    for day in (149, 151):
        before = len(jobs_of(engine, reconcile_account))
        daily(engine, vendors, day)
        ran.append(len(jobs_of(engine, reconcile_account)) - before)
    assert ran == [1, 0]

    [one] = standing(engine, account)
    committed(engine, partial(withdraw, account, one.id))
    before = len(jobs_of(engine, reconcile_account))
    daily(engine, vendors, 152)
    assert len(jobs_of(engine, reconcile_account)) == before + 1
    with Session(engine) as again:
        assert len(again.scalars(select(DifferenceAcknowledgement)).all()) == 1
