"""Tax rates: made, ended, and put on accounts, clients and charges."""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import date
from decimal import Decimal
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, any_, cast, func, select
from sqlalchemy.orm import Session

from billing.errors import InvalidInput, NotFound
from billing.tax import TaxRate
from models import Client, TaxRateRow
from tasks.taxing import retax_drafts

MAX_TAX_RATES = 10
"""Rates that an account, a client or a charge may have."""


def create_tax_rate(
    session: Session,
    account_id: UUID,
    *,
    name: str,
    percent: Decimal,
    inclusive: bool,
    valid_from: date,
    valid_to: date | None = None,
) -> TaxRateRow:
    """Make a rate. Nothing bears it until it is put on the account, a client or a charge.

    Raises:
        InvalidInput: A field's value is wrong.
    """
    rate = TaxRate(
        id=session.scalars(select(func.uuid7())).one(),
        name=name,
        percent=percent,
        inclusive=inclusive,
        valid_from=valid_from,
        valid_to=valid_to,
    )
    row = TaxRateRow(
        id=rate.id,
        account_id=account_id,
        name=rate.name,
        percent=rate.percent,
        inclusive=rate.inclusive,
        valid_from=rate.valid_from,
        valid_to=rate.valid_to,
    )
    session.add(row)
    session.flush()
    session.refresh(row)
    return row


def end_tax_rate(
    session: Session, account_id: UUID, tax_rate_id: UUID, valid_to: date | None
) -> TaxRateRow:
    """Say from which day on a rate is no longer valid, or with None that it is without end.

    It may be any day, also of the past: drafts are taxed again, and finalized invoices keep what
    they say.

    Raises:
        InvalidInput: No day would be valid.
        NotFound: The account has no such rate.
    """
    row = session.get(TaxRateRow, tax_rate_id, with_for_update={"key_share": True})
    if row is None or row.account_id != account_id:
        raise NotFound("tax_rate", str(tax_rate_id))
    row.valid_to = replace(row.rate, valid_to=valid_to).valid_to
    retax_drafts(session, Client.account_id == account_id)
    return row


def require_tax_rates(session: Session, account_id: UUID, ids: Sequence[UUID] | None) -> None:
    """Check that these can be the rates of something of the account's.

    Raises:
        InvalidInput: They are too many, one is there twice, or one is no rate of the account's.
            The field is ``tax_rates``.
    """
    if ids:
        error = wrong_tax_rates(ids, known_tax_rates(session, account_id, ids))
        if error is not None:
            raise error


def wrong_tax_rates(ids: Sequence[UUID], known: AbstractSet[UUID]) -> InvalidInput | None:
    """What is wrong with a list of rates, if the account has those that are ``known``."""
    if len(ids) > MAX_TAX_RATES:
        return InvalidInput("tax_rates", f"must be at most {MAX_TAX_RATES} tax rates")
    if len(set(ids)) < len(ids):
        return InvalidInput("tax_rates", "must name each tax rate once")
    unknown = [str(one) for one in ids if one not in known]
    if unknown:
        return InvalidInput(
            "tax_rates", f"must be ids of your tax rates: there is no {', '.join(unknown)}"
        )
    return None


def known_tax_rates(session: Session, account_id: UUID, ids: Iterable[UUID]) -> set[UUID]:
    """Those of the ids that are the account's rates."""
    wanted = sorted(set(ids))
    if not wanted:
        return set()
    found = select(TaxRateRow.id).where(
        TaxRateRow.account_id == account_id,
        TaxRateRow.id == any_(cast(wanted, ARRAY(Uuid))),
    )
    return set(session.scalars(found))
