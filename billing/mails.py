"""The mails a client gets: whether one is sent, and what is known of it."""

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType


class MailKind(StrEnum):
    """What a mail tells the client."""

    INVOICE_READY = "invoice_ready"
    RECEIPT = "receipt"
    PAYMENT_FAILED = "payment_failed"
    AUTHENTICATION_NEEDED = "authentication_needed"
    CARD_EXPIRING = "card_expiring"


class MailState(StrEnum):
    """What is known of one mail."""

    # To be sent.
    QUEUED = "queued"
    # About to be handed over, or just handed over: nobody else sends it.
    CLAIMED = "claimed"
    # SendGrid took it.
    ACCEPTED = "accepted"
    # The client's mail server took it.
    DELIVERED = "delivered"
    # The client's mail server refused it, at once or later.
    BOUNCED = "bounced"
    # SendGrid refused it; nothing was sent.
    REFUSED = "refused"
    # SendGrid's reply was lost, and no event has told.
    UNKNOWN = "unknown"
    # Not sent, on purpose: switched off, or the address is on a suppression list of SendGrid's.
    SUPPRESSED = "suppressed"


# What SendGrid's events can tell of a mail it may have taken: "processed", "delivered",
# "bounce" and "dropped" (https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event).
_TOLD_BY_EVENTS = frozenset(
    {MailState.ACCEPTED, MailState.DELIVERED, MailState.BOUNCED, MailState.SUPPRESSED}
)

MAIL_TRANSITIONS: Mapping[MailState, frozenset[MailState]] = MappingProxyType(
    {
        # An event tells of one that was thought not taken: it is not sent again.
        MailState.QUEUED: _TOLD_BY_EVENTS | {MailState.CLAIMED},
        # An event may be faster than the reply. One that was certainly not taken waits again.
        MailState.CLAIMED: _TOLD_BY_EVENTS
        | {MailState.QUEUED, MailState.REFUSED, MailState.UNKNOWN},
        MailState.UNKNOWN: _TOLD_BY_EVENTS,
        MailState.ACCEPTED: _TOLD_BY_EVENTS - {MailState.ACCEPTED},
        # A server may take a mail and send it back later.
        MailState.DELIVERED: frozenset({MailState.BOUNCED}),
        MailState.BOUNCED: frozenset(),
        MailState.REFUSED: frozenset(),
        MailState.SUPPRESSED: frozenset(),
    }
)
"""From each state, those that news may lead to."""

REPLY_AWAITED_FOR = timedelta(minutes=30)
"""How long a mail whose reply was lost waits for an event that tells of it."""

DEFAULTS: Mapping[MailKind, bool] = MappingProxyType(
    {
        MailKind.INVOICE_READY: True,
        MailKind.RECEIPT: True,
        MailKind.PAYMENT_FAILED: True,
        MailKind.AUTHENTICATION_NEEDED: True,
        MailKind.CARD_EXPIRING: True,
    }
)
"""Whether each mail is on in a new account."""


def state_after(state: MailState, news: MailState) -> MailState:
    """What is known of a mail in ``state`` once ``news`` of it came.

    Events come late, twice and in any order, so news the table has no edge for is no error: it
    changes nothing.
    """
    return news if news in MAIL_TRANSITIONS[state] else state


def switched_on(kind: MailKind, account: Mapping[str, bool], client: Mapping[str, bool]) -> bool:
    """Whether a mail is sent: as the client's switch says, else the account's, else the default.

    Each mapping holds the switches that were set, by the value of the mail's kind.
    """
    return client.get(kind, account.get(kind, DEFAULTS[kind]))
