from datetime import date
from decimal import Decimal
from uuid import UUID

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from billing.errors import NotFound
from models import Account, Client
from tasks.charges import NewCharge, Recorded, delete_charge, edit_charge, record_charges
from tasks.drafting import delete_draft
from tasks.finalizing import finalize_invoice
from tests.drafts import APRIL, JUNE, MAY, in_review, on_invoice
from tests.money import a_draft, invoice_of
from tests.worlds import (
    a_charge,
    a_client,
    audited,
    charges,
    counted,
    invoices_of,
    perform,
    periods_of,
)


@pytest.fixture
def client(engine: Engine, account: Account) -> Client:
    return a_client(engine, account)


def test_a_new_charge_of_the_period_joins_its_draft(
    engine: Engine, account: Account, client: Client
) -> None:
    a_charge(engine, client, MAY, "10.00")
    [draft] = in_review(engine, account, client)

    joined = charges(engine, client, [(date(2026, 5, 31), "2.00"), (date(2020, 1, 1), "1.00")])
    later = a_charge(engine, client, JUNE, "4.00")

    assert on_invoice(engine, *joined, later) == [draft.id, draft.id, None]
    assert invoice_of(engine, draft.id).total == 1300
    assert audited(engine, account) == []


def test_it_joins_the_oldest_draft_that_it_is_in_time_for_in_its_currency(
    engine: Engine, account: Account, client: Client
) -> None:
    a_charge(engine, client, APRIL)
    [april] = in_review(engine, account, client, start=APRIL, end=MAY)
    a_charge(engine, client, MAY)
    a_charge(engine, client, MAY, currency="eur")
    euros, may = in_review(engine, account, client)

    joined = [
        *charges(engine, client, [(date(2026, 4, 30), "1.00"), (MAY, "1.00")]),
        a_charge(engine, client, APRIL, currency="eur"),
        a_charge(engine, client, APRIL, currency="gbp"),
    ]

    assert on_invoice(engine, *joined) == [april.id, may.id, euros.id, None]
    assert audited(engine, account) == []


def test_a_draft_by_hand_and_another_clients_are_not_joined(
    engine: Engine, account: Account, client: Client
) -> None:
    a_draft(engine, account, client)
    other = a_client(engine, account)
    a_charge(engine, other, MAY)
    in_review(engine, account, other)

    assert on_invoice(engine, a_charge(engine, client, MAY)) == [None]
    assert [one.total for one in invoices_of(engine, account)] == [1000, 1000]


def test_once_the_draft_is_finalized_or_gone_charges_stay_open(
    engine: Engine, account: Account, client: Client
) -> None:
    other = a_client(engine, account)
    for one in (client, other):
        a_charge(engine, one, MAY)
    [final], [gone] = in_review(engine, account, client), in_review(engine, account, other)
    perform(engine, finalize_invoice, account, invoice_id=final.id)
    perform(engine, delete_draft, account, invoice_id=gone.id)

    late = [a_charge(engine, one, MAY) for one in (client, other)]

    assert on_invoice(engine, *late) == [None, None]


def test_what_is_sent_again_joins_nothing(engine: Engine, account: Account, client: Client) -> None:
    known = a_charge(engine, client, MAY, external_ref="o-1")
    a_charge(engine, client, MAY)
    [draft] = in_review(engine, account, client)
    perform(engine, delete_draft, account, invoice_id=draft.id)
    a_charge(engine, client, date(2026, 4, 2))
    [draft] = in_review(engine, account, client, start=APRIL, end=MAY)

    with Session(engine) as session, session.begin():
        [answer] = record_charges(session, account.id, [a_new_charge(client, external_ref="o-1")])

    assert answer == Recorded(known, created=False)
    assert on_invoice(engine, known) == [None]


def a_new_charge(client: Client, external_ref: str | None = None) -> NewCharge:
    return NewCharge(
        client_id=client.id,
        description="FNSKU labelling",
        currency="usd",
        charged_on=MAY,
        unit_price=Decimal("10.00"),
        external_ref=external_ref,
    )


def test_a_thousand_of_many_clients_join_in_as_many_statements_as_one(
    engine: Engine, account: Account
) -> None:
    clients = [a_client(engine, account) for _ in range(10)]
    for client in clients:
        a_charge(engine, client, MAY)
        in_review(engine, account, client)

    def statements(new: list[NewCharge]) -> int:
        with counted(engine) as sent, Session(engine) as session, session.begin():
            record_charges(session, account.id, new)
        return len(sent)

    assert statements([a_new_charge(clients[0])]) == statements(
        [a_new_charge(clients[index % 10]) for index in range(1000)]
    )
    assert {one.total for one in invoices_of(engine, account)} == {101_000, 102_000}
    assert audited(engine, account) == []


def test_without_a_draft_in_review_recording_asks_no_more_than_whether_there_is_one(
    engine: Engine, account: Account, client: Client
) -> None:
    with counted(engine) as sent, Session(engine) as session, session.begin():
        record_charges(session, account.id, [a_new_charge(client)])

    assert sum("FOR UPDATE" in one or "FOR NO KEY" in one for one in sent) == 0


def test_a_deleted_draft_leaves_its_period_skipped(
    engine: Engine, account: Account, client: Client
) -> None:
    charge = a_charge(engine, client, MAY)
    [draft] = in_review(engine, account, client)

    perform(engine, delete_draft, account, invoice_id=draft.id)

    [period] = periods_of(engine, client)
    assert (period.state, period.reason) == ("skipped", "draft_deleted")
    assert on_invoice(engine, charge) == [None]
    assert audited(engine, account) == []


def test_a_draft_that_loses_its_last_charge_leaves_its_period_empty(
    engine: Engine, session: Session, account: Account, client: Client
) -> None:
    first, last = charges(engine, client, [(MAY, "1.00"), (MAY, "2.00")])
    [draft] = in_review(engine, account, client)

    delete_charge(session, account.id, first)
    session.commit()
    assert (invoice_of(engine, draft.id).total, periods_of(engine, client)[0].state) == (
        200,
        "drafted",
    )
    delete_charge(session, account.id, last)
    session.commit()

    [period] = periods_of(engine, client)
    assert (period.state, period.reason) == ("empty", None)
    with pytest.raises(NotFound):
        perform(engine, finalize_invoice, account, invoice_id=draft.id)
    assert audited(engine, account) == []


def test_a_charge_that_is_moved_out_of_the_period_stays_on_its_draft(
    engine: Engine, session: Session, account: Account, client: Client
) -> None:
    charge: UUID = a_charge(engine, client, MAY)
    [draft] = in_review(engine, account, client)

    edit_charge(session, account.id, charge, {"charged_on": JUNE, "amount": 77})
    session.commit()

    assert on_invoice(engine, charge) == [draft.id]
    assert invoice_of(engine, draft.id).total == 77
