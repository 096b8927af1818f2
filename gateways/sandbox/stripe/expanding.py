"""``expand[]``: objects in the place of their ids."""

from collections.abc import Sequence

from gateways.sandbox.stripe.books import Books
from gateways.sandbox.stripe.errors import JsonObject, invalid_request

MAX_DEPTH = 4
_KINDS = {
    "charge": "charge",
    "customer": "customer",
    "default_payment_method": "payment_method",
    "latest_charge": "charge",
    "payment_intent": "payment_intent",
    "payment_method": "payment_method",
    "setup_intent": "setup_intent",
}


def expanded(body: JsonObject, paths: Sequence[str], books: Books) -> JsonObject:
    """The same with the objects at ``paths`` whole; what is stored stays as it is.

    Raises:
        ApiError: A path leads to nothing that can be expanded, or too deep.
    """
    for path in paths:
        names = path.split(".")
        if len(names) > MAX_DEPTH:
            raise invalid_request(
                f"You cannot expand more than {MAX_DEPTH} levels of a property. Property: {path}",
                param="expand",
            )
        _expand(body, names, path, books)
    return body


def _expand(body: JsonObject, names: Sequence[str], path: str, books: Books) -> None:
    name, *deeper = names
    if name not in body:
        raise invalid_request(f"This property cannot be expanded ({path}).", param="expand")
    if name == "data" and isinstance(body[name], list):
        if not deeper:
            raise invalid_request(f"This property cannot be expanded ({path}).", param="expand")
        for item in body[name]:
            _expand(item, deeper, path, books)
        return
    value = body[name]
    if name not in _KINDS and not (deeper and isinstance(value, dict)):
        raise invalid_request(f"This property cannot be expanded ({path}).", param="expand")
    if isinstance(value, str):
        body[name] = value = books.get(_KINDS[name], value, param="expand", or_deleted=True)
    if deeper and isinstance(value, dict):
        _expand(value, deeper, path, books)
