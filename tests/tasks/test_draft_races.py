"""What two do to one draft, or with one charge, at the same moment."""

from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from billing.errors import NotFound, RuleViolation
from models import Account, Client, Invoice, InvoiceLine
from tasks.charges import NewCharge, Recorded, delete_charge, edit_charge, record_charges
from tasks.drafting import delete_draft, draft_invoice
from tasks.finalizing import finalize_invoice
from tasks.outcomes import Done
from tests.drafts import MAY, edited, in_review, on_invoice
from tests.money import a_draft, invoice_of
from tests.worlds import (
    a_charge,
    a_client,
    audited,
    invoices_of,
    perform,
    periods_of,
    together,
)

ROUNDS = 10


def in_a_transaction(engine: Engine, act: Callable[[Session], Any]) -> Any:  # noqa: ANN401 - what act returns
    with Session(engine, expire_on_commit=False) as session, session.begin():
        return act(session)


def record(engine: Engine, clients: list[Client], many: int = 1) -> list[UUID]:
    """New charges of 1.00 in May, shared out to the clients in this order."""
    new = [
        NewCharge(
            client_id=clients[index % len(clients)].id,
            description="Bundling",
            currency="usd",
            charged_on=MAY,
            unit_price=Decimal(1),
        )
        for index in range(many)
    ]
    with Session(engine) as session, session.begin():
        answers = record_charges(session, clients[0].account_id, new)
    return [one.charge_id for one in answers if isinstance(one, Recorded)]


def lines_of(engine: Engine, invoice_id: UUID) -> set[UUID]:
    with Session(engine) as session:
        found = session.scalars(
            select(InvoiceLine.charge_id).where(InvoiceLine.invoice_id == invoice_id)
        )
        return set(found)


def test_a_thousand_new_charges_are_all_on_the_invoice_or_all_open(
    engine: Engine, account: Account
) -> None:
    for _ in range(ROUNDS):
        client = a_client(engine, account)
        first = a_charge(engine, client, MAY)
        [draft] = in_review(engine, account, client)
        finalized, new = together(
            partial(perform, engine, finalize_invoice, account, invoice_id=draft.id),
            partial(record, engine, [client], 1000),
        )
        assert isinstance(finalized, Done), finalized
        assert len(new) == 1000, new
        invoice = invoice_of(engine, draft.id)
        [where] = set(on_invoice(engine, *new[:5], *new[-5:]))
        if where is None:
            assert (invoice.total, lines_of(engine, draft.id)) == (1000, {first})
        else:
            assert (where, invoice.total) == (draft.id, 101_000)
            assert lines_of(engine, draft.id) == {first, *new}

    assert audited(engine, account) == []


def test_a_new_charge_is_on_the_draft_or_open_when_the_draft_is_deleted(
    engine: Engine, account: Account
) -> None:
    for _ in range(ROUNDS):
        client = a_client(engine, account)
        a_charge(engine, client, MAY)
        [draft] = in_review(engine, account, client)
        deleted, new = together(
            partial(perform, engine, delete_draft, account, invoice_id=draft.id),
            partial(record, engine, [client]),
        )
        assert isinstance(deleted, Done), deleted
        assert on_invoice(engine, *new) == [None]
        assert [one.state for one in periods_of(engine, client)] == ["skipped"]

    assert audited(engine, account) == []


def test_those_who_record_for_the_same_clients_wait_for_each_other_in_no_ring(
    engine: Engine, account: Account
) -> None:
    clients = [a_client(engine, account) for _ in range(6)]
    drafts = []
    for client in clients:
        a_charge(engine, client, MAY)
        drafts += in_review(engine, account, client)
    for _ in range(ROUNDS):
        outcomes = together(
            partial(record, engine, clients, 60),
            partial(record, engine, clients[::-1], 60),
            *[
                partial(edited, engine, account, draft.id, memo="again")
                for draft in (drafts[0], drafts[-1])
            ],
        )
        assert not [one for one in outcomes if isinstance(one, Exception)], outcomes

    assert {one.total for one in invoices_of(engine, account)} == {1000 + 100 * 20 * ROUNDS}
    assert audited(engine, account) == []


def test_a_charge_is_added_to_a_draft_or_drafted_apart(engine: Engine, account: Account) -> None:
    for _ in range(ROUNDS):
        client = a_client(engine, account)
        draft = a_draft(engine, account, client)
        charge = a_charge(engine, client, MAY)
        added, drafted = together(
            partial(edited, engine, account, draft.id, add_charges=[charge]),
            partial(perform, engine, draft_invoice, account, client_id=client.id),
        )
        [where] = on_invoice(engine, charge)
        assert where is not None
        lost = added if isinstance(drafted, Done) else drafted
        assert isinstance(lost, RuleViolation)
        assert lost.code in {"charge_already_invoiced", "nothing_to_bill"}
        assert (where == draft.id) is isinstance(added, Invoice)

    assert audited(engine, account) == []


def test_a_charge_that_is_added_to_two_drafts_is_on_one(engine: Engine, account: Account) -> None:
    client = a_client(engine, account)
    drafts = [a_draft(engine, account, client) for _ in range(2)]
    for _ in range(ROUNDS):
        charge = a_charge(engine, client, MAY)
        outcomes = together(
            *[partial(edited, engine, account, one.id, add_charges=[charge]) for one in drafts]
        )
        won = [one for one in outcomes if isinstance(one, Invoice)]
        assert len(won) == 1, outcomes
        assert on_invoice(engine, charge) == [won[0].id]

    assert sum(one.total for one in invoices_of(engine, client)) == 2000 + 1000 * ROUNDS
    assert audited(engine, account) == []


def test_an_added_charge_is_deleted_or_edited_before_or_after_but_never_summed_as_it_was(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    for round_ in range(ROUNDS):
        draft = a_draft(engine, account, client)
        charge = a_charge(engine, client, MAY)
        act: Callable[[Session], Any] = (
            partial(edit_charge, account_id=account.id, charge_id=charge, changes={"amount": 1})
            if round_ % 2
            else partial(delete_charge, account_id=account.id, charge_id=charge)
        )
        added, changed = together(
            partial(edited, engine, account, draft.id, add_charges=[charge]),
            partial(in_a_transaction, engine, act),
        )
        assert not isinstance(changed, Exception), changed
        assert isinstance(added, Invoice | NotFound), added
        assert invoice_of(engine, draft.id).total == 1000 + round_ % 2

    assert audited(engine, account) == []


def test_a_draft_is_finalized_as_it_was_changed_or_not_changed(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    for _ in range(ROUNDS):
        draft = a_draft(engine, account, client)
        charge = a_charge(engine, client, MAY)
        changed, finalized = together(
            partial(edited, engine, account, draft.id, add_charges=[charge], memo="Dock 5"),
            partial(perform, engine, finalize_invoice, account, invoice_id=draft.id),
        )
        assert isinstance(finalized, Done), finalized
        invoice = invoice_of(engine, draft.id)
        if isinstance(changed, Invoice):
            assert (invoice.total, invoice.memo) == (2000, "Dock 5")
            assert charge in lines_of(engine, draft.id)
        else:
            assert isinstance(changed, RuleViolation), changed
            assert changed.code == "invoice_not_draft"
            assert (invoice.total, invoice.memo) == (1000, None)
            assert on_invoice(engine, charge) == [None]

    assert audited(engine, account) == []


def test_two_drafts_of_a_period_that_go_at_once_leave_it_settled(
    engine: Engine, account: Account
) -> None:
    for round_ in range(ROUNDS):
        client = a_client(engine, account)
        euros = a_charge(engine, client, MAY, currency="eur")
        a_charge(engine, client, MAY)
        in_euros, in_dollars = in_review(engine, account, client)
        act = delete_draft if round_ % 2 else finalize_invoice
        emptied, done = together(
            partial(
                in_a_transaction,
                engine,
                partial(delete_charge, account_id=account.id, charge_id=euros),
            ),
            partial(perform, engine, act, account, invoice_id=in_dollars.id),
        )
        assert emptied is None, emptied
        assert isinstance(done, Done), done
        left = [one.id for one in invoices_of(engine, client)]
        assert left == ([] if round_ % 2 else [in_dollars.id])
        assert in_euros.id not in left
        [period] = periods_of(engine, client)
        if round_ % 2:
            assert period.state in {"empty", "skipped"}

    assert audited(engine, account) == []
