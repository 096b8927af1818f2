"""Payment attempts: each try at a card, written down before the call that makes it."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ColumnElement,
    ForeignKeyConstraint,
    Index,
    Select,
    UniqueConstraint,
    select,
)
from sqlalchemy.orm import InstrumentedAttribute, Mapped, mapped_column

from billing.collection import UNSETTLED, AttemptPurpose, AttemptState, Origin, settle
from billing.declines import DeclineClass
from models.base import (
    Base,
    CreatedAt,
    JsonObject,
    MinorUnits,
    PrimaryKey,
    is_currency,
    one_of,
)

STILL_OPEN = UNSETTLED | {AttemptState.NEEDS_ACTION}


def _listed(states: Iterable[AttemptState]) -> str:
    return ", ".join(sorted(repr(state.value) for state in states))


_STILL_OPEN_SQL, _ASKED_SQL = _listed(STILL_OPEN), _listed(UNSETTLED)


class PaymentAttempt(Base):
    """One try at a card for what an invoice owes, in the invoice's minor units, or for credit.

    What the call needs is frozen here, so that asking again asks the same under the same
    ``idempotency_key``. ``first_asked_at`` is when the key was first used: Stripe forgets it a day
    later. ``is_unsent`` is set only while every question so far is known to have had no effect: one
    that has no answer may have been sent. ``payment_method`` is Stripe's, as it was when the
    attempt was made; so are ``card_brand`` and ``card_last4``, where they were known. ``job_id``
    made the attempt: run again after a crash, that job goes on with it. ``merchant_id`` is the
    Stripe account that it is made at, NULL for the deployment's: all that concerns it is asked
    there. ``told`` is what was said of a deposit that is still to come. ``missing_since`` is since when
    Stripe has not known the payment there, though it had told of it.

    One with ``checkout_expires_at`` is a page at Stripe, which the client can use until then: it
    names the card there, so none is known here. While it is open the attempt needs action, and
    declines on it end nothing.
    """

    __tablename__ = "payment_attempts"
    __table_args__ = (
        ForeignKeyConstraint(["account_id", "client_id"], ["clients.account_id", "clients.id"]),
        ForeignKeyConstraint(
            ["account_id", "merchant_id"],
            ["stripe_merchants.account_id", "stripe_merchants.id"],
        ),
        # Of this client, and in this currency.
        ForeignKeyConstraint(
            ["client_id", "invoice_id", "currency"],
            ["invoices.client_id", "invoices.id", "invoices.currency"],
        ),
        UniqueConstraint("invoice_id", "ordinal"),
        UniqueConstraint("idempotency_key"),
        Index("uq_payment_attempts_payment_intent", "payment_intent", unique=True),
        Index("uq_payment_attempts_checkout_session", "checkout_session", unique=True),
        # Never two at once for one client's credit.
        Index(
            "uq_payment_attempts_still_open_for_credit",
            "client_id",
            "purpose",
            unique=True,
            postgresql_where=f"purpose <> 'invoice' AND state IN ({_STILL_OPEN_SQL})",
        ),
        # Never two at once for one debt.
        Index(
            "uq_payment_attempts_still_open",
            "invoice_id",
            unique=True,
            postgresql_where=f"state IN ({_STILL_OPEN_SQL})",
        ),
        Index(
            "ix_payment_attempts_unsettled_client_id",
            "client_id",
            postgresql_where=f"state IN ({_ASKED_SQL})",
        ),
        Index(
            "ix_payment_attempts_next_ask_at",
            "next_ask_at",
            postgresql_where="next_ask_at IS NOT NULL",
        ),
        CheckConstraint(one_of("state", AttemptState), name="state"),
        CheckConstraint(one_of("origin", Origin), name="origin"),
        CheckConstraint(one_of("purpose", AttemptPurpose), name="purpose"),
        CheckConstraint(
            "(purpose = 'invoice') = (invoice_id IS NOT NULL)"
            " AND (purpose = 'invoice') = (ordinal IS NOT NULL)",
            name="invoice",
        ),
        CheckConstraint(one_of("decline_class", DeclineClass), name="decline_class"),
        CheckConstraint(is_currency(), name="currency"),
        CheckConstraint("amount > 0", name="amount"),
        # Nobody may tell that a page was left.
        CheckConstraint(
            f"(next_ask_at IS NOT NULL) = (state IN ({_ASKED_SQL})"
            " OR state = 'needs_action' AND checkout_expires_at IS NOT NULL)",
            name="next_ask",
        ),
        CheckConstraint(
            "(payment_method IS NULL) = (checkout_expires_at IS NOT NULL)"
            " AND (checkout_session IS NULL) = (checkout_url IS NULL)"
            " AND (checkout_session IS NULL OR checkout_expires_at IS NOT NULL)",
            name="checkout",
        ),
    )

    id: Mapped[PrimaryKey]
    account_id: Mapped[UUID]
    client_id: Mapped[UUID]
    invoice_id: Mapped[UUID | None]
    job_id: Mapped[UUID]
    purpose: Mapped[str] = mapped_column(server_default=AttemptPurpose.INVOICE)
    ordinal: Mapped[int | None]
    origin: Mapped[str]
    state: Mapped[str] = mapped_column(server_default=AttemptState.PENDING)
    amount: Mapped[MinorUnits]
    currency: Mapped[str]
    customer: Mapped[str]
    payment_method: Mapped[str | None]
    card_brand: Mapped[str | None]
    card_last4: Mapped[str | None]
    merchant_id: Mapped[UUID | None]
    statement_suffix: Mapped[str | None]
    idempotency_key: Mapped[str]
    payment_intent: Mapped[str | None]
    checkout_session: Mapped[str | None]
    checkout_url: Mapped[str | None]
    checkout_expires_at: Mapped[datetime | None]
    decline_code: Mapped[str | None]
    decline_class: Mapped[str | None]
    message: Mapped[str | None]
    told: Mapped[JsonObject]
    asks: Mapped[int] = mapped_column(server_default="0")
    is_unsent: Mapped[bool] = mapped_column(server_default="false")
    first_asked_at: Mapped[datetime | None]
    next_ask_at: Mapped[datetime | None]
    missing_since: Mapped[datetime | None]
    created_at: Mapped[CreatedAt]
    settled_at: Mapped[datetime | None]

    @property
    def is_page(self) -> bool:
        """Whether the client pays by itself, on a page at Stripe."""
        return self.checkout_expires_at is not None

    @property
    def is_open_page(self) -> bool:
        """Whether it is a page that the client may be using."""
        return self.is_page and self.state == AttemptState.NEEDS_ACTION

    def move(self, to: AttemptState, at: datetime, *, ask_at: datetime | None = None) -> None:
        """Go to a state the table allows; the only writer of it. Hold the row's lock.

        ``ask_at`` is when to ask again about one whose outcome is still out, or about a page.

        Raises:
            RuleViolation: The news is older than what is known.
        """
        self.state = settle(AttemptState(self.state), to)
        is_asked_after = to in UNSETTLED or self.is_open_page
        self.next_ask_at = ask_at if is_asked_after else None
        if to not in STILL_OPEN:
            self.settled_at = at


def attempt_for_update(attempt_id: UUID) -> Select[PaymentAttempt]:
    """One attempt, locked, as the last writer left it. Lock its invoice first."""
    return (
        select(PaymentAttempt)
        .where(PaymentAttempt.id == attempt_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )


def open_attempts_of(invoice_ids: Sequence[UUID]) -> Select[PaymentAttempt]:
    """The attempts of invoices that have no outcome yet; one an invoice at most."""
    return select(PaymentAttempt).where(
        PaymentAttempt.invoice_id.in_(invoice_ids), PaymentAttempt.state.in_(STILL_OPEN)
    )


def open_for_credit(client_id: UUID) -> Select[PaymentAttempt]:
    """A client's attempts for credit that have no outcome yet; one of each purpose at most."""
    return select(PaymentAttempt).where(
        PaymentAttempt.client_id == client_id,
        PaymentAttempt.purpose != AttemptPurpose.INVOICE,
        PaymentAttempt.state.in_(STILL_OPEN),
    )


def is_open_for(invoice_id: InstrumentedAttribute[UUID]) -> ColumnElement[bool]:
    """Whether an invoice has an attempt without an outcome."""
    return (
        select(PaymentAttempt.id)
        .where(PaymentAttempt.invoice_id == invoice_id, PaymentAttempt.state.in_(STILL_OPEN))
        .exists()
    )
