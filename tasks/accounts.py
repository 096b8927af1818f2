"""Creating and changing accounts."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from billing.currencies import currency_code
from billing.cycles import BillingCycle, time_zone
from billing.dates import MAX_NET_DAYS
from billing.errors import InvalidInput, NotFound, RuleViolation
from billing.texts import MAX_SHORT, require_text
from models import Account, Client
from models.client import clients_for_update
from tasks.cycles import complete_chain, move_to_zone
from tasks.periods import write_periods

CHANGEABLE = frozenset(
    {"name", "legal_name", "address", "tax_ids", "time_zone", "currency", "net_days"}
)


def create_account(session: Session, name: str, **fields: Any) -> Account:
    """Create an account; ``fields`` are any of ``CHANGEABLE``.

    Raises:
        InvalidInput: A field's value is wrong.
        RuleViolation: Another account has this name (``name_taken``).
    """
    _require_free_name(session, name)
    account = Account()
    for field, value in {"name": name, **fields}.items():
        setattr(account, field, _checked(field, value))
    session.add(account)
    session.flush()
    session.refresh(account)
    return account


def change_account(session: Session, account_id: UUID, changes: Mapping[str, Any]) -> Account:
    """Change fields of an account. A new zone moves the open periods of clients without their own.

    Raises:
        InvalidInput: A field's value is wrong.
        NotFound: There is no such account.
        RuleViolation: Another account has this name (``name_taken``).
    """
    # NO KEY: a page that holds clients' locks still refers to the account.
    account = session.get(Account, account_id, with_for_update={"key_share": True})
    if account is None:
        raise NotFound("account", str(account_id))
    changes = {field: _checked(field, value) for field, value in changes.items()}
    if changes.get("name", account.name) != account.name:
        _require_free_name(session, changes["name"])
    moves = changes.get("time_zone", account.time_zone) != account.time_zone
    affected = _clients_in_its_zone(session, account) if moves else []
    for client in affected:
        write_periods(session, complete_chain(session, client, account))
    for field, value in changes.items():
        setattr(account, field, value)
    for client in affected:
        move_to_zone(session, client, account)
    session.flush()
    return account


def _clients_in_its_zone(session: Session, account: Account) -> list[Client]:
    ids = session.scalars(
        select(Client.id).where(
            Client.account_id == account.id,
            Client.time_zone.is_(None),
            Client.billing_cycle != BillingCycle.MANUAL,
        )
    ).all()
    return list(session.scalars(clients_for_update(ids)))


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


def _require_free_name(session: Session, name: str) -> None:
    if session.scalar(select(Account.id).where(Account.name == name)) is not None:
        raise RuleViolation("name_taken", f"there is an account {name} already")
