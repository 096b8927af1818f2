"""Whatever is done, in whatever order: the rules of money told once more, in the plainest way."""

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Protocol
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from billing.errors import InvalidInput, RuleViolation
from gateways.cards import CardReport, CardStatus
from gateways.disputes import DisputeReport, DisputeStatus
from models import Account, Client, CreditGrant, Payment
from tasks.accounts import create_account
from tasks.calls import Call
from tasks.charging import charge_invoice
from tasks.crediting import apply_client_credit, apply_invoice_credit
from tasks.disputes import settle_dispute
from tasks.expiring import expire_client_credit
from tasks.invoice_credits import credit_invoice
from tasks.marking_paid import mark_invoice_paid
from tasks.paying_out import refund_credit
from tasks.payment_refunds import refund_payment
from tasks.voiding import void_invoice
from tasks.writing_off import write_off_invoice
from tests.money import (
    adjust,
    an_invoice,
    balances,
    deposit,
    done,
    grant,
    losses,
    paid_how,
    with_a_card,
)
from tests.worlds import NOW, a_client, audited, change, perform

CARD_MINIMUM = 50
"""Stripe's, in cents, of both currencies here."""

MOST_SWIPES = 5
"""How often one invoice is charged: its card may not be tried much more often in a month."""


@dataclass(eq=False)
class Given:
    """A grant as the rules have it."""

    id: UUID
    currency: str
    remaining: int
    expires_on: date | None

    @property
    def ends(self) -> date:
        return self.expires_on or date.max


@dataclass
class Owed:
    """An invoice as the rules have it."""

    id: UUID
    currency: str
    total: int
    due_on: date
    status: str = "open"
    credit: int = 0
    paid: int = 0
    uses: dict[Given, int] = field(default_factory=dict)
    written_off: int = 0
    credited: int = 0
    refunded: int = 0
    lost: int = 0
    # What each payment paid of it and was neither given back nor lost, the newest first.
    payments: list[int] = field(default_factory=list)

    @property
    def settled(self) -> int:
        return self.credit + self.paid - self.refunded

    @property
    def kept(self) -> int:
        return self.settled - self.lost

    @property
    def due(self) -> int:
        return self.total - self.settled - self.credited if self.status == "open" else 0

    @property
    def outstanding(self) -> int:
        return self.due + self.written_off

    def send_back(self, amount: int) -> None:
        for place, left in enumerate(self.payments):
            gone = min(left, amount)
            self.payments[place] -= gone
            amount -= gone

    def close(self) -> None:
        if self.status in {"open", "uncollectible"} and self.outstanding == 0:
            self.status = "paid"


@dataclass(frozen=True)
class Swiped:
    """What a card paid of an invoice; ``place`` counts its payments from the oldest."""

    id: UUID
    owed: Owed
    place: int
    amount: int

    @property
    def index(self) -> int:
        return len(self.owed.payments) - 1 - self.place


@dataclass
class Book:
    """One client's money as the rules have it."""

    balance: dict[str, int] = field(default_factory=lambda: {"usd": 0, "eur": 0})
    invoices: list[Owed] = field(default_factory=list)
    grants: list[Given] = field(default_factory=list)
    by_card: list[Swiped] = field(default_factory=list)

    def use(
        self,
        currency: str,
        *,
        at_most: int = 10**9,
        only: Owed | None = None,
        but: Owed | None = None,
    ) -> None:
        """Spend credit, oldest due first."""
        for one in sorted(self.invoices, key=lambda one: one.due_on):
            if one.currency == currency and (only is None or one is only) and one is not but:
                used = max(min(self.balance[currency], one.due, at_most), 0)
                at_most -= used
                self.move(one, used)

    def move(self, one: Owed, amount: int) -> None:
        one.credit += amount
        self.add(one.currency, -amount, one)
        one.close()

    def add(self, currency: str, amount: int, by: Owed | None = None) -> None:
        """Move a balance: what is spent, and what is owed, is taken from grants first."""
        self.balance[currency] += amount
        self.take(currency, -amount, by)
        self.take(currency, self.promotional(currency) - max(self.balance[currency], 0))

    def take(self, currency: str, amount: int, by: Owed | None = None) -> None:
        for one in sorted(self.grants, key=lambda one: one.ends):
            if one.currency == currency:
                taken = max(min(one.remaining, amount), 0)
                one.remaining -= taken
                amount -= taken
                if by is not None and taken:
                    by.uses[one] = by.uses.get(one, 0) + taken

    def take_back(self, currency: str, amount: int) -> None:
        """What the bank takes was paid in; grants only cover what is owed after."""
        self.balance[currency] -= amount
        self.add(currency, 0)

    def promotional(self, currency: str) -> int:
        return sum(one.remaining for one in self.grants if one.currency == currency)

    def expire(self, today: date) -> None:
        for one in self.grants:
            if one.ends <= today:
                self.balance[one.currency] -= one.remaining
                one.remaining = 0

    def give_back(self, owed: Owed, amount: int, today: date, *, granted: int = 10**9) -> None:
        """Give credit back; up to ``granted`` of it goes to the newest grants that it used."""
        self.add(owed.currency, amount)
        for one in sorted(owed.uses, key=self.grants.index, reverse=True):
            part = min(owed.uses[one], granted)
            owed.uses[one] -= part
            granted -= part
            if one.ends <= today:
                self.balance[owed.currency] -= part
            else:
                one.remaining += part
        self.add(owed.currency, 0)


@dataclass
class World:
    """A client, and what the rules say of it."""

    engine: Engine
    account: Account
    client: Client
    book: Book = field(default_factory=Book)
    now: datetime = NOW

    @property
    def today(self) -> date:
        return self.now.date()


class Step(Protocol):
    """Something that is done, to the system and by the rules."""

    def do(self, world: World) -> None: ...


@dataclass(frozen=True)
class Deposit:
    currency: str
    amount: int
    apply: bool

    def do(self, world: World) -> None:
        where = world.engine, world.account, world.client
        deposit(*where, self.amount, self.currency, apply=self.apply, now=world.now)
        world.book.add(self.currency, self.amount)
        if self.apply:
            world.book.use(self.currency)


@dataclass(frozen=True)
class Adjust:
    currency: str
    amount: int

    def do(self, world: World) -> None:
        where = world.engine, world.account, world.client
        after = world.book.balance[self.currency] + self.amount
        if self.amount < 0 and after < 0:
            with pytest.raises(RuleViolation, match="cannot go down"):
                adjust(*where, self.amount, self.currency, now=world.now)
            return
        adjust(*where, self.amount, self.currency, now=world.now)
        world.book.add(self.currency, self.amount)
        if self.amount > 0:
            world.book.use(self.currency)


@dataclass(frozen=True)
class Bill:
    currency: str
    amount: int
    day: int

    def do(self, world: World) -> None:
        book = world.book
        change(world.engine, world.client, net_days=10 + self.day)
        real = an_invoice(
            world.engine,
            world.account,
            world.client,
            f"{'-' if self.amount < 0 else ''}{abs(self.amount) // 100}.{abs(self.amount) % 100:02}",
            currency=self.currency,
            now=world.now,
        )
        assert real.due_on is not None
        one = Owed(real.id, self.currency, self.amount, real.due_on)
        if self.amount > 0 and book.balance[self.currency] < 0:
            book.move(one, book.balance[self.currency])
        if self.amount < 0:
            book.move(one, self.amount)
        book.invoices.append(one)
        one.close()
        book.use(self.currency, only=None if self.amount < 0 else one)


@dataclass(frozen=True)
class Apply:
    currency: str
    amount: int

    def do(self, world: World) -> None:
        done(
            world.engine,
            apply_client_credit,
            world.account,
            client_id=world.client.id,
            currency=self.currency,
            amount=self.amount,
            now=world.now,
        )
        world.book.use(self.currency, at_most=self.amount)


@dataclass(frozen=True)
class OnOne:
    """Something done to one of the invoices there are, mostly to one that is open; or refused."""

    which: int
    amount: int

    def do(self, world: World) -> None:
        there = world.book.invoices
        still_open = [one for one in there if one.status in {"open", "uncollectible"}]
        if still_open and self.which % 4:
            there = still_open
        if there:
            self.act(world, world.book, there[self.which % len(there)])

    def act(self, world: World, book: Book, one: Owed) -> None:
        raise NotImplementedError


class ApplyToOne(OnOne):
    def act(self, world: World, book: Book, one: Owed) -> None:
        some = {"invoice_id": one.id, "amount": self.amount, "now": world.now}
        if self.amount > min(one.due, book.balance[one.currency]):
            with pytest.raises((InvalidInput, RuleViolation)):
                done(world.engine, apply_invoice_credit, world.account, **some)
            return
        done(world.engine, apply_invoice_credit, world.account, **some)
        book.use(one.currency, at_most=self.amount, only=one)


class Void(OnOne):
    """Of those that use a grant, if there are any: what they give back may have expired."""

    def act(self, world: World, book: Book, one: Owed) -> None:
        use_grants = [
            other
            for other in book.invoices
            if other.status == "open" and self._is_voidable(other) and any(other.uses.values())
        ]
        if use_grants and self.which % 2:
            one = use_grants[self.which % len(use_grants)]
        if one.status not in {"open", "uncollectible"} or not self._is_voidable(one):
            with pytest.raises(RuleViolation):
                done(world.engine, void_invoice, world.account, invoice_id=one.id)
            return
        done(world.engine, void_invoice, world.account, invoice_id=one.id, now=world.now)
        one.status, one.written_off = "void", 0
        book.give_back(one, one.credit, world.today)
        book.use(one.currency)

    def _is_voidable(self, one: Owed) -> bool:
        return one.paid - one.refunded - one.lost == 0 and not one.credited


class MarkPaid(OnOne):
    def act(self, world: World, book: Book, one: Owed) -> None:
        some = {
            "invoice_id": one.id,
            "amount": self.amount,
            "overpayment": "credit",
            "now": world.now,
        }
        if one.status not in {"open", "uncollectible"}:
            with pytest.raises(RuleViolation):
                done(world.engine, mark_invoice_paid, world.account, **some)
            return
        done(world.engine, mark_invoice_paid, world.account, **some)
        over = max(self.amount - one.outstanding, 0)
        one.paid += self.amount - over
        one.payments.insert(0, self.amount - over)
        if one.status == "uncollectible":
            one.written_off -= self.amount - over
        one.close()
        book.add(one.currency, over)
        if over:
            book.use(one.currency)


class WriteOff(OnOne):
    def act(self, world: World, book: Book, one: Owed) -> None:
        if one.status != "open":
            with pytest.raises(RuleViolation):
                done(world.engine, write_off_invoice, world.account, invoice_id=one.id)
            return
        done(world.engine, write_off_invoice, world.account, invoice_id=one.id)
        one.written_off, one.status = one.due, "uncollectible"


@dataclass(frozen=True)
class GiveBack(OnOne):
    """Money goes back as credit, or outside; mostly of what was paid, or is for it."""

    to: str

    def act(self, world: World, book: Book, one: Owed) -> None:
        paid = [other for other in book.invoices if any(other.payments)]
        if self.which % 3 and paid:
            one = paid[self.which % len(paid)]
        elif self.which % 3 and one.status == "open":
            MarkPaid(self.which, max(one.due - self.which % 2, 1)).act(world, book, one)
        self.give_back(world, book, one)

    def give_back(self, world: World, book: Book, one: Owed) -> None:
        raise NotImplementedError

    def give_by_note(self, world: World, one: Owed, amount: int) -> None:
        """What a note returns to credit, counted as refunded already: money first."""
        if self.to == "credit" and amount:
            money = max(one.paid - (one.refunded - amount) - one.lost, 0)
            world.book.give_back(one, amount, world.today, granted=max(amount - money, 0))
            world.book.use(one.currency)


@dataclass(frozen=True)
class Credit(GiveBack):
    """A credit note, which lowers what is due or given up before it gives anything back."""

    def give_back(self, world: World, book: Book, one: Owed) -> None:
        some = {"invoice_id": one.id, "amount": self.amount, "to": self.to, "now": world.now}
        lowered = min(self.amount, one.outstanding)
        returned = self.amount - lowered
        if (
            one.status not in {"open", "paid", "uncollectible"}
            or self.amount > one.total - one.credited
            or (self.to == "outside" and returned > sum(one.payments))
        ):
            with pytest.raises((InvalidInput, RuleViolation)):
                done(world.engine, credit_invoice, world.account, **some)
            return
        done(world.engine, credit_invoice, world.account, **some)
        if one.status == "uncollectible":
            one.written_off -= lowered
        one.credited += self.amount
        one.refunded += returned
        if self.to == "outside":
            one.send_back(returned)
        one.close()
        self.give_by_note(world, one, returned)


@dataclass(frozen=True)
class RefundIt(GiveBack):
    """A refund of the newest payment, with a credit note or with the debt back."""

    with_note: bool

    def give_back(self, world: World, book: Book, one: Owed) -> None:
        with Session(world.engine) as session:
            newest = session.scalar(
                select(Payment.id).where(Payment.invoice_id == one.id).order_by(Payment.id.desc())
            )
        if newest is None:
            return
        some = {
            "payment_id": newest,
            "amount": self.amount,
            "to": self.to,
            "credit_note": self.with_note,
            "now": world.now,
        }
        may_be = {"open", "paid", *(["uncollectible"] if self.with_note else [])}
        if one.status not in may_be or self.amount > min(one.payments[0], one.kept):
            with pytest.raises((InvalidInput, RuleViolation)):
                done(world.engine, refund_payment, world.account, **some)
            return
        done(world.engine, refund_payment, world.account, **some)
        one.payments[0] -= self.amount
        one.refunded += self.amount
        if self.with_note:
            one.credited += self.amount
            one.close()
            self.give_by_note(world, one, self.amount)
        else:
            one.status = "open"
            if self.to == "credit":
                book.add(one.currency, self.amount)
                book.use(one.currency, but=one)


@dataclass(frozen=True)
class DisputeIt(OnOne):
    """What a card paid, for this if it must, is disputed, in part or more, and won or lost."""

    outcome: DisputeStatus
    rule: str

    def act(self, world: World, book: Book, one: Owed) -> None:
        swiped = [other for other in book.by_card if other.owed is one]
        if one.due >= CARD_MINIMUM and len(swiped) < MOST_SWIPES:
            self.swipe(world, one)
        if not book.by_card:
            return
        disputed = book.by_card[-1 - self.which % len(book.by_card)]
        amount = min(self.amount, disputed.amount) if self.which % 3 else disputed.amount
        name = f"du_{uuid4()}"
        self.tell(world, disputed, name, amount, DisputeStatus.NEEDS_RESPONSE)
        if disputed.owed.status in {"open", "paid"}:
            some = {"payment_id": disputed.id, "to": "outside", "now": world.now}
            with pytest.raises(RuleViolation, match="disputed"):
                done(world.engine, refund_payment, world.account, **some)
        self.tell(world, disputed, name, amount, self.outcome)
        if self.outcome == DisputeStatus.LOST:
            self.lose(book, disputed.owed, disputed.index, amount)

    def swipe(self, world: World, one: Owed) -> None:
        due = one.due
        step = perform(
            world.engine, charge_invoice, world.account, invoice_id=one.id, now=world.now
        )
        assert isinstance(step, Call)
        came = CardReport(
            payment_intent=f"pi_{uuid4()}",
            status=CardStatus.SUCCEEDED,
            amount_received=due,
            currency=one.currency,
        )
        with Session(world.engine) as session, session.begin():
            step.record(session, came)
            session.flush()
            newest = session.scalars(
                select(Payment.id).where(Payment.invoice_id == one.id).order_by(Payment.id.desc())
            ).first()
        assert newest is not None
        one.paid += due
        one.payments.insert(0, due)
        one.close()
        world.book.by_card.append(Swiped(newest, one, len(one.payments) - 1, due))

    def tell(
        self, world: World, disputed: Swiped, name: str, amount: int, status: DisputeStatus
    ) -> None:
        report = DisputeReport(
            dispute=name,
            payment_intent=None,
            amount=amount,
            currency=disputed.owed.currency,
            status=status,
            reason="fraudulent",
            evidence_due_at=None,
            created_at=world.now,
        )
        with Session(world.engine) as session, session.begin():
            session.get_one(Account, world.account.id).dispute_lost = self.rule
            settle_dispute(
                session,
                session.get_one(Payment, disputed.id),
                report,
                told_at=world.now,
                now=world.now,
                requested_by="test",
            )

    def lose(self, book: Book, one: Owed, index: int, amount: int) -> None:
        settled = 0
        if one.status != "void":
            settled = max(min(amount, one.payments[index], one.kept), 0)
            one.payments[index] -= settled
        if self.rule == "write_off":
            one.lost += settled
        elif settled:
            one.refunded += settled
            if one.status == "uncollectible":
                one.written_off += settled
            else:
                one.status = "open"
        book.take_back(one.currency, amount - settled)


@dataclass(frozen=True)
class Carry:
    """A charge of an invoice that is too small for a card, made for it if there is none."""

    currency: str

    def do(self, world: World) -> None:
        small = self._small(world.book)
        if small is None:
            Bill(self.currency, CARD_MINIMUM - 5, 0).do(world)
            small = self._small(world.book)
        if small is not None:
            done(world.engine, charge_invoice, world.account, invoice_id=small.id, now=world.now)
            world.book.move(small, small.due)

    def _small(self, book: Book) -> Owed | None:
        return next((one for one in book.invoices if 0 < one.due < CARD_MINIMUM), None)


@dataclass(frozen=True)
class Grant:
    currency: str
    amount: int
    days: int | None
    apply: bool

    def do(self, world: World) -> None:
        expires_on = None if self.days is None else world.today + timedelta(days=self.days)
        given = grant(
            world.engine,
            world.account,
            world.client,
            self.amount,
            expires_on,
            currency=self.currency,
            apply=self.apply,
            now=world.now,
        )
        world.book.grants.append(Given(given, self.currency, self.amount, expires_on))
        world.book.add(self.currency, self.amount)
        if self.apply:
            world.book.use(self.currency)


@dataclass(frozen=True)
class PayOut:
    currency: str
    amount: int

    def do(self, world: World) -> None:
        some = {
            "client_id": world.client.id,
            "amount": self.amount,
            "currency": self.currency,
            "now": world.now,
        }
        book = world.book
        if self.amount > book.balance[self.currency] - book.promotional(self.currency):
            with pytest.raises(RuleViolation, match="cannot be paid out"):
                done(world.engine, refund_credit, world.account, **some)
            return
        done(world.engine, refund_credit, world.account, **some)
        book.balance[self.currency] -= self.amount


@dataclass(frozen=True)
class Wait:
    """Days pass; what has expired is written down at once, or only when somebody needs to know."""

    days: int
    sweeps: bool

    def do(self, world: World) -> None:
        world.now += timedelta(days=self.days)
        world.book.expire(world.today)
        if self.sweeps:
            sweep(world)


def sweep(world: World) -> None:
    done(
        world.engine,
        expire_client_credit,
        world.account,
        client_id=world.client.id,
        now=world.now,
    )


def usable(world: World) -> tuple[dict[str, int], list[int]]:
    """What the client has in hand by currency, and what remains of each grant, less what expired."""
    with Session(world.engine) as session:
        grants = session.scalars(
            select(CreditGrant)
            .where(CreditGrant.client_id == world.client.id)
            .order_by(CreditGrant.id)
        ).all()
    in_hand = {"usd": 0, "eur": 0} | balances(world.engine, world.client)
    left = []
    for one in grants:
        has_expired = one.expires_on is not None and one.expires_on <= world.today
        in_hand[one.currency] -= one.remaining * has_expired
        left.append(one.remaining * (not has_expired))
    return in_hand, left


# Few amounts, so that they often are the same, or just too much; most invoices stay open.
CURRENCIES = st.sampled_from(["usd", "usd", "usd", "eur"])
BILLED = st.sampled_from([45, 100, 300, 300, 900, 2000])
AMOUNTS = st.sampled_from([1, 20, 60, 100, 400])
DAYS = st.integers(0, 3)
TO = st.sampled_from(["credit", "outside"])
LASTS = st.sampled_from([1, 2, 2, 4, None])
WHICH = st.integers(0, 20)
DECIDED = st.sampled_from([DisputeStatus.WON, DisputeStatus.LOST, DisputeStatus.LOST])
KINDS: list[tuple[int, st.SearchStrategy[Step]]] = [
    (6, st.builds(Bill, CURRENCIES, BILLED, DAYS)),
    (1, st.builds(Bill, CURRENCIES, st.sampled_from([0, -20, -400]), DAYS)),
    (1, st.builds(Deposit, CURRENCIES, AMOUNTS, st.just(value=True))),
    (3, st.builds(Deposit, CURRENCIES, AMOUNTS, st.just(value=False))),
    (2, st.builds(Adjust, CURRENCIES, st.sampled_from([-400, -100, -20, -1, 20]))),
    (3, st.builds(Apply, CURRENCIES, AMOUNTS)),
    (2, st.builds(ApplyToOne, WHICH, AMOUNTS)),
    (5, st.builds(Void, WHICH, AMOUNTS)),
    (2, st.builds(MarkPaid, WHICH, AMOUNTS)),
    (2, st.builds(WriteOff, WHICH, AMOUNTS)),
    (3, st.builds(Credit, WHICH, AMOUNTS, TO)),
    (5, st.builds(RefundIt, WHICH, AMOUNTS, TO, st.booleans())),
    (5, st.builds(DisputeIt, WHICH, AMOUNTS, DECIDED, st.sampled_from(["reopen", "write_off"]))),
    (2, st.builds(Carry, CURRENCIES)),
    (6, st.builds(Grant, CURRENCIES, AMOUNTS, LASTS, st.booleans())),
    (2, st.builds(PayOut, CURRENCIES, AMOUNTS)),
    (3, st.builds(Wait, st.integers(1, 3), st.booleans())),
]
STEPS = st.sampled_from([kind for often, kind in KINDS for _ in range(often)]).flatmap(
    lambda kind: kind
)


@given(st.lists(STEPS, min_size=20, max_size=40))
@settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_no_money_is_lost_and_every_amount_is_what_the_rules_say(
    engine: Engine, steps: list[Step]
) -> None:
    with Session(engine, expire_on_commit=False) as session, session.begin():
        account = create_account(session, str(uuid4()))
    client = a_client(engine, account)
    with_a_card(engine, account, client)
    world = World(engine, account, client)
    book = world.book
    for step in steps:
        before = dict(book.balance)
        step.do(world)
        after = book.balance
        assert usable(world) == (after, [one.remaining for one in book.grants])
        assert paid_how(engine, client) == [
            (one.status, one.credit, one.paid, one.due) for one in book.invoices
        ]
        if not isinstance(step, Carry | Void | DisputeIt):
            # Nothing else takes a balance below zero, or further below.
            assert all(after[code] >= min(before[code], 0) for code in after)
    sweep(world)
    assert {code: book.balance[code] for code in book.balance if book.balance[code]} == balances(
        engine, client
    )
    assert losses(engine) == {}
    assert audited(engine, account, now=world.now) == []
