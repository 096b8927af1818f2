"""Disputes: the bank asks about a charge, or takes it back; then it is won, lost or accepted."""

from gateways.sandbox.stripe import objects
from gateways.sandbox.stripe.behaviours import Behaviour
from gateways.sandbox.stripe.books import Books, Call
from gateways.sandbox.stripe.errors import JsonObject, invalid_request

EVIDENCE_SECONDS = 9 * 24 * 3600
REASONS = (
    "bank_cannot_process", "check_returned", "credit_not_processed", "customer_initiated",
    "debit_not_authorized", "duplicate", "fraudulent", "general", "incorrect_account_details",
    "insufficient_funds", "noncompliant", "product_not_received", "product_unacceptable",
    "subscription_canceled", "unrecognized",
)  # fmt: skip

_INQUIRIES = ("warning_needs_response", "warning_under_review")
_OPEN = ("needs_response", "under_review")
_CHARGED_BACK = frozenset({*_OPEN, "lost"})


def create(
    books: Books,
    paid: JsonObject,
    *,
    reason: str = "fraudulent",
    amount: int | None = None,
    is_inquiry: bool = False,
) -> JsonObject:
    """The client questions a charge at its bank, all that was not refunded or a part.

    Raises:
        ApiError: There is nothing to question, or not so much, or not for that reason.
    """
    if not paid["paid"]:
        raise invalid_request(f"Charge {paid['id']} has not succeeded.")
    if reason not in REASONS:
        raise invalid_request(f"reason must be one of {', '.join(REASONS)}")
    most = paid["amount"] - paid["amount_refunded"]
    disputed = most if amount is None else amount
    if not 0 < disputed <= paid["amount"]:
        raise invalid_request(f"Charge {paid['id']} has {most} to dispute.")
    paid["disputed"] = True
    books.put(paid)
    dispute = objects.dispute(books, paid, amount=disputed, reason=reason)
    dispute["evidence_details"]["due_by"] = books.created + EVIDENCE_SECONDS
    if is_inquiry:
        dispute["status"] = _INQUIRIES[0]
        dispute["is_charge_refundable"] = True
        if "card" in dispute["payment_method_details"]:
            dispute["payment_method_details"]["card"]["case_type"] = "inquiry"
        books.put(dispute)
        books.record("charge.dispute.created", dispute)
        return dispute
    _withdraw(dispute, books)
    books.put(dispute)
    books.record("charge.dispute.created", dispute)
    books.record("charge.dispute.funds_withdrawn", dispute)
    return dispute


def create_as_behaved(books: Books, paid: JsonObject, behaviour: Behaviour) -> None:
    """What a test card has its payments end in, if it does."""
    if behaviour.dispute is not None:
        is_inquiry = behaviour.dispute == "inquiry"
        create(books, paid, reason="general" if is_inquiry else "fraudulent", is_inquiry=is_inquiry)


def retrieve(call: Call, books: Books) -> JsonObject:
    """A dispute."""
    return books.get("dispute", call.ids["dispute"], param="id", in_path=True)


def accept(call: Call, books: Books) -> JsonObject:
    """Give it up: it is lost."""
    dispute = retrieve(call, books)
    if dispute["status"] not in _OPEN:
        raise invalid_request("This dispute is already closed.")
    return end(books, dispute["id"], "lost")


def escalate(books: Books, dispute_id: str) -> JsonObject:
    """An inquiry becomes a dispute: the bank takes the money.

    Raises:
        ApiError: There is no such inquiry, or it is none any more.
    """
    dispute = books.get("dispute", dispute_id, param="dispute")
    if dispute["status"] not in _INQUIRIES:
        raise invalid_request(f"Dispute {dispute_id} is {dispute['status']}.")
    dispute |= {"status": _OPEN[0], "is_charge_refundable": False}
    if "card" in dispute["payment_method_details"]:
        dispute["payment_method_details"]["card"]["case_type"] = "chargeback"
    _withdraw(dispute, books)
    books.put(dispute)
    books.record("charge.dispute.updated", dispute)
    books.record("charge.dispute.funds_withdrawn", dispute)
    return dispute


def end(books: Books, dispute_id: str, outcome: str) -> JsonObject:
    """The bank's last word: ``won`` or ``lost``, or ``warning_closed`` of an inquiry.

    Raises:
        ApiError: There is no such dispute, or it cannot end so.
    """
    dispute = books.get("dispute", dispute_id, param="dispute")
    ends_as: tuple[str, ...] = ("won", "lost") if dispute["status"] in _OPEN else ()
    if dispute["status"] in _INQUIRIES:
        ends_as = ("warning_closed",)
    if outcome not in ends_as:
        raise invalid_request(f"Dispute {dispute_id} is {dispute['status']}: not {outcome} yet.")
    dispute["status"] = outcome
    dispute["evidence_details"]["past_due"] = outcome == "lost"
    dispute["is_charge_refundable"] = outcome != "lost"
    if outcome == "won":
        entry = objects.balance_transaction(books, dispute, dispute["amount"], fee=0)
        dispute["balance_transactions"].append(entry)
    books.put(dispute)
    books.record("charge.dispute.closed", dispute)
    if outcome == "won":
        books.record("charge.dispute.funds_reinstated", dispute)
    return dispute


def require_refundable(books: Books, paid: JsonObject) -> None:
    """Check that the bank has not taken a charge back.

    Raises:
        ApiError: It has (``charge_disputed``).
    """
    if not paid["disputed"]:
        return
    disputes = books.store.select("dispute", account=books.account, filters={"charge": paid["id"]})
    if any(one.body["status"] in _CHARGED_BACK for one in disputes):
        raise invalid_request(
            f"Charge {paid['id']} has been charged back; cannot issue a refund.",
            code="charge_disputed",
        )


def _withdraw(dispute: JsonObject, books: Books) -> None:
    entry = objects.balance_transaction(books, dispute, -dispute["amount"])
    dispute["balance_transactions"].append(entry)


def charge_of(books: Books, reference: str) -> JsonObject:
    """The charge of that id, or that of a payment intent.

    Raises:
        ApiError: There is none.
    """
    if reference.startswith("pi_"):
        intent = books.get("payment_intent", reference, param="charge")
        reference = str(intent["latest_charge"])
    return books.get("charge", reference, param="charge")
