"""What two do at the same moment: each race is run many times, on connections of its own."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from billing.cycles import boundary_instant
from billing.errors import IllegalTransition, NotFound, RuleViolation
from models import Account, BillingRun, Charge, Client, Invoice, InvoiceLine
from tasks.accounts import change_account, create_account
from tasks.billing_pages import bill_page
from tasks.billing_runs import request_run
from tasks.charges import NewCharge, Recorded, delete_charge, edit_charge, record_charges
from tasks.drafting import delete_draft, draft_invoice
from tasks.finalizing import finalize_invoice, finalize_invoices
from tasks.outcomes import Done
from tasks.voiding import void_invoice
from tests.worlds import (
    NOW,
    a_charge,
    a_client,
    audited,
    change,
    charges,
    invoices_of,
    perform,
    periods_of,
    together,
    work,
)

ROUNDS = 20
MAY = date(2026, 5, 1)
JUNE = date(2026, 6, 1)


def a_draft(engine: Engine, account: Account, charge_ids: list[UUID], client: Client) -> UUID:
    perform(engine, draft_invoice, account, client_id=client.id, charge_ids=charge_ids)
    return invoices_of(engine, client)[-1].id


def in_a_transaction(engine: Engine, act: Callable[[Session], Any]) -> Any:  # noqa: ANN401 - what act returns
    with Session(engine, expire_on_commit=False) as session, session.begin():
        return act(session)


def a_page_of(engine: Engine, account: Account) -> Callable[[], Any]:
    """What bills May for every client of the account."""
    run = BillingRun(account_id=account.id, as_of_at=NOW, created_at=NOW)
    with Session(engine, expire_on_commit=False) as session, session.begin():
        session.add(run)
    return partial(
        perform,
        engine,
        bill_page,
        account,
        run_id=run.id,
        boundary=JUNE,
        first_client=UUID(int=0),
        last_client=UUID(int=2**128 - 1),
    )


def on_monthly_since_may(engine: Engine, account: Account) -> Client:
    return a_client(
        engine, account, now=datetime(2026, 5, 1, 12, tzinfo=UTC), billing_cycle="monthly"
    )


def the_one_that_won(
    outcomes: list[Any], losing: type[Exception] | tuple[type[Exception], ...]
) -> int:
    """Which of two succeeded, where the other must have been refused."""
    done = [index for index, outcome in enumerate(outcomes) if not isinstance(outcome, Exception)]
    assert len(done) == 1, outcomes
    assert isinstance(outcomes[1 - done[0]], losing), outcomes
    return done[0]


def test_a_draft_finalized_twice_at_once_is_finalized_once(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    for _ in range(ROUNDS):
        draft = a_draft(engine, account, [a_charge(engine, client, MAY)], client)
        finalize = partial(perform, engine, finalize_invoice, account, invoice_id=draft)
        the_one_that_won(together(finalize, finalize), IllegalTransition)

    numbers = [one.number for one in invoices_of(engine, client)]
    assert numbers == [f"INV-{index:06}" for index in range(1, ROUNDS + 1)]
    assert audited(engine, account) == []


def test_an_invoice_voided_twice_at_once_is_reversed_once(engine: Engine, account: Account) -> None:
    client = a_client(engine, account)
    for _ in range(ROUNDS):
        invoice = a_draft(engine, account, [a_charge(engine, client, MAY)], client)
        perform(engine, finalize_invoice, account, invoice_id=invoice)
        void = partial(perform, engine, void_invoice, account, invoice_id=invoice)
        the_one_that_won(together(void, void), IllegalTransition)

    assert audited(engine, account) == []


def test_a_draft_is_either_finalized_or_deleted(engine: Engine, account: Account) -> None:
    client = a_client(engine, account)
    finalized = 0
    for _ in range(ROUNDS):
        draft = a_draft(engine, account, [a_charge(engine, client, MAY)], client)
        outcomes = together(
            partial(perform, engine, finalize_invoice, account, invoice_id=draft),
            partial(perform, engine, delete_draft, account, invoice_id=draft),
        )
        finalized += the_one_that_won(outcomes, (RuleViolation, NotFound)) == 0

    assert len(invoices_of(engine, client)) == finalized
    assert audited(engine, account) == []


@pytest.mark.parametrize("selected", [False, True])
def test_a_charge_drafted_twice_at_once_is_on_one_draft(
    engine: Engine, account: Account, *, selected: bool
) -> None:
    client = a_client(engine, account)
    for _ in range(ROUNDS):
        ids = charges(engine, client, [(MAY, "1.00"), (MAY, "2.00")])
        draft = partial(
            perform,
            engine,
            draft_invoice,
            account,
            client_id=client.id,
            charge_ids=ids if selected else None,
        )
        the_one_that_won(together(draft, draft), RuleViolation)

    assert [one.total for one in invoices_of(engine, client)] == [300] * ROUNDS
    assert audited(engine, account) == []


def test_a_charge_edited_while_it_is_drafted_is_summed_as_it_ends(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    for _ in range(ROUNDS):
        charge = a_charge(engine, client, MAY)
        edit = {"amount": 1}
        outcomes = together(
            partial(perform, engine, draft_invoice, account, client_id=client.id),
            partial(
                in_a_transaction,
                engine,
                partial(edit_charge, account_id=account.id, charge_id=charge, changes=edit),
            ),
        )
        assert isinstance(outcomes[0], Done), outcomes
        assert outcomes[1].amount == 1

    assert [one.total for one in invoices_of(engine, client)] == [1] * ROUNDS
    assert audited(engine, account) == []


def test_an_edit_comes_before_the_finalizing_or_is_refused(
    engine: Engine, session: Session, account: Account
) -> None:
    client = a_client(engine, account)
    for _ in range(ROUNDS):
        charge = a_charge(engine, client, MAY)
        draft = a_draft(engine, account, [charge], client)
        outcomes = together(
            partial(perform, engine, finalize_invoice, account, invoice_id=draft),
            partial(
                in_a_transaction,
                engine,
                partial(
                    edit_charge, account_id=account.id, charge_id=charge, changes={"amount": 1}
                ),
            ),
        )
        assert isinstance(outcomes[0], Done), outcomes
        edited = isinstance(outcomes[1], Charge)
        assert edited or isinstance(outcomes[1], RuleViolation), outcomes
        line = session.scalars(select(InvoiceLine).where(InvoiceLine.invoice_id == draft)).one()
        assert line.amount == session.get_one(Invoice, draft).total == (1 if edited else 1000)
        session.rollback()

    assert audited(engine, account) == []


def test_a_draft_that_is_edited_meanwhile_is_finalized_as_expected_or_not_at_all(
    engine: Engine, session: Session, account: Account
) -> None:
    client = a_client(engine, account)
    for _ in range(ROUNDS):
        charge = a_charge(engine, client, MAY)
        draft = a_draft(engine, account, [charge], client)
        finalized, edited = together(
            partial(
                perform, engine, finalize_invoice, account, invoice_id=draft, expected_total=1000
            ),
            partial(
                in_a_transaction,
                engine,
                partial(
                    edit_charge, account_id=account.id, charge_id=charge, changes={"amount": 1}
                ),
            ),
        )
        invoice = session.get_one(Invoice, draft)
        if isinstance(finalized, Done):
            assert isinstance(edited, RuleViolation), edited
            assert (invoice.status, invoice.total) == ("open", 1000)
        else:
            assert isinstance(finalized, RuleViolation)
            assert finalized.code == "total_changed"
            assert (invoice.status, invoice.total) == ("draft", 1)
        session.rollback()

    assert audited(engine, account) == []


@pytest.mark.parametrize("charges_on_it", [1, 2])
def test_a_deletion_comes_before_the_finalizing_or_is_refused(
    engine: Engine, session: Session, account: Account, charges_on_it: int
) -> None:
    client = a_client(engine, account)
    for _ in range(ROUNDS):
        ids = charges(engine, client, [(MAY, "10.00")] * charges_on_it)
        draft = a_draft(engine, account, ids, client)
        finalized, deleted = together(
            partial(perform, engine, finalize_invoice, account, invoice_id=draft),
            partial(
                in_a_transaction,
                engine,
                partial(delete_charge, account_id=account.id, charge_id=ids[0]),
            ),
        )
        invoice = session.get(Invoice, draft)
        if isinstance(deleted, RuleViolation):
            assert isinstance(finalized, Done)
            assert invoice is not None
            assert invoice.total == 1000 * charges_on_it
        elif charges_on_it == 1:
            assert isinstance(finalized, NotFound), (finalized, deleted)
            assert invoice is None
        else:
            assert isinstance(finalized, Done), (finalized, deleted)
            assert invoice is not None
            assert invoice.total == 1000
        session.rollback()

    assert audited(engine, account) == []


def test_a_page_and_a_draft_by_hand_share_the_charges_out_once(
    engine: Engine, account: Account
) -> None:
    for _ in range(ROUNDS):
        client = on_monthly_since_may(engine, account)
        charges(engine, client, [(MAY, "1.00"), (MAY, "2.00")])
        page, draft = together(
            a_page_of(engine, account),
            partial(perform, engine, draft_invoice, account, client_id=client.id),
        )
        assert page == Done({"periods": 1, "failed": 0})
        [invoice] = invoices_of(engine, client)
        assert invoice.total == 300
        period = periods_of(engine, client)[0]
        if isinstance(draft, Done):
            assert (invoice.status, period.state) == ("draft", "empty")
            assert period.reason == "charges_on_manual_draft"
        else:
            assert (invoice.status, period.state) == ("open", "billed")

    assert audited(engine, account) == []


def test_two_pages_of_the_same_clients_bill_each_once(engine: Engine, account: Account) -> None:
    for _ in range(ROUNDS // 2):
        clients = [on_monthly_since_may(engine, account) for _ in range(3)]
        for client in clients:
            a_charge(engine, client, MAY)
        outcomes = together(a_page_of(engine, account), a_page_of(engine, account))
        assert sorted(outcome.result["periods"] for outcome in outcomes) == [0, 3]

    assert [one.total for one in invoices_of(engine, account)] == [1000] * 3 * (ROUNDS // 2)
    assert audited(engine, account) == []


@pytest.mark.parametrize("zone", ["America/Chicago", "Pacific/Auckland"])
@pytest.mark.parametrize("whose", ["client", "account"])
def test_a_zone_changed_while_a_page_is_billed_holds_for_the_period_that_stays_open(
    engine: Engine, zone: str, whose: str
) -> None:
    for _ in range(ROUNDS):
        account = in_a_transaction(engine, partial(create_account, name=str(uuid4())))
        client = on_monthly_since_may(engine, account)
        a_charge(engine, client, MAY)
        moved = (
            partial(change, engine, client, time_zone=zone)
            if whose == "client"
            else partial(
                in_a_transaction,
                engine,
                partial(
                    change_account, account_id=account.id, changes={"time_zone": zone}, now=NOW
                ),
            )
        )
        outcomes = together(a_page_of(engine, account), moved)
        assert not any(isinstance(outcome, Exception) for outcome in outcomes), outcomes
        still_open = periods_of(engine, client)[-1]
        assert still_open.state == "open"
        ends_on = still_open.period_end
        expected = client_zone(engine, client)
        assert still_open.ends_at == boundary_instant(ends_on, expected)
        assert audited(engine, account) == []


def client_zone(engine: Engine, client: Client) -> Any:  # noqa: ANN401 - a ZoneInfo
    with Session(engine) as session:
        account = session.get_one(Account, client.account_id)
        return session.get_one(Client, client.id).zone(account)


def test_a_client_that_goes_manual_is_billed_before_or_not_at_all(
    engine: Engine, account: Account
) -> None:
    for _ in range(ROUNDS):
        client = on_monthly_since_may(engine, account)
        a_charge(engine, client, MAY)
        outcomes = together(
            a_page_of(engine, account),
            partial(change, engine, client, billing_cycle="manual"),
        )
        assert not any(isinstance(outcome, Exception) for outcome in outcomes), outcomes
        states = [one.state for one in periods_of(engine, client)]
        assert states in (["billed", "skipped"], ["skipped", "skipped"])
        assert len(invoices_of(engine, client)) == states.count("billed")

    assert audited(engine, account) == []


def test_two_runs_at_once_bill_every_period_once(engine: Engine, account: Account) -> None:
    clients = [
        a_client(
            engine,
            account,
            billing_cycle="monthly",
            billing_starts_on=date(2026, 3, 1),
            anchor_day=1 + index % 2,
        )
        for index in range(4)
    ]
    for client in clients:
        charges(engine, client, [(date(2026, month, 1), "1.00") for month in range(3, 6)])
    with Session(engine) as session, session.begin():
        for _ in range(2):
            request_run(session, account.id, now=NOW, requested_by="test")

    together(*[partial(work, engine, now=NOW)] * 4)
    work(engine, now=NOW)

    for client in clients:
        states = [one.state for one in periods_of(engine, client)]
        assert states[-1] == "open"
        assert not set(states[:-1]) & {"open", "failed"}
        assert sum(one.total for one in invoices_of(engine, client)) == 300
    with Session(engine) as session:
        assert {run.finished_at for run in session.scalars(select(BillingRun))} == {NOW}
    assert audited(engine, account) == []


def test_numbers_stay_gapless_under_twenty_finalizers_of_which_some_give_up(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    drafts = [a_draft(engine, account, [a_charge(engine, client, MAY)], client) for _ in range(20)]

    def finalize(index: int) -> None:
        with Session(engine) as session:
            finalize_invoices(
                session,
                session.get_one(Account, account.id),
                [drafts[index]],
                now=NOW,
                requested_by="test",
            )
            if index % 3:
                session.commit()

    assert together(*[partial(finalize, index) for index in range(20)]) == [None] * 20

    numbers = [one.number for one in invoices_of(engine, client) if one.number]
    assert numbers == [f"INV-{index:06}" for index in range(1, 14)]
    assert audited(engine, account) == []


def record(engine: Engine, client: Client, refs: list[str], price: str = "1.00") -> list[Any]:
    new = [
        NewCharge(
            client_id=client.id,
            description="Bundling",
            currency="usd",
            charged_on=MAY,
            unit_price=Decimal(price),
            external_ref=ref,
        )
        for ref in refs
    ]
    with Session(engine) as session, session.begin():
        return list(record_charges(session, client.account_id, new))


def test_the_same_reference_recorded_by_two_at_once_is_one_charge(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    for index in range(ROUNDS):
        [first], [second] = together(*[partial(record, engine, client, [f"o-{index}"])] * 2)
        assert isinstance(first, Recorded)
        assert isinstance(second, Recorded)
        assert first.charge_id == second.charge_id
        assert {first.created, second.created} == {True, False}


def test_the_same_references_in_opposite_orders_wait_for_each_other_in_no_ring(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    for round_ in range(ROUNDS // 2):
        refs = [f"{round_}-{index}" for index in range(200)]
        forth, back = together(
            partial(record, engine, client, refs), partial(record, engine, client, refs[::-1])
        )
        assert not isinstance(forth, Exception), forth
        assert not isinstance(back, Exception), back
        assert [one.charge_id for one in forth] == [one.charge_id for one in back[::-1]]
