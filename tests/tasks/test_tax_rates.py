from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from billing.errors import InvalidInput, NotFound
from models import Account, Charge, TaxRateRow
from tasks.accounts import change_account, create_account
from tasks.charges import NewCharge, Recorded, Refused, edit_charge, record_charges
from tasks.clients import NewClient, change_client, create_clients
from tasks.drafting import draft_invoice
from tasks.finalizing import finalize_invoice
from tasks.tax_rates import MAX_TAX_RATES, create_tax_rate, end_tax_rate
from tests.worlds import (
    NOW,
    a_charge,
    a_client,
    a_rate,
    audited,
    change,
    invoices_of,
    perform,
    together,
)

MAY = date(2026, 5, 1)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": " "}, "name"),
        ({"percent": Decimal("100.1")}, "percent"),
        ({"percent": Decimal("1.00001")}, "percent"),
        ({"valid_to": MAY}, "valid_to"),
    ],
)
def test_a_rate_that_is_none_is_refused(
    session: Session, account: Account, changes: dict[str, Any], field: str
) -> None:
    wanted = {
        "name": "VAT",
        "percent": Decimal(20),
        "inclusive": False,
        "valid_from": MAY,
        **changes,
    }

    with pytest.raises(InvalidInput) as refused:
        create_tax_rate(session, account.id, **wanted)

    assert refused.value.field == field


def test_the_end_of_a_rate_is_set_moved_and_taken_away(
    engine: Engine, session: Session, account: Account
) -> None:
    rate = a_rate(engine, account)

    for end in (date(2026, 7, 1), date(2020, 1, 2), None):
        end_tax_rate(session, account.id, rate, end)
        session.commit()
        with Session(engine) as other:
            assert other.get_one(TaxRateRow, rate).valid_to == end
    with pytest.raises(InvalidInput):
        end_tax_rate(session, account.id, rate, date(2020, 1, 1))


def test_another_accounts_rate_is_not_found(
    engine: Engine, session: Session, account: Account
) -> None:
    other = create_account(session, "Other")
    session.commit()
    theirs = a_rate(engine, other)

    for unknown in (theirs, uuid4()):
        with pytest.raises(NotFound) as refused:
            end_tax_rate(session, account.id, unknown, date(2026, 7, 1))
        assert refused.value.code == "tax_rate_not_found"


def lists_that_are_wrong(
    engine: Engine, session: Session, account: Account
) -> tuple[list[UUID], ...]:
    """Of another account, of nobody, twice the same, and one too many."""
    other = create_account(session, "Other")
    session.commit()
    mine = a_rate(engine, account)
    many = [a_rate(engine, account, name=str(number)) for number in range(MAX_TAX_RATES)]
    return [a_rate(engine, other)], [mine, uuid4()], [mine, mine], [mine, *many]


def test_only_an_accounts_own_rates_can_be_put_on_what_it_has(
    engine: Engine, session: Session, account: Account
) -> None:
    client = a_client(engine, account)
    charge = a_charge(engine, client, MAY)
    ways: list[Callable[[list[UUID]], object]] = [
        lambda rates: change_account(session, account.id, {"tax_rates": rates}, now=NOW),
        lambda rates: create_account(session, "Third", tax_rates=rates),
        lambda rates: change_client(session, account, client.id, {"tax_rates": rates}, now=NOW),
        lambda rates: create_clients(
            session, account, [NewClient(name="A"), NewClient(name="B", tax_rates=rates)], now=NOW
        ),
        lambda rates: edit_charge(session, account.id, charge, {"tax_rates": rates}),
    ]
    for rates in lists_that_are_wrong(engine, session, account):
        for put in ways:
            with pytest.raises(InvalidInput) as refused:
                put(rates)
            assert refused.value.field == "tax_rates"
            session.rollback()


def test_of_many_charges_those_with_wrong_rates_are_refused(
    engine: Engine, session: Session, account: Account
) -> None:
    client = a_client(engine, account)
    wrong = lists_that_are_wrong(engine, session, account)
    mine = a_rate(engine, account)

    def a_new(rates: list[UUID] | None) -> NewCharge:
        return NewCharge(
            client_id=client.id,
            description="Storage",
            currency="usd",
            charged_on=MAY,
            amount=100,
            tax_rates=rates,
        )

    answers = record_charges(
        session, account.id, [a_new(rates) for rates in (None, [], [mine], *wrong)]
    )

    kept = [session.get_one(Charge, one.charge_id) for one in answers[:3]]  # type: ignore[union-attr]  # They are recorded.
    assert [one.tax_rates for one in kept] == [None, [], [mine]]
    for answer in answers[3:]:
        assert isinstance(answer, Refused)
        assert isinstance(answer.error, InvalidInput)
        assert answer.error.field == "tax_rates"


def test_the_same_reference_with_other_rates_is_another_charge(
    engine: Engine, session: Session, account: Account
) -> None:
    client = a_client(engine, account)
    rate = a_rate(engine, account)

    def recorded(rates: list[UUID] | None) -> Recorded | Refused:
        new = NewCharge(
            client_id=client.id,
            description="Storage",
            currency="usd",
            charged_on=MAY,
            amount=100,
            external_ref="order-1",
            tax_rates=rates,
        )
        return record_charges(session, account.id, [new])[0]

    first = recorded([rate])

    assert isinstance(first, Recorded)
    assert recorded([rate]) == Recorded(first.charge_id, created=False)
    others: list[list[UUID] | None] = [None, []]
    for other in others:
        refused = recorded(other)
        assert isinstance(refused, Refused)
        assert "tax_rates" in str(refused.error)


def test_an_edit_puts_rates_on_a_charge_and_takes_them_off(
    engine: Engine, session: Session, account: Account
) -> None:
    rate = a_rate(engine, account)
    charge = a_charge(engine, a_client(engine, account), MAY)

    for rates in ([rate], [], None):
        assert edit_charge(session, account.id, charge, {"tax_rates": rates}).tax_rates == rates
    edit_charge(session, account.id, charge, {"tax_rates": [rate]})
    assert edit_charge(session, account.id, charge, {"description": "More"}).tax_rates == [rate]


@pytest.mark.parametrize("of", ["account", "client", "rate"])
def test_a_draft_that_is_made_while_its_rates_change_bears_the_new_ones(
    engine: Engine, account: Account, of: str
) -> None:
    rate = a_rate(engine, account)
    with Session(engine) as session, session.begin():
        change_account(session, account.id, {"tax_rates": [rate]}, now=NOW)
    clients = [a_client(engine, account, name=str(number)) for number in range(6)]
    for client in clients:
        a_charge(engine, client, MAY)

    def change_rates() -> None:
        with Session(engine) as session, session.begin():
            if of == "account":
                change_account(session, account.id, {"tax_rates": []}, now=NOW)
            elif of == "rate":
                end_tax_rate(session, account.id, rate, date(2020, 1, 2))
        if of == "client":
            for client in clients:
                change(engine, client, tax_rates=[])

    failed = together(
        change_rates,
        *(
            lambda client=client: perform(engine, draft_invoice, account, client_id=client.id)
            for client in clients
        ),
    )

    assert [one for one in failed if isinstance(one, Exception)] == []
    assert {one.total for one in invoices_of(engine, account)} == {1000}
    assert audited(engine, account) == []


def test_what_is_finalized_while_rates_change_bears_either_and_says_so_throughout(
    engine: Engine, account: Account
) -> None:
    rate = a_rate(engine, account)
    clients = [a_client(engine, account, name=str(number), tax_rates=[rate]) for number in range(6)]
    for client in clients:
        a_charge(engine, client, MAY)
        perform(engine, draft_invoice, account, client_id=client.id)

    def end() -> None:
        with Session(engine) as session, session.begin():
            end_tax_rate(session, account.id, rate, date(2020, 1, 2))

    failed = together(
        end,
        *(
            lambda draft=draft: perform(engine, finalize_invoice, account, invoice_id=draft.id)
            for draft in invoices_of(engine, account)
        ),
    )

    assert [one for one in failed if isinstance(one, Exception)] == []
    assert {(one.status, one.total) for one in invoices_of(engine, account)} <= {
        ("open", 1000),
        ("open", 1200),
    }
    assert audited(engine, account) == []
