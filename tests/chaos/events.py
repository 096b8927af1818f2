"""What Stripe has told us, by its own log of deliveries."""

from collections.abc import Iterator

from gateways.sandbox.stripe.control import StripeSandboxControl


def taken_events(stripe: StripeSandboxControl) -> Iterator[str]:
    """Every event that we said we took."""
    return (one["event"] for one in stripe.deliveries() if one["state"] == "delivered")


def untold_events(stripe: StripeSandboxControl) -> Iterator[str]:
    """Every event that nobody here has taken."""
    return (one["event"] for one in stripe.deliveries() if one["state"] != "delivered")


def all_told(stripe: StripeSandboxControl) -> bool:
    """Whether nothing waits to be told."""
    return not any(untold_events(stripe))
