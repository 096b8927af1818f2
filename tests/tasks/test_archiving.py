from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine, func, select, text
from sqlalchemy.orm import Session

from billing.errors import InvalidInput, RuleViolation
from models import Account, Charge, Client, Invoice
from tasks.charges import NewCharge, Recorded, Refused, record_charges
from tasks.clients import change_client
from tasks.drafting import delete_draft, draft_invoice
from tasks.outcomes import Done
from tasks.reissuing import reissue_invoice
from tasks.voiding import void_invoice
from tests.money import a_draft, an_invoice
from tests.worlds import (
    NOW,
    a_charge,
    a_client,
    audited,
    bill,
    change,
    invoices_of,
    perform,
    periods_of,
    tick,
    together,
)

MAY = date(2026, 5, 1)
ROUNDS = 10


def a_new_charge(client: Client, **fields: Any) -> NewCharge:
    return NewCharge(
        **{
            "client_id": client.id,
            "description": "Bundling",
            "currency": "usd",
            "charged_on": MAY,
            "unit_price": Decimal(1),
            **fields,
        }
    )


def record(engine: Engine, account: Account, *new: NewCharge) -> list[Recorded | Refused]:
    with Session(engine) as session, session.begin():
        return record_charges(session, account.id, new)


def code_of(answer: object) -> str:
    assert isinstance(answer, Refused), answer
    assert isinstance(answer.error, RuleViolation)
    return answer.error.code


def test_an_archived_client_leaves_its_cycle_and_comes_back_manual(
    engine: Engine, account: Account
) -> None:
    client = a_client(
        engine, account, now=datetime(2026, 5, 1, tzinfo=UTC), billing_cycle="monthly"
    )
    a_charge(engine, client, MAY)

    archived = change(engine, client, archived=True)

    assert (archived.billing_cycle, archived.archived_at) == ("manual", NOW)
    assert {one.reason for one in periods_of(engine, client)} == {"switched_to_manual"}
    tick(engine, now=NOW)
    assert invoices_of(engine, client) == []
    again = change(engine, client, now=datetime(2026, 6, 2, tzinfo=UTC), archived=True)
    assert again.archived_at == NOW
    back = change(engine, client, archived=False)
    assert (back.billing_cycle, back.archived_at) == ("manual", None)
    assert isinstance(perform(engine, draft_invoice, account, client_id=client.id), Done)
    assert audited(engine, account) == []


def test_it_may_be_brought_back_to_a_cycle_at_once_but_not_be_on_one(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    change(engine, client, archived=True)

    with pytest.raises(RuleViolation) as refused:
        change(engine, client, billing_cycle="monthly")
    assert refused.value.code == "client_archived"
    with pytest.raises(InvalidInput, match="billing_cycle"):
        change(engine, client, archived=True, billing_cycle="monthly")
    with pytest.raises(InvalidInput, match="archived"):
        change(engine, client, archived="yes")

    assert change(engine, client, name="Ada", billing_cycle="manual").name == "Ada"
    assert change(engine, client, archived=False, billing_cycle="monthly").archived_at is None


def test_nothing_new_is_billed_to_it_and_what_was_stays(engine: Engine, account: Account) -> None:
    client, other = a_client(engine, account), a_client(engine, account)
    invoice = an_invoice(engine, account, client)
    [known] = record(engine, account, a_new_charge(client, external_ref="o-1"))
    assert isinstance(known, Recorded)
    change(engine, client, archived=True)

    answers = record(
        engine,
        account,
        a_new_charge(client),
        a_new_charge(other),
        a_new_charge(client, external_ref="o-1"),
        a_new_charge(client, external_ref="o-1", unit_price=Decimal(2)),
        a_new_charge(client, external_ref="o-2"),
    )

    assert [code_of(answers[index]) for index in (0, 3, 4)] == [
        "client_archived", "external_ref_taken", "client_archived"
    ]  # fmt: skip
    # What is sent again is the charge that is there.
    assert answers[2] == Recorded(known.charge_id, created=False)
    assert isinstance(answers[1], Recorded)
    for kind, arguments in (
        (draft_invoice, {"client_id": client.id}),
        (draft_invoice, {"client_id": client.id, "charge_ids": [known.charge_id]}),
        (void_invoice, {"invoice_id": invoice.id, "reissue": True}),
    ):
        with pytest.raises(RuleViolation) as refused:
            perform(engine, kind, account, **arguments)
        assert refused.value.code == "client_archived"
    perform(engine, void_invoice, account, invoice_id=invoice.id)
    with pytest.raises(RuleViolation) as refused:
        perform(engine, reissue_invoice, account, invoice_id=invoice.id)
    assert refused.value.code == "client_archived"
    assert [one.status for one in invoices_of(engine, client)] == ["void"]
    assert audited(engine, account) == []


def test_a_run_for_it_bills_nothing(engine: Engine, account: Account) -> None:
    """Also where a period was left undecided: its charges wait until it is archived no more."""
    client = a_client(
        engine, account, now=datetime(2026, 5, 1, tzinfo=UTC), billing_cycle="monthly"
    )
    a_charge(engine, client, MAY)
    change(engine, client, archived=True)
    with engine.begin() as connection:
        connection.execute(text("UPDATE billing_periods SET state = 'open', reason = NULL"))

    bill(engine, account, now=NOW, client_id=client.id)
    assert invoices_of(engine, client) == []

    change(engine, client, archived=False)
    bill(engine, account, now=NOW, client_id=client.id)
    assert [one.total for one in invoices_of(engine, client)] == [1000]


def test_a_client_with_a_draft_is_not_archived(engine: Engine, account: Account) -> None:
    client = a_client(engine, account)
    draft = a_draft(engine, account, client)

    with pytest.raises(RuleViolation, match=str(draft.id)) as refused:
        change(engine, client, archived=True)

    assert refused.value.code == "client_has_drafts"
    perform(engine, delete_draft, account, invoice_id=draft.id)
    assert change(engine, client, archived=True).archived_at == NOW


def test_a_charge_comes_before_the_archiving_or_is_refused(
    engine: Engine, session: Session, account: Account
) -> None:
    for _ in range(ROUNDS):
        client = a_client(engine, account)
        archived, [answer] = together(
            partial(change, engine, client, archived=True),
            partial(record, engine, account, a_new_charge(client)),
        )
        assert isinstance(archived, Client), archived
        if not isinstance(answer, Recorded):
            assert code_of(answer) == "client_archived"
        charges = session.scalar(
            select(func.count()).select_from(Charge).where(Charge.client_id == client.id)
        )
        assert charges == isinstance(answer, Recorded)
        session.rollback()


def test_a_charge_that_is_being_recorded_is_waited_for(engine: Engine, account: Account) -> None:
    client = a_client(engine, account)
    with Session(engine) as recording:
        [answer] = record_charges(recording, account.id, [a_new_charge(client)])
        assert isinstance(answer, Recorded)

        def archive_in_no_time() -> None:
            with Session(engine) as session, session.begin():
                session.execute(text("SET LOCAL lock_timeout = '100ms'"))
                change_client(
                    session,
                    session.get_one(Account, account.id),
                    client.id,
                    {"archived": True},
                    now=NOW,
                )

        with pytest.raises(Exception, match="lock timeout"):
            archive_in_no_time()
        # Another change need not wait.
        assert change(engine, client, name="Ada").name == "Ada"
        recording.commit()
    assert change(engine, client, archived=True).archived_at == NOW


def test_a_client_is_either_drafted_for_or_archived(engine: Engine, account: Account) -> None:
    for _ in range(ROUNDS):
        client = a_client(engine, account)
        a_charge(engine, client, MAY)
        archived, drafted = together(
            partial(change, engine, client, archived=True),
            partial(perform, engine, draft_invoice, account, client_id=client.id),
        )
        lost = [one for one in (archived, drafted) if isinstance(one, RuleViolation)]
        assert [one.code for one in lost] == [
            "client_has_drafts" if isinstance(drafted, Done) else "client_archived"
        ]
        with Session(engine) as session:
            kept = session.get_one(Client, client.id)
            drafts = session.scalars(select(Invoice).where(Invoice.client_id == client.id)).all()
        assert (kept.archived_at is None) is (len(drafts) == 1)
    assert audited(engine, account) == []
