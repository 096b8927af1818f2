"""A Stripe whose answers get lost, come late or say no, and whose events do as they like."""

import time

from tests.chaos.faults.target import Target, happens

INTENTS = "/v1/payment_intents"
PAGES = "/v1/checkout/sessions"
CLOSING = f"{PAGES}/*/expire"
HANG_SECONDS = 30.0
"""Longer than we wait for an answer."""


def lose_charge_answers(target: Target) -> None:
    """Stripe charges, and its answer gets lost."""
    target.stripe.add_fault("lost_answer", times=3, path=INTENTS)


def lose_page_answers(target: Target) -> None:
    """Stripe opens and closes clients' pages, and its answers get lost."""
    target.stripe.add_fault("lost_answer", times=3, path=PAGES)
    target.stripe.add_fault("lost_answer", times=2, path=CLOSING)
    target.stripe.add_fault("server_error_after", path=CLOSING)
    target.stripe.add_fault("delay", seconds=2.0, after_effect=True, times=3, path=CLOSING)


def hang_stripe(target: Target) -> None:
    """Stripe takes longer than we wait: once it has charged by then, once it has not."""
    target.stripe.add_fault("delay", seconds=HANG_SECONDS, after_effect=True, path=INTENTS)
    target.stripe.add_fault("delay", seconds=HANG_SECONDS, path=INTENTS)
    if happens(lambda: not target.stripe.faults()):
        target.lasting.append(time.monotonic() + HANG_SECONDS)


def limit_stripe(target: Target) -> None:
    """429, with and without Retry-After."""
    target.stripe.add_fault("rate_limit", times=5, retry_after=1)
    target.stripe.add_fault("rate_limit", times=3)


def break_stripe(target: Target) -> None:
    """500 before and after the charge, kept under the key; 409; a reset."""
    target.stripe.add_fault("server_error", times=2)
    target.stripe.add_fault("server_error_after", times=2, path=INTENTS)
    target.stripe.add_fault("conflict", times=2)
    target.stripe.add_fault("reset", times=2)


def tell_before_answering(target: Target) -> None:
    """The event of a charge comes before its answer, and so before our commit."""
    target.stripe.add_fault("delay", times=3, seconds=2.0, after_effect=True, path=INTENTS)


def repeat_webhooks(target: Target) -> None:
    """Every event told three times, newest first."""
    target.stripe.set(webhook_copies=3, webhook_order="newest")
    time.sleep(2)
    target.stripe.set(webhook_copies=1, webhook_order="oldest")


def hold_webhooks(target: Target) -> None:
    """Events that come late."""
    target.stripe.set(webhooks_paused=True)
    time.sleep(3)
    # What is withheld for days stays so.
    target.stripe.set(webhooks_paused=bool(target.after))


def withhold_webhooks(target: Target) -> None:
    """Events that come days late: when all else is settled without them."""
    target.stripe.set(webhooks_paused=True, webhook_order="random")

    def tell() -> None:
        target.stripe.set(webhooks_paused=False)

    target.after.append(tell)
