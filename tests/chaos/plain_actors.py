"""The same work the plain way: dramatiq's own Redis broker, retries and delays, and no ledger.

An invoice is charged, marked as paid, and its receipt is mailed by a second actor, as dramatiq's
guide would have it. The card is charged under the invoice's own idempotency key, so that what is
compared is the queue and not carelessness.
"""

import os
from collections.abc import Mapping
from datetime import UTC, datetime

import dramatiq
import psycopg
from dramatiq.brokers.redis import RedisBroker

from gateways.cards import CardCharge
from gateways.mail import Mail, Mailbox
from gateways.sendgrid_mail import SendGridMail
from gateways.stripe_api import StripeApi
from gateways.stripe_cards import StripeCards

broker: RedisBroker = RedisBroker(url=os.environ["REDIS_URL"])
dramatiq.set_broker(broker)
_cards = StripeCards(StripeApi("sk_test_plain", base_url=os.environ["STRIPE_API_BASE"]))
_mail = SendGridMail("SG.plain", host=os.environ["SENDGRID_API_BASE"])


@dramatiq.actor(max_retries=20, min_backoff=200, max_backoff=5_000)
def charge(invoice: int, customer: str, payment_method: str) -> None:
    """Charge an invoice's card, and mark it as paid."""
    _cards.charge(
        CardCharge(
            amount=1_000,
            currency="usd",
            customer=customer,
            payment_method=payment_method,
            idempotency_key=f"plain-{invoice}",
            description=f"Invoice {invoice}",
            metadata={"attempt": str(invoice)},
            sent_since=datetime.now(UTC),
        )
    )
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        connection.execute("UPDATE plain_invoices SET paid = true WHERE id = %s", [invoice])
    mail_receipt.send(invoice)


@dramatiq.actor(max_retries=20, min_backoff=200, max_backoff=5_000)
def mail_receipt(invoice: int) -> None:
    """Mail a receipt."""
    _mail.send(
        Mail(
            sender=Mailbox("billing@example.com"),
            to=(Mailbox(f"client{invoice}@example.com"),),
            subject=f"Receipt for invoice {invoice}",
            text="Thank you.",
            custom_args={"invoice": str(invoice)},
        )
    )


def connect(environment: Mapping[str, str]) -> None:
    """Send to another Redis from now on: each seed has its own."""
    other: RedisBroker = RedisBroker(url=environment["REDIS_URL"])
    broker.client, broker.scripts = other.client, other.scripts
