"""What staff and other systems can ask for, and whom or what each may be asked of just now."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from random import Random
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from tasks.card_deposits import deposit_by_card
from tasks.charges import record_charges
from tasks.charging import charge_invoice
from tasks.crediting import adjust_credit, apply_client_credit, deposit_credit
from tasks.drafting import draft_invoice
from tasks.finalizing import finalize_invoice
from tasks.granting import grant_credit
from tasks.invoice_credits import credit_invoice
from tasks.kinds import JobKind
from tasks.marking_paid import mark_invoice_paid
from tasks.paying_out import refund_credit
from tasks.payment_refunds import refund_payment
from tasks.reissuing import reissue_invoice
from tasks.reviewing import finalize_reviewed
from tasks.voiding import void_invoice
from tasks.writing_off import write_off_invoice
from tests.chaos.business import a_charge

Arguments = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Doing:
    """One command.

    Attributes:
        subject: The argument that names what it is done to.
        of: A query for the accounts and ids of those to which it can be done just now, as it
            seems: by the time that it is, it may be refused. Further columns are arguments.
        drawn: Its other arguments.
        before: Is done in the same transaction.
    """

    kind: JobKind
    subject: str
    of: str
    drawn: Callable[[Random], Arguments] = lambda _: {}
    before: Callable[[Session, UUID, UUID], None] = lambda _session, _account, _subject: None


_CLIENTS = "SELECT account_id, id FROM clients"
_WITH_CARD = "SELECT account_id, client_id AS id FROM billing_methods"
_WITH_CREDIT = """
SELECT account_id, client_id AS id FROM credit_balances WHERE currency = 'usd' AND balance > 100
"""
_INVOICES = "SELECT account_id, id FROM invoices"
_OPEN = f"{_INVOICES} WHERE status = 'open'"
_ON_PAGE = f"""
{_OPEN} AND EXISTS (SELECT FROM payment_attempts WHERE invoice_id = invoices.id
                       AND state = 'needs_action' AND checkout_session IS NOT NULL)
"""
_VOIDABLE = f"{_INVOICES} WHERE status IN ('open', 'uncollectible') AND amount_credited = 0"
_CREDITABLE = f"{_INVOICES} WHERE status IN ('open', 'paid') AND total - amount_credited > 200"
_CREDITABLE_TO_CARD = f"""
{_CREDITABLE} AND EXISTS (SELECT FROM payments WHERE invoice_id = invoices.id AND source = 'card')
"""
_PAID = """
SELECT payments.account_id, payments.id FROM payments JOIN invoices ON invoices.id = invoice_id
 WHERE applied > 0 AND status IN ('open', 'paid') AND amount_paid > amount_refunded
"""
_PAID_BY_CARD = f"{_PAID} AND source = 'card'"
_END_REVIEWS = """
UPDATE invoices SET review_ends_at = now() WHERE client_id = :client AND review_ends_at > now()
"""


def _in_usd(*amounts: int) -> Callable[[Random], Arguments]:
    return lambda rng: {"amount": rng.choice(amounts), "currency": "usd"}


def _finalizing(rng: Random) -> Arguments:
    return {"collect": rng.random() < 0.5}


def _voiding(*, reissue: bool) -> Callable[[Random], Arguments]:
    return lambda rng: {"settle": rng.choice((None, "credit", "credit")), "reissue": reissue}


def _refunding(*to: str, credit_note: bool) -> Callable[[Random], Arguments]:
    return lambda rng: {
        "to": rng.choice(to),
        "amount": rng.choice((None, 100, 300)),
        "credit_note": credit_note,
    }


def _record(session: Session, account_id: UUID, client_id: UUID) -> None:
    record_charges(session, account_id, [a_charge(client_id, date(2026, 1, 1))])


def _end_reviews(session: Session, _account_id: UUID, client_id: UUID) -> None:
    """As if their hours were over."""
    session.execute(text(_END_REVIEWS), {"client": client_id})


DOINGS: Mapping[str, Doing] = {
    "draft by hand": Doing(kind=draft_invoice, subject="client_id", of=_CLIENTS, before=_record),
    "finalize a draft": Doing(
        kind=finalize_invoice,
        subject="invoice_id",
        of=f"{_INVOICES} WHERE status = 'draft'",
        drawn=_finalizing,
    ),
    "finalize what was looked at": Doing(
        kind=finalize_invoice,
        subject="invoice_id",
        of="SELECT account_id, id, total AS expected_total FROM invoices WHERE status = 'draft'",
        drawn=_finalizing,
    ),
    "end a review": Doing(
        kind=finalize_reviewed,
        subject="client_id",
        of="SELECT account_id, client_id AS id FROM invoices WHERE review_ends_at > now()",
        before=_end_reviews,
    ),
    "charge": Doing(kind=charge_invoice, subject="invoice_id", of=_OPEN),
    "charge anything": Doing(kind=charge_invoice, subject="invoice_id", of=_INVOICES),
    "mark as paid": Doing(kind=mark_invoice_paid, subject="invoice_id", of=_OPEN),
    "mark a part as paid": Doing(
        kind=mark_invoice_paid, subject="invoice_id", of=_OPEN, drawn=lambda _: {"amount": 100}
    ),
    "charge what its client has a page for": Doing(
        kind=charge_invoice, subject="invoice_id", of=_ON_PAGE
    ),
    "mark as paid what its client has a page for": Doing(
        kind=mark_invoice_paid, subject="invoice_id", of=_ON_PAGE
    ),
    "void what its client has a page for": Doing(
        kind=void_invoice, subject="invoice_id", of=_ON_PAGE, drawn=_voiding(reissue=False)
    ),
    "void": Doing(
        kind=void_invoice, subject="invoice_id", of=_VOIDABLE, drawn=_voiding(reissue=False)
    ),
    "void anything": Doing(
        kind=void_invoice, subject="invoice_id", of=_INVOICES, drawn=_voiding(reissue=False)
    ),
    "void and reissue": Doing(
        kind=void_invoice, subject="invoice_id", of=_VOIDABLE, drawn=_voiding(reissue=True)
    ),
    "reissue": Doing(
        kind=reissue_invoice,
        subject="invoice_id",
        of=f"{_INVOICES} WHERE status = 'void' AND reissued_at IS NULL",
    ),
    "write off": Doing(
        kind=write_off_invoice, subject="invoice_id", of=f"{_OPEN} AND amount_due > 0"
    ),
    "credit an invoice": Doing(
        kind=credit_invoice,
        subject="invoice_id",
        of=_CREDITABLE,
        drawn=lambda rng: {"amount": 200, "to": rng.choice(("credit", "outside"))},
    ),
    "credit an invoice to its card": Doing(
        kind=credit_invoice,
        subject="invoice_id",
        of=_CREDITABLE_TO_CARD,
        drawn=lambda _: {"amount": 200, "to": "card"},
    ),
    "refund to the card": Doing(
        kind=refund_payment,
        subject="payment_id",
        of=_PAID_BY_CARD,
        drawn=_refunding("card", credit_note=True),
    ),
    "refund to the card and reopen": Doing(
        kind=refund_payment,
        subject="payment_id",
        of=_PAID_BY_CARD,
        drawn=_refunding("card", credit_note=False),
    ),
    "refund elsewhere": Doing(
        kind=refund_payment,
        subject="payment_id",
        of=_PAID,
        drawn=_refunding("credit", "outside", credit_note=True),
    ),
    "deposit": Doing(
        kind=deposit_credit, subject="client_id", of=_CLIENTS, drawn=_in_usd(7, 650, 3_900)
    ),
    "deposit by card": Doing(
        kind=deposit_by_card, subject="client_id", of=_WITH_CARD, drawn=_in_usd(50, 1_500)
    ),
    "grant": Doing(kind=grant_credit, subject="client_id", of=_CLIENTS, drawn=_in_usd(10, 900)),
    "adjust": Doing(
        kind=adjust_credit,
        subject="client_id",
        of=_CLIENTS,
        drawn=lambda rng: {**_in_usd(-700, -20, 50, 600)(rng), "note": "a correction"},
    ),
    "apply credit": Doing(kind=apply_client_credit, subject="client_id", of=_WITH_CREDIT),
    "refund unused credit": Doing(
        kind=refund_credit, subject="client_id", of=_WITH_CREDIT, drawn=_in_usd(20, 90)
    ),
}
"""By what it is."""
