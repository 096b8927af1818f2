"""Refunds: full or in parts, never more than was charged."""

from gateways.sandbox.stripe import disputes, objects
from gateways.sandbox.stripe.amounts import money
from gateways.sandbox.stripe.behaviours import BANK_ACCOUNT
from gateways.sandbox.stripe.books import Books, Call
from gateways.sandbox.stripe.errors import JsonObject, invalid_request
from gateways.sandbox.stripe.payment_methods import behaviour_of


def create(call: Call, books: Books) -> JsonObject:
    """Send back all that is left of a charge, or a part of it."""
    given = call.parameters
    paid = _charge(call, books)
    disputes.require_refundable(books, paid)
    left = paid["amount"] - paid["amount_refunded"]
    if left == 0:
        raise invalid_request(
            f"Charge {paid['id']} has already been refunded.", code="charge_already_refunded"
        )
    amount = given.get("amount", left)
    if amount < 1:
        raise invalid_request(
            "This value must be greater than or equal to 1.",
            code="parameter_invalid_integer",
            param="amount",
        )
    if amount > left:
        raise invalid_request(
            f"Refund amount ({money(amount, paid['currency'])}) is greater than unrefunded amount "
            f"on charge ({money(left, paid['currency'])})",
            param="amount",
        )
    refund = objects.refund(books, paid, amount=amount)
    refund["reason"] = given.get("reason")
    refund["metadata"] = objects.updated_metadata({}, given.get("metadata", {}))
    fate = _fate(paid, books)
    if fate == "pending":
        refund |= {"status": "pending", "pending_reason": "processing"}
    books.put(refund)
    paid["amount_refunded"] += amount
    paid["refunded"] = paid["amount_refunded"] == paid["amount"]
    books.put(paid)
    books.record("charge.refunded", paid)
    books.record("refund.created", refund)
    if fate != "succeeded" and books.settings.settle_after is not None:
        books.store.settle_at(refund["id"], books.now + books.settings.settle_after)
    return refund


def retrieve(call: Call, books: Books) -> JsonObject:
    """A refund."""
    return books.get("refund", call.ids["refund"], param="id", in_path=True)


def settle(books: Books, refund_id: str, *, is_successful: bool) -> JsonObject:
    """A refund comes to its end; one that fails gives the charge its amount back.

    Raises:
        ApiError: There is no such refund, or it has failed already.
    """
    refund = books.get("refund", refund_id, param="refund")
    if refund["status"] == "failed":
        raise invalid_request(f"Refund {refund_id} has failed already.")
    books.store.forget_settlement(refund_id)
    refund.pop("pending_reason", None)
    if is_successful:
        refund["status"] = "succeeded"
    else:
        refund |= {"status": "failed", "failure_reason": "expired_or_canceled_card"}
        paid = books.get("charge", refund["charge"], param="charge")
        paid["amount_refunded"] -= refund["amount"]
        paid["refunded"] = False
        books.put(paid)
    books.put(refund)
    books.record("refund.updated", refund)
    books.record("charge.refund.updated", refund)
    if not is_successful:
        books.record("refund.failed", refund)
    return refund


def settle_as_it_will(books: Books, refund_id: str) -> JsonObject:
    """The end that the payment method's behaviour says."""
    refund = books.get("refund", refund_id, param="refund")
    paid = books.get("charge", refund["charge"], param="charge")
    return settle(books, refund_id, is_successful=_fate(paid, books) != "failed")


def _fate(paid: JsonObject, books: Books) -> str:
    method = books.get("payment_method", paid["payment_method"], param="payment_method")
    if method["type"] == BANK_ACCOUNT:
        return "pending"
    return behaviour_of(books, method).refund


def _charge(call: Call, books: Books) -> JsonObject:
    given = call.parameters
    if "charge" in given:
        paid = books.get("charge", given["charge"], param="charge")
        if given.get("payment_intent", paid["payment_intent"]) != paid["payment_intent"]:
            raise invalid_request("The charge is not one of the PaymentIntent's.", param="charge")
    elif "payment_intent" in given:
        intent = books.get("payment_intent", given["payment_intent"], param="payment_intent")
        if intent["status"] != "succeeded":
            raise invalid_request(
                f"This PaymentIntent ({intent['id']}) does not have a successful charge to refund.",
                param="payment_intent",
            )
        paid = books.get("charge", intent["latest_charge"], param="charge")
    else:
        raise invalid_request(
            "One of the following params should be provided for this request: payment_intent or "
            "charge.",
            code="parameter_missing",
            param="payment_intent",
        )
    if paid["status"] != "succeeded":
        raise invalid_request(f"Charge {paid['id']} has not succeeded.", param="charge")
    return paid
