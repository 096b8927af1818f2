from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any
from uuid import UUID, uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from billing.credit_notes import Destination
from billing.cycles import Period
from models import Account, Client, CreditGrant, Invoice
from tasks.accounts import create_account
from tasks.crediting import apply_client_credit
from tasks.expiring import expire_client_credit
from tasks.granting import grant_credit
from tasks.marking_paid import mark_invoice_paid
from tasks.statements import ClientStatement, client_statement
from tasks.voiding import void_invoice
from tests import corrections
from tests.money import (
    adjust,
    an_invoice,
    balances,
    booked,
    deposit,
    losses,
    owe,
    with_a_card,
)
from tests.worlds import NOW, a_client, audited, counted, invoices_of, perform

TODAY = NOW.date()
EVER = Period(date(1999, 1, 1), date(2999, 1, 1))
JUNE = Period(date(2026, 6, 1), date(2026, 7, 1))
# Credit moves when the database says: long after these tests believe that it is June.
JUNE_ON = Period(JUNE.start, EVER.end)


def stated(
    engine: Engine, client: Client, period: Period = EVER, currency: str = "usd"
) -> ClientStatement:
    with Session(engine) as session:
        account = session.get_one(Account, client.account_id)
        return client_statement(session, account, client, currency=currency, period=period)


def lines(statement: ClientStatement) -> list[tuple[str, str, int, int]]:
    return [
        (line.movement.kind, line.movement.reference, line.movement.amount, line.balance)
        for line in statement.statement.lines
    ]


def open_at_the_end(statement: ClientStatement) -> list[tuple[str, int]]:
    return [(one.number, one.amount_due) for one in statement.open_documents]


def test_a_month_is_told_by_its_documents(engine: Engine, account: Account) -> None:
    client = a_client(engine, account)
    an_invoice(engine, account, client, "5.00", now=NOW - timedelta(days=10))
    paid = an_invoice(engine, account, client, "49.00")
    some: dict[str, Any] = {"reference": "wire 8841", "amount": 5_000, "overpayment": "credit"}
    perform(engine, mark_invoice_paid, account, invoice_id=paid.id, **some)
    later = NOW + timedelta(hours=1)
    void = an_invoice(engine, account, client, "20.00", now=later)
    perform(engine, void_invoice, account, invoice_id=void.id, now=later)

    june = stated(engine, client, JUNE_ON)

    assert june.statement.opening_balance == 500
    # The 1.00 that was paid too much was used for the oldest: nothing that changes what it owes.
    assert lines(june) == [
        ("invoice", "INV-000002", 4_900, 5_400),
        ("payment", "wire 8841", -5_000, 400),
        ("invoice", "INV-000003", 2_000, 2_400),
        ("void", "INV-000003", -2_000, 400),
    ]
    assert (june.statement.closing_balance, june.statement.credit) == (400, 0)
    assert open_at_the_end(june) == [("INV-000001", 400)]
    before = stated(engine, client, Period(date(2026, 5, 1), JUNE.start))
    assert before.statement.closing_balance == june.statement.opening_balance


def test_what_is_given_back_or_given_up_is_told_by_its_own_kind(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    first = an_invoice(engine, account, client, "10.00")
    perform(engine, mark_invoice_paid, account, invoice_id=first.id)
    corrections.credit(engine, first.id, 300, Destination.OUTSIDE)
    second = an_invoice(engine, account, client, "20.00")
    corrections.credit(engine, second.id, 400, Destination.CREDIT)
    corrections.write_off(engine, second.id)
    corrections.recover(engine, second.id, 100)
    corrections.grant(engine, client, 50)
    corrections.refund(engine, first.id, 200, Destination.OUTSIDE)

    told = stated(engine, client)

    assert sorted(line[:3] for line in lines(told)) == [
        ("credit", "granted", -50),
        ("credit_note", "CN-000001", -300),
        ("credit_note", "CN-000002", -400),
        ("invoice", "INV-000001", 1_000),
        ("invoice", "INV-000002", 2_000),
        ("payment", "other", -1_000),
        ("payment", "other", -100),
        # What the note returned, and what went back without one.
        ("refund", "CN-000001", 300),
        ("refund", "INV-000001", 200),
        ("write_off", "INV-000002", -1_600),
        ("write_off", "INV-000002", 100),
    ]
    assert (told.statement.closing_balance, told.statement.credit) == (150, 50)
    assert open_at_the_end(told) == [("INV-000001", 200)]


def test_a_grant_ends_on_the_day_that_the_books_say(engine: Engine, account: Account) -> None:
    client = a_client(engine, account)
    invoice = an_invoice(engine, account, client, "5.00")
    ends_on = date(2026, 6, 20)
    of_client: dict[str, Any] = {"client_id": client.id, "currency": "usd"}
    granted: dict[str, Any] = {**of_client, "amount": 1_000, "expires_on": ends_on}
    perform(engine, grant_credit, account, **granted, apply=False)
    perform(engine, apply_client_credit, account, **of_client, amount=400)
    # Written down weeks after its date; and what the void gives back ends as it comes back.
    late, later = (NOW + timedelta(days=days) for days in (40, 70))
    perform(engine, expire_client_credit, account, client_id=client.id, now=late)
    with Session(engine) as session, session.begin():
        owner = session.get_one(Account, account.id)
        owner.books_closed_through, owner.books_closed_at = date(2026, 8, 20), later
    perform(engine, void_invoice, account, invoice_id=invoice.id, now=later)

    told = stated(engine, client, Period(date(2026, 6, 2), date(2026, 11, 1)))

    expired = [
        (line.movement.dated_on, line.movement.amount)
        for line in told.statement.lines
        if line.movement.reference == "expired"
    ]
    assert expired == [(ends_on, 600), (date(2026, 8, 21), 400)]
    assert [(day, sides["credit"]) for day, sides in booked(engine, "expiry")] == expired
    assert stated(engine, client).statement.closing_balance == 0
    assert losses(engine) == {}
    assert audited(engine, account, now=later) == []


def test_currencies_and_clients_have_their_own(engine: Engine, account: Account) -> None:
    ada, bob = (a_client(engine, account, name=name) for name in ("Ada", "Bob"))
    an_invoice(engine, account, ada, "1.00")
    an_invoice(engine, account, ada, "2.00", currency="eur")
    an_invoice(engine, account, bob, "4.00")

    assert stated(engine, ada).statement.closing_balance == 100
    assert stated(engine, ada, currency="eur").statement.closing_balance == 200
    assert stated(engine, bob).statement.closing_balance == 400
    assert stated(engine, bob, currency="gbp").statement.lines == ()


def test_a_draft_is_nothing_that_a_client_sees(engine: Engine, account: Account) -> None:
    client = a_client(engine, account)
    with Session(engine) as session, session.begin():
        session.add(
            Invoice(account_id=account.id, client_id=client.id, currency="usd", subtotal=5, total=5)
        )

    assert stated(engine, client).statement.lines == ()


def test_a_statement_of_many_documents_takes_as_many_statements_as_one_of_few(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    an_invoice(engine, account, client)
    with counted(engine) as of_one:
        stated(engine, client)
    for _ in range(4):
        an_invoice(engine, account, client)
    with counted(engine) as of_five:
        stated(engine, client)

    assert len(of_five) == len(of_one)


@dataclass
class History:
    """A client to which things happen, one after another."""

    engine: Engine
    account: Account
    client: Client
    refunds: list[UUID] = field(default_factory=list)

    def invoices(self, *statuses: str) -> list[Invoice]:
        return [one for one in invoices_of(self.engine, self.client) if one.status in statuses]

    @property
    def where(self) -> tuple[Engine, Account, Client]:
        return self.engine, self.account, self.client


# Something that happens where it can: of the objects there are, `which` says to which of them.
Happening = Callable[[History, int, int, str], None]


def _one(found: list[Invoice], which: int) -> Invoice | None:
    return found[which % len(found)] if found else None


def is_billed(story: History, which: int, amount: int, currency: str) -> None:
    del which
    an_invoice(*story.where, f"{amount / 100:.2f}", currency=currency)


def is_billed_below_zero(story: History, which: int, amount: int, currency: str) -> None:
    del which
    an_invoice(*story.where, f"{-amount / 100:.2f}", currency=currency)


def pays_ahead(story: History, which: int, amount: int, currency: str) -> None:
    deposit(*story.where, amount, currency, apply=bool(which % 2))


def is_corrected(story: History, which: int, amount: int, currency: str) -> None:
    balance = balances(story.engine, story.client).get(currency, 0)
    down = which % 2 and balance >= amount
    adjust(*story.where, -amount if down else amount, currency)


def uses_credit(story: History, which: int, amount: int, currency: str) -> None:
    del which
    some: dict[str, Any] = {"client_id": story.client.id, "currency": currency, "amount": amount}
    perform(story.engine, apply_client_credit, story.account, **some)


def owes_too_little(story: History, which: int, amount: int, currency: str) -> None:
    del which, amount
    if balances(story.engine, story.client).get(currency, 0) <= 0:
        owe(*story.where, 30, currency)


def pays(story: History, which: int, amount: int, currency: str) -> None:
    del currency
    one = _one(story.invoices("open"), which)
    if one is not None:
        some: dict[str, Any] = {"invoice_id": one.id, "amount": amount, "overpayment": "credit"}
        perform(story.engine, mark_invoice_paid, story.account, **some)


def has_one_voided(story: History, which: int, amount: int, currency: str) -> None:
    del amount, currency
    plain = [one for one in story.invoices("open") if not one.amount_credited + one.amount_refunded]
    one = _one(plain, which)
    if one is not None:
        settle = "credit" if one.amount_paid else None
        perform(story.engine, void_invoice, story.account, invoice_id=one.id, settle=settle)


def is_granted_credit(story: History, which: int, amount: int, currency: str) -> None:
    del which
    corrections.grant(story.engine, story.client, amount, currency)


def loses_it(story: History, which: int, amount: int, currency: str) -> None:
    del which
    with Session(story.engine) as session:
        found = session.scalars(
            select(CreditGrant).where(
                CreditGrant.client_id == story.client.id, CreditGrant.currency == currency
            )
        ).all()
    for granted in found[:1]:
        left = min(granted.remaining, amount, balances(story.engine, story.client).get(currency, 0))
        if left > 0:
            corrections.expire(story.engine, story.client, granted.id, left)


def is_credited(story: History, which: int, amount: int, currency: str) -> None:
    del currency
    one = _one(story.invoices("open", "paid"), which)
    if one is None or one.total <= 0:
        return
    returnable = one.amount_paid - one.amount_refunded
    most = min(one.total - one.amount_credited, one.amount_due + max(returnable, 0))
    if most > 0:
        to = list(Destination)[which % 3]
        corrections.credit(story.engine, one.id, min(amount, most), to)


def is_refunded(story: History, which: int, amount: int, currency: str) -> None:
    del currency
    one = _one(story.invoices("open", "paid"), which)
    if one is not None and one.amount_paid > one.amount_refunded:
        to = list(Destination)[which % 3]
        given_back = min(amount, one.amount_paid - one.amount_refunded)
        refund = corrections.refund(story.engine, one.id, given_back, to)
        if to == Destination.CARD:
            story.refunds.append(refund)


def has_a_refund_sent_back(story: History, which: int, amount: int, currency: str) -> None:
    del which, amount, currency
    if story.refunds:
        corrections.give_back(story.engine, story.client, story.refunds.pop())


def is_paid_out(story: History, which: int, amount: int, currency: str) -> None:
    del which
    most = balances(story.engine, story.client).get(currency, 0)
    if most > 0:
        corrections.pay_out(story.engine, story.client, min(amount, most), currency)


def is_given_up(story: History, which: int, amount: int, currency: str) -> None:
    del amount, currency
    one = _one(story.invoices("open"), which)
    if one is not None:
        corrections.write_off(story.engine, one.id)


def pays_after_all(story: History, which: int, amount: int, currency: str) -> None:
    del currency
    one = _one(story.invoices("uncollectible"), which)
    if one is not None:
        corrections.recover(story.engine, one.id, min(amount, one.amount_written_off))


def has_a_given_up_one_voided(story: History, which: int, amount: int, currency: str) -> None:
    del amount, currency
    untouched = [
        one
        for one in story.invoices("uncollectible")
        if not one.amount_paid + one.amount_credited + one.amount_refunded
    ]
    one = _one(untouched, which)
    if one is not None:
        corrections.void_written_off(story.engine, one.id)


HAPPENINGS: list[Happening] = [
    *(is_billed, is_billed, is_billed, is_billed_below_zero, pays_ahead, is_corrected),
    *(uses_credit, owes_too_little, pays, pays, has_one_voided, is_granted_credit, loses_it),
    *(is_credited, is_credited, is_refunded, has_a_refund_sent_back, is_paid_out, is_given_up),
    *(pays_after_all, has_a_given_up_one_voided),
]
STEPS = st.tuples(
    st.sampled_from(HAPPENINGS),
    st.integers(0, 20),
    st.sampled_from([20, 100, 300, 300, 900]),
    st.sampled_from(["usd", "usd", "usd", "eur"]),
)


def in_the_books(session: Session, client: Client, currency: str) -> int:
    """What a client owes less what it has in hand, as the ledger has it."""
    booked = session.execute(
        text("""
            SELECT COALESCE(sum(amount), 0) FROM ledger_entries AS entries
              JOIN ledger_postings ON entry_id = entries.id
             WHERE client_id = :client AND entries.currency = :currency
               AND ledger_account IN ('receivable', 'credit')
        """),
        {"client": client.id, "currency": currency},
    )
    return int(booked.scalar_one())


@given(st.lists(STEPS, min_size=10, max_size=25))
@settings(
    deadline=None,
    max_examples=12,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_whatever_happens_a_statement_closes_with_what_is_due_less_what_is_in_hand(
    engine: Engine, steps: list[tuple[Happening, int, int, str]]
) -> None:
    with Session(engine, expire_on_commit=False) as session, session.begin():
        account = create_account(session, str(uuid4()))
    client = a_client(engine, account)
    with_a_card(engine, account, client)
    story = History(engine, account, client)
    for happens, which, amount, currency in steps:
        happens(story, which, amount, currency)

    assert losses(engine) == {}
    documents = story.invoices("open", "paid", "void", "uncollectible")
    in_hand = balances(engine, client)
    for currency in ("usd", "eur"):
        ever = stated(engine, client, currency=currency)
        due = {
            one.id: one.amount_due
            for one in documents
            if one.currency == currency and one.amount_due
        }
        assert {one.invoice_id: one.due for one in ever.statement.open_items} == due
        assert ever.statement.credit == in_hand.get(currency, 0)
        assert ever.statement.closing_balance == sum(due.values()) - in_hand.get(currency, 0)
        with Session(engine) as session:
            assert ever.statement.closing_balance == in_the_books(session, client, currency)
        until, rest = (
            stated(engine, client, Period(*days), currency)
            for days in ((EVER.start, TODAY), (TODAY, EVER.end))
        )
        assert until.statement.closing_balance == rest.statement.opening_balance
        assert rest.statement.closing_balance == ever.statement.closing_balance
