"""Disputes and refunds, read from what Stripe tells of them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from billing.card_amounts import from_stripe
from billing.errors import InvalidInput
from gateways.disputes import DisputeReport, DisputeStatus
from gateways.payment_events import RefundedCharge


def dispute_report(dispute: Mapping[str, Any]) -> DisputeReport | None:
    """How a dispute of Stripe's stands, if it is in one of the states of ``DisputeStatus``.

    ``None`` also where nothing is disputed, or our minor units cannot hold what is.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: It is no dispute.
    """
    if dispute["object"] != "dispute":
        raise ValueError(f"{dispute['object']} is no dispute")
    currency = str(dispute["currency"])
    if dispute["status"] not in {*DisputeStatus}:
        return None
    try:
        amount = from_stripe(int(dispute["amount"]), currency)
    except InvalidInput:
        return None
    if amount <= 0:
        return None
    due_by = (dispute.get("evidence_details") or {}).get("due_by")
    return DisputeReport(
        dispute=str(dispute["id"]),
        payment_intent=_id(dispute.get("payment_intent")),
        amount=amount,
        currency=currency,
        status=DisputeStatus(dispute["status"]),
        reason=str(dispute["reason"]),
        evidence_due_at=None if due_by is None else datetime.fromtimestamp(due_by, UTC),
        created_at=datetime.fromtimestamp(dispute["created"], UTC),
    )


def refunded_charge(charge: Mapping[str, Any]) -> RefundedCharge | None:
    """What was refunded of a charge of Stripe's, if it is a payment intent's.

    ``None`` also where our minor units cannot hold that.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: It is no charge.
    """
    if charge["object"] != "charge":
        raise ValueError(f"{charge['object']} is no charge")
    intent = _id(charge.get("payment_intent"))
    try:
        amount = from_stripe(int(charge["amount_refunded"]), str(charge["currency"]))
    except InvalidInput:
        return None
    return None if intent is None else RefundedCharge(payment_intent=intent, amount=amount)


def _id(reference: object) -> str | None:
    """The id of an object that may be shown whole."""
    match reference:
        case None:
            return None
        case Mapping():
            return str(reference["id"])
        case _:
            return str(reference)
