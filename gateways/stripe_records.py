"""Stripe's record of money moved, behind the PaymentRecords protocol."""

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

import stripe

from billing.card_amounts import from_stripe
from billing.errors import InvalidInput
from gateways.cards import CardReport
from gateways.disputes import DisputeReport
from gateways.merchants import Merchant
from gateways.payment_records import Record, RecordedRefund, RecordPage, Window
from gateways.stripe_api import StripeApi, asking
from gateways.stripe_cards import WHY, card_report, refund_report
from gateways.stripe_disputes import dispute_report

PAGE = 100
PAGES_A_CALL = 10
"""What one call reads at most: a thousand records, ten requests."""


class StripeRecords:
    """Reads payments, refunds and disputes in the order in which Stripe lists them: newest first."""

    def __init__(self, api: StripeApi) -> None:
        self._api = api

    def payments(
        self, window: Window, merchant: Merchant, after: str | None
    ) -> RecordPage[CardReport]:
        """Payments of a window; see ``PaymentRecords``."""
        with asking():
            listed = self._api.at(merchant).payment_intents.list(_asked(window, after))
            return _page(listed, card_report)

    def refunds(
        self, window: Window, merchant: Merchant, after: str | None
    ) -> RecordPage[RecordedRefund]:
        """Refunds of a window; see ``PaymentRecords``."""
        with asking():
            listed = self._api.at(merchant).refunds.list(_asked(window, after))
            return _page(listed, _recorded_refund)

    def disputes(
        self, window: Window, merchant: Merchant, after: str | None
    ) -> RecordPage[DisputeReport]:
        """Disputes of a window; see ``PaymentRecords``."""
        with asking():
            return _page(
                self._api.at(merchant).disputes.list(_asked(window, after)), dispute_report
            )

    def payment(self, payment_intent: str, merchant: Merchant) -> CardReport | None:
        """One payment; see ``PaymentRecords``."""
        with asking():
            try:
                found = self._api.at(merchant).payment_intents.retrieve(
                    payment_intent, {"expand": [WHY]}
                )
            except stripe.InvalidRequestError as error:
                if error.code != "resource_missing":
                    raise
                return None
            return card_report(found.to_dict())

    def refund(self, refund: str, merchant: Merchant) -> RecordedRefund | None:
        """One refund; see ``PaymentRecords``."""
        with asking():
            try:
                found = self._api.at(merchant).refunds.retrieve(refund)
            except stripe.InvalidRequestError as error:
                if error.code != "resource_missing":
                    raise
                return None
            return _recorded_refund(found.to_dict())

    def dispute(self, dispute: str, merchant: Merchant) -> DisputeReport | None:
        """One dispute; see ``PaymentRecords``."""
        with asking():
            try:
                found = self._api.at(merchant).disputes.retrieve(dispute)
            except stripe.InvalidRequestError as error:
                if error.code != "resource_missing":
                    raise
                return None
            return dispute_report(found.to_dict())


def _asked(window: Window, after: str | None) -> Any:  # noqa: ANN401 - each list has its own type.
    # Stripe tells whole seconds: the one that is under way is of the window.
    created = {"gte": int(window.since.timestamp()), "lte": int(window.until.timestamp())}
    following = {} if after is None else {"starting_after": after}
    return {"created": created, "limit": PAGE, **following}


def _page(
    listed: Any,  # noqa: ANN401 - the SDK's list, of either.
    read: Callable[[Mapping[str, Any]], Record | None],
) -> RecordPage[Record]:
    most = PAGE * PAGES_A_CALL
    found = [one.to_dict() for one in islice(listed.auto_paging_iter(), most)]
    records = [record for one in found if (record := read(one)) is not None]
    return RecordPage(records, str(found[-1]["id"]) if len(found) == most else None)


def _recorded_refund(refund: Mapping[str, Any]) -> RecordedRefund | None:
    report = refund_report(refund)
    if report is None:
        return None
    currency = str(refund["currency"])
    try:
        amount = from_stripe(int(refund["amount"]), currency)
    except InvalidInput:
        # Of such an amount we have asked for none.
        return None
    intent = refund.get("payment_intent")
    return RecordedRefund(
        report=report,
        payment_intent=None if intent is None else str(intent),
        amount=amount,
        currency=currency,
    )
