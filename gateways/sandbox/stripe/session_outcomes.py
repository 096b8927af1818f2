"""What becomes of a checkout session when its payment, or its card, comes to something."""

from gateways.sandbox.stripe.books import Books
from gateways.sandbox.stripe.errors import JsonObject


def session_of(books: Books, intent: JsonObject) -> str | None:
    """The session that an intent was made by."""
    found: str | None = books.hidden(intent["id"]).get("session")
    return found


def follow(books: Books, intent: JsonObject) -> None:
    """Have the session of a payment or setup intent, if it has one, take the intent's new state.

    A failure leaves an open session open, for another try.
    """
    session_id = session_of(books, intent)
    if session_id is None:
        return
    session = books.get("checkout.session", session_id, param="session")
    if session["status"] == "open":
        if intent["status"] in {"succeeded", "processing"}:
            _complete(session, intent, books)
    elif session["status"] == "complete" and session["payment_status"] == "unpaid":
        _settle(session, intent, books)


def _complete(session: JsonObject, intent: JsonObject, books: Books) -> None:
    session |= {"status": "complete", "url": None}
    if session["mode"] == "payment" and intent["status"] == "succeeded":
        session["payment_status"] = "paid"
    books.store.forget_settlement(session["id"])
    books.put(session)
    books.record("checkout.session.completed", session)


def _settle(session: JsonObject, intent: JsonObject, books: Books) -> None:
    if intent["status"] == "succeeded":
        session["payment_status"] = "paid"
        books.put(session)
        books.record("checkout.session.async_payment_succeeded", session)
    else:
        books.record("checkout.session.async_payment_failed", session)
