"""What is wrong with a request, in SendGrid's words."""

import re
from dataclasses import dataclass

HELP = "http://sendgrid.com/docs/API_Reference/Web_API_v3/Mail/errors.html"


@dataclass(frozen=True, slots=True)
class Problem:
    """One entry of an answer's ``errors``.

    Attributes:
        message: What is expected instead.
        field: Where: names and positions joined by dots ("personalizations.0.to"); ``None`` when
            the request as a whole is meant.
    """

    message: str
    field: str | None = None

    def as_json(self) -> dict[str, str | None]:
        """``message``, ``field`` and ``help``, an address that explains the field or null."""
        explained_at = None
        if self.field is not None:
            explained_at = f"{HELP}#message." + re.sub(r"\.[0-9]+", "", self.field)
        return {"message": self.message, "field": self.field, "help": explained_at}
