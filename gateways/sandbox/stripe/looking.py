"""What can only be looked at: charges and events, which payments make."""

from gateways.sandbox.stripe.books import Books, Call
from gateways.sandbox.stripe.errors import JsonObject


def retrieve_charge(call: Call, books: Books) -> JsonObject:
    """A charge."""
    return books.get("charge", call.ids["charge"], param="id", in_path=True)


def retrieve_event(call: Call, books: Books) -> JsonObject:
    """An event."""
    return books.get("event", call.ids["id"], param="id", in_path=True)
