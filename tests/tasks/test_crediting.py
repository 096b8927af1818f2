from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from billing.collection import AttemptState
from billing.errors import DuecourseError, InvalidInput, NotFound, RuleViolation
from models import Account, Client, CreditEntry, Mail
from tasks.accounts import create_account
from tasks.crediting import adjust_credit, apply_client_credit, apply_invoice_credit, deposit_credit
from tasks.finalizing import finalize_invoice
from tasks.kinds import JobKind
from tests.jobs import job_of
from tests.money import (
    a_draft,
    adjust,
    an_attempt,
    an_invoice,
    ask,
    assert_no_money_is_lost,
    balances,
    booked,
    deposit,
    done,
    invoice_of,
    moves,
    owe,
    paid_how,
    payments_of,
    settle,
    with_a_card,
)
from tests.worlds import NOW, a_client, perform, work

TODAY = NOW.date()


def refused(engine: Engine, *job: Any, **arguments: Any) -> str:
    """The code with which a job's work is refused."""
    with pytest.raises(DuecourseError) as refusal:
        perform(engine, *job, **arguments)
    assert isinstance(refusal.value, InvalidInput | NotFound | RuleViolation)
    return refusal.value.code


def apply(engine: Engine, account: Account, client: Client, **options: Any) -> dict[UUID, int]:
    """What each invoice used when a client's credit was applied on demand."""
    result = done(engine, apply_client_credit, account, client_id=client.id, **options)
    assert result["client"] == str(client.id)
    return {UUID(invoice_id): amount for invoice_id, amount in result["applied"].items()}


# Deposits


def test_a_deposit_pays_open_invoices_at_once_oldest_due_first(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    last = an_invoice(engine, account, client, now=NOW + timedelta(days=2))
    first = an_invoice(engine, account, client, now=NOW)
    middle = an_invoice(engine, account, client, now=NOW + timedelta(days=1))

    result = deposit(engine, account, client, 1500, now=NOW + timedelta(days=3))

    assert result["balance"] == 0
    by_due_date = [invoice_of(engine, one.id) for one in (first, middle, last)]
    assert [(one.status, one.credit_applied, one.amount_due) for one in by_due_date] == [
        ("paid", 1000, 0),
        ("open", 500, 500),
        ("open", 0, 1000),
    ]
    assert by_due_date[0].paid_at == NOW + timedelta(days=3)
    assert by_due_date[1].paid_at is None
    assert moves(engine, client) == [("applied", -1000), ("applied", -500), ("deposit", 1500)]
    assert_no_money_is_lost(engine, account)


def test_invoices_due_on_one_day_are_paid_in_the_order_they_were_made(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    drafts = [a_draft(engine, account, client) for _ in range(3)]
    for draft in reversed(drafts):
        perform(engine, finalize_invoice, account, invoice_id=draft.id)

    deposit(engine, account, client, 1000)

    assert [invoice_of(engine, one.id).status for one in drafts] == ["paid", "open", "open"]


def test_what_no_invoice_needs_of_a_deposit_waits_for_the_next(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    an_invoice(engine, account, client)

    assert deposit(engine, account, client, 2500)["balance"] == 1500
    an_invoice(engine, account, client)

    assert paid_how(engine, client) == [("paid", 1000, 0, 0)] * 2
    assert balances(engine, client) == {"usd": 500}
    assert_no_money_is_lost(engine, account)


def test_a_deposit_that_is_not_to_be_applied_is_kept_until_the_next_invoice(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    an_invoice(engine, account, client)

    assert deposit(engine, account, client, 1500, apply=False)["balance"] == 1500
    assert paid_how(engine, client) == [("open", 0, 0, 1000)]
    an_invoice(engine, account, client)

    assert paid_how(engine, client) == [("open", 0, 0, 1000), ("paid", 1000, 0, 0)]
    assert balances(engine, client) == {"usd": 500}
    assert_no_money_is_lost(engine, account)


def test_a_deposit_in_another_currency_pays_nothing(engine: Engine, account: Account) -> None:
    client = a_client(engine, account)
    an_invoice(engine, account, client)

    deposit(engine, account, client, 5000, "eur")

    assert paid_how(engine, client) == [("open", 0, 0, 1000)]
    assert balances(engine, client) == {"eur": 5000}
    assert_no_money_is_lost(engine, account)


def test_a_deposit_pays_no_invoice_of_another_client(engine: Engine, account: Account) -> None:
    client, other = a_client(engine, account), a_client(engine, account)
    an_invoice(engine, account, other)

    deposit(engine, account, client, 5000)

    assert paid_how(engine, other) == [("open", 0, 0, 1000)]
    assert balances(engine, client) == {"usd": 5000}


def test_a_deposit_is_a_payment_with_a_receipt_and_not_an_invoice(
    engine: Engine, session: Session, account: Account
) -> None:
    client = a_client(engine, account, email="ada@ada-imports.example")

    result = deposit(engine, account, client, 700, reference="wire 17", note="for June", apply=True)

    [payment] = payments_of(engine, client)
    assert result == {"client": str(client.id), "payment": str(payment.id), "balance": 700}
    assert (payment.amount, payment.applied, payment.invoice_id) == (700, 0, None)
    assert (payment.source, payment.method, payment.paid_on) == ("outside", "other", TODAY)
    assert (payment.reference, payment.note, payment.flagged) == ("wire 17", "for June", None)
    assert booked(engine, "deposit") == [(TODAY, {"outside": 700, "credit": -700})]
    mail = session.scalars(select(Mail)).one()
    assert (mail.kind, mail.payment_id, mail.state) == ("receipt", payment.id, "queued")
    assert mail.recipient == "ada@ada-imports.example"
    [entry] = session.scalars(select(CreditEntry))
    assert (entry.payment_id, entry.note, entry.requested_by) == (payment.id, "for June", "test")


def test_a_deposit_counts_on_the_accounts_day(engine: Engine, session: Session) -> None:
    account = create_account(session, "Antipodes", time_zone="Pacific/Auckland")
    session.commit()
    client = a_client(engine, account)
    an_invoice(engine, account, client)

    deposit(engine, account, client, 700)  # Noon in London is midnight there.

    tomorrow = TODAY + timedelta(days=1)
    assert payments_of(engine, client)[0].paid_on == tomorrow
    assert [day for day, _ in booked(engine, "deposit") + booked(engine, "apply_credit")] == [
        tomorrow,
        tomorrow,
    ]


def test_a_deposit_first_covers_what_the_client_owes_from_before(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    owe(engine, account, client, 30)

    assert deposit(engine, account, client, 20)["balance"] == -10
    an_invoice(engine, account, client)
    assert balances(engine, client) == {}
    assert deposit(engine, account, client, 500)["balance"] == 0

    # The remaining 10 came in with the invoice, and 500 of its 1,010 are paid.
    assert paid_how(engine, client) == [("paid", 30, 0, 0), ("open", 490, 0, 510)]
    assert_no_money_is_lost(engine, account)


def test_a_deposit_above_a_debit_pays_with_what_is_over(engine: Engine, account: Account) -> None:
    client = a_client(engine, account)
    an_invoice(engine, account, client)
    owe(engine, account, client, 30)

    assert deposit(engine, account, client, 130)["balance"] == 0

    assert paid_how(engine, client) == [("open", 100, 0, 900), ("paid", 30, 0, 0)]
    assert_no_money_is_lost(engine, account)


@pytest.mark.parametrize(
    "state", [AttemptState.PENDING, AttemptState.PROCESSING, AttemptState.UNKNOWN]
)
def test_credit_leaves_an_invoice_alone_whose_card_is_being_charged(
    engine: Engine, account: Account, state: AttemptState
) -> None:
    client = a_client(engine, account)
    an_attempt(engine, an_invoice(engine, account, client), state)
    an_invoice(engine, account, client)

    deposit(engine, account, client, 1500)

    assert paid_how(engine, client) == [("open", 0, 0, 1000), ("paid", 1000, 0, 0)]
    assert balances(engine, client) == {"usd": 500}


@pytest.mark.parametrize("amount", [0, -1])
def test_a_deposit_is_above_zero(engine: Engine, account: Account, amount: int) -> None:
    client = a_client(engine, account)

    with pytest.raises(InvalidInput, match="amount: must be above zero"):
        deposit(engine, account, client, amount)

    assert balances(engine, client) == {}


@pytest.mark.parametrize("job", [deposit_credit, adjust_credit])
def test_credit_is_in_a_currency_that_there_is(
    engine: Engine, account: Account, job: JobKind
) -> None:
    client = a_client(engine, account)
    some = {"client_id": client.id, "amount": 1, "note": "by hand"}

    with pytest.raises(InvalidInput, match="currency"):
        done(engine, job, account, **some, currency="xyz")
    done(engine, job, account, **some, currency="EUR")

    assert balances(engine, client) == {"eur": 1}


def test_another_accounts_client_is_not_found(
    engine: Engine, session: Session, account: Account
) -> None:
    other = create_account(session, "Other")
    session.commit()
    theirs = a_client(engine, other)
    deposit(engine, other, theirs, 500)
    invoice = an_invoice(engine, other, theirs)

    for client_id in (theirs.id, uuid4()):
        some = {"client_id": client_id, "amount": 1, "currency": "usd"}
        assert refused(engine, deposit_credit, account, **some) == "client_not_found"
        assert refused(engine, adjust_credit, account, **some, note="x") == "client_not_found"
        assert (
            refused(engine, apply_client_credit, account, client_id=client_id) == "client_not_found"
        )
    for invoice_id in (invoice.id, uuid4()):
        assert (
            refused(engine, apply_invoice_credit, account, invoice_id=invoice_id)
            == "invoice_not_found"
        )
    assert moves(engine, theirs) == [("applied", -500), ("deposit", 500)]


# Adjustments


def test_an_adjustment_upward_is_used_at_once(engine: Engine, account: Account) -> None:
    client = a_client(engine, account)
    an_invoice(engine, account, client)

    assert adjust(engine, account, client, 1300) == {"client": str(client.id), "balance": 300}

    assert paid_how(engine, client) == [("paid", 1000, 0, 0)]
    assert moves(engine, client) == [("adjustment", 1300), ("applied", -1000)]
    assert payments_of(engine, client) == []
    assert booked(engine, "adjustment") == [(TODAY, {"adjustment": 1300, "credit": -1300})]
    assert_no_money_is_lost(engine, account)


def test_an_adjustment_downward_takes_what_there_is_and_touches_no_invoice(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    deposit(engine, account, client, 500)
    an_invoice(engine, account, client, "3.00")

    assert adjust(engine, account, client, -200)["balance"] == 0

    assert paid_how(engine, client) == [("paid", 300, 0, 0)]
    assert booked(engine, "adjustment") == [(TODAY, {"adjustment": -200, "credit": 200})]
    assert_no_money_is_lost(engine, account)


@pytest.mark.parametrize(("balance", "amount"), [(0, -1), (500, -501), (500, -(10**15))])
def test_no_adjustment_takes_a_balance_below_zero(
    engine: Engine, account: Account, balance: int, amount: int
) -> None:
    client = a_client(engine, account)
    if balance:
        deposit(engine, account, client, balance)
    deposit(engine, account, client, 10**12, "eur")

    with pytest.raises(RuleViolation) as refusal:
        adjust(engine, account, client, amount)

    assert refusal.value.code == "insufficient_credit"
    assert balances(engine, client).get("usd", 0) == balance
    assert_no_money_is_lost(engine, account)


def test_a_debit_is_forgiven_by_an_adjustment_but_not_deepened(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    owe(engine, account, client, 30)

    with pytest.raises(RuleViolation, match="the balance is -30"):
        adjust(engine, account, client, -1)
    assert adjust(engine, account, client, 10)["balance"] == -20
    assert adjust(engine, account, client, 20)["balance"] == 0

    assert_no_money_is_lost(engine, account)


def test_an_adjustment_by_nothing_is_refused(engine: Engine, account: Account) -> None:
    with pytest.raises(InvalidInput, match="amount: must not be zero"):
        adjust(engine, account, a_client(engine, account), 0)


# Application on demand, by client


def test_a_clients_credit_is_applied_on_demand_oldest_due_first(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    later = an_invoice(engine, account, client, now=NOW + timedelta(days=1))
    sooner = an_invoice(engine, account, client)
    deposit(engine, account, client, 1200, apply=False)

    assert apply(engine, account, client) == {sooner.id: 1000, later.id: 200}

    assert balances(engine, client) == {}
    assert booked(engine, "apply_credit") == [
        (TODAY, {"credit": amount, "receivable": -amount}) for amount in (1000, 200)
    ]
    assert apply(engine, account, client) == {}
    assert_no_money_is_lost(engine, account)


def test_no_more_is_applied_than_is_asked_for(engine: Engine, account: Account) -> None:
    client = a_client(engine, account)
    first, second = an_invoice(engine, account, client), an_invoice(engine, account, client)
    deposit(engine, account, client, 5000, apply=False)

    assert apply(engine, account, client, amount=1) == {first.id: 1}
    assert apply(engine, account, client, amount=1499) == {first.id: 999, second.id: 500}

    assert balances(engine, client) == {"usd": 3500}
    assert_no_money_is_lost(engine, account)


def test_each_currency_pays_its_own_invoices(engine: Engine, account: Account) -> None:
    client = a_client(engine, account)
    usd = an_invoice(engine, account, client)
    eur = an_invoice(engine, account, client, currency="eur")
    for currency, amount in (("usd", 300), ("eur", 400), ("gbp", 500)):
        deposit(engine, account, client, amount, currency, apply=False)

    assert apply(engine, account, client, currency="eur") == {eur.id: 400}
    assert apply(engine, account, client) == {usd.id: 300}

    assert balances(engine, client) == {"gbp": 500}
    assert_no_money_is_lost(engine, account)


@pytest.mark.parametrize(("of_client", "used"), [(None, "usd"), ("eur", "eur")])
def test_an_amount_without_a_currency_is_in_the_clients_own(
    engine: Engine, account: Account, of_client: str | None, used: str
) -> None:
    client = a_client(engine, account, currency=of_client)
    for currency in ("usd", "eur"):
        an_invoice(engine, account, client, currency=currency)
        deposit(engine, account, client, 500, currency, apply=False)

    [amount] = apply(engine, account, client, amount=400).values()

    assert amount == 400
    assert balances(engine, client) == {"usd": 500, "eur": 500} | {used: 100}
    assert_no_money_is_lost(engine, account)


@pytest.mark.parametrize("amount", [0, -400])
def test_applying_never_takes_credit_back(engine: Engine, account: Account, amount: int) -> None:
    client = a_client(engine, account)
    deposit(engine, account, client, 500)
    invoice = an_invoice(engine, account, client)
    deposit(engine, account, client, 100, apply=False)

    for job, of in (
        (apply_client_credit, {"client_id": client.id}),
        (apply_invoice_credit, {"invoice_id": invoice.id}),
    ):
        with pytest.raises(InvalidInput, match="amount: must be above zero"):
            done(engine, job, account, amount=amount, **of)

    assert paid_how(engine, client) == [("open", 500, 0, 500)]
    assert balances(engine, client) == {"usd": 100}


def test_a_debit_is_not_brought_in_by_an_invoice_that_is_there_already(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    an_invoice(engine, account, client)
    owe(engine, account, client, 30)

    assert apply(engine, account, client) == {}

    assert paid_how(engine, client)[0] == ("open", 0, 0, 1000)
    assert balances(engine, client) == {"usd": -30}


def test_nothing_but_an_open_invoice_uses_credit(engine: Engine, account: Account) -> None:
    client = a_client(engine, account)
    a_draft(engine, account, client)
    an_invoice(engine, account, client, "0.00")
    deposit(engine, account, client, 500)

    assert apply(engine, account, client) == {}
    assert balances(engine, client) == {"usd": 500}


# Application on demand, to one invoice


def test_one_invoice_uses_its_clients_credit_though_another_is_due_before_it(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    older = an_invoice(engine, account, client)
    chosen = an_invoice(engine, account, client, now=NOW + timedelta(days=1))
    deposit(engine, account, client, 1200, apply=False)

    result = done(engine, apply_invoice_credit, account, invoice_id=chosen.id)

    assert result == {"invoice": str(chosen.id), "applied": 1000}
    assert invoice_of(engine, chosen.id).status == "paid"
    assert invoice_of(engine, older.id).amount_due == 1000
    assert balances(engine, client) == {"usd": 200}
    assert_no_money_is_lost(engine, account)


@pytest.mark.parametrize(("asked", "applied"), [(None, 600), (250, 250), (600, 600)])
def test_one_invoice_uses_as_much_as_is_asked_or_as_there_is(
    engine: Engine, account: Account, asked: int | None, applied: int
) -> None:
    client = a_client(engine, account)
    invoice = an_invoice(engine, account, client)
    deposit(engine, account, client, 600, apply=False)

    result = done(engine, apply_invoice_credit, account, invoice_id=invoice.id, amount=asked)

    assert result["applied"] == applied
    assert paid_how(engine, client) == [("open", applied, 0, 1000 - applied)]
    assert balances(engine, client).get("usd", 0) == 600 - applied
    assert_no_money_is_lost(engine, account)


@pytest.mark.parametrize(
    ("balance", "asked", "code"),
    [
        (0, None, "insufficient_credit"),
        (0, 1, "insufficient_credit"),
        (600, 601, "insufficient_credit"),
        (5000, 1001, "amount_exceeds_due"),
    ],
)
def test_one_invoice_takes_neither_more_than_there_is_nor_than_is_due(
    engine: Engine, account: Account, balance: int, asked: int | None, code: str
) -> None:
    client = a_client(engine, account)
    invoice = an_invoice(engine, account, client)
    if balance:
        deposit(engine, account, client, balance, apply=False)

    some = {"invoice_id": invoice.id, "amount": asked}
    assert refused(engine, apply_invoice_credit, account, **some) == code

    assert paid_how(engine, client) == [("open", 0, 0, 1000)]
    assert_no_money_is_lost(engine, account)


def test_what_a_client_owes_pays_no_invoice(engine: Engine, account: Account) -> None:
    client = a_client(engine, account)
    invoice = an_invoice(engine, account, client)
    owe(engine, account, client, 30)

    assert (
        refused(engine, apply_invoice_credit, account, invoice_id=invoice.id)
        == "insufficient_credit"
    )


def test_one_invoice_uses_no_credit_unless_it_is_open(engine: Engine, account: Account) -> None:
    client = a_client(engine, account)
    deposit(engine, account, client, 5000, apply=False)
    draft = a_draft(engine, account, client)
    paid = an_invoice(engine, account, client)
    negative = an_invoice(engine, account, client, "-5.00")

    for invoice in (draft, paid, negative):
        assert (
            refused(engine, apply_invoice_credit, account, invoice_id=invoice.id)
            == "invoice_not_open"
        )
    assert balances(engine, client) == {"usd": 4500}


def test_one_invoice_uses_no_credit_while_its_card_is_being_charged(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    invoice = an_invoice(engine, account, client)
    an_attempt(engine, invoice)
    deposit(engine, account, client, 500)

    assert (
        refused(engine, apply_invoice_credit, account, invoice_id=invoice.id) == "payment_in_flight"
    )
    assert balances(engine, client) == {"usd": 500}


def test_one_invoice_waits_for_an_attempt_to_be_withdrawn_and_then_uses_credit(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    invoice = an_invoice(engine, account, client)
    attempt = an_attempt(engine, invoice, AttemptState.NEEDS_ACTION)
    deposit(engine, account, client, 500)
    job_id = ask(engine, apply_invoice_credit, account, invoice_id=invoice.id)

    work(engine, now=NOW)

    assert (job_of(engine, job_id).state, moves(engine, client)) == (
        "scheduled",
        [("deposit", 500)],
    )
    settle(engine, attempt, AttemptState.CANCELED)
    work(engine, now=NOW, queues=("billing", "payments"))
    assert job_of(engine, job_id).state == "succeeded"
    assert paid_how(engine, client) == [("open", 500, 0, 500)]


def test_credit_that_pays_an_invoice_takes_it_off_the_schedule(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    with_a_card(engine, account, client)
    whole = an_invoice(engine, account, client, collect=True)
    part = an_invoice(engine, account, client, collect=True)
    assert whole.next_attempt_at == part.next_attempt_at == NOW

    deposit(engine, account, client, 1500)

    assert invoice_of(engine, whole.id).next_attempt_at is None
    assert invoice_of(engine, part.id).next_attempt_at == NOW
