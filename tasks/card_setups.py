"""Pages at Stripe on which clients leave a card by themselves, and what comes of them."""

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from billing.errors import NotFound
from billing.job_states import retry_delay
from gateways.cards import CardsUnavailable, ChargeOutcomeUnknown, ChargeRefused
from gateways.checkout import CheckoutOrder, CheckoutReport, CheckoutStatus
from gateways.merchants import Merchant
from models import Account, BillingMethod, CardRole, CardSetup, Client, SetupState
from models.card_setup import setup_for_update
from models.client import clients_for_update
from tasks.billing_methods import set_backup_method, set_billing_method
from tasks.calls import Call, Gateways, Step
from tasks.enqueueing import enqueue, enqueue_for_each
from tasks.kinds import Run, job
from tasks.merchants import merchant_of
from tasks.outcomes import Done, Outcome, Skip, Snooze
from tasks.stripe_customers import create_customer, customer_of, forget_customer
from tasks.turns import hold_back, take_turn

_log = structlog.get_logger(__name__)

SETUPS_LIVE = timedelta(hours=1)
"""How long a page can be used. Stripe opens none for less than half of that."""

GOOD_FOR = timedelta(minutes=10)
"""What a page must have left to be given again: looking for a card takes a while."""

OPENED_WITHIN = timedelta(minutes=10)
"""For how long a page is asked for; nobody waits any longer for its address."""

AFTER_ITS_END = timedelta(minutes=1)

MAX_FOUND_AT_ONCE = 1_000

Answer = CheckoutReport | CardsUnavailable | ChargeOutcomeUnknown | ChargeRefused


def ask_for_setup(
    session: Session,
    client_id: UUID,
    role: CardRole,
    *,
    return_url: str,
    now: datetime,
    requested_by: str,
) -> CardSetup:
    """The page on which a client leaves a card: the one that is open, else a new one.

    Its ``url`` is there once the job that opens it has been at Stripe.
    """
    client = session.scalars(clients_for_update([client_id])).one()
    setup = session.scalars(
        select(CardSetup).where(
            CardSetup.client_id == client_id,
            CardSetup.role == role,
            CardSetup.state == SetupState.OPEN,
        )
    ).one_or_none()
    if setup is not None and setup.expires_at <= now + GOOD_FOR:
        # The client may still be on it: what it leaves there counts.
        _end(setup, SetupState.EXPIRED, now)
        session.flush()
        _ask_after(session, setup, requested_by, run_at=setup.expires_at + AFTER_ITS_END)
        setup = None
    if setup is None:
        setup = CardSetup(
            id=session.scalars(select(func.uuid7())).one(),
            account_id=client.account_id,
            client_id=client_id,
            role=role,
            state=SetupState.OPEN,
            return_url=return_url,
            expires_at=now + SETUPS_LIVE,
            created_at=now,
        )
        session.add(setup)
        session.flush()
    if setup.url is None:
        enqueue(
            session,
            open_card_setup,
            account_id=setup.account_id,
            requested_by=requested_by,
            unique_key=f"card_setup:{setup.id}",
            client_id=client_id,
            setup_id=setup.id,
        )
    return setup


def ask_after_setup(session: Session, setup: CardSetup, *, requested_by: str) -> None:
    """Have Stripe asked whether a card was left: the client is back, or an event says so."""
    _ask_after(session, setup, requested_by)


def _ask_after(
    session: Session, setup: CardSetup, requested_by: str, *, run_at: datetime | None = None
) -> None:
    if setup.checkout_session is None:
        return
    enqueue(
        session,
        settle_card_setup,
        account_id=setup.account_id,
        requested_by=requested_by,
        run_at=run_at,
        # One that waits for the page's end must not keep another one waiting.
        unique_key=None if run_at else f"settle_card_setup:{setup.id}",
        client_id=setup.client_id,
        setup_id=setup.id,
    )


@job(queue="payments", subject="client")
def open_card_setup(run: Run, session: Session, client_id: UUID, setup_id: UUID) -> Step:
    """Open a page at Stripe for a card; a customer is made there first, if there is none."""
    client, setup = _lock(session, client_id, setup_id)
    if setup.state != SetupState.OPEN or setup.url is not None:
        return _done(setup)
    if run.now > setup.created_at + OPENED_WITHIN:
        _end(setup, SetupState.EXPIRED, run.now)
        return Skip("page_too_late", "nobody waits for this page any more")
    customer = customer_of(session, client)
    if customer is None:
        return create_customer(
            session, run, client, partial(_open_for_customer, run, client_id, setup_id)
        )
    return _open(session, run, client, setup, customer)


def _open_for_customer(run: Run, client_id: UUID, setup_id: UUID, session: Session) -> Step:
    return open_card_setup.body(run, session, client_id=client_id, setup_id=setup_id)


def _open(
    session: Session, run: Run, client: Client, setup: CardSetup, customer: str
) -> Call | Snooze:
    account = session.get_one(Account, client.account_id)
    # A client waits for the page.
    turn = take_turn(run, merchant_id=account.merchant_id, account_id=account.id, is_bulk=False)
    if isinstance(turn, Snooze):
        return turn
    order = CheckoutOrder(
        amount=None,
        currency=client.currency or account.currency,
        customer=customer,
        idempotency_key=f"duecourse-card-setup-{setup.id}",
        description="",
        metadata={
            "account": str(client.account_id),
            "client": str(client.id),
            "card_setup": str(setup.id),
        },
        expires_at=setup.expires_at,
        success_url=f"{setup.return_url}/left/{setup.id}",
        cancel_url=setup.return_url,
        merchant=merchant_of(session, account),
    )

    def ask(gateways: Gateways) -> Answer:
        turn.wait()
        return _answered(lambda: gateways.checkout.open(order))

    return Call(ask, partial(_record_opening, run, client.id, setup.id, customer=customer))


def _answered(ask: Callable[[], CheckoutReport]) -> Answer:
    try:
        return ask()
    except (CardsUnavailable, ChargeOutcomeUnknown, ChargeRefused) as answer:
        return answer


def _record_opening(
    run: Run, client_id: UUID, setup_id: UUID, session: Session, answer: Answer, *, customer: str
) -> Step:
    client, setup = _lock(session, client_id, setup_id)
    match answer:
        case CheckoutReport():
            setup.checkout_session = answer.session
            # Of one that was used by the time its answer came, there is none any more.
            setup.url = answer.url or setup.return_url
            session.flush()
            return _settle(run, session, setup, answer)
        case ChargeRefused():
            _log.error("card page refused", client=str(client_id), code=answer.code)
            if answer.code == "resource_missing":
                forget_customer(session, client_id, customer)
            if setup.state == SetupState.OPEN:
                _end(setup, SetupState.EXPIRED, run.now)
            return Skip(answer.code, answer.message)
        case CardsUnavailable() | ChargeOutcomeUnknown():
            hold_back(session, session.get_one(Account, client.account_id).merchant_id, answer)
            return _later(run, answer)


@job(queue="payments", subject="client")
def settle_card_setup(run: Run, session: Session, client_id: UUID, setup_id: UUID) -> Step:
    """Ask Stripe whether a card was left on a page, and put the client on it."""
    client, setup = _lock(session, client_id, setup_id)
    if setup.state == SetupState.COMPLETED:
        return Skip("setup_completed", "the card was left before")
    if setup.checkout_session is None:
        # It was never open: nobody knows its address.
        if setup.state == SetupState.OPEN and setup.expires_at <= run.now:
            _end(setup, SetupState.EXPIRED, run.now)
        return _done(setup)
    merchant = merchant_of(session, session.get_one(Account, client.account_id))
    return Call(
        partial(_retrieve, setup.checkout_session, merchant),
        partial(_record_state, run, client_id, setup_id),
    )


def _retrieve(checkout_session: str, merchant: Merchant, gateways: Gateways) -> Answer:
    return _answered(lambda: gateways.checkout.retrieve(checkout_session, merchant))


def _record_state(
    run: Run, client_id: UUID, setup_id: UUID, session: Session, answer: Answer
) -> Step:
    _, setup = _lock(session, client_id, setup_id)
    match answer:
        case CheckoutReport():
            return _settle(run, session, setup, answer)
        case ChargeRefused():
            if setup.state == SetupState.OPEN:
                _end(setup, SetupState.EXPIRED, run.now)
            return _done(setup)
        case CardsUnavailable() | ChargeOutcomeUnknown():
            return _later(run, answer)


def _settle(run: Run, session: Session, setup: CardSetup, report: CheckoutReport) -> Done:
    """Write down how a page stands. A card that was left counts whenever that is known."""
    if setup.state == SetupState.COMPLETED:
        return _done(setup)
    if report.status is CheckoutStatus.COMPLETE and report.payment_method is not None:
        setup.payment_method = report.payment_method
        _end(setup, SetupState.COMPLETED, run.now)
        session.flush()
        if not _is_outdated(session, setup):
            _use(session, setup, str(report.customer), now=run.now)
    elif report.status is CheckoutStatus.EXPIRED and setup.state == SetupState.OPEN:
        _end(setup, SetupState.EXPIRED, run.now)
    return _done(setup)


def _is_outdated(session: Session, setup: CardSetup) -> bool:
    """Whether the client has left another card since, and this one is only told of late."""
    later = select(CardSetup.id).where(
        CardSetup.client_id == setup.client_id,
        CardSetup.role == setup.role,
        CardSetup.state == SetupState.COMPLETED,
        CardSetup.id > setup.id,
    )
    return session.scalar(later.limit(1)) is not None


def _use(session: Session, setup: CardSetup, customer: str, *, now: datetime) -> None:
    has_card = session.get(BillingMethod, setup.client_id) is not None
    put = set_backup_method if setup.role == CardRole.BACKUP and has_card else set_billing_method
    put(
        session,
        setup.account_id,
        setup.client_id,
        stripe_customer=customer,
        payment_method=str(setup.payment_method),
        now=now,
        requested_by="client",
    )


@job(queue="payments")
def settle_due_setups(run: Run, session: Session) -> Outcome:
    """Find pages whose time is over and of which nothing was heard."""
    over = session.execute(
        select(CardSetup.account_id, CardSetup.client_id, CardSetup.id)
        .where(CardSetup.state == SetupState.OPEN, CardSetup.expires_at <= run.now - AFTER_ITS_END)
        .order_by(CardSetup.expires_at)
        .limit(MAX_FOUND_AT_ONCE)
    ).all()
    enqueue_for_each(
        session,
        settle_card_setup,
        [
            (account_id, {"client_id": client_id, "setup_id": setup_id})
            for account_id, client_id, setup_id in over
        ],
        requested_by=f"job:{run.job_id}",
        unique_key=lambda arguments: f"settle_card_setup:{arguments['setup_id']}",
    )
    return Done({"card_setups": len(over)})


def _lock(session: Session, client_id: UUID, setup_id: UUID) -> tuple[Client, CardSetup]:
    client = session.scalars(clients_for_update([client_id])).one_or_none()
    setup = session.scalars(setup_for_update(setup_id)).one_or_none()
    if client is None or setup is None or setup.client_id != client_id:
        raise NotFound("card_setup", str(setup_id))
    return client, setup


def _end(setup: CardSetup, state: SetupState, now: datetime) -> None:
    setup.state, setup.ended_at = state, now


def _later(run: Run, reason: CardsUnavailable | ChargeOutcomeUnknown) -> Snooze:
    jitter = random.random()  # noqa: S311 - it spreads retries
    return Snooze(retry_delay(run.attempt, jitter=jitter), reason)


def _done(setup: CardSetup) -> Done:
    return Done({"card_setup": str(setup.id), "state": setup.state})
