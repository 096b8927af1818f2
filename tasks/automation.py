"""How far automation goes: settings of accounts and clients, as they are asked for and kept."""

from collections.abc import Mapping
from typing import Any, Final

from billing.dates import InvoiceDate
from billing.disputes import DisputeLost
from billing.errors import InvalidInput
from billing.reviews import require_review_hours

PERSON: Final = "person"
"""Who reviews, in place of hours: a client's drafts wait until they are finalized by hand."""

_PAUSABLE = ("billing", "collection")


def columns_of_account(changes: dict[str, Any]) -> dict[str, Any]:
    """``changes`` of an account with these settings as its columns have them.

    Raises:
        InvalidInput: A setting's value is wrong.
    """
    if changes.get("review_hours") is not None:
        require_review_hours(changes["review_hours"])
    if "invoice_date" in changes and changes["invoice_date"] not in list(InvoiceDate):
        raise InvalidInput("invoice_date", f"must be one of {', '.join(InvoiceDate)}")
    if "dispute_lost" in changes and changes["dispute_lost"] not in list(DisputeLost):
        raise InvalidInput("dispute_lost", f"must be one of {', '.join(DisputeLost)}")
    return _with_pauses(changes)


def columns_of_client(changes: dict[str, Any]) -> dict[str, Any]:
    """The same for a client, who may also leave its drafts to a ``PERSON``.

    Raises:
        InvalidInput: A setting's value is wrong.
    """
    if "review_hours" not in changes:
        return _with_pauses(changes)
    hours = changes["review_hours"]
    if hours not in {None, PERSON}:
        require_review_hours(hours)
    kept = {
        "review_hours": None if hours == PERSON else hours,
        "review_by_person": hours == PERSON,
    }
    return _with_pauses({**changes, **kept})


def _with_pauses(changes: dict[str, Any]) -> dict[str, Any]:
    switches = changes.get("paused", {})
    if not isinstance(switches, Mapping):
        raise InvalidInput("paused", "must be a switch for billing, collection or both")
    for what, on in switches.items():
        if what not in _PAUSABLE:
            raise InvalidInput(f"paused.{what}", "is not known here: remove it")
        if not isinstance(on, bool):
            raise InvalidInput(f"paused.{what}", "must be true or false")
    others = {name: value for name, value in changes.items() if name != "paused"}
    return {**others, **{f"{what}_paused": on for what, on in switches.items()}}
