from datetime import UTC, date, datetime
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine, event, func, select
from sqlalchemy.orm import Session

from billing.cycles import BillingCycle
from billing.errors import InvalidInput, NotFound
from models import Account, BillingPeriod
from tasks.accounts import change_account, create_account
from tasks.clients import NewClient, create_clients
from tests.worlds import NOW, a_client, periods_of


def test_an_account_is_in_utc_and_dollars_with_two_weeks_to_pay(account: Account) -> None:
    assert (account.time_zone, account.currency, account.net_days) == ("UTC", "usd", 14)
    assert account.tax_ids == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", None),
        ("time_zone", "localtime"),
        ("time_zone", None),
        ("currency", "xxx"),
        ("currency", None),
        ("net_days", -1),
        ("net_days", 366),
        ("net_days", None),
        ("auto_collect", None),
        ("auto_collect", 1),
        ("dunning_final", None),
        ("dunning_final", "paid"),
        ("dispute_lost", None),
        ("dispute_lost", "ignore"),
        ("dunning_days", None),
        ("dunning_days", "35"),
        ("dunning_days", [0]),
        ("dunning_days", [366]),
        ("dunning_days", [True]),
        ("dunning_days", [1] * 21),
        ("notifications", None),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_field(
    session: Session, account: Account, field: str, value: object
) -> None:
    fields: dict[str, Any] = {"name": "Other", field: value}
    with pytest.raises(InvalidInput) as changed:
        change_account(session, account.id, {field: value}, now=NOW)
    with pytest.raises(InvalidInput) as created:
        create_account(session, **fields)

    assert changed.value.field == created.value.field == field


def test_lists_and_texts_may_be_taken_away(session: Session, account: Account) -> None:
    changes = {"legal_name": "Bluebird Inc", "tax_ids": ["US1"], "address": {"line1": "1 Elm"}}
    change_account(session, account.id, changes, now=NOW)

    changed = change_account(session, account.id, dict.fromkeys(changes), now=NOW)

    assert (changed.legal_name, changed.tax_ids, changed.address) == (None, [], None)


def test_an_account_collects_by_itself_and_tells_everything_unless_told_otherwise(
    account: Account,
) -> None:
    assert (account.auto_collect, account.dunning_days) == (True, [3, 5, 7, 7])
    assert account.notifications == {}


def test_the_schedule_of_dunning_may_be_anything_from_no_second_try_to_twenty(
    session: Session, account: Account
) -> None:
    for days in ([], [1, 365], [7] * 20):
        changed = change_account(session, account.id, {"dunning_days": days}, now=NOW)
        session.refresh(changed)
        assert changed.dunning_days == days


def test_switches_of_mails_are_merged_and_taken_away_by_none(
    session: Session, account: Account
) -> None:
    kept = []
    for switches in (
        {"receipt": False},
        {"invoice_ready": True},
        {"receipt": None, "payment_failed": None},
    ):
        changed = change_account(session, account.id, {"notifications": switches}, now=NOW)
        session.refresh(changed)
        kept.append(changed.notifications)

    assert kept == [
        {"receipt": False},
        {"receipt": False, "invoice_ready": True},
        {"invoice_ready": True},
    ]


@pytest.mark.parametrize("switches", [{"reminders": True}, {"receipt": 1}, {"receipt": "on"}])
def test_a_wrong_switch_is_refused_by_its_name(
    session: Session, account: Account, switches: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput) as refused:
        change_account(session, account.id, {"notifications": switches}, now=NOW)

    (kind,) = switches
    assert refused.value.field == f"notifications.{kind}"


def test_an_unknown_account_is_not_found(session: Session) -> None:
    with pytest.raises(NotFound):
        change_account(session, uuid4(), {"name": "Nobody"}, now=NOW)


def test_a_new_zone_moves_the_clients_that_have_none_of_their_own(
    engine: Engine, session: Session, account: Account
) -> None:
    other = create_account(session, "Other")
    session.commit()
    since: dict[str, Any] = {"now": datetime(2026, 6, 10, tzinfo=UTC), "billing_cycle": "monthly"}
    inherits = a_client(engine, account, **since)
    own = a_client(engine, account, time_zone="Asia/Tokyo", **since)
    theirs = a_client(engine, other, **since)
    before = {client.id: periods_of(engine, client)[0].ends_at for client in (own, theirs)}

    change_account(session, account.id, {"time_zone": "America/Chicago"}, now=NOW)
    session.commit()

    assert periods_of(engine, inherits)[0].ends_at == datetime(2026, 7, 1, 5, tzinfo=UTC)
    assert {client.id: periods_of(engine, client)[0].ends_at for client in (own, theirs)} == before


def test_a_new_zone_takes_as_many_statements_for_one_client_as_for_a_hundred(
    engine: Engine, session: Session, account: Account
) -> None:
    took: list[int] = []

    def count_it(*call: Any) -> None:
        _, _, statement, parameters, _, _ = call
        took[-1] += 1
        # A statement takes 65,535 of them: none may have one for each client.
        assert len(parameters or ()) < 12, statement

    for zone, clients in [("America/Chicago", 1), ("Asia/Tokyo", 99)]:
        new = [
            NewClient(
                name="Ada", billing_cycle=BillingCycle.MONTHLY, billing_starts_on=date(2020, 1, 1)
            )
        ]
        create_clients(session, account, new * clients, now=NOW)
        session.commit()
        took.append(0)
        event.listen(engine, "before_cursor_execute", count_it)
        change_account(session, account.id, {"time_zone": zone}, now=NOW)
        event.remove(engine, "before_cursor_execute", count_it)
        session.commit()

    assert took[0] == took[1] < 12
    ends = set(session.scalars(select(BillingPeriod.ends_at).where(BillingPeriod.ends_at > NOW)))
    assert ends == {datetime(2026, 6, 30, 15, tzinfo=UTC)}
    per_client = select(func.count(BillingPeriod.id)).group_by(BillingPeriod.client_id)
    assert set(session.scalars(per_client)) == {78}
