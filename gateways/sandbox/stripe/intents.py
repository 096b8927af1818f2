"""Payment intents: created, confirmed, settled, cancelled."""

from collections.abc import Iterator
from contextlib import contextmanager

from gateways.sandbox.stripe import disputes, objects
from gateways.sandbox.stripe.amounts import check_amount, check_currency
from gateways.sandbox.stripe.behaviours import (
    AUTHENTICATION_FAILED,
    AUTHENTICATION_REQUIRED,
    BANK_ACCOUNT,
    BANK_FAILURES,
    CARD,
    Failure,
)
from gateways.sandbox.stripe.books import Books, Call, new_id
from gateways.sandbox.stripe.errors import DOCUMENTATION, ApiError, JsonObject, invalid_request
from gateways.sandbox.stripe.payment_methods import attached, behaviour_of, usable
from gateways.sandbox.stripe.session_outcomes import follow, session_of

_CONFIRMABLE = ("requires_payment_method", "requires_confirmation", "requires_action")
_COPIED = (
    "capture_method", "confirmation_method", "customer", "description", "receipt_email",
    "setup_future_usage", "statement_descriptor", "statement_descriptor_suffix",
)  # fmt: skip
_REDIRECTS = (
    "This PaymentIntent is configured to accept payment methods enabled in your Dashboard. Because "
    "some of these payment methods might redirect your customer off of your page, you must provide "
    "a `return_url`. If you don't want to accept redirect-based payment methods, set "
    "`automatic_payment_methods[enabled]` to `true` and "
    "`automatic_payment_methods[allow_redirects]` to `never` when creating Setup Intents and "
    "Payment Intents."
)
_NO_METHOD = (
    "You cannot confirm this PaymentIntent because it's missing a payment method. You can either "
    "update the PaymentIntent with a payment method and then confirm it again, or confirm it again "
    "directly with a payment method or ConfirmationToken."
)


def create(call: Call, books: Books) -> JsonObject:
    """A new intent; with ``confirm`` the money is tried at once."""
    given = call.parameters
    currency = check_currency(given["currency"])
    check_amount(given["amount"], currency)
    for name in ("off_session", "error_on_requires_action", "mandate_data", "return_url"):
        if name in given and not given.get("confirm"):
            raise invalid_request(
                f"You cannot set '{name}' without also setting 'confirm' to true.", param=name
            )
    if "customer" in given:
        books.get("customer", given["customer"], param="customer")
    intent = objects.payment_intent(books, amount=given["amount"], currency=currency)
    intent.update({name: given[name] for name in _COPIED if name in given})
    intent["metadata"] = objects.updated_metadata({}, given.get("metadata", {}))
    if "automatic_payment_methods" in given:
        intent["automatic_payment_methods"] |= given["automatic_payment_methods"]
    if "payment_method" in given:
        intent["payment_method"] = usable(books, given["payment_method"], intent["customer"])["id"]
        intent["status"] = "requires_confirmation"
    books.put(intent)
    books.record("payment_intent.created", intent)
    return _confirm(intent, call, books) if given.get("confirm") else intent


def retrieve(call: Call, books: Books) -> JsonObject:
    """An intent."""
    return books.get("payment_intent", call.ids["intent"], param="intent", in_path=True)


def update(call: Call, books: Books) -> JsonObject:
    """Change what is given, before the money moved."""
    intent = retrieve(call, books)
    given = call.parameters
    money_matters = given.keys() & {"amount", "customer", "payment_method"}
    if money_matters and intent["status"] not in _CONFIRMABLE:
        raise _wrong_state(intent, "update", _CONFIRMABLE)
    if "amount" in given:
        check_amount(given["amount"], intent["currency"])
        intent["amount"] = given["amount"]
    if "customer" in given:
        books.get("customer", given["customer"], param="customer")
    intent.update({name: given[name] for name in _COPIED if name in given})
    if "metadata" in given:
        intent["metadata"] = objects.updated_metadata(intent["metadata"], given["metadata"])
    if "payment_method" in given:
        intent["payment_method"] = usable(books, given["payment_method"], intent["customer"])["id"]
        intent["status"] = "requires_confirmation"
        intent["next_action"] = None
    return books.put(intent)


def confirm(call: Call, books: Books) -> JsonObject:
    """Try the money."""
    intent = retrieve(call, books)
    _check_no_session_has_it(intent, "confirm", books)
    if intent["status"] not in _CONFIRMABLE:
        raise _wrong_state(intent, "confirm", _CONFIRMABLE)
    given = call.parameters
    for name in ("receipt_email", "setup_future_usage"):
        if name in given:
            intent[name] = given[name]
    if "payment_method" in given:
        intent["payment_method"] = usable(books, given["payment_method"], intent["customer"])["id"]
    elif intent["payment_method"]:
        usable(books, intent["payment_method"], intent["customer"])
    return _confirm(intent, call, books)


def cancel(call: Call, books: Books) -> JsonObject:
    """Give the intent up. A debit that is being settled can no longer be."""
    intent = retrieve(call, books)
    _check_no_session_has_it(intent, "cancel", books)
    if intent["status"] == "processing" and _never_settles(intent, books):
        paid = books.get("charge", intent["latest_charge"], param="charge")
        _fail_charge(paid, Failure("canceled", "canceled", "The payment was canceled."), books)
    elif intent["status"] not in _CONFIRMABLE:
        raise _wrong_state(intent, "cancel", _CONFIRMABLE)
    return give_up(intent, call.parameters.get("cancellation_reason"), books)


def give_up(intent: JsonObject, reason: str | None, books: Books) -> JsonObject:
    """The intent, cancelled."""
    intent |= {
        "status": "canceled",
        "canceled_at": books.created,
        "cancellation_reason": reason,
        "next_action": None,
    }
    books.put(intent)
    books.record("payment_intent.canceled", intent)
    return intent


def made_for_session(books: Books, session: JsonObject, given: JsonObject) -> JsonObject:
    """A new intent that only its checkout session's page can use.

    Args:
        books: Of the session's account.
        session: Whose it is.
        given: The session's ``payment_intent_data``.
    """
    intent = objects.payment_intent(
        books, amount=session["amount_total"], currency=session["currency"]
    )
    intent.update({name: given[name] for name in _COPIED if name in given})
    intent["customer"] = session["customer"]
    intent["metadata"] = objects.updated_metadata({}, given.get("metadata", {}))
    intent["automatic_payment_methods"] = None
    intent["payment_method_types"] = session["payment_method_types"]
    books.put(intent, session=session["id"])
    books.record("payment_intent.created", intent)
    return intent


def try_on_session(intent: JsonObject, method: JsonObject, books: Books) -> JsonObject:
    """The client, present, pays with a method; returns the intent, also of one declined."""
    intent["payment_method"] = method["id"]
    with _declines_as_states():
        _confirm(intent, Call({}, {}, ""), books)
    return intent


def authenticate_on_session(books: Books, intent_id: str, *, is_successful: bool) -> None:
    """The same as ``authenticate``; a card that is declined after it is no failure."""
    with _declines_as_states():
        authenticate(books, intent_id, is_successful=is_successful)


def settle(books: Books, intent_id: str, *, failure_code: str | None = None) -> JsonObject:
    """A bank debit comes to its end, and its events go out.

    Args:
        books: Of the intent's account.
        intent_id: An intent that is ``processing``.
        failure_code: Why the bank returned it, a key of ``BANK_FAILURES``; paid when ``None``.

    Raises:
        ApiError: There is no such intent, or it is not processing.
    """
    intent = books.get("payment_intent", intent_id, param="payment_intent")
    if intent["status"] != "processing":
        raise _wrong_state(intent, "settle", ("processing",))
    books.store.forget_settlement(intent_id)
    paid = books.get("charge", intent["latest_charge"], param="charge")
    method = books.get("payment_method", intent["payment_method"], param="payment_method")
    if failure_code is None:
        _succeed(intent, paid, method, books)
    else:
        _fail(intent, paid, method, BANK_FAILURES[failure_code], books)
    return intent


def settle_as_it_will(books: Books, intent_id: str) -> JsonObject:
    """The end that the bank account's behaviour says."""
    intent = books.get("payment_intent", intent_id, param="payment_intent")
    method = books.get("payment_method", intent["payment_method"], param="payment_method")
    failure = behaviour_of(books, method).failure
    return settle(books, intent_id, failure_code=failure.decline_code if failure else None)


def authenticate(books: Books, intent_id: str, *, is_successful: bool) -> JsonObject:
    """The cardholder answers the bank's question, or fails to; then the money is tried.

    Raises:
        ApiError: There is no such intent, or it waits for nobody.
    """
    intent = books.get("payment_intent", intent_id, param="payment_intent")
    if intent["status"] != "requires_action":
        raise _wrong_state(intent, "authenticate", ("requires_action",))
    method = books.get("payment_method", intent["payment_method"], param="payment_method")
    intent["next_action"] = None
    if not is_successful:
        _fail(intent, None, method, AUTHENTICATION_FAILED, books)
        return intent
    return _charge_card(intent, method, books)


def _confirm(intent: JsonObject, call: Call, books: Books) -> JsonObject:
    given = call.parameters
    if intent["payment_method"] is None:
        raise invalid_request(
            _NO_METHOD,
            code="payment_intent_unexpected_state",
            details={"payment_intent": intent},
        )
    automatic = intent["automatic_payment_methods"]
    may_redirect = (
        automatic is not None and automatic["enabled"] and automatic["allow_redirects"] == "always"
    )
    if may_redirect and not given.get("off_session") and "return_url" not in given:
        raise invalid_request(_REDIRECTS, details={"payment_intent": intent})
    method = books.get("payment_method", intent["payment_method"], param="payment_method")
    intent["last_payment_error"] = intent["next_action"] = None
    if method["type"] == BANK_ACCOUNT:
        return _debit_bank(intent, method, books)
    if behaviour_of(books, method).needs_authentication:
        if given.get("off_session") or given.get("error_on_requires_action"):
            raise _declined(intent, method, AUTHENTICATION_REQUIRED, books)
        return _wait_for_cardholder(intent, given.get("return_url"), books)
    return _charge_card(intent, method, books)


def _charge_card(intent: JsonObject, method: JsonObject, books: Books) -> JsonObject:
    failure = behaviour_of(books, method).failure
    if failure is not None:
        raise _declined(intent, method, failure, books)
    _succeed(intent, objects.charge(books, intent, method), method, books)
    return intent


def _debit_bank(intent: JsonObject, method: JsonObject, books: Books) -> JsonObject:
    if intent["currency"] != "usd":
        raise invalid_request(
            f"The payment method type provided: us_bank_account cannot be used with the currency "
            f"{intent['currency']}.",
            code="payment_intent_invalid_parameter",
            param="payment_method",
        )
    pending = books.put(objects.charge(books, intent, method))
    _use_up(intent, method, books)
    intent["status"] = "processing"
    intent["latest_charge"] = pending["id"]
    books.put(intent)
    books.record("charge.pending", pending)
    books.record("payment_intent.processing", intent)
    follow(books, intent)
    settle_after = books.settings.settle_after
    if settle_after is not None and not behaviour_of(books, method).never_settles:
        books.store.settle_at(intent["id"], books.now + settle_after)
    return intent


def _wait_for_cardholder(intent: JsonObject, return_url: str | None, books: Books) -> JsonObject:
    intent["status"] = "requires_action"
    intent["next_action"] = (
        objects.redirect(return_url)
        if return_url
        else {"type": "use_stripe_sdk", "use_stripe_sdk": {"type": "stripe_3ds2_fingerprint"}}
    )
    books.put(intent)
    books.record("payment_intent.requires_action", intent)
    return intent


def _succeed(intent: JsonObject, paid: JsonObject, method: JsonObject, books: Books) -> None:
    paid |= {
        "amount_captured": intent["amount"],
        "balance_transaction": new_id("txn"),
        "captured": True,
        "outcome": _outcome("approved_by_network", "authorized", None, "Payment complete."),
        "paid": True,
        "status": "succeeded",
    }
    books.put(paid)
    _use_up(intent, method, books)
    intent |= {
        "amount_received": intent["amount"],
        "latest_charge": paid["id"],
        "processing": None,
        "status": "succeeded",
    }
    books.put(intent)
    books.record("charge.succeeded", paid)
    books.record("payment_intent.succeeded", intent)
    follow(books, intent)
    disputes.create_as_behaved(books, paid, behaviour_of(books, method))


def _use_up(intent: JsonObject, method: JsonObject, books: Books) -> None:
    """A method of nobody's pays once, unless the payment makes it the customer's."""
    if method["customer"] is not None:
        return
    if intent["setup_future_usage"] and intent["customer"]:
        attached(books, method, intent["customer"])
    else:
        books.put(method, used=True)


def _declined(intent: JsonObject, method: JsonObject, failure: Failure, books: Books) -> ApiError:
    """The answer to a card that was declined; the intent and its failed charge stay."""
    _fail(intent, objects.charge(books, intent, method), method, failure, books)
    error: JsonObject = intent["last_payment_error"]
    return ApiError(
        402,
        "card_error",
        failure.message,
        code=failure.code,
        details={
            "charge": error.get("charge"),
            "decline_code": failure.decline_code,
            "payment_intent": intent,
            "payment_method": method,
        },
        keeps_effects=True,
    )


def _fail(
    intent: JsonObject,
    tried: JsonObject | None,
    method: JsonObject,
    failure: Failure,
    books: Books,
) -> None:
    is_card = method["type"] == CARD
    error = {
        "type": "card_error" if is_card else "invalid_request_error",
        "code": failure.code,
        "doc_url": DOCUMENTATION + failure.code.replace("_", "-"),
        "message": failure.message,
        "payment_method": method,
    }
    if tried is not None:
        _fail_charge(tried, failure, books)
        error["charge"] = intent["latest_charge"] = tried["id"]
    if is_card and failure.decline_code:  # Of a returned debit, only the charge says why.
        error["decline_code"] = failure.decline_code
    intent |= {
        "last_payment_error": error,
        "payment_method": None,
        "processing": None,
        "status": "requires_payment_method",
    }
    books.put(intent)
    books.record("payment_intent.payment_failed", intent)
    follow(books, intent)


def _fail_charge(tried: JsonObject, failure: Failure, books: Books) -> None:
    is_card = tried["payment_method_details"]["type"] == CARD
    tried |= {
        "failure_code": failure.code if is_card else failure.decline_code,
        "failure_message": failure.message,
        "outcome": _outcome(
            "declined_by_network",
            "issuer_declined",
            failure.decline_code or failure.code,
            "The bank did not return any further details with this decline.",
        ),
        "status": "failed",
    }
    books.put(tried)
    books.record("charge.failed", tried)


def _outcome(status: str, kind: str, reason: str | None, message: str) -> JsonObject:
    return {
        "advice_code": None,
        "network_advice_code": None,
        "network_decline_code": None,
        "network_status": status,
        "reason": reason,
        "seller_message": message,
        "type": kind,
    }


def _never_settles(intent: JsonObject, books: Books) -> bool:
    method = books.get("payment_method", intent["payment_method"], param="payment_method")
    return behaviour_of(books, method).never_settles


@contextmanager
def _declines_as_states() -> Iterator[None]:
    """Around a try on a page: what the intent says of a decline is enough."""
    try:
        yield
    except ApiError as error:
        if not error.keeps_effects:
            raise


def _check_no_session_has_it(intent: JsonObject, action: str, books: Books) -> None:
    if session_of(books, intent) is not None:
        raise invalid_request(
            f"You cannot {action} the PaymentIntent created by a Checkout Session."
            + (" Expire the Checkout Session instead." if action == "cancel" else "")
        )


def _wrong_state(intent: JsonObject, action: str, allowed: tuple[str, ...]) -> ApiError:
    reason = (
        "it has already succeeded after being previously confirmed."
        if action == "confirm" and intent["status"] == "succeeded"
        else f"it has a status of {intent['status']}. Only a PaymentIntent with one of the "
        f"following statuses may be {action}ed: {', '.join(allowed)}."
    )
    return invalid_request(
        f"You cannot {action} this PaymentIntent because {reason}",
        code="payment_intent_unexpected_state",
        details={"payment_intent": intent},
    )
