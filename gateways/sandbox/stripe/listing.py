"""Lists: newest first, in pages, filtered."""

from gateways.sandbox.stripe.books import Books, Call
from gateways.sandbox.stripe.errors import JsonObject, invalid_request, no_such
from gateways.sandbox.stripe.store import FILTERS

DEFAULT_LIMIT, MAX_LIMIT = 10, 100


def payment_intents(call: Call, books: Books) -> JsonObject:
    """Intents, of everyone or a customer."""
    return _page("payment_intent", call, books)


def charges(call: Call, books: Books) -> JsonObject:
    """Charges, also the failed ones."""
    return _page("charge", call, books)


def refunds(call: Call, books: Books) -> JsonObject:
    """Refunds, of everything or a charge or an intent."""
    return _page("refund", call, books)


def disputes(call: Call, books: Books) -> JsonObject:
    """Disputes and inquiries, of everything or a charge or an intent."""
    return _page("dispute", call, books)


def customers(call: Call, books: Books) -> JsonObject:
    """Customers, all or of an address."""
    return _page("customer", call, books)


def payment_methods(call: Call, books: Books) -> JsonObject:
    """A customer's payment methods; without a customer, as at Stripe, none is listed."""
    if "customer" not in call.parameters:
        return _list([], call.path, has_more=False)
    return _page("payment_method", call, books)


def payment_methods_of_customer(call: Call, books: Books) -> JsonObject:
    """The same, for the customer in the path."""
    customer = books.get("customer", call.ids["customer"], param="customer", in_path=True)
    call.parameters["customer"] = customer["id"]
    return _page("payment_method", call, books)


def checkout_sessions(call: Call, books: Books) -> JsonObject:
    """Checkout sessions, of everyone, a customer or a payment."""
    return _page("checkout.session", call, books)


def events(call: Call, books: Books) -> JsonObject:
    """Events, all or of some types."""
    return _page("event", call, books)


def limit_of(call: Call) -> int:
    """How many the caller wants.

    Raises:
        ApiError: Out of Stripe's bounds.
    """
    limit: int = call.parameters.get("limit", DEFAULT_LIMIT)
    if not 1 <= limit <= MAX_LIMIT:
        raise invalid_request(
            f"This value must be between 1 and {MAX_LIMIT}.",
            code="parameter_invalid_integer",
            param="limit",
        )
    return limit


def _page(kind: str, call: Call, books: Books) -> JsonObject:
    given = call.parameters
    limit = limit_of(call)
    if "starting_after" in given and "ending_before" in given:
        raise invalid_request(
            "You cannot provide both starting_after and ending_before.", param="ending_before"
        )
    backwards = "ending_before" in given
    if "customer" in given:
        books.get("customer", given["customer"], param="customer")
    found = books.store.select(
        kind,
        account=books.account,
        filters={name: given[name] for name in FILTERS if name in given},
        types=given.get("types", ()),
        created=given.get("created"),
        before=_place(kind, "starting_after", call, books),
        after=_place(kind, "ending_before", call, books),
        limit=limit + 1,
        oldest_first=backwards,
    )
    shown = [stored.body for stored in found[:limit]]
    if backwards:
        shown.reverse()
    return _list(shown, call.path, has_more=len(found) > limit)


def _place(kind: str, param: str, call: Call, books: Books) -> int | None:
    cursor = call.parameters.get(param)
    if cursor is None:
        return None
    books.get(kind, cursor, param=param)
    place = books.store.sequence(cursor)
    if place is None:
        raise no_such(kind, cursor, param, in_path=False)
    return place


def _list(shown: list[JsonObject], url: str, *, has_more: bool) -> JsonObject:
    return {"object": "list", "data": shown, "has_more": has_more, "url": url}
