"""Credit: what clients have in hand, every movement of it, and putting it to use."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.auth import Caller, Reader, Writer
from api.clients import client_of
from api.fields import (
    FORBID_UNKNOWN,
    CurrencyCode,
    Flag,
    Note,
    PositiveAmount,
    ShortText,
    SignedAmount,
)
from api.idempotency import Commanded
from api.operations import commands, reads
from api.paging import Paging, newest_first
from api.shapes import JobReport
from api.transactions import Transaction
from billing.collection import AttemptPurpose, AttemptState
from billing.credit import CreditEntryKind
from models import (
    Account,
    Client,
    CreditBalance,
    CreditEntry,
    CreditGrant,
    PaymentAttempt,
)
from models.database import database_now
from models.payment_attempt import open_for_credit
from tasks.card_deposits import (
    deposit_by_card,
    require_chargeable,
    require_no_deposit_in_flight,
)
from tasks.charging import require_billing_method
from tasks.crediting import adjust_credit, apply_client_credit, deposit_credit, require_covered
from tasks.enqueueing import enqueue
from tasks.grants import in_hand
from tasks.kinds import JobKind

router = APIRouter(tags=["credit"])

ENTRY_EXAMPLE: dict[str, Any] = {
    "id": "019ae8a3-5c00-7000-8000-00000000000d",
    "currency": "usd",
    "kind": "deposit",
    "amount": 50000,
    "invoice": None,
    "payment": "019ae8a3-5c00-7000-8000-00000000000b",
    "grant": None,
    "refund": None,
    "note": "Paid in ahead for June",
    "created_at": "2026-05-28T15:10:00Z",
}

_TRY_EXAMPLE: dict[str, Any] = {
    "id": "019ae8a3-5c00-7000-8000-00000000000f",
    "purpose": "deposit",
    "state": "needs_action",
    "amount": 15000,
    "currency": "usd",
    "decline_code": "authentication_required",
    "message": "Your card was declined. This transaction requires authentication.",
    "payment_intent": "pi_3MtwBwLkdIwHu7ix28a3tqPa",
    "created_at": "2026-06-01T12:00:01Z",
}


class DepositSource(StrEnum):
    """Where a deposit comes from."""

    OUTSIDE = "outside"
    CARD = "card"


class Deposit(BaseModel):
    """Money that a client paid in ahead, or that its card is charged for, in `currency`'s minor unit."""

    model_config = FORBID_UNKNOWN | ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "amount": 50000,
                    "currency": "usd",
                    "source": "outside",
                    "reference": "wire 8790",
                    "note": "Paid in ahead for June",
                }
            ]
        }
    )

    amount: PositiveAmount
    currency: CurrencyCode
    source: DepositSource
    reference: ShortText | None = None
    note: Note | None = None
    apply: Flag = Field(default=True, description="Use it at once for what is open.")


class Adjustment(BaseModel):
    """A correction of a balance, up or down, and why."""

    model_config = FORBID_UNKNOWN | ConfigDict(
        json_schema_extra={
            "examples": [{"amount": -1200, "currency": "usd", "note": "Counted twice in May"}]
        }
    )

    amount: SignedAmount
    currency: CurrencyCode
    note: Note


class CreditUse(BaseModel):
    """How much to use: all of it in every currency, or less."""

    model_config = FORBID_UNKNOWN | ConfigDict(
        json_schema_extra={"examples": [{"currency": "usd", "amount": 10000}]}
    )

    currency: CurrencyCode | None = Field(
        default=None, description="With an amount the client's, else the account's, if left out."
    )
    amount: PositiveAmount | None = None


class ExpiringReport(BaseModel):
    """Promotional credit that cannot be used any more from `expires_on` on, in the client's zone."""

    amount: int
    expires_on: date


class BalanceReport(BaseModel):
    """What a client has in hand in one currency; below zero it is added to the next invoice.

    `promotional` is the part that it was granted: used first, and never paid out. What of that
    expires is listed by date, soonest first.
    """

    currency: str
    balance: int
    promotional: int
    expiring: list[ExpiringReport]

    @classmethod
    def of(cls, balance: CreditBalance, parts: Iterable[tuple[date | None, int]]) -> Self:
        """The balance with its promotional ``parts``, of which each has its date or none."""
        parts = list(parts)
        return cls(
            currency=balance.currency,
            balance=balance.balance,
            promotional=sum(amount for _, amount in parts),
            expiring=[
                ExpiringReport(amount=amount, expires_on=expires_on)
                for expires_on, amount in parts
                if expires_on is not None
            ],
        )


class EntryReport(BaseModel):
    """One movement of a balance: above zero the client has more."""

    model_config = ConfigDict(json_schema_extra={"examples": [ENTRY_EXAMPLE]})

    id: UUID
    currency: str
    kind: CreditEntryKind
    amount: int
    invoice: UUID | None
    payment: UUID | None
    grant: UUID | None
    refund: UUID | None
    note: str | None
    created_at: datetime

    @classmethod
    def of(cls, entry: CreditEntry) -> "EntryReport":
        """The entry as it is shown."""
        same = cls.model_fields.keys() - {"invoice", "payment", "grant", "refund"}
        return cls(
            **{name: getattr(entry, name) for name in same},
            invoice=entry.invoice_id,
            payment=entry.payment_id,
            grant=entry.grant_id,
            refund=entry.refund_id,
        )


class CreditTryReport(BaseModel):
    """One try of the client's card for credit: a deposit, or an automatic top-up."""

    id: UUID
    purpose: AttemptPurpose
    state: AttemptState
    amount: int
    currency: str
    decline_code: str | None
    message: str | None
    payment_intent: str | None
    created_at: datetime


class CreditReport(BaseModel):
    """A client's balances, and a page of their movements; `next_cursor` asks for the next one.

    `under_way` are the tries of its card for credit without an outcome yet.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "balances": [
                        {
                            "currency": "usd",
                            "balance": 60000,
                            "promotional": 10000,
                            "expiring": [{"amount": 4000, "expires_on": "2026-09-01"}],
                        }
                    ],
                    "entries": [ENTRY_EXAMPLE],
                    "under_way": [_TRY_EXAMPLE],
                    "next_cursor": None,
                }
            ]
        }
    )

    balances: list[BalanceReport]
    entries: list[EntryReport]
    under_way: list[CreditTryReport]
    next_cursor: str | None = None


@router.get(
    "/v1/clients/{client_id}/credit",
    summary="Show a client's credit",
    responses=reads("client_not_found"),
)
def show_credit(
    client_id: UUID, paging: Annotated[Paging, Query()], caller: Reader, session: Transaction
) -> CreditReport:
    """Every balance, and the entries of all of them, newest first."""
    client = client_of(session, caller, client_id)
    balances = session.scalars(
        select(CreditBalance)
        .where(CreditBalance.client_id == client.id)
        .order_by(CreditBalance.currency)
    )
    parts = _promotional_parts(session, client.id)
    entries = select(CreditEntry).where(CreditEntry.client_id == client.id)
    found = newest_first(session, entries, CreditEntry.id, paging, read=UUID)
    return CreditReport(
        balances=[BalanceReport.of(one, parts[one.currency]) for one in balances],
        entries=[EntryReport.of(entry) for entry in found.rows],
        under_way=[
            CreditTryReport.model_validate(one, from_attributes=True)
            for one in session.scalars(open_for_credit(client.id).order_by(PaymentAttempt.id))
        ],
        next_cursor=found.next_cursor,
    )


@router.post(
    "/v1/clients/{client_id}/credit/deposits",
    summary="Record a deposit, or charge the client's card for one",
    status_code=202,
    response_model=JobReport,
    responses=commands("client_not_found", "no_billing_method", "payment_in_flight"),
)
def deposit(
    client_id: UUID, new: Deposit, caller: Writer, session: Transaction, command: Commanded
) -> Response:
    """It pays the client's open invoices at once, oldest due first, and the client gets a receipt.

    By `card` it does so once it is settled. A decline is the job's result, no error, and so is
    `needs_action`, which waits for the client to authenticate: for a day, or until the next one.
    """
    told = new.model_dump(exclude={"source"})
    if new.source is DepositSource.CARD:
        client_of(session, caller, client_id)
        require_chargeable(new.amount, new.currency)
        require_no_deposit_in_flight(session, client_id)
        require_billing_method(session, client_id)
        return command.accepted(_enqueue(session, caller, client_id, deposit_by_card, told))
    return command.accepted(_enqueue(session, caller, client_id, deposit_credit, told))


@router.post(
    "/v1/clients/{client_id}/credit/adjustments",
    summary="Correct a balance",
    status_code=202,
    response_model=JobReport,
    responses=commands("client_not_found", "insufficient_credit"),
)
def adjust(
    client_id: UUID, new: Adjustment, caller: Writer, session: Transaction, command: Commanded
) -> Response:
    """Never below zero. What is added is used at once for what is open."""
    client_of(session, caller, client_id)
    require_covered(balance_now(session, client_id, new.currency), new.amount)
    return command.accepted(_enqueue(session, caller, client_id, adjust_credit, new.model_dump()))


@router.post(
    "/v1/clients/{client_id}/credit/apply",
    summary="Use credit for what is open",
    status_code=202,
    response_model=JobReport,
    responses=commands("client_not_found"),
)
def apply(
    client_id: UUID,
    caller: Writer,
    session: Transaction,
    command: Commanded,
    use: CreditUse | None = None,
) -> Response:
    """Oldest due first, each currency for its own; the job's result says what each invoice used."""
    told = (use or CreditUse()).model_dump()
    return command.accepted(_enqueue(session, caller, client_id, apply_client_credit, told))


def balance_now(session: Session, client_id: UUID, currency: str) -> int:
    """What a client can use, in minor units; nothing is locked, so it may change at once."""
    client = session.get_one(Client, client_id)
    account = session.get_one(Account, client.account_id)
    return in_hand(session, account, client, currency, now=database_now(session)).balance


def _promotional_parts(
    session: Session, client_id: UUID
) -> dict[str, list[tuple[date | None, int]]]:
    """By currency, what remains of the grants of each date, soonest first."""
    parts: dict[str, list[tuple[date | None, int]]] = defaultdict(list)
    for currency, expires_on, amount in session.execute(
        select(CreditGrant.currency, CreditGrant.expires_on, func.sum(CreditGrant.remaining))
        .where(CreditGrant.client_id == client_id, CreditGrant.remaining > 0)
        .group_by(CreditGrant.currency, CreditGrant.expires_on)
        .order_by(CreditGrant.currency, CreditGrant.expires_on)
    ):
        parts[currency].append((expires_on, int(amount)))
    return parts


def _enqueue(
    session: Session, caller: Caller, client_id: UUID, kind: JobKind, told: dict[str, Any]
) -> UUID:
    client = client_of(session, caller, client_id)
    job = enqueue(
        session,
        kind,
        account_id=caller.account_id,
        requested_by=caller.requested_by,
        client_id=client.id,
        **told,
    )
    return job.id
