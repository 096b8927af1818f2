from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from billing.errors import InvalidInput, NotFound, RuleViolation
from models import Account
from tasks.accounts import change_account, create_account
from tests.worlds import a_client, periods_of


def test_an_account_is_in_utc_and_dollars_with_two_weeks_to_pay(account: Account) -> None:
    assert (account.time_zone, account.currency, account.net_days) == ("UTC", "usd", 14)
    assert account.tax_ids == []


def test_a_name_is_taken_once(session: Session, account: Account) -> None:
    other = create_account(session, "Other")

    with pytest.raises(RuleViolation) as created:
        create_account(session, account.name)
    with pytest.raises(RuleViolation) as changed:
        change_account(session, other.id, {"name": account.name})
    assert created.value.code == changed.value.code == "name_taken"
    assert change_account(session, other.id, {"name": "Other"}).name == "Other"


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
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_field(
    session: Session, account: Account, field: str, value: object
) -> None:
    fields: dict[str, Any] = {"name": "Other", field: value}
    with pytest.raises(InvalidInput) as changed:
        change_account(session, account.id, {field: value})
    with pytest.raises(InvalidInput) as created:
        create_account(session, **fields)

    assert changed.value.field == created.value.field == field


def test_lists_and_texts_may_be_taken_away(session: Session, account: Account) -> None:
    changes = {"legal_name": "Bluebird Inc", "tax_ids": ["US1"], "address": {"line1": "1 Elm"}}
    change_account(session, account.id, changes)

    changed = change_account(session, account.id, dict.fromkeys(changes))

    assert (changed.legal_name, changed.tax_ids, changed.address) == (None, [], None)


def test_an_unknown_account_is_not_found(session: Session) -> None:
    with pytest.raises(NotFound):
        change_account(session, uuid4(), {"name": "Nobody"})


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

    change_account(session, account.id, {"time_zone": "America/Chicago"})
    session.commit()

    assert periods_of(engine, inherits)[0].ends_at == datetime(2026, 7, 1, 5, tzinfo=UTC)
    assert {client.id: periods_of(engine, client)[0].ends_at for client in (own, theirs)} == before
