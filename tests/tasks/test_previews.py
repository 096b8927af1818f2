from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from billing.credit import CreditEntryKind
from models import Account, BillingPeriod, BillingRun, Charge, Client, Invoice
from tasks.accounts import create_account
from tasks.credit_balances import CreditMove, move_credit
from tasks.previews import preview
from tests.billing.chains import CADENCES
from tests.money import owe, with_a_card
from tests.reviews import delete
from tests.worlds import (
    NOW,
    a_charge,
    a_client,
    allow_invoices_again,
    bill,
    change,
    charges,
    counted,
    invoices_of,
    periods_of,
    refuse_invoices_of,
)


def previewed(engine: Engine, account: Account, now: datetime, **options: Any) -> dict[str, Any]:
    run = bill(engine, account, now=now, dry_run=True, **options)
    assert run.finished_at == now
    assert run.preview is not None
    return run.preview


def invoiced(engine: Engine, account: Account, now: datetime, **options: Any) -> dict[str, Any]:
    """What a real run does, in a preview's words; of what it holds there are no invoices."""
    run = bill(engine, account, now=now, **options)
    with Session(engine) as session:
        rows = session.execute(
            select(Invoice, BillingPeriod, Client.name, func.count(Charge.id))
            .join(BillingPeriod, BillingPeriod.id == Invoice.period_id)
            .join(Client, Client.id == Invoice.client_id)
            .join(Charge, Charge.invoice_id == Invoice.id)
            .where(Invoice.run_id == run.id)
            .group_by(Invoice.id, BillingPeriod.id, Client.id)
            .order_by(BillingPeriod.period_end, Invoice.client_id, Invoice.currency)
        ).all()
        decided = session.scalars(
            select(BillingPeriod.state).where(BillingPeriod.run_id == run.id)
        ).all()
    invoices = [
        {
            "client": str(invoice.client_id),
            "name": name,
            "period_start": period.period_start.isoformat(),
            "period_end": period.period_end.isoformat(),
            "currency": invoice.currency,
            "charges": count,
            "total": invoice.total,
            "outcome": "drafted" if invoice.status == "draft" else "billed",
            "credit": invoice.credit_applied,
            # Nothing is charged yet; too little for a card is not going to be.
            "card": invoice.amount_due
            if invoice.next_attempt_at is not None and invoice.amount_due >= 50
            else 0,
        }
        for invoice, period, name, count in rows
    ]
    return {
        "invoices": invoices,
        "totals": {
            "periods": len(decided) - decided.count("held"),
            "empty": decided.count("empty"),
            "invoiced": sums(invoices, "billed"),
            "drafted": sums(invoices, "drafted"),
        },
    }


def sums(invoices: list[dict[str, Any]], outcome: str) -> dict[str, dict[str, int]]:
    totals: dict[str, dict[str, int]] = {}
    for one in invoices:
        if one["outcome"] == outcome:
            nothing = {"invoices": 0, "total": 0, "credit": 0, "card": 0}
            of_currency = totals.setdefault(one["currency"], nothing)
            of_currency["invoices"] += 1
            for what in ("total", "credit", "card"):
                of_currency[what] += one[what]
    return totals


def told(preview: dict[str, Any]) -> dict[str, Any]:
    """A preview without what only sums up, and what is held: maybe for longer than since this run."""
    totals = preview["totals"]
    counted = {"periods": totals["periods"] - totals["held"], "empty": totals["empty"]}
    return {
        "invoices": [one for one in preview["invoices"] if one["outcome"] != "held"],
        "totals": {**counted, "invoiced": totals["invoiced"], "drafted": totals["drafted"]},
    }


def give(engine: Engine, client: Client, balances: dict[str, int]) -> None:
    """Let a client have these balances, or owe them."""
    with Session(engine) as session, session.begin():
        move_credit(
            session,
            [
                CreditMove(
                    account_id=client.account_id,
                    client_id=client.id,
                    currency=currency,
                    kind=CreditEntryKind.ADJUSTMENT,
                    amount=balance,
                    requested_by="test",
                )
                for currency, balance in balances.items()
                if balance
            ],
        )


WORLDS = st.lists(
    st.fixed_dictionaries(
        {
            "start": st.dates(date(2025, 12, 1), date(2026, 6, 20)),
            "cadence": CADENCES,
            "time_zone": st.sampled_from([None, "America/Chicago", "Pacific/Auckland"]),
            "charges": st.lists(
                st.tuples(
                    st.dates(date(2025, 11, 1), date(2026, 7, 1)),
                    st.sampled_from(["1.00", "-2.50", "0"]),
                    st.sampled_from(["usd", "eur"]),
                ),
                max_size=5,
            ),
            "review_hours": st.sampled_from([None, None, 24, "person"]),
            "paused": st.sampled_from([False, False, True]),
            "collection_paused": st.sampled_from([False, False, True]),
            "card": st.booleans(),
            "auto_collect": st.sampled_from([None, True, False]),
            "balances": st.fixed_dictionaries(
                {"usd": st.integers(-250, 250), "eur": st.integers(-250, 250)}
            ),
        }
    ),
    max_size=4,
)
AS_OF = st.one_of(
    st.none(),
    st.dates(date(2026, 1, 1), date(2026, 6, 1)),
    st.integers(0, 180 * 24).map(lambda hours: NOW - timedelta(hours=hours)),
)


@given(WORLDS, st.lists(AS_OF, min_size=1, max_size=3))
@settings(
    deadline=None,
    max_examples=8,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_a_preview_is_what_the_run_then_does(
    engine: Engine, world: list[dict[str, Any]], runs: list[date | datetime | None]
) -> None:
    with Session(engine, expire_on_commit=False) as session, session.begin():
        account = create_account(session, f"Bluebird {uuid4()}")
    for one in world:
        client = a_client(
            engine,
            account,
            billing_cycle=one["cadence"].cycle,
            billing_starts_on=one["start"],
            anchor_day=one["cadence"].anchor_day,
            time_zone=one["time_zone"],
            review_hours=one["review_hours"],
            paused={"billing": one["paused"], "collection": one["collection_paused"]},
            auto_collect=one["auto_collect"],
        )
        if one["card"]:
            with_a_card(engine, account, client)
        give(engine, client, one["balances"])
        for charged_on, price, currency in one["charges"]:
            a_charge(engine, client, charged_on, price, currency=currency)

    # Noon in UTC on 1 June: in every one of these zones the day has begun.
    for as_of in runs:
        expected = previewed(engine, account, NOW, as_of=as_of)
        assert invoiced(engine, account, NOW, as_of=as_of) == told(expected)


@pytest.mark.usefixtures("six_periods_a_run")
def test_previews_of_a_start_long_ago_are_what_each_run_then_does(
    engine: Engine, account: Account
) -> None:
    client = a_client(
        engine,
        account,
        billing_cycle="monthly",
        billing_starts_on=date(2025, 5, 31),
        anchor_day=31,
    )
    charges(engine, client, [(date(2025, 5, 1) + timedelta(days=45 * n), "1") for n in range(9)])

    taken = []
    for now in (NOW, NOW, NOW + timedelta(days=31), NOW + timedelta(days=31)):
        expected = previewed(engine, account, now)
        assert invoiced(engine, account, now) == told(expected)
        taken.append(expected["totals"]["periods"])
    assert taken == [6, 6, 1, 0]


def test_a_failed_period_that_later_ones_have_overtaken_is_previewed_by_itself(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account, billing_cycle="monthly", billing_starts_on=date(2026, 3, 1))
    a_charge(engine, client, date(2026, 3, 5))
    refuse_invoices_of(engine, client)
    bill(engine, account, now=NOW, as_of=date(2026, 4, 1))
    allow_invoices_again(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE billing_periods SET state = 'empty' WHERE period_start = '2026-04-01'"
        )

    expected = previewed(engine, account, NOW)

    assert [one["period_start"] for one in expected["invoices"]] == ["2026-03-01"]
    assert expected["totals"]["periods"] == 2
    assert invoiced(engine, account, NOW) == told(expected)


def test_a_preview_moves_nothing(engine: Engine, session: Session, account: Account) -> None:
    client = a_client(engine, account, billing_cycle="monthly", billing_starts_on=date(2026, 4, 1))
    a_charge(engine, client, date(2026, 4, 2))
    before = [(one.id, one.state, one.run_id) for one in periods_of(engine, client)]

    previewed(engine, account, NOW)

    assert [(one.id, one.state, one.run_id) for one in periods_of(engine, client)] == before
    assert invoices_of(engine, account) == []
    assert session.scalars(select(Charge.invoice_id)).all() == [None]


@pytest.mark.parametrize("as_of", [date(2026, 9, 1), datetime(2026, 9, 1, tzinfo=UTC)])
def test_a_preview_looks_into_the_future(
    engine: Engine, account: Account, as_of: date | datetime
) -> None:
    client = a_client(engine, account, billing_cycle="monthly")
    charges(engine, client, [(date(2026, 6, 1), "1"), (date(2026, 8, 31), "2")])
    a_charge(engine, client, date(2026, 9, 1), "4")

    preview = previewed(engine, account, NOW, as_of=as_of)

    assert [(one["period_end"], one["total"]) for one in preview["invoices"]] == [
        ("2026-07-01", 100),
        ("2026-09-01", 200),
    ]
    assert preview["totals"] == {
        "periods": 3,
        "empty": 1,
        "held": 0,
        "invoiced": {"usd": {"invoices": 2, "total": 300, "credit": 0, "card": 0}},
        "drafted": {},
        "on_hold": {},
    }


def test_a_preview_leaves_out_manual_and_other_clients_and_accounts(
    engine: Engine, session: Session, account: Account
) -> None:
    other = create_account(session, "Other")
    session.commit()
    since: dict[str, Any] = {"billing_cycle": "monthly", "billing_starts_on": date(2026, 5, 1)}
    mine, neighbour = (a_client(engine, account, **since) for _ in range(2))
    manual, stranger = a_client(engine, account, **since), a_client(engine, other, **since)
    for client in (mine, neighbour, manual, stranger):
        a_charge(engine, client, date(2026, 5, 5))
    change(engine, manual, billing_cycle="manual")

    everyone = previewed(engine, account, NOW)
    one = previewed(engine, account, NOW, client_id=mine.id)

    assert {row["client"] for row in everyone["invoices"]} == {str(mine.id), str(neighbour.id)}
    assert {row["client"] for row in one["invoices"]} == {str(mine.id)}


def test_a_preview_of_a_date_that_has_begun_only_elsewhere_is_what_the_run_then_does(
    engine: Engine, account: Account
) -> None:
    now = datetime(2026, 5, 31, 20, tzinfo=UTC)
    for zone in ("Asia/Tokyo", "America/Chicago"):
        client = a_client(
            engine,
            account,
            name=zone,
            billing_cycle="monthly",
            billing_starts_on=date(2026, 5, 1),
            time_zone=zone,
        )
        a_charge(engine, client, date(2026, 5, 5))

    expected = previewed(engine, account, now, as_of=date(2026, 6, 1))

    assert [one["name"] for one in expected["invoices"]] == ["Asia/Tokyo"]
    assert invoiced(engine, account, now, as_of=date(2026, 6, 1)) == told(expected)
    # The day after has begun nowhere: everyone's boundary is looked ahead to.
    ahead = previewed(engine, account, now, as_of=date(2026, 6, 2))
    assert [one["name"] for one in ahead["invoices"]] == ["America/Chicago"]


def test_a_preview_of_one_client_reads_nobody_elses_rows(
    engine: Engine, session: Session, account: Account
) -> None:
    since: dict[str, Any] = {"billing_cycle": "monthly", "billing_starts_on": date(2026, 5, 1)}
    mine, _neighbour = (a_client(engine, account, **since) for _ in range(2))
    run = BillingRun(account_id=account.id, client_id=mine.id, as_of_at=NOW, created_at=NOW)

    with counted(engine) as statements:
        preview(session, run, now=NOW)

    [of_charges] = [one for one in statements if "FROM charges" in one]
    [of_periods] = [one for one in statements if "FROM billing_periods" in one]
    assert "charges.client_id = " in of_charges
    assert "billing_periods.client_id = " in of_periods


def test_a_preview_says_how_credit_debits_and_cards_will_pay(
    engine: Engine, account: Account
) -> None:
    since: dict[str, Any] = {"billing_cycle": "monthly", "billing_starts_on": date(2026, 3, 1)}
    client = a_client(engine, account, **since)
    months = [(date(2026, 3, 5), "5"), (date(2026, 4, 5), "9"), (date(2026, 5, 5), "-4")]
    charges(engine, client, months)
    with_a_card(engine, account, client)
    give(engine, client, {"usd": 600})

    found = previewed(engine, account, NOW)

    # March uses five of the six; April the last one, and what May gives.
    assert [(one["credit"], one["card"]) for one in found["invoices"]] == [
        (500, 0), (500, 400), (-400, 0)
    ]  # fmt: skip
    [of_client] = found["clients"]
    assert of_client == {
        "client": str(client.id),
        "name": client.name,
        "currency": "usd",
        "outcome": "billed",
        "invoices": 3,
        "total": 1000,
        "credit": 600,
        "card": 400,
    }
    assert invoiced(engine, account, NOW) == told(found)


def test_what_a_negative_invoice_will_give_pays_older_ones_first(
    engine: Engine, account: Account
) -> None:
    since: dict[str, Any] = {"billing_cycle": "monthly", "billing_starts_on": date(2026, 4, 1)}
    client = a_client(engine, account, **since)
    owe(engine, account, client, 300)
    charges(engine, client, [(date(2026, 4, 5), "5"), (date(2026, 5, 5), "-4")])

    found = previewed(engine, account, NOW)

    assert invoiced(engine, account, NOW) == told(found)


def test_a_preview_tells_what_a_pause_holds_of_one_client_and_of_everyone(
    engine: Engine, account: Account
) -> None:
    since: dict[str, Any] = {"billing_cycle": "monthly", "billing_starts_on": date(2026, 5, 1)}
    client = a_client(engine, account, **since, paused={"billing": True})
    a_charge(engine, client, date(2026, 5, 5), "5")
    bill(engine, account, now=NOW)

    everyone = previewed(engine, account, NOW)
    assert [one["outcome"] for one in everyone["invoices"]] == ["held"]
    assert (everyone["totals"]["held"], everyone["totals"]["invoiced"]) == (1, {})
    assert everyone["totals"]["on_hold"]["usd"]["total"] == 500

    alone = previewed(engine, account, NOW, client_id=client.id)
    assert [one["outcome"] for one in alone["invoices"]] == ["billed"]
    assert invoiced(engine, account, NOW, client_id=client.id) == told(alone)


def test_a_preview_of_one_client_tells_what_would_be_drafted_again(
    engine: Engine, account: Account
) -> None:
    since: dict[str, Any] = {"billing_cycle": "monthly", "billing_starts_on": date(2026, 5, 1)}
    client = a_client(engine, account, **since, review_hours=24)
    a_charge(engine, client, date(2026, 5, 5), "5")
    bill(engine, account, now=NOW)
    delete(engine, account, invoices_of(engine, client)[0].id)

    assert previewed(engine, account, NOW)["invoices"] == []
    alone = previewed(engine, account, NOW, client_id=client.id)
    assert [one["outcome"] for one in alone["invoices"]] == ["drafted"]
    assert invoiced(engine, account, NOW, client_id=client.id) == told(alone)
