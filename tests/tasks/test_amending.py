from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from billing.errors import InvalidInput, NotFound, RuleViolation
from gateways.sandbox.stripe.server import StripeSandbox
from models import Account, Charge, Client, Invoice
from tasks.accounts import create_account
from tasks.amending import change_charge, remove_charge
from tasks.calls import Gateways
from tasks.drafting import delete_draft, draft_invoice
from tasks.finalizing import finalize_invoice
from tasks.invoice_credits import credit_invoice
from tasks.marking_paid import mark_invoice_paid
from tasks.outcomes import Done
from tasks.payment_refunds import refund_payment
from tasks.reissuing import reissue_invoice
from tasks.voiding import void_invoice
from tests.cards import sweep
from tests.money import assert_no_money_is_lost, invoice_of, payments_of
from tests.refunds import a_card_payment, assert_stripe_agrees, refund, refund_states
from tests.worlds import NOW, a_charge, a_client, change, charges, invoices_of, perform

MAY = date(2026, 5, 12)


def edit(
    engine: Engine,
    account: Account,
    charge_id: UUID,
    changes: Mapping[str, Any] | None = None,
    *,
    now: datetime = NOW,
    **more: Any,
) -> UUID | None:
    """The amendment that an edit leaves, committed."""
    with Session(engine) as session, session.begin():
        return change_charge(session, account.id, charge_id, {**(changes or {}), **more}, now=now)


def remove(engine: Engine, account: Account, charge_id: UUID) -> tuple[bool, UUID | None]:
    with Session(engine) as session, session.begin():
        return remove_charge(session, account.id, charge_id, now=NOW)


def refusal(engine: Engine, account: Account, charge_id: UUID, **changes: Any) -> str:
    """The code with which an edit is refused."""
    with pytest.raises(RuleViolation) as refused:
        edit(engine, account, charge_id, changes)
    return refused.value.code


def charge_of(engine: Engine, charge_id: UUID | None) -> Charge:
    with Session(engine) as session:
        return session.get_one(Charge, charge_id)


def amendments_of(engine: Engine, charge_id: UUID) -> list[tuple[int, str | None]]:
    """The amount of each amendment of a charge and the status of its invoice, oldest first."""
    with Session(engine) as session:
        rows = session.execute(
            select(Charge.amount, Invoice.status)
            .outerjoin(Invoice, Invoice.id == Charge.invoice_id)
            .where(Charge.amends == charge_id)
            .order_by(Charge.id)
        )
        return [(amount, status) for amount, status in rows]


def a_draft(engine: Engine, account: Account, client: Client, *charge_ids: UUID) -> UUID:
    """A draft of these charges, or of all that are open."""
    drafted = perform(
        engine,
        draft_invoice,
        account,
        client_id=client.id,
        charge_ids=list(charge_ids) or None,
    )
    assert isinstance(drafted, Done)
    return UUID(drafted.result["invoices"][0])


def bill_all(engine: Engine, account: Account, client: Client, *charge_ids: UUID) -> UUID:
    """A finalized invoice of these charges, or of all that are open."""
    draft = a_draft(engine, account, client, *charge_ids)
    perform(engine, finalize_invoice, account, invoice_id=draft)
    return draft


@pytest.fixture
def ada(engine: Engine, account: Account) -> Client:
    return a_client(engine, account)


@pytest.fixture
def locked(engine: Engine, account: Account, ada: Client) -> UUID:
    """40 at 0.25, on INV-000001."""
    charge = a_charge(
        engine, ada, MAY, "0.25", quantity=Decimal(40), category="prep", external_ref="order-9"
    )
    bill_all(engine, account, ada)
    return charge


def void(engine: Engine, account: Account, invoice_id: UUID | None, **options: Any) -> Any:  # noqa: ANN401 - the job's result
    done = perform(engine, void_invoice, account, invoice_id=invoice_id, **options)
    assert isinstance(done, Done)
    return done.result


# An edit


def test_an_open_charge_or_one_on_a_draft_is_changed_itself(
    engine: Engine, account: Account, ada: Client
) -> None:
    charge = a_charge(engine, ada, MAY)
    assert edit(engine, account, charge, amount=700, description="Boxes") is None
    draft = a_draft(engine, account, ada)
    assert edit(engine, account, charge, amount=800) is None

    assert (charge_of(engine, charge).amount, invoice_of(engine, draft).total) == (800, 800)
    assert remove(engine, account, charge) == (True, None)
    assert invoices_of(engine, ada) == []


def test_a_locked_charge_stays_and_the_difference_is_a_charge_of_its_own(
    engine: Engine, account: Account, ada: Client, locked: UUID
) -> None:
    amendment = charge_of(engine, edit(engine, account, locked, quantity=Decimal(42)))

    original = charge_of(engine, locked)
    assert (original.amount, original.quantity) == (1000, Decimal(40))
    assert (amendment.amends, amendment.amount) == (locked, 50)
    assert (amendment.quantity, amendment.unit_price) == (Decimal(1), None)
    assert amendment.invoice_id is None
    assert amendment.description == "Correction of INV-000001: FNSKU labelling"
    assert (amendment.client_id, amendment.currency, amendment.category) == (ada.id, "usd", "prep")
    assert (amendment.external_ref, amendment.copy_of) == (None, None)
    assert (amendment.charged_on, amendment.taxed_on) == (NOW.date(), MAY)
    assert invoices_of(engine, ada)[0].total == 1000
    assert_no_money_is_lost(engine, account)


def test_it_is_dated_on_the_clients_calendar(engine: Engine, account: Account) -> None:
    client = a_client(engine, account, time_zone="Pacific/Auckland")
    charge = a_charge(engine, client, MAY)
    bill_all(engine, account, client)

    amendment = edit(engine, account, charge, amount=1, now=datetime(2026, 6, 10, 12, tzinfo=UTC))

    assert charge_of(engine, amendment).charged_on == date(2026, 6, 11)


def test_the_same_edit_again_changes_nothing(
    engine: Engine, account: Account, locked: UUID
) -> None:
    first = edit(engine, account, locked, quantity=Decimal(42))
    again = edit(engine, account, locked, quantity=Decimal(42), now=NOW + timedelta(days=9))

    assert first == again
    assert amendments_of(engine, locked) == [(50, None)]


def test_each_edit_says_all_of_the_price_anew(
    engine: Engine, account: Account, locked: UUID
) -> None:
    edit(engine, account, locked, quantity=Decimal(42))
    edit(engine, account, locked, unit_price=Decimal("0.30"))
    assert amendments_of(engine, locked) == [(200, None)]

    edit(engine, account, locked, quantity=Decimal(42), unit_price=Decimal("0.30"))
    assert amendments_of(engine, locked) == [(260, None)]
    edit(engine, account, locked, amount=900)
    assert amendments_of(engine, locked) == [(-100, None)]


def test_an_open_amendment_vanishes_with_the_difference(
    engine: Engine, account: Account, locked: UUID
) -> None:
    edit(engine, account, locked, amount=1200)
    assert edit(engine, account, locked, amount=1000) is None

    assert amendments_of(engine, locked) == []


def test_one_on_a_draft_is_changed_there_and_the_draft_goes_with_it(
    engine: Engine, account: Account, ada: Client, locked: UUID
) -> None:
    amendment = edit(engine, account, locked, amount=1200)
    a_charge(engine, ada, MAY, "3.00")
    draft = a_draft(engine, account, ada)
    assert edit(engine, account, locked, amount=1250) == amendment
    assert invoice_of(engine, draft).total == 550

    edit(engine, account, locked, amount=1000)
    assert invoice_of(engine, draft).total == 300
    edit(engine, account, locked, amount=1001)
    alone = a_draft(engine, account, ada)
    edit(engine, account, locked, amount=1000)

    assert [one.id for one in invoices_of(engine, ada) if one.status == "draft"] == [draft]
    assert alone != draft
    assert_no_money_is_lost(engine, account)


def test_one_that_was_billed_stays_and_the_next_edit_bills_the_rest(
    engine: Engine, account: Account, ada: Client, locked: UUID
) -> None:
    edit(engine, account, locked, amount=1200)
    bill_all(engine, account, ada)

    assert edit(engine, account, locked, amount=1200) is None
    edit(engine, account, locked, amount=900)
    assert amendments_of(engine, locked) == [(200, "open"), (-300, None)]
    assert_no_money_is_lost(engine, account)


def test_deleting_a_locked_charge_takes_all_of_it_back(
    engine: Engine, account: Account, ada: Client, locked: UUID
) -> None:
    edit(engine, account, locked, amount=1200)
    bill_all(engine, account, ada)

    deleted, amendment = remove(engine, account, locked)

    assert not deleted
    assert charge_of(engine, amendment).amount == -1200
    assert remove(engine, account, locked) == (False, amendment)
    bill_all(engine, account, ada)
    assert remove(engine, account, locked) == (False, None)
    assert [one.total for one in invoices_of(engine, ada)] == [1000, 200, -1200]
    assert_no_money_is_lost(engine, account)


def test_a_charge_without_a_unit_price_is_amended_by_amount_and_quantity_priced(
    engine: Engine, account: Account, ada: Client
) -> None:
    charge = a_charge(engine, ada, MAY, amount=500, unit_price=None)
    bill_all(engine, account, ada)

    edit(engine, account, charge, unit_price=Decimal("7.00"))
    assert amendments_of(engine, charge) == [(200, None)]


# What cannot be edited


def test_a_locked_charges_other_fields_are_refused_unless_they_stay_the_same(
    engine: Engine, account: Account, locked: UUID
) -> None:
    for others in (
        {"description": "Boxes"},
        {"charged_on": date(2026, 5, 13)},
        {"category": None},
        {"metadata": {"sku": "A-1"}},
    ):
        assert refusal(engine, account, locked, **others) == "charge_locked"
        assert refusal(engine, account, locked, **others, amount=1) == "charge_locked"
    assert edit(engine, account, locked, description="FNSKU labelling", category="prep") is None
    assert amendments_of(engine, locked) == []

    amendment = edit(
        engine, account, locked, description="FNSKU labelling", metadata={}, amount=1001
    )
    assert edit(engine, account, locked, charged_on=MAY) == amendment
    assert amendments_of(engine, locked) == [(1, None)]


def test_the_refusal_says_what_can_be_done(engine: Engine, account: Account, locked: UUID) -> None:
    with pytest.raises(RuleViolation, match="so its description, category cannot be changed: a ne"):
        edit(engine, account, locked, description="Boxes", category=None, amount=1)


def test_a_wrong_price_is_refused_like_that_of_an_open_charge(
    engine: Engine, account: Account, locked: UUID
) -> None:
    for wrong, field in (
        ({"quantity": Decimal(0)}, "quantity"),
        ({"unit_price": None}, "unit_price"),
        ({"unit_price": Decimal(1), "amount": 1}, "amount"),
        ({"amount": -(10**12)}, "amount"),
    ):
        with pytest.raises(InvalidInput) as refused:
            edit(engine, account, locked, wrong)
        assert refused.value.field == field
    assert amendments_of(engine, locked) == []


def test_an_amendment_itself_is_not_edited_wherever_it_is(
    engine: Engine, account: Account, ada: Client, locked: UUID
) -> None:
    amendment = edit(engine, account, locked, amount=1200)
    assert amendment is not None
    draft = a_draft(engine, account, ada)
    goes_on = (
        lambda: perform(engine, delete_draft, account, invoice_id=draft),
        lambda: bill_all(engine, account, ada),
    )
    for go_on in goes_on:
        assert refusal(engine, account, amendment, amount=1) == "edit_the_original"
        with pytest.raises(RuleViolation, match=str(locked)) as refused:
            remove(engine, account, amendment)
        assert refused.value.code == "edit_the_original"
        go_on()
    assert refusal(engine, account, amendment, amount=1) == "edit_the_original"
    assert amendments_of(engine, locked) == [(200, "open")]


def test_a_charge_of_a_void_invoice_is_not_amended(
    engine: Engine, account: Account, locked: UUID
) -> None:
    void(engine, account, charge_of(engine, locked).invoice_id)

    assert refusal(engine, account, locked, amount=1) == "charge_voided"
    with pytest.raises(RuleViolation, match="is void"):
        remove(engine, account, locked)


def test_an_unknown_or_another_accounts_charge_is_not_found(
    engine: Engine, session: Session, account: Account, locked: UUID
) -> None:
    other = create_account(session, "Other")
    session.commit()
    for owner, charge in ((account, uuid4()), (other, locked)):
        with pytest.raises(NotFound):
            edit(engine, owner, charge, amount=1)
        with pytest.raises(NotFound):
            remove(engine, owner, charge)


# Tax


@pytest.mark.parametrize(
    ("net", "taxes", "own", "borne"),
    [
        (1000, {}, None, []),
        (1000, {UUID(int=1): 200, UUID(int=2): 0}, None, [UUID(int=1), UUID(int=2)]),
        # An exempt client's, whose price contained tax: as the charge itself says.
        (833, {}, None, None),
        (833, {}, [UUID(int=3)], [UUID(int=3)]),
    ],
)
def test_an_amendment_bears_the_rates_of_the_originals_line(
    engine: Engine,
    session: Session,
    account: Account,
    ada: Client,
    *,
    net: int,
    taxes: dict[UUID, int],
    own: list[UUID] | None,
    borne: list[UUID] | None,
) -> None:
    charge = a_charge(engine, ada, MAY)
    bill_all(engine, account, ada)
    frozen = {str(rate): tax for rate, tax in taxes.items()}
    connection = session.connection()
    connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
    connection.exec_driver_sql(
        "UPDATE invoice_lines SET net = %s, taxes = %s::jsonb", (net, str(frozen).replace("'", '"'))
    )
    connection.exec_driver_sql("UPDATE charges SET tax_rates = %s::uuid[]", (own,))
    session.commit()

    amendment = charge_of(engine, edit(engine, account, charge, amount=900))

    assert amendment.tax_rates == borne
    assert amendment.taxed_on == MAY


# Void


def test_a_void_removes_the_open_amendments_of_its_charges(
    engine: Engine, account: Account, ada: Client
) -> None:
    ids = charges(engine, ada, [(MAY, "1.00"), (MAY, "2.00"), (MAY, "3.00")])
    invoice = bill_all(engine, account, ada)
    edit(engine, account, ids[0], amount=150)
    alone = a_draft(engine, account, ada)
    edit(engine, account, ids[1], amount=250)
    a_charge(engine, ada, MAY, "9.00")
    shared = a_draft(engine, account, ada)
    edit(engine, account, ids[2], amount=350)

    result = void(engine, account, invoice)

    assert result["amendments_removed"] == 3
    assert [amendments_of(engine, one) for one in ids] == [[], [], []]
    assert [(one.id, one.total) for one in invoices_of(engine, ada)[1:]] == [(shared, 900)]
    assert alone != shared
    assert_no_money_is_lost(engine, account)


def test_a_void_is_refused_while_an_amendment_of_its_charges_is_billed(
    engine: Engine, account: Account, ada: Client, locked: UUID
) -> None:
    invoice = charge_of(engine, locked).invoice_id
    edit(engine, account, locked, amount=1200)
    later = bill_all(engine, account, ada)
    edit(engine, account, locked, amount=1300)

    with pytest.raises(RuleViolation) as refused:
        void(engine, account, invoice)
    assert refused.value.code == "charge_amended"
    assert amendments_of(engine, locked) == [(200, "open"), (100, None)]

    void(engine, account, later)
    assert void(engine, account, invoice)["amendments_removed"] == 1
    assert amendments_of(engine, locked) == [(200, "void")]
    assert_no_money_is_lost(engine, account)


def credit_note(engine: Engine, account: Account, invoice_id: UUID, **what: Any) -> None:
    perform(engine, credit_invoice, account, invoice_id=invoice_id, to="credit", **what)


def test_what_a_credit_note_took_back_is_not_taken_back_by_an_amendment_as_well(
    engine: Engine, account: Account, ada: Client
) -> None:
    credited, other = charges(engine, ada, [(MAY, "10.00"), (MAY, "20.00")])
    invoice_id = bill_all(engine, account, ada, credited, other)
    credit_note(engine, account, invoice_id, lines=[credited])

    for refused in (
        lambda: remove(engine, account, credited),
        lambda: edit(engine, account, credited, amount=500),
    ):
        with pytest.raises(RuleViolation) as refusal:
            refused()
        assert refusal.value.code == "line_already_credited"
    assert edit(engine, account, other, amount=1_500) is not None

    credit_note(engine, account, invoice_id, amount=1_500)
    with pytest.raises(RuleViolation, match="took back"):
        remove(engine, account, other)
    assert_no_money_is_lost(engine, account)


def test_notes_of_amounts_and_amendments_together_take_back_what_was_billed_at_most(
    engine: Engine, account: Account, ada: Client
) -> None:
    [charge] = charges(engine, ada, [(MAY, "10.00")])
    invoice_id = bill_all(engine, account, ada, charge)
    credit_note(engine, account, invoice_id, amount=600)

    with pytest.raises(RuleViolation) as refusal:
        remove(engine, account, charge)
    assert refusal.value.code == "line_already_credited"
    assert edit(engine, account, charge, amount=600) is not None
    with pytest.raises(InvalidInput) as too_much:
        credit_note(engine, account, invoice_id, amount=1)
    assert too_much.value.code == "amount_exceeds_invoice"
    edit(engine, account, charge, amount=900)
    credit_note(engine, account, invoice_id, amount=300)
    assert_no_money_is_lost(engine, account)


def test_a_refunds_note_and_amendments_together_take_back_what_was_billed_at_most(
    engine: Engine, account: Account, ada: Client
) -> None:
    [charge] = charges(engine, ada, [(MAY, "10.00")])
    invoice_id = bill_all(engine, account, ada, charge)
    perform(engine, mark_invoice_paid, account, invoice_id=invoice_id)
    [payment] = payments_of(engine, ada)
    edit(engine, account, charge, amount=400)
    asked: dict[str, Any] = {"payment_id": payment.id, "to": "outside"}

    for too_much in (None, 401):
        with pytest.raises(InvalidInput, match="at most 400: amendments") as refused:
            perform(engine, refund_payment, account, **asked, amount=too_much)
        assert refused.value.code == "amount_exceeds_invoice"
    perform(engine, refund_payment, account, **asked, amount=300)
    # Without a note the debt is there again: nothing is taken back of what was billed.
    perform(engine, refund_payment, account, **asked, amount=700, credit_note=False)

    assert refusal(engine, account, charge, amount=299) == "line_already_credited"
    assert_no_money_is_lost(engine, account)


def test_nothing_is_amended_while_a_refund_that_makes_a_note_is_out(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    payment = a_card_payment(engine, account, vendors, stripe_sandbox)
    with Session(engine) as session:
        charge = session.scalars(
            select(Charge.id).where(Charge.invoice_id == payment.invoice_id)
        ).one()
    stripe_sandbox.control.add_fault("lost_answer", times=None, path="/v1/refunds")
    refund(engine, vendors, account, payment, amount=400, credit_note=False)
    assert edit(engine, account, charge, amount=900) is not None
    stripe_sandbox.control.clear_faults()
    sweep(engine, vendors, now=NOW + timedelta(minutes=1))
    stripe_sandbox.control.add_fault("lost_answer", times=None, path="/v1/refunds")
    refund(engine, vendors, account, payment, amount=500)
    assert refund_states(engine) == ["succeeded", "unknown"]

    assert refusal(engine, account, charge, amount=100) == "refund_in_flight"
    with pytest.raises(RuleViolation, match="wait until it is settled"):
        remove(engine, account, charge)
    stripe_sandbox.control.clear_faults()
    sweep(engine, vendors, now=NOW + timedelta(minutes=2))

    assert refusal(engine, account, charge, amount=499) == "line_already_credited"
    assert edit(engine, account, charge, amount=500) is not None
    assert_stripe_agrees(engine, account, stripe_sandbox)


def test_an_archived_clients_charge_gets_no_new_amendment(
    engine: Engine, account: Account, ada: Client, locked: UUID
) -> None:
    change(engine, ada, archived=True)

    assert refusal(engine, account, locked, quantity=Decimal(80)) == "client_archived"
    with pytest.raises(RuleViolation) as refused:
        remove(engine, account, locked)
    assert refused.value.code == "client_archived"
    # As it was billed, it stays.
    assert edit(engine, account, locked, quantity=Decimal(40)) is None
    assert amendments_of(engine, locked) == []

    change(engine, ada, archived=False)
    pending = edit(engine, account, locked, quantity=Decimal(80))
    change(engine, ada, archived=True)
    # One that is there already can be changed and taken back.
    assert edit(engine, account, locked, quantity=Decimal(60)) == pending
    assert edit(engine, account, locked, quantity=Decimal(40)) is None
    assert amendments_of(engine, locked) == []


def test_the_line_of_an_amended_charge_is_not_credited_whole(
    engine: Engine, account: Account, ada: Client
) -> None:
    amended, other = charges(engine, ada, [(MAY, "10.00"), (MAY, "20.00")])
    invoice_id = bill_all(engine, account, ada, amended, other)
    edit(engine, account, amended, amount=400)

    with pytest.raises(RuleViolation) as refusal:
        credit_note(engine, account, invoice_id, lines=[amended, other])

    assert refusal.value.code == "charge_amended"
    credit_note(engine, account, invoice_id, lines=[other])
    edit(engine, account, amended, amount=1_000)
    credit_note(engine, account, invoice_id, lines=[amended])
    assert_no_money_is_lost(engine, account)


def test_copies_of_charges_are_edited_by_themselves(
    engine: Engine, session: Session, account: Account, ada: Client, locked: UUID
) -> None:
    edit(engine, account, locked, amount=800)
    void(engine, account, charge_of(engine, locked).invoice_id, reissue=True)

    copy = session.scalars(select(Charge).where(Charge.copy_of == locked)).one()
    assert (copy.amount, copy.amends) == (1000, None)
    assert edit(engine, account, copy.id, amount=800) is None
    bill_all(engine, account, ada)
    assert charge_of(engine, edit(engine, account, copy.id, amount=700)).amount == -100
    assert_no_money_is_lost(engine, account)


# Reissue


@pytest.mark.parametrize("at_once", [True, False])
def test_a_copied_amendment_goes_on_amending_the_same_charge(
    engine: Engine, session: Session, account: Account, ada: Client, locked: UUID, *, at_once: bool
) -> None:
    first = charge_of(engine, edit(engine, account, locked, amount=1200))
    later = bill_all(engine, account, ada)
    void(engine, account, later, reissue=at_once)
    if not at_once:
        perform(engine, reissue_invoice, account, invoice_id=later)

    copy = session.scalars(select(Charge).where(Charge.copy_of == first.id)).one()
    for name in ("amends", "amount", "charged_on", "taxed_on", "tax_rates", "description"):
        assert getattr(copy, name) == getattr(first, name), name
    assert refusal(engine, account, copy.id, amount=1) == "edit_the_original"
    assert edit(engine, account, locked, amount=1200) == copy.id
    edit(engine, account, locked, amount=900)
    assert amendments_of(engine, locked) == [(200, "void"), (-100, None)]


def test_an_open_amendment_takes_in_one_that_is_reissued(
    engine: Engine, account: Account, ada: Client, locked: UUID
) -> None:
    edit(engine, account, locked, amount=1200)
    later = bill_all(engine, account, ada)
    edit(engine, account, locked, amount=1250)
    draft = a_draft(engine, account, ada)

    assert void(engine, account, later, reissue=True)["charges"] == 0

    assert amendments_of(engine, locked) == [(200, "void"), (250, "draft")]
    assert invoice_of(engine, draft).total == 250
    assert_no_money_is_lost(engine, account)


def test_an_open_amendment_that_a_reissued_one_cancels_is_removed(
    engine: Engine, account: Account, ada: Client, locked: UUID
) -> None:
    edit(engine, account, locked, amount=1200)
    later = bill_all(engine, account, ada)
    edit(engine, account, locked, amount=1000)
    draft = a_draft(engine, account, ada)

    void(engine, account, later, reissue=True)

    assert amendments_of(engine, locked) == [(200, "void")]
    assert draft not in {one.id for one in invoices_of(engine, ada)}


@pytest.mark.parametrize(
    ("asked", "left"), [(1200, [(200, None)]), (1300, [(300, None)]), (1000, [])]
)
def test_what_was_asked_for_since_a_void_stands_when_it_is_reissued(
    engine: Engine,
    account: Account,
    ada: Client,
    locked: UUID,
    *,
    asked: int,
    left: list[tuple[int, str | None]],
) -> None:
    edit(engine, account, locked, amount=1200)
    a_charge(engine, ada, MAY, "5.00")
    later = bill_all(engine, account, ada)
    void(engine, account, later)
    edit(engine, account, locked, amount=asked)

    again = perform(engine, reissue_invoice, account, invoice_id=later)

    assert again == Done({"invoice": str(later), "charges": 1})
    assert amendments_of(engine, locked) == [(200, "void"), *left]


def test_nothing_amends_a_charge_whose_invoice_was_voided_meanwhile(
    engine: Engine, account: Account, ada: Client, locked: UUID
) -> None:
    edit(engine, account, locked, amount=1200)
    later = bill_all(engine, account, ada)
    void(engine, account, later)
    void(engine, account, charge_of(engine, locked).invoice_id)

    assert perform(engine, reissue_invoice, account, invoice_id=later) == Done(
        {"invoice": str(later), "charges": 0}
    )
    assert amendments_of(engine, locked) == [(200, "void")]


def test_a_deleted_drafts_amendment_is_open_again_and_still_the_one(
    engine: Engine, account: Account, ada: Client, locked: UUID
) -> None:
    amendment = edit(engine, account, locked, amount=1200)
    draft = a_draft(engine, account, ada)
    perform(engine, delete_draft, account, invoice_id=draft)

    assert edit(engine, account, locked, amount=1100) == amendment
    assert amendments_of(engine, locked) == [(100, None)]
