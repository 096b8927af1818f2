"""A month's draft is looked through: late work joins it, it is thrown away, made again, and sent."""

from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from models import Account, Client
from tasks.accounts import change_account
from tasks.drafting import delete_draft
from tasks.finalizing import finalize_invoice
from tests.drafts import edited, on_invoice
from tests.money import assert_no_money_is_lost
from tests.worlds import (
    NOW,
    a_charge,
    a_client,
    bill,
    change,
    invoices_of,
    perform,
    periods_of,
    tick,
)

MAY = datetime(2026, 5, 1, 12, tzinfo=UTC)


def a_client_whose_drafts_wait(engine: Engine, account: Account) -> Client:
    client = a_client(engine, account, now=MAY, billing_cycle="monthly")
    return change(engine, client, now=MAY, review_hours=48)


def outcome(engine: Engine, client: Client) -> tuple[str, str | None]:
    """What became of May."""
    may = periods_of(engine, client)[0]
    return may.state, may.reason


def settings(engine: Engine, account: Account, **changes: Any) -> None:
    with Session(engine) as session, session.begin():
        change_account(session, account.id, changes, now=NOW)


def test_a_draft_is_completed_thrown_away_made_again_and_sent(
    engine: Engine, account: Account
) -> None:
    settings(engine, account, number_reset="yearly", number_format="{year}-{seq:03}")
    client = a_client_whose_drafts_wait(engine, account)
    a_charge(engine, client, date(2026, 5, 3))
    tick(engine, now=NOW)
    [draft] = invoices_of(engine, client)

    late = a_charge(engine, client, date(2026, 5, 30), "5.00")
    assert on_invoice(engine, late) == [draft.id]

    perform(engine, delete_draft, account, invoice_id=draft.id)
    assert outcome(engine, client) == ("skipped", "draft_deleted")
    bill(engine, account, now=NOW)
    assert invoices_of(engine, client) == []

    bill(engine, account, now=NOW, client_id=client.id)
    [again] = invoices_of(engine, client)
    assert (again.status, again.total) == ("draft", 1500)
    edited(engine, account, again.id, po_number="PO-7781", due_on=date(2026, 7, 31))
    perform(engine, finalize_invoice, account, invoice_id=again.id)

    [final] = invoices_of(engine, client)
    assert (final.number, final.po_number, final.due_on) == (
        "2026-001", "PO-7781", date(2026, 7, 31)
    )  # fmt: skip
    assert outcome(engine, client) == ("billed", None)
    assert_no_money_is_lost(engine, account)


def test_a_draft_that_is_emptied_is_gone_and_its_client_can_be_archived(
    engine: Engine, account: Account
) -> None:
    client = a_client_whose_drafts_wait(engine, account)
    charge = a_charge(engine, client, date(2026, 5, 3))
    tick(engine, now=NOW)
    [draft] = invoices_of(engine, client)

    assert edited(engine, account, draft.id, remove_charges=[charge]) is None

    assert outcome(engine, client) == ("empty", None)
    change(engine, client, archived=True)
    bill(engine, account, now=NOW, client_id=client.id)
    assert invoices_of(engine, client) == []
    assert_no_money_is_lost(engine, account)


def test_what_was_thrown_away_is_not_made_again_for_an_archived_client(
    engine: Engine, account: Account
) -> None:
    client = a_client_whose_drafts_wait(engine, account)
    a_charge(engine, client, date(2026, 5, 3))
    tick(engine, now=NOW)
    perform(engine, delete_draft, account, invoice_id=invoices_of(engine, client)[0].id)
    change(engine, client, archived=True)

    bill(engine, account, now=NOW, client_id=client.id)
    assert invoices_of(engine, client) == []

    change(engine, client, archived=False, billing_cycle="monthly")
    bill(engine, account, now=NOW, client_id=client.id)
    assert [one.total for one in invoices_of(engine, client)] == [1000]
