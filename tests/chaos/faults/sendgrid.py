"""A SendGrid that loses its replies, hangs, refuses."""

import time

from gateways.sandbox.sendgrid.faults import Fault, FaultKind
from tests.chaos.faults.target import Target, happens

HANG_SECONDS = 30.0
"""Longer than we wait for a reply."""


def lose_mail_replies(target: Target) -> None:
    """SendGrid takes the mail, and its reply gets lost."""
    target.sendgrid.fail(Fault(kind=FaultKind.LOST_REPLY, times=2))


def hang_sendgrid(target: Target) -> None:
    """SendGrid takes longer than we wait: once it has the mail by then, once it has not."""
    target.sendgrid.fail(Fault(kind=FaultKind.LATE_REPLY, seconds=HANG_SECONDS))
    target.sendgrid.fail(Fault(kind=FaultKind.HANG, seconds=HANG_SECONDS))
    if happens(lambda: target.sendgrid.faults_in_line() == 0):
        target.lasting.append(time.monotonic() + HANG_SECONDS)


def break_sendgrid(target: Target) -> None:
    """SendGrid answers 503, and resets connections."""
    target.sendgrid.fail(Fault(kind=FaultKind.STATUS, times=4))
    target.sendgrid.fail(Fault(kind=FaultKind.RESET, times=2))
