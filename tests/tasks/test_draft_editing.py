from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from billing.errors import DuecourseError, InvalidInput, NotFound, RuleViolation
from models import Account, Client, Invoice
from tasks.accounts import create_account
from tasks.finalizing import finalize_invoice
from tests.drafts import edited, in_review, on_invoice
from tests.money import a_draft, an_invoice, invoice_of
from tests.worlds import NOW, a_charge, a_client, audited, charges, counted, perform, periods_of

MAY = date(2026, 5, 1)


@pytest.fixture
def client(engine: Engine, account: Account) -> Client:
    return a_client(engine, account)


def refusal(engine: Engine, account: Account, draft_id: UUID, **changes: Any) -> DuecourseError:
    with pytest.raises(DuecourseError) as refused:
        edited(engine, account, draft_id, **changes)
    return refused.value


def test_charges_are_added_and_removed_and_the_total_follows(
    engine: Engine, account: Account, client: Client
) -> None:
    draft = a_draft(engine, account, client, "10.00")
    one, two, three = charges(engine, client, [(MAY, "1.00"), (MAY, "2.00"), (MAY, "4.00")])

    changed = edited(engine, account, draft.id, add_charges=[one, two])
    assert changed is not None
    assert (changed.subtotal, changed.total) == (1300, 1300)

    changed = edited(engine, account, draft.id, add_charges=[three], remove_charges=[one])
    assert changed is not None
    assert changed.total == 1600
    assert on_invoice(engine, one, two, three) == [None, draft.id, draft.id]
    assert audited(engine, account) == []


def test_a_charge_that_was_removed_is_open_and_can_be_added_again(
    engine: Engine, account: Account, client: Client
) -> None:
    draft = a_draft(engine, account, client)
    charge = a_charge(engine, client, MAY)
    for _ in range(2):
        edited(engine, account, draft.id, add_charges=[charge])
        edited(engine, account, draft.id, remove_charges=[charge])

    assert on_invoice(engine, charge) == [None]
    assert invoice_of(engine, draft.id).total == 1000


def test_what_cannot_be_added_or_removed_is_refused_and_nothing_changes(
    engine: Engine, account: Account, client: Client
) -> None:
    draft, other_draft = a_draft(engine, account, client), a_draft(engine, account, client)
    mine = a_charge(engine, client, MAY)
    euros = a_charge(engine, client, MAY, currency="eur")
    theirs = a_charge(engine, a_client(engine, account), MAY)
    with Session(engine, expire_on_commit=False) as session, session.begin():
        rival = create_account(session, "Rival Prep")
    strangers = a_charge(engine, a_client(engine, rival), MAY)
    [there] = added(engine, account, client, other_draft)

    for wrong in (uuid4(), strangers):
        for field in ("add_charges", "remove_charges"):
            assert isinstance(refusal(engine, account, draft.id, **{field: [wrong]}), NotFound)
    for wrong in (theirs, euros):
        refused = refusal(engine, account, draft.id, add_charges=[mine, wrong], memo="no")
        assert isinstance(refused, InvalidInput)
        assert refused.field == "add_charges[1]"
    refused = refusal(engine, account, draft.id, add_charges=[mine, there])
    assert isinstance(refused, RuleViolation)
    assert refused.code == "charge_already_invoiced"
    for wrong in (mine, there, theirs):
        refused = refusal(engine, account, draft.id, remove_charges=[wrong])
        assert isinstance(refused, InvalidInput)
        assert refused.field == "remove_charges[0]"
    refused = refusal(engine, account, draft.id, add_charges=[mine], remove_charges=[mine])
    assert isinstance(refused, InvalidInput)

    kept = invoice_of(engine, draft.id)
    assert (kept.total, kept.memo) == (1000, None)
    assert on_invoice(engine, mine) == [None]


def added(engine: Engine, account: Account, client: Client, draft: Invoice) -> list[UUID]:
    charge = a_charge(engine, client, MAY)
    edited(engine, account, draft.id, add_charges=[charge])
    return [charge]


def test_only_a_draft_of_the_account_is_changed(
    engine: Engine, account: Account, client: Client
) -> None:
    invoice, draft = an_invoice(engine, account, client), a_draft(engine, account, client)
    with Session(engine, expire_on_commit=False) as session, session.begin():
        rival = create_account(session, "Rival Prep")

    refused = refusal(engine, account, invoice.id, memo="late")

    assert isinstance(refused, RuleViolation)
    assert refused.code == "invoice_not_draft"
    for owner, wanted in ((account, uuid4()), (rival, draft.id)):
        assert isinstance(refusal(engine, owner, wanted, memo="x"), NotFound)


def test_what_is_written_on_it_is_kept_when_it_is_finalized_and_frozen_then(
    engine: Engine, session: Session, account: Account, client: Client
) -> None:
    draft = a_draft(engine, account, client)
    due = date(2026, 9, 1)
    edited(engine, account, draft.id, memo="Dock 4", po_number="PO-1", due_on=due)
    edited(engine, account, draft.id, memo="Dock 5")

    perform(engine, finalize_invoice, account, invoice_id=draft.id)

    final = session.get_one(Invoice, draft.id)
    assert (final.memo, final.po_number, final.due_on) == ("Dock 5", "PO-1", due)
    final.po_number = "PO-2"
    with pytest.raises(DBAPIError, match="frozen"):
        session.commit()


def test_null_clears(engine: Engine, account: Account, client: Client) -> None:
    draft = a_draft(engine, account, client)
    edited(engine, account, draft.id, memo="x", po_number="y", due_on=date(2026, 9, 1))

    changed = edited(engine, account, draft.id, memo=None, po_number=None, due_on=None)

    assert changed is not None
    assert (changed.memo, changed.po_number, changed.due_on) == (None, None, None)
    perform(engine, finalize_invoice, account, invoice_id=draft.id)
    assert invoice_of(engine, draft.id).due_on == date(2026, 6, 15)


def test_a_day_that_passed_before_it_is_issued_gives_way_to_the_net_days(
    engine: Engine, account: Account, client: Client
) -> None:
    draft = a_draft(engine, account, client)
    edited(engine, account, draft.id, due_on=date(2026, 6, 3))

    later = datetime(2026, 6, 10, tzinfo=UTC)
    perform(engine, finalize_invoice, account, invoice_id=draft.id, now=later)

    assert invoice_of(engine, draft.id).due_on == date(2026, 6, 24)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"memo": " "}, "memo"),
        ({"memo": "x" * 1001}, "memo"),
        ({"po_number": "x" * 256}, "po_number"),
        ({"po_number": "a\x00"}, "po_number"),
        ({"due_on": date(2026, 5, 31)}, "due_on"),
        ({"due_on": date(2200, 1, 1)}, "due_on"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_field(
    engine: Engine, account: Account, client: Client, changes: dict[str, Any], field: str
) -> None:
    draft = a_draft(engine, account, client)

    refused = refusal(engine, account, draft.id, **changes)

    assert isinstance(refused, InvalidInput)
    assert refused.field == field


def test_a_draft_of_a_period_may_be_due_from_its_boundary_on(
    engine: Engine, account: Account, client: Client
) -> None:
    a_charge(engine, client, MAY)
    [draft] = in_review(engine, account, client)
    later = datetime(2026, 6, 10, tzinfo=UTC)

    assert isinstance(refusal(engine, account, draft.id, due_on=date(2026, 5, 31)), InvalidInput)
    changed = edited(engine, account, draft.id, due_on=date(2026, 6, 2), now=later)

    assert changed is not None
    perform(engine, finalize_invoice, account, invoice_id=draft.id, now=NOW)
    assert invoice_of(engine, draft.id).due_on == date(2026, 6, 2)


def test_a_draft_whose_last_charge_is_removed_is_deleted(
    engine: Engine, account: Account, client: Client
) -> None:
    charge = a_charge(engine, client, MAY)
    [draft] = in_review(engine, account, client)

    assert edited(engine, account, draft.id, remove_charges=[charge], memo="gone") is None

    assert on_invoice(engine, charge) == [None]
    with pytest.raises(NotFound):
        edited(engine, account, draft.id, memo="x")
    [period] = periods_of(engine, client)
    assert (period.state, period.reason) == ("empty", None)
    assert audited(engine, account) == []


def test_a_period_stays_drafted_while_it_has_a_draft_in_another_currency(
    engine: Engine, account: Account, client: Client
) -> None:
    euros = a_charge(engine, client, MAY, currency="eur")
    dollars = a_charge(engine, client, MAY)
    in_euros, in_dollars = in_review(engine, account, client)

    assert edited(engine, account, in_euros.id, remove_charges=[euros]) is None
    assert periods_of(engine, client)[0].state == "drafted"

    assert edited(engine, account, in_dollars.id, remove_charges=[dollars]) is None
    assert periods_of(engine, client)[0].state == "empty"
    assert audited(engine, account) == []


def test_it_takes_as_many_statements_for_one_charge_as_for_a_hundred(
    engine: Engine, account: Account, client: Client
) -> None:
    draft = a_draft(engine, account, client)

    def statements(many: int) -> int:
        ids = charges(engine, client, [(MAY, "1.00")] * many)
        with counted(engine) as sent:
            edited(engine, account, draft.id, add_charges=ids)
        return len(sent)

    assert statements(1) == statements(100)
