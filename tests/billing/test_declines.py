from pathlib import Path

import pytest

from billing.declines import (
    DECLINES,
    DECLINES_TABLE,
    STOPS_AUTOMATIC_TRIES,
    DeclineClass,
    decline_class,
)

# The table "Card decline codes" of https://docs.stripe.com/declines/codes, in its order.
_TABLE = """
    authentication_required authentication_not_handled approve_with_id call_issuer
    card_not_supported card_velocity_exceeded currency_not_supported do_not_honor do_not_try_again
    duplicate_transaction expired_card fraudulent generic_decline incorrect_address incorrect_cvc
    incorrect_number incorrect_pin incorrect_zip insufficient_funds invalid_account invalid_amount
    invalid_cvc invalid_expiry_month invalid_expiry_year invalid_number invalid_pin
    issuer_not_available lost_card merchant_blacklist new_account_information_available
    no_action_taken not_permitted offline_pin_required online_or_offline_pin_required pickup_card
    pin_try_exceeded processing_error reenter_transaction restricted_card
    revocation_of_all_authorizations revocation_of_authorization security_violation
    service_not_allowed stolen_card stop_payment_order testmode_decline transaction_not_allowed
    try_again_later withdrawal_count_limit_exceeded mobile_device_authentication_required
"""
DOCUMENTED = _TABLE.split()

# "Hard decline codes" of https://docs.stripe.com/billing/revenue-recovery/smart-retries.
NEVER_RETRIED_BY_STRIPE = [
    "incorrect_number",
    "lost_card",
    "pickup_card",
    "stolen_card",
    "revocation_of_authorization",
    "revocation_of_all_authorizations",
    "authentication_required",
    "highest_risk_level",
    "transaction_not_allowed",
]


def test_every_code_that_stripe_documents_has_a_class() -> None:
    assert len(DOCUMENTED) == 50
    of_cards = {row.code for row in DECLINES_TABLE if "card" in row.of.split(", ")}
    assert of_cards - {*DOCUMENTED} == {
        "highest_risk_level",
        "payment_intent_authentication_failure",
    }
    assert {*DOCUMENTED} <= DECLINES.keys()


def test_each_code_has_one_row_with_its_reason_and_its_source() -> None:
    assert len(DECLINES_TABLE) == len({row.code for row in DECLINES_TABLE}) == len(DECLINES)
    for row in DECLINES_TABLE:
        assert row.why
        assert "|" not in row.why
        assert row.source.startswith("https://docs.stripe.com/")


def test_the_documents_show_the_same_table() -> None:
    shown = Path(__file__).parents[2] / "docs" / "declines.md"
    _, table = shown.read_text().split("## The table")
    cells = [
        tuple(cell.strip() for cell in line.strip("|").split("|"))
        for line in table.splitlines()
        if line.startswith("| ")
    ]

    assert cells == [
        ("code", "class", "of", "why", "source"),
        *(
            (
                f"`{row.code}`",
                row.kind,
                row.of,
                row.why,
                f"[{row.source.removeprefix('https://docs.stripe.com/')}]({row.source})",
            )
            for row in DECLINES_TABLE
        ),
    ]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("insufficient_funds", "soft"),
        ("generic_decline", "soft"),
        ("do_not_honor", "soft"),
        ("processing_error", "soft"),
        ("issuer_not_available", "soft"),
        ("card_velocity_exceeded", "soft"),
        ("try_again_later", "soft"),
        ("lost_card", "hard"),
        ("stolen_card", "hard"),
        ("pickup_card", "hard"),
        ("fraudulent", "hard"),
        ("restricted_card", "hard"),
        ("merchant_blacklist", "hard"),
        ("stop_payment_order", "hard"),
        ("revocation_of_all_authorizations", "hard"),
        ("do_not_try_again", "hard"),
        ("authentication_required", "needs_authentication"),
        ("mobile_device_authentication_required", "needs_authentication"),
        ("expired_card", "needs_new_card"),
        ("incorrect_cvc", "needs_new_card"),
        ("incorrect_number", "needs_new_card"),
        ("invalid_account", "needs_new_card"),
        ("currency_not_supported", "needs_new_card"),
        ("pin_try_exceeded", "needs_new_card"),
        # Of returned bank debits.
        ("could_not_process", "soft"),
        ("account_closed", "needs_new_card"),
        ("no_account", "needs_new_card"),
        ("bank_ownership_changed", "needs_new_card"),
        ("payment_intent_mandate_invalid", "needs_new_card"),
        ("debit_not_authorized", "hard"),
        ("bank_account_restricted", "hard"),
    ],
)
def test_a_decline_says_what_could_make_the_next_try_succeed(code: str, kind: str) -> None:
    assert decline_class(code) == kind


@pytest.mark.parametrize("code", NEVER_RETRIED_BY_STRIPE)
def test_what_stripe_never_retries_is_never_soft(code: str) -> None:
    assert decline_class(code) != DeclineClass.SOFT


@pytest.mark.parametrize(
    ("decline_code", "error_code", "kind"),
    [
        # The decline code is the finer one.
        ("insufficient_funds", "card_declined", "soft"),
        ("lost_card", "card_declined", "hard"),
        ("insufficient_funds", "expired_card", "soft"),
        # Some card errors have an error code only.
        (None, "authentication_required", "needs_authentication"),
        (None, "payment_intent_authentication_failure", "needs_authentication"),
        (None, "expired_card", "needs_new_card"),
        (None, "incorrect_cvc", "needs_new_card"),
        (None, "processing_error", "soft"),
        # A decline code of next year leaves the word to the error code.
        ("declined_by_the_moon", "expired_card", "needs_new_card"),
        # Nothing known: the schedule goes on.
        ("declined_by_the_moon", "card_declined", "soft"),
        ("declined_by_the_moon", None, "soft"),
        (None, "card_declined", "soft"),
        (None, None, "soft"),
        ("", "", "soft"),
    ],
)
def test_the_decline_code_decides_then_the_error_code_and_else_it_is_soft(
    decline_code: str | None, error_code: str | None, kind: str
) -> None:
    assert decline_class(decline_code, error_code) == kind


def test_a_card_that_is_ruled_out_or_wrong_is_not_tried_by_itself() -> None:
    assert {"hard", "needs_new_card"} == STOPS_AUTOMATIC_TRIES
    assert {*DeclineClass} - STOPS_AUTOMATIC_TRIES == {"soft", "needs_authentication"}
