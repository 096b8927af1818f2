from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from billing.errors import InvalidInput, NotFound, RuleViolation
from models import Account, Client
from tasks.accounts import create_account
from tasks.clients import NewClient, change_client, create_clients
from tests.worlds import NOW, a_client, change, periods_of


def create(session: Session, account: Account, *new: NewClient) -> list[Any]:
    return list(create_clients(session, account, new, now=NOW))


def test_a_client_is_manual_and_inherits_unless_told_otherwise(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)

    assert (client.billing_cycle, client.anchor_day, client.activated_at) == ("manual", 1, None)
    assert (client.time_zone, client.currency, client.net_days) == (None, None, None)
    assert client.tax_ids == []
    assert (client.auto_collect, client.notifications) == (None, {})
    assert client.zone(account).key == "UTC"
    assert periods_of(engine, client) == []


def test_a_client_on_the_cycle_starts_today_in_its_zone(engine: Engine, account: Account) -> None:
    client = a_client(
        engine, account, now=NOW, billing_cycle="monthly", time_zone="Pacific/Kiritimati"
    )

    assert (client.billing_starts_on, client.activated_at) == (date(2026, 6, 2), NOW)
    [period] = periods_of(engine, client)
    assert (period.period_start, period.period_end) == (date(2026, 6, 2), date(2026, 7, 1))
    assert period.starts_at == datetime(2026, 6, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", None),
        ("time_zone", "Mars/Olympus"),
        ("currency", "dollars"),
        ("anchor_day", 0),
        ("anchor_day", 32),
        ("net_days", -1),
        ("net_days", 366),
        ("billing_cycle", "hourly"),
        ("billing_starts_on", date(1969, 12, 31)),
        ("billing_starts_on", NOW.date() + timedelta(days=367)),
        ("auto_collect", "yes"),
        ("notifications", None),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_field(
    engine: Engine, session: Session, account: Account, field: str, value: object
) -> None:
    client = a_client(engine, account)
    changes: dict[str, Any] = {field: value}
    fields: dict[str, Any] = {"name": "Ada", **changes}

    with pytest.raises(InvalidInput) as created:
        create(session, account, NewClient(**fields))
    with pytest.raises(InvalidInput) as changed:
        change(engine, client, **changes)

    assert created.value.field == changed.value.field == field


def test_a_currency_is_kept_in_lower_case(engine: Engine, account: Account) -> None:
    assert a_client(engine, account, currency="GBP").currency == "gbp"


def test_an_external_ref_names_one_client_of_an_account(
    engine: Engine, session: Session, account: Account
) -> None:
    client = a_client(engine, account, external_ref="a1")
    other = a_client(engine, account, external_ref="a2")

    with pytest.raises(RuleViolation) as refused:
        create(session, account, NewClient(name="Eve", external_ref="a1"))
    assert refused.value.code == "external_ref_taken"
    with pytest.raises(RuleViolation):
        change(engine, other, external_ref="a1")
    assert change(engine, client, external_ref="a1", name="Same").name == "Same"
    create(session, create_account(session, "Other"), NewClient(name="Eve", external_ref="a1"))


def test_an_external_ref_given_twice_at_once_is_refused(session: Session, account: Account) -> None:
    with pytest.raises(RuleViolation) as refused:
        create(session, account, *(NewClient(name="Eve", external_ref="a1") for _ in range(2)))
    assert refused.value.code == "external_ref_taken"


def test_clients_without_a_ref_do_not_meet(session: Session, account: Account) -> None:
    assert len(create(session, account, NewClient(name="Ada"), NewClient(name="Eve"))) == 2


def test_a_change_touches_only_what_it_names(engine: Engine, account: Account) -> None:
    client = a_client(engine, account, email="ada@example.com", net_days=3, currency="eur")

    changed = change(engine, client, net_days=None)

    assert (changed.email, changed.net_days, changed.currency) == ("ada@example.com", None, "eur")


def test_a_clients_switches_of_mails_are_merged_and_taken_away_by_none(
    engine: Engine, account: Account
) -> None:
    client = a_client(
        engine,
        account,
        auto_collect=False,
        notifications={"receipt": False, "payment_failed": None},
    )
    assert (client.auto_collect, client.notifications) == (False, {"receipt": False})

    changed = change(engine, client, notifications={"invoice_ready": True}, auto_collect=None)
    assert changed.auto_collect is None
    assert changed.notifications == {"receipt": False, "invoice_ready": True}
    assert (
        change(engine, client, notifications=dict.fromkeys(changed.notifications)).notifications
        == {}
    )


def test_another_accounts_client_cannot_be_changed(
    engine: Engine, session: Session, account: Account
) -> None:
    other = create_account(session, "Other")
    session.commit()
    theirs = a_client(engine, other)

    for client_id in (theirs.id, uuid4()):
        with pytest.raises(NotFound):
            change_client(session, account, client_id, {"name": "Mine"}, now=NOW)
    assert session.get_one(Client, theirs.id).name == "Ada Imports"
