"""Cards that nobody is charged on any more: forgotten at Stripe, once nothing is under way."""

from datetime import timedelta
from functools import partial
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from billing.collection import UNSETTLED
from billing.errors import NotFound
from gateways.cards import ChargeRefused
from gateways.merchants import Merchant
from models import Account, BackupMethod, BillingMethod, Client, PaymentAttempt
from models.client import clients_for_update
from tasks.calls import Call, Gateways, Step
from tasks.enqueueing import enqueue
from tasks.kinds import Run, job
from tasks.merchants import merchant_of
from tasks.outcomes import Done, Skip, Snooze

LOOK_AGAIN_AFTER = timedelta(hours=1)
"""How long a card waits for a charge on it that is not settled: a bank debit takes days."""


def forget_at_stripe(
    session: Session, client: Client, payment_method: str, *, requested_by: str
) -> None:
    """Have a card that was taken from a client detached from its customer, too."""
    enqueue(
        session,
        detach_card,
        account_id=client.account_id,
        requested_by=requested_by,
        unique_key=f"detach_card:{payment_method}",
        client_id=client.id,
        payment_method=payment_method,
    )


@job(queue="payments", subject="client")
def detach_card(_run: Run, session: Session, client_id: UUID, payment_method: str) -> Step:
    """Have Stripe forget whose card it is, unless a client is still charged on it."""
    client = session.scalars(clients_for_update([client_id])).one_or_none()
    if client is None:
        raise NotFound("client", str(client_id))
    if is_in_use(session, payment_method):
        return Skip("card_in_use", "a client is charged on this card")
    under_way = session.scalar(
        select(PaymentAttempt.id)
        .where(
            PaymentAttempt.account_id == client.account_id,
            PaymentAttempt.payment_method == payment_method,
            PaymentAttempt.state.in_(UNSETTLED),
        )
        .limit(1)
    )
    if under_way is not None:
        return Snooze(LOOK_AGAIN_AFTER)
    merchant = merchant_of(session, session.get_one(Account, client.account_id))
    return Call(partial(_detach, payment_method, merchant), partial(_record, payment_method))


def is_in_use(session: Session, payment_method: str) -> bool:
    """Whether any client has this card."""
    return any(
        session.scalar(
            select(table.client_id).where(table.payment_method == payment_method).limit(1)
        )
        is not None
        for table in (BillingMethod, BackupMethod)
    )


def _detach(payment_method: str, merchant: Merchant, gateways: Gateways) -> str:
    try:
        gateways.saved_cards.detach(payment_method, merchant)
    except ChargeRefused as answer:
        # Nobody's already, or not there: as it was to be.
        return answer.code
    return "detached"


def _record(payment_method: str, _session: Session, state: str) -> Done:
    return Done({"payment_method": payment_method, "state": state})
