"""API keys: issued once in full, revoked for good."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select

from api.auth import Operator
from api.fields import FORBID_UNKNOWN
from api.idempotency import OnceOnly
from api.operations import posts, reads
from api.paging import Paging, newest_first
from api.problems import Refusal
from api.shapes import Page
from api.transactions import Transaction
from billing.errors import NotFound
from models import ApiKey, Scope
from models.database import database_now

router = APIRouter(tags=["api keys"])

_EXAMPLE: dict[str, Any] = {
    "id": "019ae8a3-5c00-7000-8000-000000000007",
    "prefix": "5f1c0a7b9d3e",
    "scopes": ["read", "write"],
    "created_at": "2026-06-01T12:00:00Z",
    "revoked_at": None,
}


class KeyCreation(BaseModel):
    """What the new key may do: no more than the one that asks."""

    model_config = FORBID_UNKNOWN | ConfigDict(
        json_schema_extra={"examples": [{"scopes": ["read", "write"]}]}
    )

    scopes: Annotated[list[Scope], Field(min_length=1, max_length=len(Scope))]


class KeyReport(BaseModel):
    """An API key, without its secret. The prefix is what it begins with after `dck_`."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    id: UUID
    prefix: str
    scopes: list[Scope]
    created_at: datetime
    revoked_at: datetime | None


class IssuedKeyReport(KeyReport):
    """A new API key. `key` is shown this once, and is null when the request is repeated."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{**_EXAMPLE, "key": "dck_5f1c0a7b9d3e_<secret>"}]}
    )

    key: str | None


@router.post(
    "/v1/api-keys",
    summary="Issue an API key",
    status_code=201,
    response_model=IssuedKeyReport,
    responses=posts(),
)
def issue(new: KeyCreation, caller: Operator, session: Transaction, once: OnceOnly) -> Response:
    """Only a hash of the secret is kept, so a repeated request cannot show it again."""
    scopes = set(new.scopes)
    if not scopes <= caller.scopes:
        missing = ", ".join(sorted(scopes - caller.scopes))
        raise Refusal("scope_missing", f"A key without {missing} cannot issue one with it.")
    key, text = ApiKey.issue(caller.account_id, scopes)
    session.add(key)
    session.flush()
    session.refresh(key)
    public = KeyReport.model_validate(key, from_attributes=True).model_dump()
    return once.done(
        IssuedKeyReport(**public, key=text), status=201, kept=IssuedKeyReport(**public, key=None)
    )


@router.get("/v1/api-keys", summary="List API keys", responses=reads())
def list_keys(
    paging: Annotated[Paging, Query()], caller: Operator, session: Transaction
) -> Page[KeyReport]:
    """Newest first, revoked ones too."""
    keys = select(ApiKey).where(ApiKey.account_id == caller.account_id)
    found = newest_first(session, keys, ApiKey.id, paging, read=UUID)
    return found.page(lambda key: KeyReport.model_validate(key, from_attributes=True))


@router.delete(
    "/v1/api-keys/{api_key_id}", summary="Revoke an API key", responses=reads("api_key_not_found")
)
def revoke(api_key_id: UUID, caller: Operator, session: Transaction) -> KeyReport:
    """It is refused from now on, also if it is the one that asks. Revoking twice changes nothing."""
    key = session.get(ApiKey, api_key_id, with_for_update=True)
    if key is None or key.account_id != caller.account_id:
        raise NotFound("api_key", str(api_key_id))
    if key.revoked_at is None:
        key.revoked_at = database_now(session)
    session.flush()
    return KeyReport.model_validate(key, from_attributes=True)
