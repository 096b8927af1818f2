"""Edits of locked charges, and what happens to the same charges at the same moment."""

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from billing.errors import NotFound, RuleViolation
from models import Account, Charge, Client, Invoice
from tasks.amending import change_charge, remove_charge
from tasks.drafting import delete_draft, draft_invoice
from tasks.finalizing import finalize_invoice
from tasks.outcomes import Done
from tasks.reissuing import reissue_invoice
from tasks.voiding import void_invoice
from tests.worlds import NOW, a_charge, a_client, audited, perform, together

ROUNDS = 15
MAY = date(2026, 5, 12)


def committed(engine: Engine, act: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401 - what act returns
    with Session(engine) as session, session.begin():
        return act(session, *arguments, now=NOW)


def editing(engine: Engine, account: Account, charge: UUID, amount: int) -> Callable[[], Any]:
    return partial(committed, engine, change_charge, account.id, charge, {"amount": amount})


def a_draft(engine: Engine, account: Account, client: Client) -> UUID:
    """Of all the client's open charges."""
    drafted = perform(engine, draft_invoice, account, client_id=client.id)
    assert isinstance(drafted, Done)
    return UUID(drafted.result["invoices"][0])


def billed(engine: Engine, account: Account, client: Client) -> UUID:
    """A finalized invoice of all the client's open charges."""
    draft = a_draft(engine, account, client)
    perform(engine, finalize_invoice, account, invoice_id=draft)
    return draft


def a_locked_charge(engine: Engine, account: Account, client: Client) -> tuple[UUID, UUID]:
    """One of 10.00, and its invoice."""
    charge = a_charge(engine, client, MAY)
    return charge, billed(engine, account, client)


def amendments_of(engine: Engine, charge: UUID) -> list[tuple[int, str | None]]:
    """Amount and invoice's status of each amendment that counts, oldest first."""
    with Session(engine) as session:
        rows = session.execute(
            select(Charge.amount, Invoice.status)
            .outerjoin(Invoice, Invoice.id == Charge.invoice_id)
            .where(Charge.amends == charge)
            .order_by(Charge.id)
        )
        return [(amount, status) for amount, status in rows if status != "void"]


def totals_of_drafts(engine: Engine, client: Client) -> list[int]:
    with Session(engine) as session:
        drafts = select(Invoice.total).where(
            Invoice.client_id == client.id, Invoice.status == "draft"
        )
        return list(session.scalars(drafts))


@pytest.mark.parametrize("on_a_draft", [False, True])
def test_two_edits_at_once_leave_one_open_amendment_of_one_of_them(
    engine: Engine, account: Account, *, on_a_draft: bool
) -> None:
    for _ in range(ROUNDS):
        client = a_client(engine, account)
        charge, _ = a_locked_charge(engine, account, client)
        if on_a_draft:
            editing(engine, account, charge, 1001)()
            a_draft(engine, account, client)

        outcomes = together(
            editing(engine, account, charge, 1200), editing(engine, account, charge, 1300)
        )

        assert all(isinstance(outcome, UUID) for outcome in outcomes), outcomes
        [(amount, status)] = amendments_of(engine, charge)
        assert amount in {200, 300}
        assert totals_of_drafts(engine, client) == ([amount] if status else [])

    assert audited(engine, account) == []


def test_the_same_edit_twice_at_once_is_one_amendment(engine: Engine, account: Account) -> None:
    client = a_client(engine, account)
    for _ in range(ROUNDS):
        charge, _ = a_locked_charge(engine, account, client)
        edit = editing(engine, account, charge, 1200)

        first, second = together(edit, edit)

        assert first == second
        assert amendments_of(engine, charge) == [(200, None)]
        billed(engine, account, client)

    assert audited(engine, account) == []


def test_an_edit_and_a_deletion_at_once_leave_one_open_amendment(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    for _ in range(ROUNDS):
        charge, _ = a_locked_charge(engine, account, client)

        outcomes = together(
            editing(engine, account, charge, 1200),
            partial(committed, engine, remove_charge, account.id, charge),
        )

        assert not any(isinstance(outcome, Exception) for outcome in outcomes), outcomes
        [(amount, _)] = amendments_of(engine, charge)
        assert amount in {200, -1000}
        billed(engine, account, client)

    assert audited(engine, account) == []


def test_an_edit_changes_a_charge_before_it_is_finalized_or_amends_it_after(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    for _ in range(ROUNDS):
        charge = a_charge(engine, client, MAY)
        draft = a_draft(engine, account, client)

        finalized, amendment = together(
            partial(perform, engine, finalize_invoice, account, invoice_id=draft),
            editing(engine, account, charge, 1200),
        )

        assert isinstance(finalized, Done), finalized
        with Session(engine) as session:
            total = session.get_one(Invoice, draft).total
        if amendment is None:
            assert (total, amendments_of(engine, charge)) == (1200, [])
        else:
            assert (total, amendments_of(engine, charge)) == (1000, [(200, None)])
            billed(engine, account, client)

    assert audited(engine, account) == []


@pytest.mark.parametrize("value", [1000, 1500])
def test_an_edit_changes_the_amendment_before_its_draft_is_finalized_or_adds_another(
    engine: Engine, account: Account, value: int
) -> None:
    for _ in range(ROUNDS):
        client = a_client(engine, account)
        charge, _ = a_locked_charge(engine, account, client)
        editing(engine, account, charge, 1200)()
        draft = a_draft(engine, account, client)

        finalized, edited = together(
            partial(perform, engine, finalize_invoice, account, invoice_id=draft),
            editing(engine, account, charge, value),
        )

        assert not isinstance(edited, Exception), edited
        left = amendments_of(engine, charge)
        assert 1000 + sum(amount for amount, _ in left) == value
        if isinstance(finalized, NotFound):
            assert (value, left) == (1000, [])
        else:
            assert isinstance(finalized, Done), finalized
            assert left[0][1] in {"open", "paid"}

    assert audited(engine, account) == []


def test_an_edit_meets_the_draft_or_comes_before_it(engine: Engine, account: Account) -> None:
    for _ in range(ROUNDS):
        client = a_client(engine, account)
        charge, _ = a_locked_charge(engine, account, client)
        editing(engine, account, charge, 1200)()

        drafted, edited = together(
            partial(perform, engine, draft_invoice, account, client_id=client.id),
            editing(engine, account, charge, 1500),
        )

        assert isinstance(drafted, Done), drafted
        assert isinstance(edited, UUID), edited
        assert amendments_of(engine, charge) == [(500, "draft")]
        assert totals_of_drafts(engine, client) == [500]

    assert audited(engine, account) == []


@pytest.mark.parametrize("value", [1000, 1500])
def test_an_edit_and_a_deleted_draft_leave_what_was_asked_for(
    engine: Engine, account: Account, value: int
) -> None:
    for _ in range(ROUNDS):
        client = a_client(engine, account)
        charge, _ = a_locked_charge(engine, account, client)
        editing(engine, account, charge, 1200)()
        draft = a_draft(engine, account, client)

        deleted, edited = together(
            partial(perform, engine, delete_draft, account, invoice_id=draft),
            editing(engine, account, charge, value),
        )

        assert isinstance(deleted, Done | NotFound), deleted
        assert not isinstance(edited, Exception), edited
        assert amendments_of(engine, charge) == ([(500, None)] if value == 1500 else [])
        assert totals_of_drafts(engine, client) == []

    assert audited(engine, account) == []


def test_an_edit_comes_before_a_void_that_removes_it_or_is_refused(
    engine: Engine, account: Account
) -> None:
    refused = 0
    for _ in range(ROUNDS):
        client = a_client(engine, account)
        charge, invoice = a_locked_charge(engine, account, client)

        voided, edited = together(
            partial(perform, engine, void_invoice, account, invoice_id=invoice),
            editing(engine, account, charge, 1200),
        )

        assert isinstance(voided, Done), voided
        if isinstance(edited, Exception):
            assert isinstance(edited, RuleViolation), edited
            assert edited.code == "charge_voided"
            refused += 1
        else:
            assert voided.result["amendments_removed"] == 1
        assert amendments_of(engine, charge) == []

    assert refused <= ROUNDS
    assert audited(engine, account) == []


def test_an_original_is_voided_or_its_amendment_billed_never_both(
    engine: Engine, account: Account
) -> None:
    for _ in range(ROUNDS):
        client = a_client(engine, account)
        charge, invoice = a_locked_charge(engine, account, client)
        editing(engine, account, charge, 1200)()
        draft = a_draft(engine, account, client)

        voided, finalized = together(
            partial(perform, engine, void_invoice, account, invoice_id=invoice),
            partial(perform, engine, finalize_invoice, account, invoice_id=draft),
        )

        if isinstance(voided, Done):
            assert isinstance(finalized, NotFound), finalized
            assert amendments_of(engine, charge) == []
        else:
            assert isinstance(voided, RuleViolation), voided
            assert voided.code == "charge_amended"
            assert amendments_of(engine, charge) == [(200, "open")]

    assert audited(engine, account) == []


def test_an_edit_and_a_reissue_of_what_amended_before_come_to_what_was_asked_for(
    engine: Engine, account: Account
) -> None:
    for _ in range(ROUNDS):
        client = a_client(engine, account)
        charge, _ = a_locked_charge(engine, account, client)
        editing(engine, account, charge, 1200)()
        later = billed(engine, account, client)
        perform(engine, void_invoice, account, invoice_id=later)

        outcomes = together(
            partial(perform, engine, reissue_invoice, account, invoice_id=later),
            editing(engine, account, charge, 1500),
        )

        assert not any(isinstance(outcome, Exception) for outcome in outcomes), outcomes
        assert amendments_of(engine, charge) == [(500, None)]

    assert audited(engine, account) == []


def test_edits_of_one_clients_charges_wait_for_each_other_in_no_ring(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    ids = [a_charge(engine, client, MAY, "1.00", quantity=Decimal(one)) for one in range(1, 5)]
    invoice = billed(engine, account, client)
    for value in range(ROUNDS):
        outcomes = together(
            *(editing(engine, account, charge, value) for charge in ids),
            partial(perform, engine, draft_invoice, account, client_id=client.id),
        )
        assert all(
            isinstance(outcome, UUID | Done | RuleViolation | None) for outcome in outcomes
        ), outcomes
    perform(engine, void_invoice, account, invoice_id=invoice)

    assert [amendments_of(engine, charge) for charge in ids] == [[], [], [], []]
    assert totals_of_drafts(engine, client) == []
    assert audited(engine, account) == []
