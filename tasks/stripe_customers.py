"""Who a client is at Stripe: whose its card is, else a customer that is made for it once."""

import hashlib
import random
from collections.abc import Callable
from functools import partial
from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from billing.job_states import retry_delay
from gateways.cards import CardsUnavailable, ChargeOutcomeUnknown, ChargeRefused
from gateways.saved_cards import NewCustomer
from models import Account, Client
from models.client import clients_for_update
from tasks.calls import Call, Gateways, Step
from tasks.kinds import Run
from tasks.merchants import card_of, merchant_of
from tasks.outcomes import Skip, Snooze
from tasks.turns import MayAsk, hold_back, take_turn

_log = structlog.get_logger(__name__)

Answer = str | CardsUnavailable | ChargeOutcomeUnknown | ChargeRefused


def customer_of(session: Session, client: Client) -> str | None:
    """Stripe's id of a client, if it is known there."""
    method = card_of(session, client.id)
    return client.stripe_customer if method is None else method.stripe_customer


def create_customer(
    session: Session, run: Run, client: Client, go_on: Callable[[Session], Step]
) -> Call | Snooze:
    """Have a client known at Stripe, and go on; its lock was given up meanwhile."""
    account = session.get_one(Account, client.account_id)
    turn = take_turn(run, merchant_id=account.merchant_id, account_id=account.id, is_bulk=False)
    if isinstance(turn, Snooze):
        return turn
    name = client.legal_name or client.name
    said = hashlib.sha256(f"{name}\n{client.email}".encode()).hexdigest()[:16]
    new = NewCustomer(
        name=name,
        email=client.email,
        # Two who want it at once get the same one; Stripe takes no other name under the same key,
        # and under the key of one that was deleted it tells of that one.
        idempotency_key=f"duecourse-customer-{client.id}-{said}{_times_lost(client)}",
        metadata={"account": str(client.account_id), "client": str(client.id)},
        merchant=merchant_of(session, account),
    )
    return Call(partial(_create, new, turn), partial(_record, run, client.id, go_on))


def forget_customer(session: Session, client_id: UUID, customer: str) -> None:
    """Have another customer made for a client the next time: Stripe knows this one no more."""
    client = session.get_one(Client, client_id)
    if client.stripe_customer == customer:
        client.stripe_customer = None
        client.customers_lost += 1


def _times_lost(client: Client) -> str:
    return f"-{client.customers_lost}" if client.customers_lost else ""


def _create(new: NewCustomer, turn: MayAsk, gateways: Gateways) -> Answer:
    turn.wait()
    try:
        return gateways.saved_cards.create_customer(new)
    except (CardsUnavailable, ChargeOutcomeUnknown, ChargeRefused) as answer:
        return answer


def _record(
    run: Run, client_id: UUID, go_on: Callable[[Session], Step], session: Session, answer: Answer
) -> Step:
    client = session.scalars(clients_for_update([client_id])).one()
    match answer:
        case str():
            client.stripe_customer = client.stripe_customer or answer
            session.flush()
            return go_on(session)
        case ChargeRefused():
            _log.error("customer refused", client=str(client_id), code=answer.code)
            return Skip(answer.code, answer.message)
        case CardsUnavailable() | ChargeOutcomeUnknown():
            hold_back(session, session.get_one(Account, client.account_id).merchant_id, answer)
            jitter = random.random()  # noqa: S311 - it spreads retries
            return Snooze(retry_delay(run.attempt, jitter=jitter), answer)
