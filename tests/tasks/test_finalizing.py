from datetime import UTC, date, datetime
from uuid import uuid4

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from billing.errors import IllegalTransition, NotFound
from models import (
    Account,
    Client,
    Invoice,
    InvoiceLine,
    Job,
    LedgerEntry,
    Mail,
    NumberSeries,
)
from tasks.accounts import change_account, create_account
from tasks.drafting import draft_invoice
from tasks.finalizing import finalize_invoice, finalize_invoices
from tests.money import with_a_card
from tests.worlds import (
    NOW,
    a_charge,
    a_client,
    audited,
    bill,
    charges,
    invoices_of,
    perform,
    tick,
)

MAY = date(2026, 5, 1)


def a_draft(engine: Engine, account: Account, client: Client, price: str = "10.00") -> Invoice:
    charge = a_charge(engine, client, MAY, price)
    perform(engine, draft_invoice, account, client_id=client.id, charge_ids=[charge])
    return invoices_of(engine, client)[-1]


def test_a_draft_made_by_hand_bears_the_accounts_day_of_finalizing(
    engine: Engine, session: Session, account: Account
) -> None:
    client = a_client(engine, account, time_zone="Pacific/Auckland")
    draft = a_draft(engine, account, client)
    change_account(session, account.id, {"time_zone": "America/Chicago"}, now=NOW)
    session.commit()

    now = datetime(2026, 6, 2, 4, 59, tzinfo=UTC)  # Still 1 June in Chicago.
    perform(engine, finalize_invoice, account, invoice_id=draft.id, now=now)

    [invoice] = invoices_of(engine, client)
    assert (invoice.status, invoice.number) == ("open", "INV-000001")
    assert (invoice.issued_on, invoice.due_on) == (date(2026, 6, 1), date(2026, 6, 15))
    assert invoice.finalized_at == now
    assert audited(engine, account) == []


@pytest.mark.parametrize(
    ("of_client", "due"),
    [(None, date(2026, 6, 4)), (0, date(2026, 6, 1)), (30, date(2026, 7, 1))],
)
def test_a_clients_own_days_to_pay_go_before_the_accounts(
    engine: Engine,
    session: Session,
    account: Account,
    of_client: int | None,
    due: date,
) -> None:
    change_account(session, account.id, {"net_days": 3}, now=NOW)
    session.commit()
    client = a_client(engine, account, net_days=of_client)
    draft = a_draft(engine, account, client)

    perform(engine, finalize_invoice, account, invoice_id=draft.id)

    assert invoices_of(engine, client)[0].due_on == due


def test_a_finalized_invoice_is_not_finalized_again(
    engine: Engine, session: Session, account: Account
) -> None:
    draft = a_draft(engine, account, a_client(engine, account))
    perform(engine, finalize_invoice, account, invoice_id=draft.id)

    with pytest.raises(IllegalTransition) as refused:
        perform(engine, finalize_invoice, account, invoice_id=draft.id)

    assert refused.value.code == "invoice_not_draft"
    assert session.scalars(select(NumberSeries.next_number)).all() == [2]
    assert len(session.scalars(select(LedgerEntry)).all()) == 1


def test_one_that_is_no_draft_keeps_all_the_others_from_being_finalized(
    engine: Engine, session: Session, account: Account
) -> None:
    client = a_client(engine, account)
    done, waiting = (a_draft(engine, account, client) for _ in range(2))
    perform(engine, finalize_invoice, account, invoice_id=done.id)

    with pytest.raises(IllegalTransition):
        finalize_invoices(session, account, [waiting.id, done.id], now=NOW, requested_by="test")
    session.rollback()

    assert [one.status for one in invoices_of(engine, client)] == ["open", "draft"]


def test_an_unknown_or_another_accounts_draft_is_not_found(
    engine: Engine, session: Session, account: Account
) -> None:
    other = create_account(session, "Other")
    session.commit()
    theirs = a_draft(engine, other, a_client(engine, other))

    for owner, invoice_id in ((account, theirs.id), (account, uuid4()), (None, theirs.id)):
        with pytest.raises(NotFound):
            perform(engine, finalize_invoice, owner, invoice_id=invoice_id)
    assert invoices_of(engine, other)[0].status == "draft"


@pytest.mark.parametrize("expected_total", [None, 1000])
def test_whoever_looked_at_the_draft_its_client_is_told_and_its_card_charged(
    engine: Engine, session: Session, account: Account, expected_total: int | None
) -> None:
    client = a_client(engine, account, email="ada@maple.example")
    with_a_card(engine, account, client)
    draft = a_draft(engine, account, client)

    perform(
        engine,
        finalize_invoice,
        account,
        invoice_id=draft.id,
        collect=True,
        expected_total=expected_total,
    )

    [invoice] = invoices_of(engine, client)
    assert (invoice.status, invoice.next_attempt_at) == ("open", NOW)
    assert [mail.kind for mail in session.scalars(select(Mail))] == ["invoice_ready"]
    jobs = set(session.scalars(select(Job.kind)))
    assert jobs == {"send_mail", "collect_client", "refresh_card"}


def test_a_rolled_back_finalizing_gives_its_number_back(
    engine: Engine, session: Session, account: Account
) -> None:
    client = a_client(engine, account)
    first, second = (a_draft(engine, account, client) for _ in range(2))
    finalize_invoices(session, account, [first.id], now=NOW, requested_by="test")
    session.rollback()

    perform(engine, finalize_invoice, account, invoice_id=second.id)

    assert [one.number for one in invoices_of(engine, client)] == ["INV-000001", None]


def test_drafts_finalized_at_once_are_numbered_by_client_and_currency(
    engine: Engine, session: Session, account: Account
) -> None:
    clients = [a_client(engine, account) for _ in range(2)]
    for client in clients:
        a_charge(engine, client, MAY, currency="usd")
        a_charge(engine, client, MAY, currency="eur")
        perform(engine, draft_invoice, account, client_id=client.id)
    ids = [one.id for one in invoices_of(engine, account)]

    assert finalize_invoices(session, account, ids[::-1], now=NOW, requested_by="test") == 4
    session.commit()

    found = invoices_of(engine, account)
    assert [(one.client_id, one.currency) for one in found] == [
        (client.id, currency) for client in clients for currency in ("eur", "usd")
    ]


def test_lines_are_in_order_of_date_and_sum_to_the_total(
    engine: Engine, session: Session, account: Account
) -> None:
    client = a_client(engine, account)
    dated = [(date(2026, 5, day), f"{day}.005") for day in (9, 2, 30, 2)]
    ids = charges(engine, client, dated)
    perform(engine, draft_invoice, account, client_id=client.id)
    [draft] = invoices_of(engine, client)

    perform(engine, finalize_invoice, account, invoice_id=draft.id)

    lines = session.scalars(select(InvoiceLine).order_by(InvoiceLine.position)).all()
    assert [line.charge_id for line in lines] == [ids[1], ids[3], ids[0], ids[2]]
    assert [line.position for line in lines] == [1, 2, 3, 4]
    # Each is rounded half away from zero by itself.
    assert [line.amount for line in lines] == [201, 201, 901, 3001]
    assert invoices_of(engine, client)[0].total == 4304


@pytest.mark.usefixtures("six_periods_a_run")
@pytest.mark.parametrize("days_later", [0, 1])
def test_dates_do_not_go_back_where_one_run_ends_a_catch_up_that_another_began(
    engine: Engine, account: Account, days_later: int
) -> None:
    client = a_client(engine, account, billing_cycle="monthly", billing_starts_on=date(2025, 11, 1))
    months = [date(2025, 11, 1), date(2025, 12, 1), *(date(2026, n, 1) for n in range(1, 6))]
    charges(engine, client, [(month, "1.00") for month in months])

    for days in (0, days_later):
        bill(engine, account, now=datetime(2026, 6, 20 + days, 12, tzinfo=UTC))

    # The seventh boundary, 1 June, is recent; the invoice before it bears 20 June.
    issued = [one.issued_on for one in invoices_of(engine, client)]
    assert issued == [date(2026, 6, 20)] * 6 + [date(2026, 6, 20 + days_later)]
    assert audited(engine, account) == []


def test_a_draft_made_by_hand_and_finalized_late_leaves_the_cycles_dates_alone(
    engine: Engine, account: Account
) -> None:
    client = a_client(
        engine, account, billing_cycle="monthly", now=datetime(2026, 5, 2, tzinfo=UTC)
    )
    draft = a_draft(engine, account, client)
    late = datetime(2026, 6, 5, tzinfo=UTC)
    perform(engine, finalize_invoice, account, invoice_id=draft.id, now=late)
    a_charge(engine, client, date(2026, 5, 20))

    tick(engine, now=late)

    assert [one.issued_on for one in invoices_of(engine, client)] == [
        date(2026, 6, 5),
        date(2026, 6, 1),
    ]
