"""Creating and changing accounts."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from billing.currencies import currency_code
from billing.cycles import time_zone
from billing.dates import MAX_NET_DAYS
from billing.errors import InvalidInput, NotFound
from billing.texts import MAX_SHORT, require_text
from models import Account
from models.client import clients_in_the_zone_of
from tasks.cycles import complete_chains, move_to_zone

CHANGEABLE = frozenset(
    {"name", "legal_name", "address", "tax_ids", "time_zone", "currency", "net_days"}
)


def create_account(session: Session, name: str, **fields: Any) -> Account:
    """Create an account; ``fields`` are any of ``CHANGEABLE``.

    Raises:
        InvalidInput: A field's value is wrong.
    """
    account = Account()
    for field, value in {"name": name, **fields}.items():
        setattr(account, field, _checked(field, value))
    session.add(account)
    session.flush()
    session.refresh(account)
    return account


def change_account(
    session: Session, account_id: UUID, changes: Mapping[str, Any], *, now: datetime
) -> Account:
    """Change fields of an account. A new zone moves the open periods of clients without their own.

    Raises:
        InvalidInput: A field's value is wrong.
        NotFound: There is no such account.
    """
    # NO KEY: a page that holds clients' locks still refers to the account.
    account = session.get(Account, account_id, with_for_update={"key_share": True})
    if account is None:
        raise NotFound("account", str(account_id))
    changes = {field: _checked(field, value) for field, value in changes.items()}
    moves = changes.get("time_zone", account.time_zone) != account.time_zone
    affected = session.scalars(clients_in_the_zone_of(account.id)).all() if moves else []
    if affected:
        complete_chains(session, account, affected, now=now)
    for field, value in changes.items():
        setattr(account, field, value)
    if affected:
        move_to_zone(session, account, affected, now=now)
    session.flush()
    return account


def _checked(field: str, value: Any) -> Any:  # noqa: ANN401 - one of several types, by field
    """A field's value, in the form that is kept."""
    match field, value:
        case "name", _:
            return require_text("name", value or "", MAX_SHORT)
        case "currency", None:
            raise InvalidInput("currency", "must not be empty")
        case "time_zone", _:
            return time_zone(value).key
        case "currency", _:
            return currency_code(value)
        case "net_days", _ if value not in range(MAX_NET_DAYS + 1):
            raise InvalidInput("net_days", f"must be 0 to {MAX_NET_DAYS} days")
        case "tax_ids", _:
            return list(value or [])
        case _:
            return value
