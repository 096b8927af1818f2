from datetime import date
from decimal import Decimal
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from billing.errors import NotFound, RuleViolation
from models import Account, Charge, Client, Invoice, LedgerEntry, NumberSeries
from tasks.accounts import create_account
from tasks.charges import delete_charge, edit_charge
from tasks.drafting import delete_draft, draft_invoice
from tasks.finalizing import finalize_invoice
from tasks.outcomes import Done
from tests.worlds import a_charge, a_client, audited, charges, invoices_of, perform

MAY = date(2026, 5, 1)
YEARS_AHEAD = date(2031, 1, 1)


def invoice_of(engine: Engine, charge_id: UUID) -> UUID | None:
    with Session(engine) as session:
        return session.scalar(select(Charge.invoice_id).where(Charge.id == charge_id))


def draft(engine: Engine, account: Account, client: Client) -> Invoice:
    perform(engine, draft_invoice, account, client_id=client.id)
    return invoices_of(engine, client)[-1]


def test_a_draft_takes_all_open_charges_whatever_their_date(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    charges(engine, client, [(date(1998, 1, 1), "1.00"), (YEARS_AHEAD, "2.00")])

    outcome = perform(engine, draft_invoice, account, client_id=client.id)

    [invoice] = invoices_of(engine, client)
    assert outcome == Done({"invoices": [str(invoice.id)]})
    assert (invoice.status, invoice.total, invoice.number) == ("draft", 300, None)
    assert (invoice.period_id, invoice.run_id, invoice.issued_on) == (None, None, None)
    assert audited(engine, account) == []


def test_a_draft_of_selected_charges_leaves_the_others_open(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    wanted, other = charges(engine, client, [(MAY, "1.00"), (MAY, "2.00")])

    perform(engine, draft_invoice, account, client_id=client.id, charge_ids=[wanted])

    [invoice] = invoices_of(engine, client)
    assert invoice.total == 100
    assert invoice_of(engine, wanted) == invoice.id
    assert invoice_of(engine, other) is None


def test_one_draft_is_made_for_each_currency(engine: Engine, account: Account) -> None:
    client = a_client(engine, account)
    for currency, price in (("usd", "1"), ("eur", "2"), ("usd", "3")):
        a_charge(engine, client, MAY, price, currency=currency)

    perform(engine, draft_invoice, account, client_id=client.id)

    found = {(one.currency, one.total) for one in invoices_of(engine, client)}
    assert found == {("usd", 400), ("eur", 200)}


def test_a_draft_moves_no_money_and_takes_no_number(
    engine: Engine, session: Session, account: Account
) -> None:
    client = a_client(engine, account)
    a_charge(engine, client, MAY)
    draft(engine, account, client)

    assert session.scalars(select(LedgerEntry)).all() == []
    assert session.scalars(select(NumberSeries)).all() == []


def test_a_client_without_open_charges_gets_no_draft(engine: Engine, account: Account) -> None:
    client, other = a_client(engine, account), a_client(engine, account)
    a_charge(engine, other, MAY)

    for _ in range(2):
        with pytest.raises(RuleViolation) as refused:
            perform(engine, draft_invoice, account, client_id=client.id)
        assert refused.value.code == "nothing_to_bill"
    with pytest.raises(RuleViolation):
        perform(engine, draft_invoice, account, client_id=client.id, charge_ids=[])


def test_a_charge_that_is_on_an_invoice_cannot_be_drafted_again(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    first, second = charges(engine, client, [(MAY, "1.00"), (MAY, "2.00")])
    perform(engine, draft_invoice, account, client_id=client.id, charge_ids=[first])

    with pytest.raises(RuleViolation) as refused:
        perform(engine, draft_invoice, account, client_id=client.id, charge_ids=[second, first])

    assert refused.value.code == "charge_already_invoiced"
    assert str(first) in str(refused.value)
    assert invoice_of(engine, second) is None


def test_only_the_clients_own_charges_can_be_selected(engine: Engine, account: Account) -> None:
    client, other = a_client(engine, account), a_client(engine, account)
    mine, theirs = a_charge(engine, client, MAY), a_charge(engine, other, MAY)

    for charge_id in (theirs, uuid4()):
        with pytest.raises(NotFound):
            perform(
                engine,
                draft_invoice,
                account,
                client_id=client.id,
                charge_ids=[mine, charge_id],
            )
    assert invoices_of(engine, account) == []


def test_another_accounts_client_and_drafts_are_not_found(
    engine: Engine, session: Session, account: Account
) -> None:
    other = create_account(session, "Other")
    session.commit()
    theirs = a_client(engine, other)
    a_charge(engine, theirs, MAY)

    with pytest.raises(NotFound):
        perform(engine, draft_invoice, account, client_id=theirs.id)
    their_draft = draft(engine, other, theirs)
    with pytest.raises(NotFound):
        perform(engine, delete_draft, account, invoice_id=their_draft.id)
    assert len(invoices_of(engine, other)) == 1


def test_deleting_a_draft_opens_its_charges_again_and_uses_no_number(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    charge = a_charge(engine, client, MAY)
    gone = draft(engine, account, client)

    perform(engine, delete_draft, account, invoice_id=gone.id)

    assert invoices_of(engine, client) == []
    assert invoice_of(engine, charge) is None
    with pytest.raises(NotFound):
        perform(engine, delete_draft, account, invoice_id=gone.id)
    again = draft(engine, account, client)
    perform(engine, finalize_invoice, account, invoice_id=again.id)
    assert [one.number for one in invoices_of(engine, client)] == ["INV-000001"]


def test_what_is_finalized_cannot_be_deleted(engine: Engine, account: Account) -> None:
    client = a_client(engine, account)
    a_charge(engine, client, MAY)
    invoice = draft(engine, account, client)
    perform(engine, finalize_invoice, account, invoice_id=invoice.id)

    with pytest.raises(RuleViolation) as refused:
        perform(engine, delete_draft, account, invoice_id=invoice.id)
    assert refused.value.code == "invoice_not_draft"
    assert str(refused.value) == "cannot delete an invoice that is open"


def test_a_draft_follows_its_charges_until_the_last_is_gone(
    engine: Engine, session: Session, account: Account
) -> None:
    client = a_client(engine, account)
    first, second = charges(engine, client, [(MAY, "1.00"), (MAY, "2.00")])
    draft(engine, account, client)

    edit_charge(session, account.id, first, {"quantity": Decimal(5)})
    session.commit()
    assert [(one.subtotal, one.total) for one in invoices_of(engine, client)] == [(700, 700)]

    delete_charge(session, account.id, second)
    session.commit()
    assert [one.total for one in invoices_of(engine, client)] == [500]

    delete_charge(session, account.id, first)
    session.commit()
    assert invoices_of(engine, client) == []
