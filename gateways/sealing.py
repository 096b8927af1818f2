"""Secrets that are kept for others: sealed, so that whoever reads the database learns none."""

import base64

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from billing.errors import DuecourseError

_PURPOSE = b"duecourse: secrets of accounts, sealed"
_KEY_BYTES = 32


class SealBroken(DuecourseError):  # noqa: N818 - named as the fact it states.
    """What was sealed cannot be opened: the SECRET_KEY is another one now, or the text is not whole."""

    def __init__(self) -> None:
        super().__init__("sealed under another SECRET_KEY: set it again")


class Seal:
    """Seals texts, and opens what it has sealed.

    Args:
        secret_key: The deployment's. The key that seals is derived from it, so that it is none
            that signs links.
    """

    def __init__(self, secret_key: str) -> None:
        derived = HKDF(SHA256(), _KEY_BYTES, salt=None, info=_PURPOSE).derive(secret_key.encode())
        self._fernet = Fernet(base64.urlsafe_b64encode(derived))

    def close(self, text: str) -> str:
        """The text, sealed: never the same twice."""
        return self._fernet.encrypt(text.encode()).decode()

    def open(self, sealed: str) -> str:
        """The text that was sealed.

        Raises:
            SealBroken: It was sealed under another key, or was changed.
        """
        try:
            return self._fernet.decrypt(sealed.encode()).decode()
        except InvalidToken:
            # Not as the cause: it says nothing more.
            raise SealBroken from None
