"""New objects in Stripe's shape, with the members that the SDK and a careful reader look at."""

from gateways.sandbox.stripe.behaviours import CARD, Behaviour
from gateways.sandbox.stripe.books import Books, new_id
from gateways.sandbox.stripe.errors import JsonObject

_NO_ADDRESS = {
    "city": None, "country": None, "line1": None, "line2": None, "postal_code": None, "state": None,
}  # fmt: skip
EXPIRES = (12, 2034)
EXPIRED = (1, 2020)


def billing_details() -> JsonObject:
    """Nothing is known of the payer."""
    return {
        "address": dict(_NO_ADDRESS),
        "email": None,
        "name": None,
        "phone": None,
        "tax_id": None,
    }


def address(given: JsonObject | None) -> JsonObject | None:
    """A whole address of the members given."""
    return None if given is None else {**_NO_ADDRESS, **given}


def customer(books: Books) -> JsonObject:
    """A customer without a name."""
    return {
        "id": new_id("cus", 14),
        "object": "customer",
        "address": None,
        "balance": 0,
        "created": books.created,
        "currency": None,
        "default_source": None,
        "delinquent": False,
        "description": None,
        "discount": None,
        "email": None,
        "invoice_prefix": new_id("", 8)[1:].upper(),
        "invoice_settings": {
            "custom_fields": None,
            "default_payment_method": None,
            "footer": None,
            "rendering_options": None,
        },
        "livemode": False,
        "metadata": {},
        "name": None,
        "next_invoice_sequence": 1,
        "phone": None,
        "preferred_locales": [],
        "shipping": None,
        "tax_exempt": "none",
        "test_clock": None,
    }


def payment_method(books: Books, name: str, behaviour: Behaviour) -> JsonObject:
    """A card or bank account of nobody's yet."""
    return {
        "id": new_id("pm"),
        "object": "payment_method",
        "allow_redisplay": "unspecified",
        "billing_details": billing_details(),
        "created": books.created,
        "customer": None,
        "livemode": False,
        "metadata": {},
        "type": behaviour.type,
        behaviour.type: _card(name, behaviour) if behaviour.type == CARD else _bank(behaviour),
    }


def _card(name: str, behaviour: Behaviour) -> JsonObject:
    month, year = EXPIRED if "ExpiredCard" in name else EXPIRES
    return {
        "brand": behaviour.brand,
        "checks": {
            "address_line1_check": None,
            "address_postal_code_check": None,
            "cvc_check": "fail" if "IncorrectCvc" in name else "pass",
        },
        "country": "US",
        "display_brand": behaviour.brand,
        "exp_month": month,
        "exp_year": year,
        "fingerprint": f"sandbox{behaviour.brand}{behaviour.last4}",
        "funding": "debit" if name.endswith("debit") else "credit",
        "generated_from": None,
        "last4": behaviour.last4,
        "networks": {"available": [behaviour.brand], "preferred": None},
        "regulated_status": "unregulated",
        "three_d_secure_usage": {"supported": True},
        "wallet": None,
    }


def _bank(behaviour: Behaviour) -> JsonObject:
    return {
        "account_holder_type": "individual",
        "account_type": "checking",
        "bank_name": "STRIPE TEST BANK",
        "financial_connections_account": None,
        "fingerprint": f"sandboxbank{behaviour.last4}",
        "last4": behaviour.last4,
        "networks": {"preferred": "ach", "supported": ["ach"]},
        "routing_number": "110000000",
        "status_details": {},
    }


def payment_intent(books: Books, *, amount: int, currency: str) -> JsonObject:
    """An intent that nothing was tried for."""
    intent_id = new_id("pi")
    return {
        "id": intent_id,
        "object": "payment_intent",
        "amount": amount,
        "amount_capturable": 0,
        "amount_details": {"tip": {}},
        "amount_received": 0,
        "application": None,
        "application_fee_amount": None,
        "automatic_payment_methods": {"allow_redirects": "always", "enabled": True},
        "canceled_at": None,
        "cancellation_reason": None,
        "capture_method": "automatic_async",
        "client_secret": f"{intent_id}_{new_id('secret')}",
        "confirmation_method": "automatic",
        "created": books.created,
        "currency": currency,
        "customer": None,
        "description": None,
        "last_payment_error": None,
        "latest_charge": None,
        "livemode": False,
        "metadata": {},
        "next_action": None,
        "on_behalf_of": None,
        "payment_method": None,
        "payment_method_configuration_details": None,
        "payment_method_options": {},
        "payment_method_types": ["card", "us_bank_account"],
        "processing": None,
        "receipt_email": None,
        "review": None,
        "setup_future_usage": None,
        "shipping": None,
        "source": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": None,
        "status": "requires_payment_method",
        "transfer_data": None,
        "transfer_group": None,
    }


def redirect(return_url: str | None) -> JsonObject:
    """What a client must do who is to authenticate: go to a page of the bank's."""
    return {
        "type": "redirect_to_url",
        "redirect_to_url": {
            "return_url": return_url,
            "url": f"https://hooks.stripe.com/3d_secure_2/hosted?{new_id('source')}",
        },
    }


def setup_intent(books: Books) -> JsonObject:
    """A setup intent that nothing was tried for."""
    intent_id = new_id("seti")
    return {
        "id": intent_id,
        "object": "setup_intent",
        "application": None,
        "automatic_payment_methods": None,
        "cancellation_reason": None,
        "client_secret": f"{intent_id}_{new_id('secret')}",
        "created": books.created,
        "customer": None,
        "description": None,
        "flow_directions": None,
        "last_setup_error": None,
        "latest_attempt": None,
        "livemode": False,
        "mandate": None,
        "metadata": {},
        "next_action": None,
        "on_behalf_of": None,
        "payment_method": None,
        "payment_method_configuration_details": None,
        "payment_method_options": {},
        "payment_method_types": ["card"],
        "single_use_mandate": None,
        "status": "requires_payment_method",
        "usage": "off_session",
    }


def checkout_session(books: Books, *, mode: str) -> JsonObject:
    """An open session for nobody and nothing."""
    is_payment = mode == "payment"
    return {
        "id": new_id("cs_test", 58),
        "object": "checkout.session",
        "adaptive_pricing": {"enabled": True},
        "after_expiration": None,
        "allow_promotion_codes": None,
        "amount_subtotal": None,
        "amount_total": None,
        "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None},
        "billing_address_collection": None,
        "cancel_url": None,
        "client_reference_id": None,
        "client_secret": None,
        "collected_information": None,
        "consent": None,
        "consent_collection": None,
        "created": books.created,
        "currency": None,
        "currency_conversion": None,
        "custom_fields": [],
        "custom_text": {
            "after_submit": None,
            "shipping_address": None,
            "submit": None,
            "terms_of_service_acceptance": None,
        },
        "customer": None,
        "customer_creation": None,
        "customer_details": None,
        "customer_email": None,
        "discounts": [] if is_payment else None,
        "expires_at": books.created,
        "integration_identifier": None,
        "invoice": None,
        "invoice_creation": None,
        "livemode": False,
        "locale": None,
        "metadata": {},
        "mode": mode,
        "origin_context": None,
        "payment_intent": None,
        "payment_link": None,
        "payment_method_collection": "if_required" if is_payment else "always",
        "payment_method_configuration_details": None,
        "payment_method_options": {},
        "payment_method_types": ["card"],
        "payment_status": "unpaid" if is_payment else "no_payment_required",
        "permissions": None,
        "phone_number_collection": {"enabled": False},
        "recovered_from": None,
        "saved_payment_method_options": None,
        "setup_intent": None,
        "shipping_address_collection": None,
        "shipping_cost": None,
        "shipping_options": [],
        "status": "open",
        "submit_type": None,
        "subscription": None,
        "success_url": None,
        "total_details": (
            {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0} if is_payment else None
        ),
        "ui_mode": "hosted_page",
        "url": None,
        "wallet_options": None,
    }


def charge(books: Books, intent: JsonObject, method: JsonObject) -> JsonObject:
    """One try at moving an intent's money, its outcome still open."""
    kind = method["type"]
    shown = ("brand", "country", "exp_month", "exp_year", "fingerprint", "funding", "last4")
    details = (
        {name: method[kind][name] for name in shown}
        | {"checks": method[kind]["checks"], "network": method[kind]["brand"], "wallet": None}
        if kind == CARD
        else dict(method[kind])
    )
    return {
        "id": new_id("ch" if kind == CARD else "py"),
        "object": "charge",
        "amount": intent["amount"],
        "amount_captured": 0,
        "amount_refunded": 0,
        "application": None,
        "application_fee": None,
        "application_fee_amount": None,
        "balance_transaction": None,
        "billing_details": method["billing_details"],
        "calculated_statement_descriptor": intent["statement_descriptor"],
        "captured": False,
        "created": books.created,
        "currency": intent["currency"],
        "customer": intent["customer"],
        "description": intent["description"],
        "disputed": False,
        "failure_balance_transaction": None,
        "failure_code": None,
        "failure_message": None,
        "fraud_details": {},
        "livemode": False,
        "metadata": intent["metadata"],
        "on_behalf_of": None,
        "outcome": None,
        "paid": False,
        "payment_intent": intent["id"],
        "payment_method": method["id"],
        "payment_method_details": {kind: details, "type": kind},
        "receipt_email": intent["receipt_email"],
        "receipt_number": None,
        "receipt_url": None,
        "refunded": False,
        "review": None,
        "shipping": None,
        "source": None,
        "source_transfer": None,
        "statement_descriptor": intent["statement_descriptor"],
        "statement_descriptor_suffix": intent["statement_descriptor_suffix"],
        "status": "pending",
        "transfer_data": None,
        "transfer_group": None,
    }


def refund(books: Books, paid: JsonObject, *, amount: int) -> JsonObject:
    """Money on its way back from a charge."""
    kind = paid["payment_method_details"]["type"]
    return {
        "id": new_id("re"),
        "object": "refund",
        "amount": amount,
        "balance_transaction": None,
        "charge": paid["id"],
        "created": books.created,
        "currency": paid["currency"],
        "destination_details": {
            kind: {"type": "refund"} if kind == CARD else {},
            "type": kind,
        },
        "metadata": {},
        "payment_intent": paid["payment_intent"],
        "reason": None,
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": "succeeded",
        "transfer_reversal": None,
    }


_NO_EVIDENCE = (
    "access_activity_log", "billing_address", "cancellation_policy",
    "cancellation_policy_disclosure", "cancellation_rebuttal", "customer_communication",
    "customer_email_address", "customer_name", "customer_purchase_ip", "customer_signature",
    "duplicate_charge_documentation", "duplicate_charge_explanation", "duplicate_charge_id",
    "product_description", "receipt", "refund_policy", "refund_policy_disclosure",
    "refund_refusal_explanation", "service_date", "service_documentation", "shipping_address",
    "shipping_carrier", "shipping_date", "shipping_documentation", "shipping_tracking_number",
    "uncategorized_file", "uncategorized_text",
)  # fmt: skip
DISPUTE_FEE = 1500


def dispute(books: Books, paid: JsonObject, *, amount: int, reason: str) -> JsonObject:
    """A charge that its bank takes back."""
    kind = paid["payment_method_details"]["type"]
    shown = paid["payment_method_details"][kind]
    details = (
        {
            "brand": shown["brand"],
            "case_type": "chargeback",
            "network": shown["network"],
            "network_reason_code": "10.4",
        }
        if kind == CARD
        else {}
    )
    return {
        "id": new_id("du"),
        "object": "dispute",
        "amount": amount,
        "balance_transactions": [],
        "charge": paid["id"],
        "created": books.created,
        "currency": paid["currency"],
        "enhanced_eligibility_types": [],
        "evidence": {**dict.fromkeys(_NO_EVIDENCE), "enhanced_evidence": {}},
        "evidence_details": {
            "due_by": None,
            "enhanced_eligibility": {},
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
        },
        "is_charge_refundable": False,
        "livemode": False,
        "metadata": {},
        "payment_intent": paid["payment_intent"],
        "payment_method_details": {"type": kind, kind: details},
        "reason": reason,
        "status": "needs_response",
    }


def balance_transaction(
    books: Books, dispute: JsonObject, amount: int, *, fee: int = DISPUTE_FEE
) -> JsonObject:
    """What a dispute takes from the balance at Stripe, or gives back to it."""
    return {
        "id": new_id("txn"),
        "object": "balance_transaction",
        "amount": amount,
        "available_on": books.created,
        "created": books.created,
        "currency": dispute["currency"],
        "description": f"Chargeback {'withdrawal' if amount < 0 else 'reversal'}",
        "exchange_rate": None,
        "fee": fee,
        "fee_details": [],
        "net": amount - fee,
        "reporting_category": "dispute" if amount < 0 else "dispute_reversal",
        "source": dispute["id"],
        "status": "available",
        "type": "adjustment",
    }


def updated_metadata(before: JsonObject, given: JsonObject | None) -> JsonObject:
    """Keys are merged, empty values remove theirs, and ``None`` removes all."""
    if given is None:
        return {}
    return {key: value for key, value in {**before, **given}.items() if value != ""}
