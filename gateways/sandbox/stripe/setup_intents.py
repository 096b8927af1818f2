"""Setup intents, as far as checkout sessions need them: a card is kept, and nothing is paid."""

from collections.abc import Mapping

from gateways.sandbox.stripe import objects
from gateways.sandbox.stripe.behaviours import AUTHENTICATION_FAILED, Failure
from gateways.sandbox.stripe.books import Books, Call
from gateways.sandbox.stripe.errors import DOCUMENTATION, ApiError, JsonObject, invalid_request
from gateways.sandbox.stripe.payment_methods import attached, behaviour_of
from gateways.sandbox.stripe.session_outcomes import follow

_AUTHENTICATION_FAILED = Failure(
    "setup_intent_authentication_failure", None, AUTHENTICATION_FAILED.message
)


def retrieve(call: Call, books: Books) -> JsonObject:
    """A setup intent."""
    return books.get("setup_intent", call.ids["intent"], param="intent", in_path=True)


def made_for_session(
    books: Books, session: JsonObject, metadata: Mapping[str, str] | None
) -> JsonObject:
    """A new setup intent that only its session's page can use."""
    intent = objects.setup_intent(books)
    intent |= {
        "customer": session["customer"],
        "metadata": objects.updated_metadata({}, dict(metadata or {})),
        "payment_method_types": session["payment_method_types"],
    }
    books.put(intent, session=session["id"])
    books.record("setup_intent.created", intent)
    return intent


def try_on_session(intent: JsonObject, method: JsonObject, books: Books) -> JsonObject:
    """The client, present, leaves a payment method; returns the intent, also of one refused."""
    intent |= {"last_setup_error": None, "next_action": None, "payment_method": method["id"]}
    if behaviour_of(books, method).needs_authentication:
        intent |= {"status": "requires_action", "next_action": objects.redirect(None)}
        books.put(intent)
        books.record("setup_intent.requires_action", intent)
        return intent
    return _keep(intent, method, books)


def authenticate(books: Books, intent_id: str, *, is_successful: bool) -> JsonObject:
    """The cardholder answers the bank's question, or fails to; then the card is kept, or not.

    Raises:
        ApiError: There is no such intent, or it waits for nobody.
    """
    intent = books.get("setup_intent", intent_id, param="setup_intent")
    if intent["status"] != "requires_action":
        raise invalid_request(f"This SetupIntent's status is {intent['status']}.")
    method = books.get("payment_method", intent["payment_method"], param="payment_method")
    intent["next_action"] = None
    if not is_successful:
        return _fail(intent, method, _AUTHENTICATION_FAILED, books)
    return _keep(intent, method, books)


def cancel(intent: JsonObject, books: Books) -> None:
    """Give it up with its session."""
    intent |= {"status": "canceled", "next_action": None}
    books.put(intent)
    books.record("setup_intent.canceled", intent)


def _keep(intent: JsonObject, method: JsonObject, books: Books) -> JsonObject:
    if intent["customer"] is not None:
        try:
            attached(books, method, intent["customer"])
        except ApiError as error:
            failure = behaviour_of(books, method).failure
            if error.status != 402 or failure is None:
                raise
            return _fail(intent, method, failure, books)
    intent["status"] = "succeeded"
    books.put(intent)
    books.record("setup_intent.succeeded", intent)
    follow(books, intent)
    return intent


def _fail(intent: JsonObject, method: JsonObject, failure: Failure, books: Books) -> JsonObject:
    error = {
        "type": "card_error",
        "code": failure.code,
        "doc_url": DOCUMENTATION + failure.code.replace("_", "-"),
        "message": failure.message,
        "payment_method": method,
    }
    if failure.decline_code:
        error["decline_code"] = failure.decline_code
    intent |= {
        "last_setup_error": error,
        "payment_method": None,
        "status": "requires_payment_method",
    }
    books.put(intent)
    books.record("setup_intent.setup_failed", intent)
    return intent
