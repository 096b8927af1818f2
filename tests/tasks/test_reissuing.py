from datetime import date
from decimal import Decimal
from functools import partial
from uuid import uuid4

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from billing.errors import NotFound, RuleViolation
from models import Account, Charge, Client, Invoice
from tasks.drafting import draft_invoice
from tasks.finalizing import finalize_invoice
from tasks.outcomes import Done
from tasks.reissuing import reissue_invoice
from tasks.voiding import void_invoice
from tests.money import an_invoice, assert_no_money_is_lost, invoice_of
from tests.worlds import NOW, a_charge, a_client, charges, invoices_of, perform, together

MAY = date(2026, 5, 1)


def copies_of(session: Session, client: Client) -> list[Charge]:
    """The client's open charges that are copies, oldest first."""
    return list(
        session.scalars(
            select(Charge)
            .where(
                Charge.client_id == client.id,
                Charge.invoice_id.is_(None),
                Charge.copy_of.is_not(None),
            )
            .order_by(Charge.id)
        )
    )


def a_void(engine: Engine, account: Account, client: Client) -> Invoice:
    """One that billed a discount and a work order with a reference."""
    a_charge(engine, client, MAY, "-0.50", description="Discount")
    a_charge(
        engine, client, date(2026, 5, 2), "0.2750", quantity=Decimal(40), external_ref="order-9"
    )
    perform(engine, draft_invoice, account, client_id=client.id)
    invoice = invoices_of(engine, client)[-1]
    perform(engine, finalize_invoice, account, invoice_id=invoice.id)
    perform(engine, void_invoice, account, invoice_id=invoice.id)
    return invoice_of(engine, invoice.id)


def test_copies_have_the_dates_and_prices_and_no_reference(
    engine: Engine, session: Session, account: Account
) -> None:
    client = a_client(engine, account)
    void = a_void(engine, account, client)

    result = perform(engine, reissue_invoice, account, invoice_id=void.id)

    assert result == Done({"invoice": str(void.id), "charges": 2})
    originals = session.scalars(select(Charge).where(Charge.invoice_id == void.id)).all()
    copies = {copy.copy_of: copy for copy in copies_of(session, client)}
    assert copies.keys() == {one.id for one in originals}
    for one in originals:
        copy = copies[one.id]
        for name in ("charged_on", "description", "quantity", "unit_price", "amount", "currency"):
            assert getattr(copy, name) == getattr(one, name), name
        assert copy.external_ref is None
    assert invoice_of(engine, void.id).reissued_at == NOW


def test_what_is_reissued_is_billed_again_under_a_new_number(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    void = a_void(engine, account, client)
    perform(engine, reissue_invoice, account, invoice_id=void.id)

    perform(engine, draft_invoice, account, client_id=client.id)
    again = invoices_of(engine, client)[-1]
    perform(engine, finalize_invoice, account, invoice_id=again.id)

    assert [(one.number, one.status, one.total) for one in invoices_of(engine, client)] == [
        ("INV-000001", "void", 1050),
        ("INV-000002", "open", 1050),
    ]
    assert_no_money_is_lost(engine, account)


def test_a_void_reissues_in_the_same_step_where_it_is_told_to(
    engine: Engine, session: Session, account: Account
) -> None:
    client = a_client(engine, account)
    invoice = an_invoice(engine, account, client)

    result = perform(engine, void_invoice, account, invoice_id=invoice.id, reissue=True)

    assert result == Done({"invoice": str(invoice.id), "credit_returned": 0, "charges": 1})
    assert [copy.amount for copy in copies_of(session, client)] == [1000]


def test_an_invoice_is_reissued_once_whoever_asks(
    engine: Engine, session: Session, account: Account
) -> None:
    client = a_client(engine, account)
    invoice = an_invoice(engine, account, client)
    perform(engine, void_invoice, account, invoice_id=invoice.id)
    reissue = partial(perform, engine, reissue_invoice, account, invoice_id=invoice.id)

    outcomes = together(reissue, reissue)

    refused = [one for one in outcomes if isinstance(one, RuleViolation)]
    assert [one.code for one in refused] == ["invoice_already_reissued"]
    assert len(copies_of(session, client)) == 1


def test_copies_that_were_deleted_are_not_opened_again(
    engine: Engine, session: Session, account: Account
) -> None:
    client = a_client(engine, account)
    invoice = an_invoice(engine, account, client)
    perform(engine, void_invoice, account, invoice_id=invoice.id, reissue=True)
    for copy in copies_of(session, client):
        session.delete(copy)
    session.commit()

    with pytest.raises(RuleViolation) as refused:
        perform(engine, reissue_invoice, account, invoice_id=invoice.id)
    assert refused.value.code == "invoice_already_reissued"


def test_a_copy_that_was_billed_and_voided_is_reissued_in_its_turn(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    invoice = an_invoice(engine, account, client)
    for _ in range(3):
        perform(engine, void_invoice, account, invoice_id=invoice.id, reissue=True)
        perform(engine, draft_invoice, account, client_id=client.id)
        invoice = invoices_of(engine, client)[-1]
        perform(engine, finalize_invoice, account, invoice_id=invoice.id)

    assert [one.status for one in invoices_of(engine, client)] == ["void"] * 3 + ["open"]
    assert_no_money_is_lost(engine, account)


def test_only_a_void_invoice_is_reissued(engine: Engine, account: Account) -> None:
    client = a_client(engine, account)
    charges(engine, client, [(MAY, "10.00")])
    perform(engine, draft_invoice, account, client_id=client.id)
    draft = invoices_of(engine, client)[-1]
    invoice = an_invoice(engine, account, client)

    for one in (draft, invoice):
        with pytest.raises(RuleViolation) as refused:
            perform(engine, reissue_invoice, account, invoice_id=one.id)
        assert refused.value.code == "invoice_not_void"
    with pytest.raises(NotFound):
        perform(engine, reissue_invoice, account, invoice_id=uuid4())
