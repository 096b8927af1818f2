"""Who calls, by API key, and what the key allows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.problems import Refusal
from api.transactions import Transaction
from models import Scope
from models.api_key import key_with_prefix, split_key

_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="bearer",
    description="An API key: `Authorization: Bearer dck_...`. Its scopes are read, write and ops.",
)


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose key it is, how its doings are signed, and what it may do."""

    account_id: UUID
    requested_by: str
    scopes: frozenset[Scope]


def authenticated(
    session: Transaction,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Caller:
    """The caller whose key was presented.

    Raises:
        Refusal: There is no key, or it is wrong or revoked; all alike, so that nothing is told.
    """
    presented = split_key(credentials.credentials) if credentials is not None else None
    if presented is not None and presented[0].isascii() and presented[0].isalnum():
        prefix, secret = presented
        key = session.scalars(key_with_prefix(prefix)).one_or_none()
        if key is not None and key.admits(secret):
            return Caller(key.account_id, f"api:{prefix}", frozenset(map(Scope, key.scopes)))
    raise Refusal(
        "unauthenticated", "Send a valid API key in the header: Authorization: Bearer dck_..."
    )


def requires(scope: Scope) -> Callable[[Caller], Caller]:
    """A dependency that lets only keys with ``scope`` through."""

    def check(caller: Annotated[Caller, Depends(authenticated)]) -> Caller:
        if scope not in caller.scopes:
            raise Refusal("scope_missing", f"This needs a key with the scope {scope.value}.")
        return caller

    return check


Known = Annotated[Caller, Depends(authenticated)]
Reader = Annotated[Caller, Depends(requires(Scope.READ))]
Writer = Annotated[Caller, Depends(requires(Scope.WRITE))]
Operator = Annotated[Caller, Depends(requires(Scope.OPS))]
