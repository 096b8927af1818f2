"""Well-known mistakes, to be put into a process on purpose: a suite that finds none can see none.

Each is what somebody's release did in the field. ``CHAOS_MISTAKE`` names the one that the
processes of a run make.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any
from uuid import uuid4

from sqlalchemy import update
from sqlalchemy.orm import Session

from gateways.cards import CardCharge, CardReport
from gateways.stripe_cards import StripeCards
from models import Mail, job_ledger
from tasks.calls import Step
from tasks.kinds import KINDS, Run
from tasks.sending import send_mail

_FENCE = " AND lease_token = %(lease_token)s AND state = 'running'"


def no_fence() -> None:
    """A run that lost its lease commits all the same.

    So do job systems that take a lock with a time limit for exclusion: its holder is stopped for
    a while, as by a pause of its host, and goes on as if it still had what another has by now.
    """
    for name in ("_FINISH", "_HOLDS"):
        statement: str = getattr(job_ledger, name)
        if _FENCE not in statement:
            raise LookupError(f"{name} has no such fence to take down")
        _put(job_ledger, name, statement.replace(_FENCE, ""))


def redis_is_the_truth() -> None:
    """A job whose message is gone is not sent again.

    So do systems that write a row and then a message, and look at the row no more: whatever a
    broker loses in a restart, a failover or an eviction is not done, and nobody is told.
    """
    _put(job_ledger, "redispatch_lost", lambda _: [])


def no_rescue() -> None:
    """A job whose worker died stays with it.

    So do tables of jobs with a state "running" and no time by which it ends: after every crash
    somebody sets the rows back by hand.
    """
    _put(job_ledger, "rescue_expired", lambda _: 0)


def a_new_key_each_try() -> None:
    """Every call to charge a card goes out under a key of its own.

    So do jobs that make the idempotency key up where they make the call: it guards the retries
    within that call, and no other, and a job that is run again charges again.
    """
    charge = StripeCards.charge

    def charge_anew(cards: StripeCards, order: CardCharge) -> CardReport:
        return charge(cards, replace(order, idempotency_key=str(uuid4())))

    _put(StripeCards, "charge", charge_anew)


def mail_again() -> None:
    """A mail whose reply was lost is sent again.

    So do jobs that note that a mail was sent only once they are told so: that no answer came says
    nothing of whether the question arrived.
    """

    def send(run: Run, session: Session, /, **arguments: Any) -> Step:
        claimed = update(Mail).where(Mail.id == arguments["mail_id"], Mail.state == "claimed")
        session.execute(claimed.values(state="queued"))
        return send_mail.body(run, session, **arguments)

    KINDS[send_mail.name] = replace(send_mail, body=send)


MISTAKES: Mapping[str, Callable[[], None]] = MappingProxyType(
    {
        mistake.__name__: mistake
        for mistake in (
            no_fence,
            redis_is_the_truth,
            no_rescue,
            a_new_key_each_try,
            mail_again,
        )
    }
)
"""Each puts itself into this process."""


def _put(owner: Any, name: str, mistaken: Any) -> None:  # noqa: ANN401 - a class or a module
    """Have an owner's function, or statement, be another one."""
    setattr(owner, name, mistaken)
