"""What can be wrong with events that a vendor posts to us, whichever the vendor."""

from billing.errors import DuecourseError


class UntrustedEvents(DuecourseError):  # noqa: N818 - named as the fact it states.
    """These events are not signed by who they should be, or long ago. Answer 401, keep nothing."""


class MalformedEvents(DuecourseError):  # noqa: N818 - named as the fact it states.
    """Signed, but not events. Answer 400: the same bytes will not get better."""
