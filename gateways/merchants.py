"""Whose Stripe account a call is for."""

from dataclasses import dataclass, field
from uuid import UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Merchant:
    """A Stripe account that is charged through.

    Attributes:
        id: Ours, which stays when its key changes; ``None`` for the deployment's own key.
        stripe_account: Stripe's id of an account that is connected to the key's.
        sealed_key: A secret key of its own, sealed; ``None`` for the deployment's.
    """

    id: UUID | None = None
    stripe_account: str | None = None
    sealed_key: str | None = field(default=None, repr=False)


DEPLOYMENT = Merchant()
"""The Stripe account of the deployment's own key."""
