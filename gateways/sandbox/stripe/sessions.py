"""Checkout sessions: pages of Stripe's own at which a client pays, or leaves a card."""

from gateways.sandbox.stripe import intents, objects, setup_intents
from gateways.sandbox.stripe.amounts import check_amount, check_currency
from gateways.sandbox.stripe.behaviours import BANK_ACCOUNT, CARD
from gateways.sandbox.stripe.books import Books, Call
from gateways.sandbox.stripe.errors import JsonObject, invalid_request
from gateways.sandbox.stripe.payment_methods import usable

PAGES = "/c/pay"
"""Where the pages are, by the sessions' ids."""

SHORTEST, LONGEST = 30 * 60, 24 * 3600

_OTHERS_DATA = {"payment": "setup_intent_data", "setup": "payment_intent_data"}


def create(call: Call, books: Books) -> JsonObject:
    """A page; nothing is paid, and in payment mode there is no intent, until the client pays."""
    given = call.parameters
    mode = given.get("mode")
    if mode is None:
        raise invalid_request(
            "Missing required param: mode.", code="parameter_missing", param="mode"
        )
    if _OTHERS_DATA[mode] in given:
        raise invalid_request(
            f"You can not pass `{_OTHERS_DATA[mode]}` in `{mode}` mode.", param=_OTHERS_DATA[mode]
        )
    if "customer" in given:
        books.get("customer", given["customer"], param="customer")
    session = objects.checkout_session(books, mode=mode)
    session |= {
        "cancel_url": given.get("cancel_url"),
        "client_reference_id": given.get("client_reference_id"),
        "customer": given.get("customer"),
        "expires_at": _expires_at(call, books),
        "metadata": objects.updated_metadata({}, given.get("metadata", {})),
        "success_url": given["success_url"],
        "url": f"{call.origin}{PAGES}/{session['id']}",
    }
    if "adaptive_pricing" in given:
        session["adaptive_pricing"] = {"enabled": given["adaptive_pricing"].get("enabled", True)}
    if mode == "payment":
        name = _price(session, call)
        hidden = {"name": name, "payment_intent_data": given.get("payment_intent_data", {})}
    else:
        hidden = {"name": None}
        _check_setup(session, call)
        metadata = given.get("setup_intent_data", {}).get("metadata")
        session["setup_intent"] = setup_intents.made_for_session(books, session, metadata)["id"]
    books.put(session, **hidden)
    books.store.settle_at(session["id"], session["expires_at"])
    return session


def retrieve(call: Call, books: Books) -> JsonObject:
    """A session."""
    return books.get("checkout.session", call.ids["session"], param="session", in_path=True)


def expire(call: Call, books: Books) -> JsonObject:
    """Close a page, if nobody has paid there."""
    return expired(retrieve(call, books), books)


def expired(session: JsonObject, books: Books) -> JsonObject:
    """The session, closed.

    Raises:
        ApiError: It is not open.
    """
    if session["status"] != "open":
        raise invalid_request(
            'Only Checkout Sessions with a status in ["open"] can be expired. This Checkout '
            f"Session has a status of `{session['status']}`."
        )
    books.store.forget_settlement(session["id"])
    if session["payment_intent"] is not None:
        intent = books.get("payment_intent", session["payment_intent"], param="payment_intent")
        intents.give_up(intent, "expired", books)
    if session["setup_intent"] is not None:
        setup = books.get("setup_intent", session["setup_intent"], param="setup_intent")
        setup_intents.cancel(setup, books)
    session |= {"status": "expired", "url": None}
    books.put(session)
    books.record("checkout.session.expired", session)
    return session


def expire_in_time(books: Books, session_id: str) -> JsonObject:
    """Close a page whose time has come."""
    return expired(books.get("checkout.session", session_id, param="session"), books)


def use(books: Books, session_id: str, reference: str) -> JsonObject:
    """The client pays with a payment method, or leaves it; returns the session.

    It stays open where the method was declined, or its holder must authenticate first.

    Args:
        books: Of the session's account.
        session_id: An open session.
        reference: A test payment method's name, or the id of one of the customer's.

    Raises:
        ApiError: There is no such session or method, or they do not go together.
    """
    session = _open(books, session_id)
    if session["customer"] is not None:
        books.get("customer", session["customer"], param="customer")
    method = usable(books, reference, session["customer"])
    if method["type"] not in session["payment_method_types"]:
        raise invalid_request(
            f"The payment method type provided: {method['type']} is not one of this Checkout "
            f"Session's: {', '.join(session['payment_method_types'])}.",
            param="payment_method",
        )
    if session["mode"] == "payment":
        intents.try_on_session(_intent(session, books), method, books)
    else:
        setup = books.get("setup_intent", session["setup_intent"], param="setup_intent")
        setup_intents.try_on_session(setup, method, books)
    return books.get("checkout.session", session_id, param="session")


def waits_for_holder(books: Books, session: JsonObject) -> bool:
    """Whether the card's holder must authenticate on the session's page."""
    intent = _intent_so_far(session, books)
    return intent is not None and intent["status"] == "requires_action"


def refusal(books: Books, session: JsonObject) -> str | None:
    """Why the last try on the session's page failed, for people."""
    intent = _intent_so_far(session, books) or {}
    error = intent.get("last_payment_error") or intent.get("last_setup_error") or {}
    return error.get("message")


def authenticate(books: Books, session_id: str, *, is_successful: bool) -> JsonObject:
    """The card's holder answers the bank on the page, or fails to; returns the session.

    Raises:
        ApiError: There is no such session that waits for that.
    """
    session = _open(books, session_id)
    if session["mode"] == "setup":
        setup_intents.authenticate(books, session["setup_intent"], is_successful=is_successful)
    elif session["payment_intent"] is not None:
        intents.authenticate_on_session(
            books, session["payment_intent"], is_successful=is_successful
        )
    else:
        raise invalid_request("This Checkout Session waits for no authentication.")
    return books.get("checkout.session", session_id, param="session")


def _expires_at(call: Call, books: Books) -> int:
    at: int = call.parameters.get("expires_at", books.created + LONGEST)
    if at < books.created + SHORTEST:
        raise invalid_request(
            "The `expires_at` timestamp must be at least 30 minutes from Checkout Session "
            "creation.",
            param="expires_at",
        )
    if at > books.created + LONGEST:
        raise invalid_request(
            "The `expires_at` timestamp must be less than 24 hours from Checkout Session creation.",
            param="expires_at",
        )
    return at


def _price(session: JsonObject, call: Call) -> str:
    """Take over the one thing that is paid; returns its name."""
    lines = call.parameters.get("line_items", [])
    if len(lines) != 1:
        raise invalid_request(
            "The sandbox takes one line item in `payment` mode.", param="line_items"
        )
    (line,) = lines
    price = line.get("price_data")
    if price is None or "product_data" not in price or "unit_amount" not in price:
        raise invalid_request(
            "The sandbox takes a line item with price_data, its product_data and unit_amount.",
            param="line_items[0][price_data]",
        )
    if line.get("quantity") != 1:
        raise invalid_request(
            "The sandbox takes a line item of quantity 1.", param="line_items[0][quantity]"
        )
    currency = check_currency(price["currency"])
    check_amount(price["unit_amount"], currency)
    session |= {
        "amount_subtotal": price["unit_amount"],
        "amount_total": price["unit_amount"],
        "currency": currency,
        "payment_method_types": _method_types(call, currency),
    }
    name: str = price["product_data"]["name"]
    return name


def _check_setup(session: JsonObject, call: Call) -> None:
    given = call.parameters
    if "line_items" in given:
        raise invalid_request("You can not pass `line_items` in `setup` mode.", param="line_items")
    if "currency" not in given and "allowed_payment_method_types" not in given:
        raise invalid_request(
            "You must provide `currency` in `setup` mode without `allowed_payment_method_types`.",
            code="parameter_missing",
            param="currency",
        )
    currency = check_currency(given["currency"]) if "currency" in given else None
    session |= {"currency": currency, "payment_method_types": _method_types(call, currency)}


def _method_types(call: Call, currency: str | None) -> list[str]:
    usual = [CARD, BANK_ACCOUNT] if currency == "usd" else [CARD]
    types: list[str] = call.parameters.get("allowed_payment_method_types", usual)
    return types


def _open(books: Books, session_id: str) -> JsonObject:
    session = books.get("checkout.session", session_id, param="session")
    if session["status"] != "open":
        raise invalid_request(f"This Checkout Session has a status of `{session['status']}`.")
    return session


def _intent(session: JsonObject, books: Books) -> JsonObject:
    """The session's payment intent, made when the client tries to pay for the first time."""
    if session["payment_intent"] is None:
        given = books.hidden(session["id"])["payment_intent_data"]
        intent = intents.made_for_session(books, session, given)
        session["payment_intent"] = intent["id"]
        books.put(session)
    return books.get("payment_intent", session["payment_intent"], param="payment_intent")


def _intent_so_far(session: JsonObject, books: Books) -> JsonObject | None:
    for kind in ("payment_intent", "setup_intent"):
        if session[kind] is not None:
            return books.get(kind, session[kind], param=kind)
    return None
