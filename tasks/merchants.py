"""Through whose Stripe account an account's clients are charged."""

from sqlalchemy.orm import Session

from gateways.merchants import DEPLOYMENT, Merchant
from models import Account, PaymentAttempt


def merchant_of(_session: Session, _account: Account) -> Merchant:
    """Where an account's new charges are made."""
    return DEPLOYMENT


def merchant_that_took(_session: Session, _attempt: PaymentAttempt) -> Merchant:
    """Where an attempt was made, which is where all news of it is."""
    return DEPLOYMENT
