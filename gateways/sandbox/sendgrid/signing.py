"""The signature of the Event Webhook: ECDSA over the time and the body."""

import base64
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

SIGNATURE_HEADER = "X-Twilio-Email-Event-Webhook-Signature"
TIMESTAMP_HEADER = "X-Twilio-Email-Event-Webhook-Timestamp"


class SigningKey:
    """A key pair, made at the first use of ``file`` and kept in it."""

    def __init__(self, file: Path) -> None:
        if not file.exists():
            _make(file)
        key = serialization.load_pem_private_key(file.read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{file} is not an ECDSA key")
        self._key = key

    @property
    def public_key(self) -> str:
        """Base64 without line breaks, as SendGrid's settings page shows it."""
        encoded = self._key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return base64.b64encode(encoded).decode()

    def headers(self, body: bytes, *, timestamp: int) -> dict[str, str]:
        """The two headers that sign a body at a time in seconds since 1970."""
        signature = self._key.sign(str(timestamp).encode() + body, ec.ECDSA(hashes.SHA256()))
        return {
            SIGNATURE_HEADER: base64.b64encode(signature).decode(),
            TIMESTAMP_HEADER: str(timestamp),
        }


def _make(file: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    unfinished = file.with_suffix(".part")
    unfinished.touch(mode=0o600)
    unfinished.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    unfinished.replace(file)
