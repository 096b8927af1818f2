"""Links that clients are sent: signed, so that they cannot be guessed."""

from datetime import timedelta
from uuid import UUID

from itsdangerous import BadSignature, SignatureExpired, URLSafeSerializer, URLSafeTimedSerializer

from billing.errors import NotFound

PORTAL_LINKS_LIVE = timedelta(days=30)
"""How long a link to a client's own page is good: mails are read late, and forwarded."""


class Links:
    """Makes and reads links to the pages under ``public_url``.

    A link to an invoice is good for as long as the invoice is there: it is on its document. One to
    a client's own page is good for ``PORTAL_LINKS_LIVE``.
    """

    def __init__(self, public_url: str, secret_key: str) -> None:
        self._public_url = public_url
        self._invoices = URLSafeSerializer(secret_key, salt="duecourse.invoice")
        self._portals = URLSafeTimedSerializer(secret_key, salt="duecourse.portal")

    @property
    def is_secure(self) -> bool:
        """Whether the pages are reached by https."""
        return self._public_url.startswith("https:")

    def to_invoice(self, invoice_id: UUID) -> str:
        """Where a client sees and pays a finalized invoice."""
        return f"{self._public_url}/i/{self._invoices.dumps(invoice_id.hex)}"

    def to_portal(self, client_id: UUID) -> str:
        """A client's own page: its invoices, credit and cards."""
        return f"{self._public_url}/p/{self._portals.dumps(client_id.hex)}"

    def portal(self, token: str) -> str:
        """The address of a client's own page, by the token of a link to it."""
        return f"{self._public_url}/p/{token}"

    def invoice_of(self, token: str) -> UUID:
        """The invoice that the token of a link is for.

        Raises:
            NotFound: We have signed no such token.
        """
        try:
            return UUID(hex=self._invoices.loads(token))
        except BadSignature:
            raise NotFound("page", "of this link") from None

    def client_of(self, token: str) -> UUID:
        """The client that the token of a link is for.

        Raises:
            LinkExpired: It was good once.
            NotFound: We have signed no such token.
        """
        try:
            return UUID(
                hex=self._portals.loads(token, max_age=int(PORTAL_LINKS_LIVE.total_seconds()))
            )
        except SignatureExpired:
            raise LinkExpired from None
        except BadSignature:
            raise NotFound("page", "of this link") from None


class LinkExpired(Exception):  # noqa: N818 - named as the fact it states
    """A link that was ours and is too old: its owner asks for a new one."""
