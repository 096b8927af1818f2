"""API keys: a public prefix to find the row, and only a hash of the secret."""

import hashlib
import hmac
import secrets
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import ForeignKey, Select, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import Text

from models.base import Base, CreatedAt, PrimaryKey

KEY_MARK = "dck"  # Lets secret scanners recognise a leaked key.


class Scope(StrEnum):
    """What a key may do: read objects, write and command them, operate queues and schedules."""

    READ = "read"
    WRITE = "write"
    OPS = "ops"


class ApiKey(Base):
    """One credential of one account. The secret itself is shown once and never stored."""

    __tablename__ = "api_keys"

    id: Mapped[PrimaryKey]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"), index=True)
    prefix: Mapped[str] = mapped_column(unique=True)
    secret_sha256: Mapped[str]
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    created_at: Mapped[CreatedAt]
    revoked_at: Mapped[datetime | None]

    @classmethod
    def issue(cls, account_id: UUID, scopes: set[Scope]) -> tuple["ApiKey", str]:
        """A new key and the text to hand to its owner: ``dck_<prefix>_<secret>``."""
        prefix, secret = secrets.token_hex(6), secrets.token_hex(24)
        row = cls(
            account_id=account_id,
            prefix=prefix,
            # A random 192-bit secret needs no slow hash: there is nothing to guess.
            secret_sha256=_sha256(secret),
            scopes=sorted(scopes),
        )
        return row, f"{KEY_MARK}_{prefix}_{secret}"

    def admits(self, secret: str) -> bool:
        """Whether ``secret`` is this key's, compared in constant time, and not revoked."""
        return self.revoked_at is None and hmac.compare_digest(self.secret_sha256, _sha256(secret))


def split_key(text: str) -> tuple[str, str] | None:
    """The prefix and secret of a key's text; ``None`` when it has not the shape of one."""
    mark, _, rest = text.partition("_")
    prefix, _, secret = rest.partition("_")
    return (prefix, secret) if mark == KEY_MARK and prefix and secret else None


def key_with_prefix(prefix: str) -> Select[ApiKey]:
    """The key row that a presented key names."""
    return select(ApiKey).where(ApiKey.prefix == prefix)


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
