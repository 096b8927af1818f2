"""What the vendors have told us, by their own logs of deliveries."""

from collections.abc import Iterator

from gateways.sandbox.sendgrid.client import SendGridControl
from gateways.sandbox.stripe.control import StripeSandboxControl


def taken_events(stripe: StripeSandboxControl) -> Iterator[str]:
    """Every event of Stripe's that we said we took."""
    return (one["event"] for one in stripe.deliveries() if one["state"] == "delivered")


def untold_events(stripe: StripeSandboxControl) -> Iterator[str]:
    """Every event of Stripe's that nobody here has taken."""
    return (one["event"] for one in stripe.deliveries() if one["state"] != "delivered")


def taken_mail_events(sendgrid: SendGridControl) -> Iterator[str]:
    """Every event of SendGrid's that we said we took."""
    batches = (one.events for one in sendgrid.deliveries() if one.delivered)
    return (event["sg_event_id"] for events in batches for event in events)


def untold_mail_events(sendgrid: SendGridControl) -> Iterator[str]:
    """Every event of SendGrid's that nobody here has taken."""
    batches = (one.events for one in sendgrid.deliveries() if not one.delivered)
    return (event["sg_event_id"] for events in batches for event in events)


def all_told(stripe: StripeSandboxControl, sendgrid: SendGridControl) -> bool:
    """Whether nothing waits to be told."""
    return not any(untold_events(stripe)) and not any(untold_mail_events(sendgrid))
