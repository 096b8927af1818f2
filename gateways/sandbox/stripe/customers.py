"""Customers: whom payment methods belong to."""

from gateways.sandbox.stripe import objects
from gateways.sandbox.stripe.books import Books, Call
from gateways.sandbox.stripe.errors import JsonObject, no_such
from gateways.sandbox.stripe.payment_methods import attached, detached, found

_PLAIN = ("description", "email", "name", "phone", "preferred_locales")


def create(call: Call, books: Books) -> JsonObject:
    """A new customer, with a payment method if one is given."""
    customer = objects.customer(books)
    books.put(customer)
    if "payment_method" in call.parameters:
        method = found(books, call.parameters["payment_method"], param="payment_method")
        attached(books, method, customer["id"])
    _write(customer, call, books)
    books.put(customer)
    books.record("customer.created", customer)
    return customer


def retrieve(call: Call, books: Books) -> JsonObject:
    """A customer, or that it was deleted."""
    return books.get("customer", call.ids["customer"], param="id", in_path=True, or_deleted=True)


def update(call: Call, books: Books) -> JsonObject:
    """Change what is given."""
    customer = books.get("customer", call.ids["customer"], param="id", in_path=True)
    before = {
        name: customer[name] for name in call.parameters if name in customer and name != "object"
    }
    _write(customer, call, books)
    books.put(customer)
    changed = {name: value for name, value in before.items() if customer[name] != value}
    books.record("customer.updated", customer, changed)
    return customer


def delete(call: Call, books: Books) -> JsonObject:
    """Forget a customer for good, and whose its payment methods were."""
    return deleted(books, call.ids["customer"])


def deleted(books: Books, customer_id: str) -> JsonObject:
    """What is left of a customer.

    Raises:
        ApiError: There is none, or none any more.
    """
    customer = books.get("customer", customer_id, param="id", in_path=True)
    owned = books.store.select(
        "payment_method", account=books.account, filters={"customer": customer_id}
    )
    for stored in owned:
        detached(books, stored.body)
    left = books.put({"id": customer_id, "object": "customer", "deleted": True})
    books.record("customer.deleted", customer)
    return left


def _write(customer: JsonObject, call: Call, books: Books) -> None:
    given = call.parameters
    customer.update({name: given[name] for name in _PLAIN if name in given})
    if "address" in given:
        customer["address"] = objects.address(given["address"])
    if "metadata" in given:
        customer["metadata"] = objects.updated_metadata(customer["metadata"], given["metadata"])
    if "default_payment_method" in given.get("invoice_settings", {}):
        customer["invoice_settings"] = {
            **customer["invoice_settings"],
            "default_payment_method": _default(customer, call, books),
        }


def _default(customer: JsonObject, call: Call, books: Books) -> str | None:
    reference: str | None = call.parameters["invoice_settings"]["default_payment_method"]
    if reference is None:
        return None
    param = "invoice_settings[default_payment_method]"
    method = books.get("payment_method", reference, param=param)
    if method["customer"] != customer["id"]:
        raise no_such("PaymentMethod", reference, param, in_path=False)
    return reference
