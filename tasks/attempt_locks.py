"""A payment attempt under its locks, with all that decides what its news mean, in two statements."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from billing.errors import NotFound
from models import Account, BillingMethod, Client, Invoice, PaymentAttempt

# What the statements below are built of never changes, so they are built once: that costs more
# than running them.
_CLIENT = (
    select(Client, PaymentAttempt.invoice_id)
    .join(PaymentAttempt, PaymentAttempt.client_id == Client.id)
    .where(PaymentAttempt.id == bindparam("attempt_id"))
    .with_for_update(of=Client, key_share=True)
    .execution_options(populate_existing=True)
)

_OF_CREDIT = (
    select(PaymentAttempt, Account, BillingMethod)
    .join(Account, Account.id == PaymentAttempt.account_id)
    .outerjoin(BillingMethod, BillingMethod.client_id == PaymentAttempt.client_id)
    .where(PaymentAttempt.id == bindparam("attempt_id"))
    .with_for_update(of=PaymentAttempt)
    .execution_options(populate_existing=True)
)

# The invoice is named first, so it is locked first.
_OF_INVOICE = (
    select(PaymentAttempt, Account, BillingMethod, Invoice)
    .select_from(Invoice)
    .join(PaymentAttempt, PaymentAttempt.invoice_id == Invoice.id)
    .join(Account, Account.id == PaymentAttempt.account_id)
    .outerjoin(BillingMethod, BillingMethod.client_id == PaymentAttempt.client_id)
    .where(PaymentAttempt.id == bindparam("attempt_id"))
    .with_for_update(of=[Invoice, PaymentAttempt])
    .execution_options(populate_existing=True)
)


@dataclass(frozen=True, slots=True)
class LockedAttempt:
    """An attempt, its client and, if any, its invoice, locked in that session; and what they need.

    While this is held the session knows all of them, and reads none of them again.
    """

    attempt: PaymentAttempt
    client: Client
    account: Account
    card: BillingMethod | None
    invoice: Invoice | None


def lock_with_all(session: Session, attempt_id: UUID) -> LockedAttempt:
    """An attempt under its own lock and its client's and, if any, its invoice's, in that order.

    What the client's lock guards is read after it was given, as its last holder left it.

    Raises:
        NotFound: There is no such attempt.
    """
    asked = {"attempt_id": attempt_id}
    found = session.execute(_CLIENT, asked).one_or_none()
    if found is None:
        raise NotFound("payment_attempt", str(attempt_id))
    client, invoice_id = found
    if invoice_id is None:
        attempt, account, card = session.execute(_OF_CREDIT, asked).one()
        return LockedAttempt(attempt, client, account, card, None)
    attempt, account, card, invoice = session.execute(_OF_INVOICE, asked).one()
    return LockedAttempt(attempt, client, account, card, invoice)


def lock_attempt(session: Session, attempt_id: UUID) -> PaymentAttempt:
    """An attempt under its own lock and its client's and, if any, its invoice's, in that order."""
    return lock_with_all(session, attempt_id).attempt
