"""Charges that are edited while they are billed, voided and reissued: what is billed is what was asked."""

from dataclasses import dataclass, field
from datetime import date
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, func, or_, select
from sqlalchemy.orm import Session

from billing.errors import RuleViolation
from models import Account, Charge, Client, Invoice
from tasks.accounts import create_account
from tasks.amending import change_charge, remove_charge
from tasks.drafting import delete_draft, draft_invoice
from tasks.finalizing import finalize_invoice
from tasks.outcomes import Done
from tasks.reissuing import reissue_invoice
from tasks.voiding import void_invoice
from tests.money import losses
from tests.worlds import NOW, a_charge, a_client, audited, perform

MAY = date(2026, 5, 12)


@dataclass
class Billed:
    """An invoice by the rules: what it bills of each piece of work."""

    id: UUID
    shares: dict[int, int]
    status: str = "draft"
    is_reissued: bool = False
    # The work that was edited after a void: a reissue has nothing to say of it any more.
    asked_since: set[int] = field(default_factory=set)


@dataclass
class Work:
    """One piece of work: the charge that is edited for it, what it came to, and its invoice."""

    charge: UUID
    price: int
    asked: int
    invoice: Billed | None = None


@dataclass
class World:
    """A client, and what the rules say that it is billed."""

    engine: Engine
    account: Account
    client: Client
    work: list[Work]
    invoices: list[Billed] = field(default_factory=list)

    def in_(self, status: str) -> list[Billed]:
        return [one for one in self.invoices if one.status == status]

    def net(self, which: int) -> int:
        """What is on invoices that stand or are drafts, and open, by the tables."""
        with Session(self.engine) as session:
            counted = session.scalar(
                select(func.coalesce(func.sum(Charge.amount), 0))
                .outerjoin(Invoice, Invoice.id == Charge.invoice_id)
                .where(
                    or_(
                        Charge.id == self.work[which].charge,
                        Charge.amends == self.work[which].charge,
                    ),
                    or_(Charge.invoice_id.is_(None), Invoice.status != "void"),
                )
            )
        return int(counted or 0)

    def look(self) -> None:
        """What is open may be paid by now: what one gives as credit pays another."""
        with Session(self.engine) as session:
            for one in self.invoices:
                one.status = session.get_one(Invoice, one.id).status

    def refresh(self, billed: Billed) -> None:
        """What an invoice bills of each piece of work, by the tables; a draft may be gone."""
        shares: dict[int, int] = {}
        with Session(self.engine) as session:
            if session.get(Invoice, billed.id) is None:
                self.invoices.remove(billed)
                return
            for charge in session.scalars(select(Charge).where(Charge.invoice_id == billed.id)):
                for which, one in enumerate(self.work):
                    if one.charge in {charge.id, charge.amends}:
                        shares[which] = shares.get(which, 0) + charge.amount
        billed.shares = shares


def edit(world: World, which: int, value: int) -> None:
    one = world.work[which]
    is_locked = one.invoice is not None and one.invoice.status != "draft"

    def ask() -> None:
        with Session(world.engine) as session, session.begin():
            if value == 0 and is_locked:
                remove_charge(session, world.account.id, one.charge, now=NOW)
            else:
                changes = {"amount": value}
                change_charge(session, world.account.id, one.charge, changes, now=NOW)

    if one.invoice is not None and one.invoice.status == "void":
        with pytest.raises(RuleViolation) as refused:
            ask()
        assert refused.value.code == "charge_voided"
        return
    ask()
    one.asked = value
    if not is_locked:
        one.price = value
    for billed in world.in_("void"):
        billed.asked_since.add(which)


def draft(world: World) -> None:
    with Session(world.engine) as session:
        pending = select(Charge.id).where(
            Charge.client_id == world.client.id, Charge.invoice_id.is_(None)
        )
        if session.scalar(pending.limit(1)) is None:
            return
    done = perform(world.engine, draft_invoice, world.account, client_id=world.client.id)
    assert isinstance(done, Done)
    billed = Billed(UUID(done.result["invoices"][0]), {})
    world.invoices.append(billed)
    with Session(world.engine) as session:
        for one in world.work:
            if session.get_one(Charge, one.charge).invoice_id == billed.id:
                one.invoice = billed


def finalize(world: World, which: int) -> None:
    drafts = world.in_("draft")
    if drafts:
        billed = drafts[which % len(drafts)]
        perform(world.engine, finalize_invoice, world.account, invoice_id=billed.id)
        world.refresh(billed)


def discard(world: World, which: int) -> None:
    drafts = world.in_("draft")
    if drafts:
        billed = drafts[which % len(drafts)]
        perform(world.engine, delete_draft, world.account, invoice_id=billed.id)
        world.invoices.remove(billed)
        for one in world.work:
            if one.invoice is billed:
                one.invoice = None


def void(world: World, which: int, *, again: bool) -> None:
    standing = world.in_("open")
    if not standing:
        return
    billed = standing[which % len(standing)]
    originals = {key for key, one in enumerate(world.work) if one.invoice is billed}
    others = [one for one in world.invoices if one is not billed and one.status in {"open", "paid"}]
    if any(originals & one.shares.keys() for one in others):
        with pytest.raises(RuleViolation) as refused:
            perform(world.engine, void_invoice, world.account, invoice_id=billed.id)
        assert refused.value.code == "charge_amended"
        return
    perform(world.engine, void_invoice, world.account, invoice_id=billed.id, reissue=again)
    billed.status = "void"
    for key, share in billed.shares.items():
        # Of a voided original nothing is billed; of a voided difference, what there was before.
        world.work[key].asked = 0 if key in originals else world.work[key].asked - share
    for one in world.in_("draft"):
        world.refresh(one)
    if again:
        reissued(world, billed)


def reissue(world: World, which: int) -> None:
    waiting = [one for one in world.in_("void") if not one.is_reissued]
    if waiting:
        billed = waiting[which % len(waiting)]
        perform(world.engine, reissue_invoice, world.account, invoice_id=billed.id)
        reissued(world, billed)


def reissued(world: World, billed: Billed) -> None:
    """Work is billed again at its price; a difference is, unless the work was edited or voided."""
    billed.is_reissued = True
    for key, share in billed.shares.items():
        one = world.work[key]
        if one.invoice is billed:
            with Session(world.engine) as session:
                copy = select(Charge.id).where(Charge.copy_of == one.charge)
                one.charge = session.scalars(copy).one()
            one.invoice, one.asked = None, one.price
            # What amended the voided one amends nothing any more.
            for other in world.invoices:
                if other is not billed:
                    other.shares.pop(key, None)
        elif (
            one.invoice is not None
            and one.invoice.status in {"open", "paid"}
            and key not in billed.asked_since
        ):
            one.asked += share


# Few pieces of work and mostly the last invoice, so that what is voided was often amended.
KEYS, WHICH = st.integers(0, 1), st.sampled_from([-1, -1, -1, 0, 1])
VALUES = st.sampled_from([0, 300, 1000, 1300, 2500])
KINDS = [
    (3, st.tuples(st.just("edit"), KEYS, VALUES)),
    (4, st.tuples(st.just("amend"), KEYS, VALUES)),
    (4, st.tuples(st.just("void"), WHICH, st.sampled_from([0, 0, 1]))),
    (3, st.tuples(st.just("reissue"), WHICH, st.just(0))),
    (1, st.tuples(st.sampled_from(["draft", "finalize", "discard", "bill"]), WHICH, st.just(0))),
]
STEPS = st.sampled_from([kind for often, kind in KINDS for _ in range(often)]).flatmap(
    lambda kind: kind
)


def take(world: World, what: str, which: int, more: int) -> None:
    match what:
        case "edit":
            edit(world, which, more)
        case "amend":
            edit(world, which, more)
            draft(world)
            world.look()
            finalize(world, -1)
        case "draft":
            draft(world)
        case "finalize":
            finalize(world, which)
        case "bill":
            draft(world)
            finalize(world, which)
        case "discard":
            discard(world, which)
        case "void":
            void(world, which, again=bool(more))
        case "reissue":
            reissue(world, which)
    world.look()


@given(st.lists(STEPS, min_size=10, max_size=25))
@settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_what_is_billed_and_open_is_what_was_asked_for_last(
    engine: Engine, steps: list[tuple[str, int, int]]
) -> None:
    with Session(engine, expire_on_commit=False) as session, session.begin():
        account = create_account(session, str(uuid4()))
    client = a_client(engine, account)
    prices = ("10.00", "7.00")
    world = World(
        engine,
        account,
        client,
        [
            Work(a_charge(engine, client, MAY, price), int(price[:-3]) * 100, int(price[:-3]) * 100)
            for price in prices
        ],
    )
    take(world, "bill", 0, 0)
    for step in steps:
        take(world, *step)
        assert [world.net(key) for key in range(len(prices))] == [one.asked for one in world.work]
    assert losses(engine) == {}
    assert audited(engine, account) == []
