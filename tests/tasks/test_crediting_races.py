"""Two who move one client's money at the same moment: each order in turn, then as it comes."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from billing.errors import RuleViolation
from models import Account, BillingRun, Client, Invoice
from tasks.billing_pages import bill_page
from tasks.crediting import adjust_credit, apply_client_credit, apply_invoice_credit, deposit_credit
from tasks.expiring import expire_client_credit
from tasks.finalizing import finalize_invoice
from tasks.granting import grant_credit
from tasks.kinds import JobKind, Run
from tasks.marking_paid import mark_invoice_paid
from tasks.outcomes import Done
from tasks.paying_out import refund_credit
from tasks.voiding import void_invoice
from tests.jobs import wait_until_blocked
from tests.money import (
    MAY,
    a_draft,
    an_invoice,
    assert_no_money_is_lost,
    balances,
    deposit,
    grant,
    losses,
    moves,
    owe,
    paid_how,
    payments_of,
    remaining,
)
from tests.worlds import NOW, a_charge, a_client, together

ROUNDS = 12
TOMORROW = NOW.date() + timedelta(days=1)

Act = Callable[[Session], Any]


def act(account: Account, kind: JobKind, **arguments: Any) -> Act:
    """A job's work, to be done in some transaction."""
    return partial(kind.body, run_at(account, NOW), **arguments)


def act_tomorrow(account: Account, kind: JobKind, **arguments: Any) -> Act:
    """A job's work, of a run that begins a day later."""
    return partial(kind.body, run_at(account, NOW + timedelta(days=1)), **arguments)


def run_at(account: Account, now: datetime) -> Run:
    return Run(job_id=uuid4(), account_id=account.id, attempt=1, now=now, requested_by="test")


def committed(engine: Engine, do: Act) -> Any:  # noqa: ANN401 - what the job says
    with Session(engine, expire_on_commit=False) as session, session.begin():
        return do(session)


def one_before_the_other(engine: Engine, first: Act, second: Act) -> list[Any]:
    """Begin the second while the first has done its work and not yet committed."""
    with ThreadPoolExecutor(1) as threads:
        with Session(engine, expire_on_commit=False) as session, session.begin():
            outcome = first(session)
            waiting = threads.submit(committed, engine, second)
            wait_until_blocked(engine)
        error = waiting.exception(timeout=30)
        return [outcome, error or waiting.result()]


def meet(engine: Engine, round_: int, one: Act, other: Act) -> list[Any]:
    """What each of two said or raised: one first, the other first, from then on both at once."""
    if round_ == 0:
        return one_before_the_other(engine, one, other)
    if round_ == 1:
        return one_before_the_other(engine, other, one)[::-1]
    return together(partial(committed, engine, one), partial(committed, engine, other))


def rounds(engine: Engine, account: Account) -> Iterator[tuple[int, Client]]:
    """A round's number and a client of its own, for each; the books are right after it."""
    for round_ in range(ROUNDS):
        yield round_, a_client(engine, account)
        assert losses(engine) == {}
    assert_no_money_is_lost(engine, account)


def all_done(outcomes: list[Any]) -> bool:
    return all(isinstance(outcome, Done) for outcome in outcomes)


def the_one_refused(outcomes: list[Any], code: str) -> int:
    """Which of two was refused, where one had to be."""
    lost = [index for index, outcome in enumerate(outcomes) if not isinstance(outcome, Done)]
    assert len(lost) == 1, outcomes
    assert isinstance(outcomes[lost[0]], RuleViolation), outcomes
    assert outcomes[lost[0]].code == code
    return lost[0]


def seen_both_ways(seen: set[int]) -> None:
    """Check that the race was met: each of the two has won."""
    assert seen == {0, 1}


def test_credit_is_spent_once_by_two_invoices_finalized_at_once(
    engine: Engine, account: Account
) -> None:
    seen = set()
    for round_, client in rounds(engine, account):
        deposit(engine, account, client, 1000)
        drafts = [a_draft(engine, account, client) for _ in range(2)]
        finalize = [act(account, finalize_invoice, invoice_id=one.id) for one in drafts]

        assert all_done(meet(engine, round_, *finalize))

        assert sorted(paid_how(engine, client)) == [("open", 0, 0, 1000), ("paid", 1000, 0, 0)]
        assert balances(engine, client) == {}
        with Session(engine) as session:
            paid = [session.get_one(Invoice, one.id).status == "paid" for one in drafts]
        seen.add(paid.index(True))
    seen_both_ways(seen)


def test_credit_that_covers_one_and_a_half_is_shared_out_by_two_finalized_at_once(
    engine: Engine, account: Account
) -> None:
    for round_, client in rounds(engine, account):
        deposit(engine, account, client, 1500)
        drafts = [a_draft(engine, account, client) for _ in range(2)]
        finalize = [act(account, finalize_invoice, invoice_id=one.id) for one in drafts]

        assert all_done(meet(engine, round_, *finalize))

        assert sorted(paid_how(engine, client)) == [("open", 500, 0, 500), ("paid", 1000, 0, 0)]


def test_a_debit_comes_in_once_with_two_invoices_finalized_at_once(
    engine: Engine, account: Account
) -> None:
    for round_, client in rounds(engine, account):
        owe(engine, account, client, 30)
        drafts = [a_draft(engine, account, client) for _ in range(2)]
        finalize = [act(account, finalize_invoice, invoice_id=one.id) for one in drafts]

        assert all_done(meet(engine, round_, *finalize))

        assert sorted(paid_how(engine, client)[1:]) == [
            ("open", -30, 0, 1030),
            ("open", 0, 0, 1000),
        ]
        assert balances(engine, client) == {}


def test_a_deposit_is_never_left_unused_by_an_invoice_finalized_meanwhile(
    engine: Engine, account: Account
) -> None:
    for round_, client in rounds(engine, account):
        draft = a_draft(engine, account, client)
        some = {"client_id": client.id, "amount": 1500, "currency": "usd"}

        outcomes = meet(
            engine,
            round_,
            act(account, deposit_credit, **some),
            act(account, finalize_invoice, invoice_id=draft.id),
        )

        assert all_done(outcomes)
        assert paid_how(engine, client) == [("paid", 1000, 0, 0)]
        assert balances(engine, client) == {"usd": 500}


def test_a_deposit_is_never_left_unused_by_a_page_billed_meanwhile(
    engine: Engine, account: Account
) -> None:
    since = datetime(2026, 5, 1, 12, tzinfo=UTC)
    for round_ in range(ROUNDS):
        client = a_client(engine, account, now=since, billing_cycle="monthly")
        a_charge(engine, client, MAY)
        run = BillingRun(account_id=account.id, as_of_at=NOW, created_at=NOW)
        with Session(engine, expire_on_commit=False) as session, session.begin():
            session.add(run)
        page = act(
            account,
            bill_page,
            run_id=run.id,
            boundary=date(2026, 6, 1),
            first_client=UUID(int=0),
            last_client=UUID(int=2**128 - 1),
        )
        some = {"client_id": client.id, "amount": 1500, "currency": "usd"}

        assert all_done(meet(engine, round_, page, act(account, deposit_credit, **some)))

        assert paid_how(engine, client) == [("paid", 1000, 0, 0)]
        assert balances(engine, client) == {"usd": 500}
        assert losses(engine) == {}


def test_two_voids_give_the_credit_back_once(engine: Engine, account: Account) -> None:
    seen = set()
    for round_, client in rounds(engine, account):
        deposit(engine, account, client, 400)
        invoice = an_invoice(engine, account, client)
        void = [act(account, void_invoice, invoice_id=invoice.id) for _ in range(2)]

        seen.add(the_one_refused(meet(engine, round_, *void), "invoice_not_open"))

        assert balances(engine, client) == {"usd": 400}
        assert [kind for kind, _ in moves(engine, client)].count("returned") == 1
    seen_both_ways(seen)


def test_an_invoice_is_either_voided_or_marked_as_paid(engine: Engine, account: Account) -> None:
    seen = set()
    for round_, client in rounds(engine, account):
        deposit(engine, account, client, 400)
        invoice = an_invoice(engine, account, client)

        outcomes = meet(
            engine,
            round_,
            act(account, void_invoice, invoice_id=invoice.id),
            act(account, mark_invoice_paid, invoice_id=invoice.id),
        )

        refused = the_one_refused(outcomes, "invoice_not_open")
        [how] = paid_how(engine, client)
        assert how == (("paid", 400, 600, 0) if refused == 0 else ("void", 400, 0, 0))
        assert balances(engine, client) == ({} if refused == 0 else {"usd": 400})
        seen.add(refused)
    seen_both_ways(seen)


def test_a_part_paid_meanwhile_keeps_an_invoice_from_being_voided(
    engine: Engine, account: Account
) -> None:
    for round_, client in rounds(engine, account):
        invoice = an_invoice(engine, account, client)

        outcomes = meet(
            engine,
            round_,
            act(account, void_invoice, invoice_id=invoice.id),
            act(account, mark_invoice_paid, invoice_id=invoice.id, amount=1),
        )

        codes = [getattr(outcome, "code", None) for outcome in outcomes]
        assert codes in (["invoice_partly_paid", None], [None, "invoice_not_open"])
        assert len(payments_of(engine, client)) == codes.count("invoice_partly_paid")


def test_two_presses_of_mark_as_paid_record_one_payment(engine: Engine, account: Account) -> None:
    seen = set()
    for round_, client in rounds(engine, account):
        invoice = an_invoice(engine, account, client)
        press = [act(account, mark_invoice_paid, invoice_id=invoice.id) for _ in range(2)]

        seen.add(the_one_refused(meet(engine, round_, *press), "invoice_not_open"))

        assert [one.amount for one in payments_of(engine, client)] == [1000]
        assert paid_how(engine, client) == [("paid", 0, 1000, 0)]
    seen_both_ways(seen)


def test_two_parts_paid_at_once_are_both_counted(engine: Engine, account: Account) -> None:
    for round_, client in rounds(engine, account):
        invoice = an_invoice(engine, account, client)
        parts = [
            act(account, mark_invoice_paid, invoice_id=invoice.id, amount=amount)
            for amount in (300, 700)
        ]

        assert all_done(meet(engine, round_, *parts))

        assert paid_how(engine, client) == [("paid", 0, 1000, 0)]


def test_two_parts_that_are_more_than_is_due_do_not_overpay(
    engine: Engine, account: Account
) -> None:
    for round_, client in rounds(engine, account):
        invoice = an_invoice(engine, account, client)
        part = {"invoice_id": invoice.id, "amount": 600}
        presses = [act(account, mark_invoice_paid, **part) for _ in range(2)]

        outcomes = meet(engine, round_, *presses)

        codes = {getattr(outcome, "code", None) for outcome in outcomes}
        assert codes == {None, "amount_exceeds_due"}
        assert paid_how(engine, client) == [("open", 0, 600, 400)]


@pytest.mark.parametrize("before", [0, 1])
def test_two_deposits_at_once_are_both_in_hand(
    engine: Engine, account: Account, before: int
) -> None:
    """Also those that are a client's first: neither finds a balance."""
    for round_, client in rounds(engine, account):
        if before:
            deposit(engine, account, client, before)
        deposits = [
            act(account, deposit_credit, client_id=client.id, amount=amount, currency="usd")
            for amount in (700, 60)
        ]

        assert all_done(meet(engine, round_, *deposits))

        assert balances(engine, client) == {"usd": 760 + before}


def test_two_deposits_at_once_pay_an_invoice_once(engine: Engine, account: Account) -> None:
    for round_, client in rounds(engine, account):
        an_invoice(engine, account, client)
        some = {"client_id": client.id, "amount": 700, "currency": "usd"}
        deposits = [act(account, deposit_credit, **some) for _ in range(2)]

        assert all_done(meet(engine, round_, *deposits))

        assert paid_how(engine, client) == [("paid", 1000, 0, 0)]
        assert balances(engine, client) == {"usd": 400}


@pytest.mark.parametrize("use", ["apply to the client", "apply to the invoice", "finalize"])
def test_credit_is_either_taken_away_or_used(engine: Engine, account: Account, use: str) -> None:
    for round_, client in rounds(engine, account):
        if use == "finalize":
            deposit(engine, account, client, 1000)
            draft = a_draft(engine, account, client)
            using = act(account, finalize_invoice, invoice_id=draft.id)
        else:
            invoice = an_invoice(engine, account, client)
            deposit(engine, account, client, 1000, apply=False)
            using = (
                act(account, apply_client_credit, client_id=client.id)
                if use == "apply to the client"
                else act(account, apply_invoice_credit, invoice_id=invoice.id)
            )
        less = {"client_id": client.id, "amount": -1000, "currency": "usd", "note": "a miscount"}

        taken, used = meet(engine, round_, act(account, adjust_credit, **less), using)

        assert balances(engine, client) == {}
        if isinstance(taken, Done):
            assert paid_how(engine, client) == [("open", 0, 0, 1000)]
            assert isinstance(used, Done) != (use == "apply to the invoice"), used
        else:
            assert taken.code == "insufficient_credit"
            assert paid_how(engine, client) == [("paid", 1000, 0, 0)]
            assert isinstance(used, Done)


def test_a_balance_is_taken_away_once(engine: Engine, account: Account) -> None:
    for round_, client in rounds(engine, account):
        deposit(engine, account, client, 1000)
        less = {"client_id": client.id, "amount": -600, "currency": "usd", "note": "a miscount"}
        adjust = [act(account, adjust_credit, **less) for _ in range(2)]

        the_one_refused(meet(engine, round_, *adjust), "insufficient_credit")

        assert balances(engine, client) == {"usd": 400}


def test_credit_applied_twice_at_once_is_applied_once(engine: Engine, account: Account) -> None:
    for round_, client in rounds(engine, account):
        invoices = [an_invoice(engine, account, client) for _ in range(2)]
        deposit(engine, account, client, 1000, apply=False)
        one, other = (act(account, apply_invoice_credit, invoice_id=it.id) for it in invoices)

        the_one_refused(meet(engine, round_, one, other), "insufficient_credit")

        assert sorted(paid_how(engine, client)) == [("open", 0, 0, 1000), ("paid", 1000, 0, 0)]


def test_what_a_void_gives_back_and_what_is_deposited_meanwhile_are_both_there(
    engine: Engine, account: Account
) -> None:
    for round_, client in rounds(engine, account):
        deposit(engine, account, client, 400)
        invoice = an_invoice(engine, account, client)
        some = {"client_id": client.id, "amount": 100, "currency": "usd"}

        outcomes = meet(
            engine,
            round_,
            act(account, void_invoice, invoice_id=invoice.id),
            act(account, deposit_credit, **some),
        )

        assert all_done(outcomes)
        assert balances(engine, client) == {"usd": 500}


# Grants


def test_a_grant_is_never_left_unused_by_an_invoice_finalized_meanwhile(
    engine: Engine, account: Account
) -> None:
    for round_, client in rounds(engine, account):
        draft = a_draft(engine, account, client)
        some = {"client_id": client.id, "amount": 1500, "currency": "usd", "expires_on": TOMORROW}

        outcomes = meet(
            engine,
            round_,
            act(account, grant_credit, **some),
            act(account, finalize_invoice, invoice_id=draft.id),
        )

        assert all_done(outcomes)
        assert paid_how(engine, client) == [("paid", 1000, 0, 0)]
        assert (balances(engine, client), remaining(engine, client)) == ({"usd": 500}, [500])


def test_a_grant_is_spent_once_by_two_invoices_finalized_at_once(
    engine: Engine, account: Account
) -> None:
    for round_, client in rounds(engine, account):
        grant(engine, account, client, 1300)
        deposit(engine, account, client, 100)
        drafts = [a_draft(engine, account, client) for _ in range(2)]
        finalize = [act(account, finalize_invoice, invoice_id=one.id) for one in drafts]

        assert all_done(meet(engine, round_, *finalize))

        assert sorted(paid_how(engine, client)) == [("open", 400, 0, 600), ("paid", 1000, 0, 0)]
        assert remaining(engine, client) == [0]


def test_a_grant_expires_once_and_pays_nothing_then_whoever_comes_first(
    engine: Engine, account: Account
) -> None:
    for round_, client in rounds(engine, account):
        grant(engine, account, client, 1500, TOMORROW)
        draft = a_draft(engine, account, client)

        outcomes = meet(
            engine,
            round_,
            act_tomorrow(account, expire_client_credit, client_id=client.id),
            act_tomorrow(account, finalize_invoice, invoice_id=draft.id),
        )

        assert all_done(outcomes)
        assert paid_how(engine, client) == [("open", 0, 0, 1000)]
        assert moves(engine, client) == [("expired", -1500), ("granted", 1500)]


def test_a_grant_expires_or_is_spent_where_its_last_moment_is_also_an_invoices(
    engine: Engine, account: Account
) -> None:
    seen = set()
    for round_, client in rounds(engine, account):
        grant(engine, account, client, 1500, TOMORROW)
        draft = a_draft(engine, account, client)

        outcomes = meet(
            engine,
            round_,
            act_tomorrow(account, expire_client_credit, client_id=client.id),
            # It began before midnight, and may have waited for the other.
            act(account, finalize_invoice, invoice_id=draft.id),
        )

        assert all_done(outcomes)
        assert balances(engine, client) == {}
        status = paid_how(engine, client)[0][0]
        expired = dict(moves(engine, client))["expired"]
        assert (status, expired) in {("open", -1500), ("paid", -500)}
        seen.add(int(status == "paid"))
    seen_both_ways(seen)


def test_a_grant_expires_once_whether_a_void_gives_back_before_or_after(
    engine: Engine, account: Account
) -> None:
    for round_, client in rounds(engine, account):
        grant(engine, account, client, 900, TOMORROW)
        invoice = an_invoice(engine, account, client, "10.00")
        grant(engine, account, client, 50, TOMORROW, apply=False)

        outcomes = meet(
            engine,
            round_,
            act_tomorrow(account, expire_client_credit, client_id=client.id),
            act_tomorrow(account, void_invoice, invoice_id=invoice.id),
        )

        assert all_done(outcomes)
        assert balances(engine, client) == {}
        assert moves(engine, client) == [
            ("applied", -900),
            ("expired", -900),
            ("expired", -50),
            ("granted", 50),
            ("granted", 900),
            ("returned", 900),
        ]


def test_two_voids_give_a_grant_its_part_back_once(engine: Engine, account: Account) -> None:
    for round_, client in rounds(engine, account):
        grant(engine, account, client, 900, TOMORROW)
        invoice = an_invoice(engine, account, client, "10.00")
        void = [act(account, void_invoice, invoice_id=invoice.id) for _ in range(2)]

        the_one_refused(meet(engine, round_, *void), "invoice_not_open")

        assert (balances(engine, client), remaining(engine, client)) == ({"usd": 900}, [900])


def test_credit_is_either_paid_out_or_used(engine: Engine, account: Account) -> None:
    seen = set()
    for round_, client in rounds(engine, account):
        deposit(engine, account, client, 600)
        draft = a_draft(engine, account, client)
        some = {"client_id": client.id, "amount": 600, "currency": "usd"}

        refund, finalized = meet(
            engine,
            round_,
            act(account, refund_credit, **some),
            act(account, finalize_invoice, invoice_id=draft.id),
        )

        assert isinstance(finalized, Done)
        used = 0 if isinstance(refund, Done) else 600
        assert used == 0 or refund.code == "insufficient_credit"
        assert paid_how(engine, client) == [("open", used, 0, 1000 - used)]
        assert balances(engine, client) == {}
        seen.add(int(used == 0))
    seen_both_ways(seen)


def test_credit_is_paid_out_once(engine: Engine, account: Account) -> None:
    seen = set()
    for round_, client in rounds(engine, account):
        deposit(engine, account, client, 1000)
        grant(engine, account, client, 500)
        some = {"client_id": client.id, "amount": 600, "currency": "usd"}
        refunds = [act(account, refund_credit, **some) for _ in range(2)]

        seen.add(the_one_refused(meet(engine, round_, *refunds), "insufficient_credit"))

        assert (balances(engine, client), remaining(engine, client)) == ({"usd": 900}, [500])
    seen_both_ways(seen)


def test_clients_of_one_account_wait_for_each_other_in_no_ring(
    engine: Engine, account: Account
) -> None:
    clients = [a_client(engine, account) for _ in range(4)]
    for round_ in range(ROUNDS // 2):
        acts = []
        for client in clients:
            some = {"client_id": client.id, "amount": 700, "currency": "usd"}
            paid = an_invoice(engine, account, client)
            draft = a_draft(engine, account, client, "-2.00" if round_ % 2 else "10.00")
            acts += [
                act(account, deposit_credit, **some),
                act(account, finalize_invoice, invoice_id=draft.id),
                act(account, mark_invoice_paid, invoice_id=paid.id, amount=1),
            ]

        outcomes = together(*[partial(committed, engine, one) for one in acts])

        # What a deposit or a negative invoice has paid first is not open any more.
        codes = {getattr(outcome, "code", None) for outcome in outcomes}
        assert codes <= {None, "invoice_not_open"}, outcomes
        assert losses(engine) == {}
    assert_no_money_is_lost(engine, account)
