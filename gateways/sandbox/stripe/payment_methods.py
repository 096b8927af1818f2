"""Cards and bank accounts: test ones become somebody's, and are never used twice by nobody."""

from gateways.sandbox.stripe import objects
from gateways.sandbox.stripe.behaviours import (
    CARD,
    REFUSED_AT_ATTACHING,
    TEST_PAYMENT_METHODS,
    Behaviour,
)
from gateways.sandbox.stripe.books import Books, Call
from gateways.sandbox.stripe.errors import ApiError, JsonObject, invalid_request

_USED = (
    "The provided PaymentMethod was previously used with a PaymentIntent without Customer "
    "attachment, shared with a connected account without Customer attachment, or was detached "
    "from a Customer. It may not be used again. To use a PaymentMethod multiple times, you must "
    "attach it to a Customer first."
)


def retrieve(call: Call, books: Books) -> JsonObject:
    """A payment method; a test one's name makes a new one."""
    return found(books, call.ids["payment_method"], param="payment_method", in_path=True)


def attach(call: Call, books: Books) -> JsonObject:
    """Make it a customer's."""
    method = found(books, call.ids["payment_method"], param="payment_method", in_path=True)
    return attached(books, method, call.parameters["customer"])


def detach(call: Call, books: Books) -> JsonObject:
    """Make it nobody's, for good."""
    method = books.get(
        "payment_method", call.ids["payment_method"], param="payment_method", in_path=True
    )
    owner = method["customer"]
    if owner is None:
        raise invalid_request(
            "The payment method you provided is not attached to a customer so detachment is "
            "impossible.",
            param="payment_method",
        )
    customer = books.get("customer", owner, param="customer")
    if customer["invoice_settings"]["default_payment_method"] == method["id"]:
        customer["invoice_settings"]["default_payment_method"] = None
        books.put(customer)
        books.record("customer.updated", customer)
    return detached(books, method)


def update(call: Call, books: Books) -> JsonObject:
    """Change what is given, of a customer's method."""
    method = books.get(
        "payment_method", call.ids["payment_method"], param="payment_method", in_path=True
    )
    if method["customer"] is None:
        raise invalid_request(
            "You must save this PaymentMethod to a customer before you can update it.",
            param="payment_method",
        )
    given = call.parameters
    if "card" in given and method["type"] != CARD:
        raise invalid_request("This PaymentMethod is no card.", param="card")
    metadata = given.get("metadata", {})
    return _changed(
        books,
        method,
        "payment_method.updated",
        metadata=objects.updated_metadata(method["metadata"], metadata),
        **{CARD: method[CARD] | given["card"]} if "card" in given else {},
    )


def updated_by_network(books: Books, method_id: str, changes: JsonObject) -> JsonObject:
    """The card as its bank's renewal made it: a new month, year or number.

    Raises:
        ApiError: There is no such card.
    """
    method = books.get("payment_method", method_id, param="payment_method")
    if method["type"] != CARD:
        raise invalid_request("This PaymentMethod is no card.", param="payment_method")
    event = "payment_method.automatically_updated"
    return _changed(books, method, event, **{CARD: method[CARD] | changes})


def detached(books: Books, method: JsonObject) -> JsonObject:
    """The method, now nobody's for good."""
    owner, method["customer"] = method["customer"], None
    books.put(method, used=True)
    books.record("payment_method.detached", method, {"customer": owner})
    return method


def found(books: Books, reference: str, *, param: str, in_path: bool = False) -> JsonObject:
    """The payment method of that id, or a new one of that test name.

    Raises:
        ApiError: There is none.
    """
    behaviour = TEST_PAYMENT_METHODS.get(reference)
    if behaviour is None:
        return books.get("payment_method", reference, param=param, in_path=in_path)
    return books.put(
        objects.payment_method(books, reference, behaviour), behaves_as=reference, used=False
    )


def behaviour_of(books: Books, method: JsonObject) -> Behaviour:
    """What becomes of a payment with it."""
    return TEST_PAYMENT_METHODS[books.hidden(method["id"])["behaves_as"]]


def attached(books: Books, method: JsonObject, customer_id: str) -> JsonObject:
    """The method, now the customer's.

    Raises:
        ApiError: There is no such customer, the method is another's, or it may not be used again.
    """
    books.get("customer", customer_id, param="customer")
    if method["customer"] == customer_id:
        return method
    if method["customer"] is not None:
        raise invalid_request(
            "The payment method you provided has already been attached to a customer.",
            param="payment_method",
        )
    hidden = books.hidden(method["id"])
    if hidden["used"]:
        raise invalid_request(_USED, param="payment_method")
    if books.settings.refuse_declining_cards and hidden["behaves_as"] in REFUSED_AT_ATTACHING:
        raise _refused(behaviour_of(books, method))
    method["customer"] = customer_id
    books.put(method)
    books.record("payment_method.attached", method)
    return method


def usable(books: Books, reference: str, customer_id: str | None) -> JsonObject:
    """The method, if a payment of that customer may use it.

    Raises:
        ApiError: There is none, it is another's, or it may not be used again.
    """
    method = found(books, reference, param="payment_method")
    if method["customer"] is None:
        if books.hidden(method["id"])["used"]:
            raise invalid_request(_USED, param="payment_method")
    elif customer_id is None:
        raise invalid_request(
            f"The PaymentMethod supplied ({method['id']}) belongs to a Customer. Please include "
            "the Customer in the `customer` parameter on the PaymentIntent.",
            param="payment_method",
        )
    elif method["customer"] != customer_id:
        raise invalid_request(
            f"The PaymentMethod supplied ({method['id']}) belongs to the Customer "
            f"{method['customer']}. Please use this PaymentMethod with the Customer that it "
            "belongs to instead.",
            param="payment_method",
        )
    return method


def _changed(books: Books, method: JsonObject, event: str, **changes: JsonObject) -> JsonObject:
    before = {
        name: (
            {key: old for key, old in method[name].items() if old != value[key]}
            if name == CARD
            else method[name]
        )
        for name, value in changes.items()
        if method[name] != value
    }
    method |= changes
    books.put(method)
    books.record(event, method, before)
    return method


def _refused(behaviour: Behaviour) -> ApiError:
    failure = behaviour.failure
    assert failure is not None, "only cards that decline are refused"  # noqa: S101 - our own table.
    return ApiError(
        402,
        "card_error",
        failure.message,
        code=failure.code,
        details={"decline_code": failure.decline_code},
    )
