from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from billing.errors import InvalidInput, NotFound, RuleViolation
from models import Account, Charge, Client
from tasks.accounts import create_account
from tasks.charges import (
    NewCharge,
    Recorded,
    Refused,
    delete_charge,
    edit_charge,
    record_charges,
)
from tasks.drafting import draft_invoice
from tasks.finalizing import finalize_invoice
from tests.worlds import a_charge, a_client, audited, invoices_of, perform

MAY = date(2026, 5, 1)


@pytest.fixture
def client(engine: Engine, account: Account) -> Client:
    return a_client(engine, account)


def new(client: Client, **fields: Any) -> NewCharge:
    """A charge of ten dollars unless told otherwise."""
    defaults: dict[str, Any] = {
        "client_id": client.id,
        "description": "FNSKU labelling",
        "currency": "usd",
        "charged_on": MAY,
    }
    if not fields.keys() & {"unit_price", "amount"}:
        defaults["unit_price"] = Decimal(10)
    return NewCharge(**{**defaults, **fields})


def record(session: Session, client: Client, *charges: NewCharge) -> list[Recorded | Refused]:
    answers = record_charges(session, client.account_id, charges)
    session.commit()
    return answers


def recorded(session: Session, client: Client, **fields: Any) -> Charge:
    [answer] = record(session, client, new(client, **fields))
    assert isinstance(answer, Recorded)
    return session.get_one(Charge, answer.charge_id)


def edit(session: Session, charge: Charge, **changes: Any) -> Charge:
    edited = edit_charge(session, charge.account_id, charge.id, changes)
    session.commit()
    return edited


def on_an_invoice(engine: Engine, account: Account, charge: Charge) -> UUID:
    perform(engine, draft_invoice, account, client_id=charge.client_id, charge_ids=[charge.id])
    [invoice] = invoices_of(engine, account)
    return invoice.id


def refused_code(answer: Recorded | Refused) -> str:
    assert isinstance(answer, Refused)
    return answer.error.code


def test_a_charge_is_kept_as_it_was_given(session: Session, client: Client) -> None:
    charge = recorded(
        session,
        client,
        quantity=Decimal("2.5"),
        unit_price=Decimal("0.2750"),
        currency="USD",
        category="prep",
        metadata={"order": 7},
        external_ref="o-7",
    )

    assert (charge.quantity, charge.unit_price, charge.amount) == (
        Decimal("2.5"),
        Decimal("0.275"),
        69,  # 68.75, rounded half away from zero.
    )
    assert (charge.currency, charge.category, charge.details) == ("usd", "prep", {"order": 7})
    assert (charge.account_id, charge.invoice_id) == (client.account_id, None)


def test_an_amount_outright_has_no_unit_price(session: Session, client: Client) -> None:
    charge = recorded(session, client, amount=-250)

    assert (charge.amount, charge.unit_price, charge.quantity) == (-250, None, Decimal(1))


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("description", {"description": " \n"}),
        ("description", {"description": "x" * 1_001}),
        ("external_ref", {"external_ref": "x" * 256}),
        ("category", {"category": "x" * 256}),
        ("charged_on", {"charged_on": date(1969, 12, 31)}),
        ("charged_on", {"charged_on": date(2200, 1, 1)}),
        ("currency", {"currency": "usdt"}),
        ("quantity", {"quantity": Decimal(0)}),
        ("quantity", {"quantity": Decimal(-1)}),
        ("amount", {"amount": 10**12 + 1}),
    ],
)
def test_a_wrong_value_is_refused_by_its_name_and_the_rest_recorded(
    session: Session, client: Client, field: str, fields: dict[str, Any]
) -> None:
    bad, good = record(session, client, new(client, **fields), new(client))

    assert isinstance(bad, Refused)
    assert isinstance(bad.error, InvalidInput)
    assert bad.error.field == field
    assert isinstance(good, Recorded)
    assert len(session.scalars(select(Charge)).all()) == 1


def test_the_same_reference_with_the_same_content_answers_the_same_charge(
    session: Session, client: Client
) -> None:
    same = {"external_ref": "o-1", "metadata": {"a": [1, None]}, "quantity": Decimal("1.50")}
    [first] = record(session, client, new(client, **same))
    [again] = record(session, client, new(client, **same))

    assert isinstance(first, Recorded)
    assert first.created
    assert again == Recorded(first.charge_id, created=False)


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("charged_on", {"charged_on": date(2026, 5, 2)}),
        ("description", {"description": "Poly bagging"}),
        ("category", {"category": "prep"}),
        ("quantity, amount", {"quantity": Decimal(2)}),
        ("unit_price, amount", {"unit_price": Decimal(11)}),
        ("unit_price", {"amount": 1000}),
        ("currency", {"currency": "eur"}),
        ("metadata", {"metadata": {"a": 1}}),
    ],
)
def test_the_same_reference_with_other_content_is_refused_and_says_what_differs(
    session: Session, client: Client, field: str, fields: dict[str, Any]
) -> None:
    record(session, client, new(client, external_ref="o-1"))

    [answer] = record(session, client, new(client, external_ref="o-1", **fields))

    assert refused_code(answer) == "external_ref_taken"
    assert isinstance(answer, Refused)
    assert str(answer.error).endswith(f"another {field}")


def test_a_reference_is_the_accounts_not_the_clients(
    engine: Engine, session: Session, account: Account, client: Client
) -> None:
    record(session, client, new(client, external_ref="o-1"))
    neighbour = a_client(engine, account)
    other = create_account(session, "Other")
    session.commit()
    stranger = a_client(engine, other)

    [taken] = record(session, neighbour, new(neighbour, external_ref="o-1"))
    [free] = record(session, stranger, new(stranger, external_ref="o-1"))

    assert refused_code(taken) == "external_ref_taken"
    assert isinstance(free, Recorded)
    assert free.created


def test_answers_come_in_the_order_of_the_question(session: Session, client: Client) -> None:
    record(session, client, new(client, external_ref="there", amount=1))
    wanted = [
        new(client, amount=10),
        new(client, external_ref="there", amount=1),
        new(client, external_ref="b", amount=11),
        new(client, description=""),
        new(client, external_ref="a", amount=12),
        new(client, external_ref="b", amount=11),
        new(client, external_ref="a", amount=99),
        new(client, amount=13),
    ]

    answers = record(session, client, *wanted)

    created = [isinstance(one, Recorded) and one.created for one in answers]
    assert created == [True, False, True, False, True, False, False, True]
    amounts = [
        session.get_one(Charge, one.charge_id).amount if isinstance(one, Recorded) else None
        for one in answers
    ]
    assert amounts == [10, 1, 11, None, 12, 11, None, 13]
    assert answers[5] == Recorded(answers[2].charge_id, created=False)  # type: ignore[union-attr]  # both are Recorded, as seen above


@pytest.mark.parametrize(
    ("given", "changes", "expected"),
    [
        ({"unit_price": Decimal(2)}, {"quantity": Decimal(3)}, (Decimal(3), Decimal(2), 600)),
        ({"amount": 500}, {"quantity": Decimal(3)}, (Decimal(3), None, 500)),
        ({"unit_price": Decimal(2)}, {"amount": 70}, (Decimal(1), None, 70)),
        ({"amount": 500}, {"unit_price": Decimal("0.5")}, (Decimal(1), Decimal("0.5"), 50)),
        (
            {"unit_price": Decimal(2), "quantity": Decimal(4)},
            {"unit_price": Decimal(3)},
            (Decimal(4), Decimal(3), 1200),
        ),
        ({"amount": 500, "quantity": Decimal(4)}, {"amount": 0}, (Decimal(4), None, 0)),
    ],
)
def test_an_edited_price_is_rounded_anew(
    session: Session,
    client: Client,
    given: dict[str, Any],
    changes: dict[str, Any],
    expected: tuple[Decimal, Decimal | None, int],
) -> None:
    edited = edit(session, recorded(session, client, **given), **changes)

    assert (edited.quantity, edited.unit_price, edited.amount) == expected


def test_an_edit_touches_only_what_it_names(session: Session, client: Client) -> None:
    charge = recorded(session, client, category="prep", metadata={"a": 1}, external_ref="o-1")

    edited = edit(session, charge, description="Bundling", category=None)

    assert (edited.description, edited.category) == ("Bundling", None)
    assert (edited.amount, edited.charged_on, edited.details) == (1000, MAY, {"a": 1})
    assert edited.external_ref == "o-1"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("description", ""),
        ("charged_on", date(1900, 1, 1)),
        ("quantity", Decimal(0)),
    ],
)
def test_a_wrong_edit_is_refused_by_the_name_of_its_field(
    session: Session, client: Client, field: str, value: object
) -> None:
    charge = recorded(session, client)

    with pytest.raises(InvalidInput) as refused:
        edit_charge(session, client.account_id, charge.id, {field: value})
    assert refused.value.field == field


def test_a_charge_on_a_draft_can_be_edited_and_deleted(
    engine: Engine, session: Session, account: Account, client: Client
) -> None:
    charge = recorded(session, client)
    on_an_invoice(engine, account, charge)

    edit(session, charge, amount=42)
    assert [one.total for one in invoices_of(engine, account)] == [42]
    assert audited(engine, account) == []

    delete_charge(session, account.id, charge.id)
    session.commit()
    assert invoices_of(engine, account) == []


def test_a_charge_on_a_finalized_invoice_is_locked(
    engine: Engine, session: Session, account: Account, client: Client
) -> None:
    charge = recorded(session, client)
    invoice_id = on_an_invoice(engine, account, charge)
    perform(engine, finalize_invoice, account, invoice_id=invoice_id)

    for refused in (
        lambda: edit_charge(session, account.id, charge.id, {"amount": 1}),
        lambda: delete_charge(session, account.id, charge.id),
    ):
        with pytest.raises(RuleViolation, match="INV-000001") as violation:
            refused()
        assert violation.value.code == "charge_locked"


def test_another_accounts_charge_is_neither_edited_nor_deleted(
    engine: Engine, session: Session, account: Account
) -> None:
    other = create_account(session, "Other")
    session.commit()
    theirs = a_charge(engine, a_client(engine, other), MAY)

    for charge_id in (theirs, uuid4()):
        with pytest.raises(NotFound):
            edit_charge(session, account.id, charge_id, {"amount": 1})
        with pytest.raises(NotFound):
            delete_charge(session, account.id, charge_id)
    assert session.get_one(Charge, theirs).amount == 1000


def test_a_charge_for_another_accounts_client_is_refused(
    engine: Engine, session: Session, account: Account
) -> None:
    other = create_account(session, "Other")
    session.commit()
    theirs = a_client(engine, other)

    with pytest.raises(IntegrityError, match="fk_charges_account_id_client_id"):
        record_charges(session, account.id, [new(theirs)])
