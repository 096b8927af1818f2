"""Creating and changing accounts."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from billing.currencies import currency_code
from billing.cycles import time_zone
from billing.dates import MAX_NET_DAYS
from billing.dunning import DunningFinal
from billing.errors import InvalidInput, NotFound
from billing.mails import DEFAULTS
from billing.texts import MAX_SHORT, require_text
from models import Account, Client
from models.client import clients_in_the_zone_of
from tasks.automation import columns_of_account
from tasks.closing import close_books
from tasks.cycles import complete_chains, move_to_zone
from tasks.merchants import charge_through
from tasks.number_settings import NUMBER_SETTINGS, change_numbers
from tasks.pauses import release_held
from tasks.tax_rates import require_tax_rates
from tasks.taxing import retax_drafts

CHANGEABLE = frozenset(
    {
        "name", "legal_name", "address", "tax_ids", "time_zone", "currency", "net_days",
        "auto_collect", "dunning_days", "dunning_final", "notifications", "tax_rates",
        "review_hours", "invoice_date", "paused", "books_closed_through",
        "void_makes_credit_note", "dispute_lost",
    }
)  # fmt: skip

MAX_TRIES_AGAIN = 20
"""Waits that a schedule of dunning may have."""

MAX_DUNNING_DAYS = 365
"""How long each of them may be."""


def create_account(session: Session, name: str, **fields: Any) -> Account:
    """Create an account; ``fields`` are any of ``CHANGEABLE`` but for books that are closed.

    Raises:
        InvalidInput: A field's value is wrong.
    """
    account = Account()
    for field, value in _checked_all({}, {"name": name, **fields}).items():
        setattr(account, field, value)
    session.add(account)
    session.flush()
    require_tax_rates(session, account.id, fields.get("tax_rates"))
    session.refresh(account)
    return account


def change_account(
    session: Session, account_id: UUID, changes: Mapping[str, Any], *, now: datetime
) -> Account:
    """Change fields of an account. A new zone moves the open periods of clients without their own.

    Of ``notifications`` and ``paused`` only the switches that are given change; a mail's given as
    None is the default again. What a pause has held is open again when it ends, but for clients
    that are paused themselves. ``review_hours`` are None where a person finalizes drafts.
    ``NUMBER_SETTINGS`` are changed as by ``change_numbers``, ``stripe_account`` as by
    ``charge_through``.

    Raises:
        InvalidInput: A field's value is wrong.
        NotFound: There is no such account.
        RuleViolation: Its numbers cannot be changed so (``number_format_taken``,
            ``number_series_used``), or another account has that ``stripe_account``
            (``stripe_account_taken``).
    """
    if "books_closed_through" in changes and len(changes) > 1:
        # It waits for all that posts; whoever posts may wait for what the others lock.
        raise InvalidInput("books_closed_through", "must be changed by itself")
    account = lock_account(session, account_id)
    if "stripe_account" in changes:
        charge_through(session, account, changes["stripe_account"])
    changes = {name: value for name, value in changes.items() if name != "stripe_account"}
    numbers = {name: value for name, value in changes.items() if name in NUMBER_SETTINGS}
    changes = {name: value for name, value in changes.items() if name not in NUMBER_SETTINGS}
    changes = _checked_all(account.notifications, changes)
    require_tax_rates(session, account.id, changes.get("tax_rates"))
    retaxes = changes.get("tax_rates", account.tax_rates) != account.tax_rates
    moves = changes.get("time_zone", account.time_zone) != account.time_zone
    affected = session.scalars(clients_in_the_zone_of(account.id)).all() if moves else []
    if affected:
        complete_chains(session, account, affected, now=now)
    closes = "books_closed_through" in changes
    closed_through = changes.pop("books_closed_through", None)
    for field, value in changes.items():
        setattr(account, field, value)
    if affected:
        move_to_zone(session, account, affected, now=now)
    if closes:
        close_books(session, account, closed_through, now=now)
    session.flush()
    if retaxes:
        retax_drafts(session, Client.account_id == account.id, Client.tax_rates.is_(None))
    if changes.get("billing_paused") is False:
        release_held(session, account_id=account.id)
    # Last: all that gives numbers for this account waits from here to the commit.
    change_numbers(session, account, numbers, now=now)
    return account


def lock_account(session: Session, account_id: UUID) -> Account:
    """An account whose settings nobody else changes meanwhile.

    Raises:
        NotFound: There is no such account.
    """
    # NO KEY: a page that holds clients' locks still refers to the account.
    account = session.get(Account, account_id, with_for_update={"key_share": True})
    if account is None:
        raise NotFound("account", str(account_id))
    return account


def switches_after(switches: Mapping[str, bool], changes: object) -> dict[str, bool]:
    """Which mails are switched on or off after ``changes``, by kind; None takes a switch away.

    Raises:
        InvalidInput: A switch is of no kind of mail, or neither on nor off.
    """
    if not isinstance(changes, Mapping):
        raise InvalidInput("notifications", "must be a switch for each of some kinds of mail")
    for kind, on in changes.items():
        if kind not in DEFAULTS:
            raise InvalidInput(f"notifications.{kind}", "is not known here: remove it")
        if not isinstance(on, bool | None):
            raise InvalidInput(f"notifications.{kind}", "must be true or false")
    return {kind: on for kind, on in {**switches, **changes}.items() if on is not None}


def _checked_all(switches: Mapping[str, bool], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The fields' values, in the form that is kept; ``switches`` are those set so far."""
    checked = {field: _checked(field, value) for field, value in changes.items()}
    if "notifications" in checked:
        checked["notifications"] = switches_after(switches, checked["notifications"])
    return columns_of_account(checked)


def _is_dunning(days: Sequence[Any]) -> bool:
    """Whether these can be the days from each try of a card to the next."""
    return len(days) <= MAX_TRIES_AGAIN and all(
        type(wait) is int and 1 <= wait <= MAX_DUNNING_DAYS for wait in days
    )


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
        case "auto_collect" | "void_makes_credit_note", _ if not isinstance(value, bool):
            raise InvalidInput(field, "must be true or false")
        case "dunning_days" | "dunning_final", _:
            return _checked_dunning(field, value)
        case "tax_rates", None:
            raise InvalidInput("tax_rates", "must be a list of tax rates, which may be empty")
        case "tax_ids" | "tax_rates", _:
            return list(value or [])
        case _:
            return value


def _checked_dunning(field: str, value: Any) -> Any:  # noqa: ANN401 - as above
    if field == "dunning_final":
        if value not in {*DunningFinal}:
            raise InvalidInput(field, f"must be {' or '.join(sorted(DunningFinal))}")
        return value
    if not isinstance(value, list | tuple) or not _is_dunning(value):
        raise InvalidInput(
            field,
            f"must be at most {MAX_TRIES_AGAIN} numbers of days, each 1 to {MAX_DUNNING_DAYS}",
        )
    return list(value)
