"""Recording, editing and deleting charges."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

from psycopg.types.json import Json
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from billing.amendments import require_original
from billing.currencies import currency_code
from billing.errors import InvalidInput, NotFound, RuleViolation
from billing.invoice_states import InvoiceStatus
from billing.pricing import PricedLine, price_line
from billing.texts import MAX_LONG, MAX_SHORT, require_text
from models import Charge, Invoice
from models.client import clients_for_update, clients_to_charge
from models.invoice import invoices_for_update
from tasks.drafting import refresh_totals
from tasks.joining import join_drafts
from tasks.tax_rates import known_tax_rates, require_tax_rates, wrong_tax_rates

EARLIEST_DATE = date(1970, 1, 1)
LATEST_DATE = date(2199, 12, 31)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCharge:
    """A charge to be recorded: ``unit_price`` in major units, or ``amount`` in minor units.

    It bears the ``tax_rates`` with these ids; None is those of its client.
    ``assumed`` names the fields that the caller left to a default of the moment, such as today's
    date: sent again tomorrow, it is the same charge.
    """

    client_id: UUID
    description: str
    currency: str
    charged_on: date
    quantity: Decimal | None = None
    unit_price: Decimal | None = None
    amount: int | None = None
    external_ref: str | None = None
    category: str | None = None
    tax_rates: Sequence[UUID] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    assumed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Recorded:
    """A charge's id, and whether this call made it or found it with the same content."""

    charge_id: UUID
    created: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a charge cannot be recorded."""

    error: InvalidInput | RuleViolation


_INSERT = text("""
INSERT INTO charges (account_id, client_id, external_ref, charged_on, description, category,
                     quantity, unit_price, amount, currency, tax_rates, metadata)
SELECT :account, client_id, external_ref, charged_on, description, category, quantity, unit_price,
       amount, currency, tax_rates ::uuid[], metadata
  FROM unnest(:clients ::uuid[], :refs ::text[], :dates ::date[], :descriptions ::text[],
              :categories ::text[], :quantities ::numeric[], :unit_prices ::numeric[],
              :amounts ::bigint[], :currencies ::text[], :tax_rates ::text[], :metadata ::jsonb[])
       AS wanted (client_id, external_ref, charged_on, description, category, quantity,
                  unit_price, amount, currency, tax_rates, metadata)
    ON CONFLICT (account_id, external_ref) DO NOTHING
RETURNING id, external_ref
""")


def record_charges(
    session: Session, account_id: UUID, new: Sequence[NewCharge], *, join: bool = True
) -> list[Recorded | Refused]:
    """Record charges; the same ``external_ref`` with the same content answers the existing one.

    Nothing is rolled back here: a caller that wants all or none looks for refusals.

    Args:
        session: The transaction to do it in.
        account_id: Whose clients they are for.
        new: The charges.
        join: Put them on drafts in review; who records more in the same transaction does that
            itself, once, when all are recorded (``join_drafts``).

    Returns:
        One answer for each of ``new``, in its order.
    """
    answers: dict[int, Recorded | Refused] = {}
    waiting: dict[int, tuple[NewCharge, PricedLine]] = {}
    rates = known_tax_rates(session, account_id, (r for one in new for r in one.tax_rates or ()))
    for index, one in enumerate(new):
        line = check_charge(one)
        wrong = wrong_tax_rates(one.tax_rates or (), rates)
        if isinstance(line, Refused):
            answers[index] = line
        elif wrong is not None:
            answers[index] = Refused(wrong)
        else:
            waiting[index] = one, line
    answers |= _of_archived(session, account_id, waiting)
    while waiting:
        for index, recorded in _insert(session, account_id, waiting):
            answers[index] = recorded
            del waiting[index]
        refs = [one.external_ref for one, _ in waiting.values()]
        existing = _by_external_ref(session, account_id, refs)
        # What stood in the way and is gone by now was deleted meanwhile: once more.
        for index, (one, line) in list(waiting.items()):
            if one.external_ref in existing:
                answers[index] = _compare(one, line, existing[one.external_ref])
                del waiting[index]
    if join:
        join_drafts(session, created_among(answers.values()))
    return [answers[index] for index in range(len(new))]


def created_among(answers: Iterable[Recorded | Refused]) -> list[UUID]:
    """The charges that were made, not found."""
    return [one.charge_id for one in answers if isinstance(one, Recorded) and one.created]


def edit_charge(
    session: Session, account_id: UUID, charge_id: UUID, changes: Mapping[str, Any]
) -> Charge:
    """Change an open charge, or one on a draft, whose totals follow.

    ``changes`` may hold description, quantity, unit_price, amount, charged_on, category,
    tax_rates and metadata.

    Raises:
        InvalidInput: A field's value is wrong.
        NotFound: The account has no such charge.
        RuleViolation: The charge amends another (``edit_the_original``), or is on a finalized
            invoice (``charge_locked``).
    """
    charge, draft = _lock(session, account_id, charge_id)
    fields = {**changes, **money_after(charge, changes)}
    edited = NewCharge(
        client_id=charge.client_id,
        currency=charge.currency,
        description=fields.pop("description", charge.description),
        charged_on=fields.pop("charged_on", charge.charged_on),
        category=fields.pop("category", charge.category),
        tax_rates=fields.pop("tax_rates", charge.tax_rates),
        metadata=fields.pop("metadata", charge.details),
        **fields,
    )
    line = _priced(edited)
    require_tax_rates(session, account_id, edited.tax_rates)
    charge.description, charge.charged_on = edited.description, edited.charged_on
    charge.category, charge.details = edited.category, dict(edited.metadata)
    charge.tax_rates = None if edited.tax_rates is None else list(edited.tax_rates)
    charge.quantity, charge.unit_price, charge.amount = line.quantity, line.unit_price, line.amount
    session.flush()
    if draft is not None:
        refresh_totals(session, draft)
    return charge


def money_after(charge: Charge, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Quantity, unit price and amount of a charge after an edit of some of them.

    A new amount replaces the price, and vice versa.
    """
    money = {
        "quantity": charge.quantity,
        "unit_price": charge.unit_price,
        "amount": None if charge.unit_price is not None else charge.amount,
    }
    money |= {name: changes[name] for name in money if name in changes}
    if changes.get("amount") is not None and "unit_price" not in changes:
        money["unit_price"] = None
    if changes.get("unit_price") is not None and "amount" not in changes:
        money["amount"] = None
    return money


def delete_charge(session: Session, account_id: UUID, charge_id: UUID) -> None:
    """Delete an open charge, or one on a draft; a draft that loses its last one goes too.

    Raises:
        NotFound: The account has no such charge.
        RuleViolation: The charge amends another (``edit_the_original``), or is on a finalized
            invoice (``charge_locked``).
    """
    charge, draft = _lock(session, account_id, charge_id)
    session.delete(charge)
    session.flush()
    if draft is not None:
        refresh_totals(session, draft)


def _lock(session: Session, account_id: UUID, charge_id: UUID) -> tuple[Charge, Invoice | None]:
    """A charge that may be edited, and its draft, both locked: their client first, as all do."""
    find = select(Charge).where(Charge.account_id == account_id, Charge.id == charge_id)
    while True:
        # A try that finds the charge moved lets go of what it locked, in the wrong order by then;
        # so does a refusal, after which the charge may be amended under its client's lock.
        with session.begin_nested() as locking:
            seen = session.execute(
                find.with_only_columns(Charge.client_id, Charge.invoice_id)
            ).one_or_none()
            draft = None
            if seen is not None and seen.invoice_id is not None:
                session.scalars(clients_for_update([seen.client_id])).one()
                draft = session.scalars(invoices_for_update([seen.invoice_id])).one_or_none()
            charge = session.scalar(
                find.with_for_update().execution_options(populate_existing=True)
            )
            if charge is None:
                raise NotFound("charge", str(charge_id))
            if charge.invoice_id != (draft and draft.id):
                locking.rollback()  # It was drafted, or given back, between the two looks.
                continue
            require_original(charge.amends)
            if draft is not None and draft.status != InvoiceStatus.DRAFT:
                raise RuleViolation(
                    "charge_locked", f"the charge is on invoice {draft.number}, which is finalized"
                )
        return charge, draft


def check_charge(new: NewCharge) -> PricedLine | Refused:
    """What the charge costs, or which value of it is wrong whatever the state."""
    try:
        return _priced(new)
    except InvalidInput as error:
        return Refused(error)


def _priced(new: NewCharge) -> PricedLine:
    require_text("description", new.description, MAX_LONG)
    for name in ("external_ref", "category"):
        if getattr(new, name) is not None:
            require_text(name, getattr(new, name), MAX_SHORT)
    if not EARLIEST_DATE <= new.charged_on <= LATEST_DATE:
        raise InvalidInput("charged_on", f"must be from {EARLIEST_DATE} to {LATEST_DATE}")
    return price_line(
        currency=currency_code(new.currency),
        quantity=new.quantity,
        unit_price=new.unit_price,
        amount=new.amount,
    )


def _of_archived(
    session: Session, account_id: UUID, waiting: dict[int, tuple[NewCharge, PricedLine]]
) -> dict[int, Recorded | Refused]:
    """The answers for charges of archived clients, taken out of ``waiting``: nothing is recorded."""
    wanted = {one.client_id for one, _ in waiting.values()}
    archived = {
        row.id for row in session.execute(clients_to_charge(list(wanted))) if row.archived_at
    }
    if not archived:
        return {}
    apart = {index: both for index, both in waiting.items() if both[0].client_id in archived}
    refs = [one.external_ref for one, _ in apart.values()]
    existing = _by_external_ref(session, account_id, refs)
    answers: dict[int, Recorded | Refused] = {}
    for index, (one, line) in apart.items():
        del waiting[index]
        if one.external_ref in existing:
            answers[index] = _compare(one, line, existing[one.external_ref])
        else:
            message = "the client is archived: nothing new is billed to it"
            answers[index] = Refused(RuleViolation("client_archived", message))
    return answers


def _insert(
    session: Session, account_id: UUID, lines: Mapping[int, tuple[NewCharge, PricedLine]]
) -> Iterator[tuple[int, Recorded]]:
    """Insert what is new, in two statements: only with a reference can a row be there already."""
    # By reference, so that two callers with the same ones never wait for each other in a ring.
    ordered = sorted(lines.items(), key=lambda line: line[1][0].external_ref or "")
    for with_ref in (False, True):
        wanted = {
            index: both for index, both in ordered if (both[0].external_ref is not None) is with_ref
        }
        if not wanted:
            continue
        new = [one for one, _ in wanted.values()]
        priced = [line for _, line in wanted.values()]
        rows = session.execute(
            _INSERT,
            {
                "account": account_id,
                "clients": [one.client_id for one in new],
                "refs": [one.external_ref for one in new],
                "dates": [one.charged_on for one in new],
                "descriptions": [one.description for one in new],
                "categories": [one.category for one in new],
                "quantities": [line.quantity for line in priced],
                "unit_prices": [line.unit_price for line in priced],
                "amounts": [line.amount for line in priced],
                "currencies": [currency_code(one.currency) for one in new],
                "tax_rates": [_array(one.tax_rates) for one in new],
                "metadata": [Json(dict(one.metadata)) for one in new],
            },
        ).all()
        if with_ref:
            # Two rows of one call may share a reference; the second is compared with the first.
            first = {one.external_ref: index for index, (one, _) in reversed(wanted.items())}
            yield from ((first[row.external_ref], Recorded(row.id, created=True)) for row in rows)
        else:
            yield from (
                (index, Recorded(row.id, created=True))
                for index, row in zip(wanted, rows, strict=True)
            )


def _array(ids: Sequence[UUID] | None) -> str | None:
    """Ids as PostgreSQL writes an array of them: ``unnest`` would take lists of lists apart."""
    return None if ids is None else f"{{{','.join(map(str, ids))}}}"


def _by_external_ref(
    session: Session, account_id: UUID, refs: Sequence[str | None]
) -> dict[str, Charge]:
    found = session.scalars(
        select(Charge).where(Charge.account_id == account_id, Charge.external_ref.in_(refs))
    )
    return {charge.external_ref or "": charge for charge in found}


def _compare(new: NewCharge, line: PricedLine, existing: Charge) -> Recorded | Refused:
    pairs = {
        "client": (new.client_id, existing.client_id),
        "charged_on": (new.charged_on, existing.charged_on),
        "description": (new.description, existing.description),
        "category": (new.category, existing.category),
        "quantity": (line.quantity, existing.quantity),
        "unit_price": (line.unit_price, existing.unit_price),
        "amount": (line.amount, existing.amount),
        "currency": (currency_code(new.currency), existing.currency),
        "tax_rates": (None if new.tax_rates is None else list(new.tax_rates), existing.tax_rates),
        "metadata": (dict(new.metadata), existing.details),
    }
    different = [
        name
        for name, (wanted, found) in pairs.items()
        if wanted != found and name not in new.assumed
    ]
    if not different:
        return Recorded(existing.id, created=False)
    return Refused(
        RuleViolation(
            "external_ref_taken",
            f"{new.external_ref} belongs to a charge with another {', '.join(different)}",
        )
    )
