"""The vendors that a worker calls for the queues it serves."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from pydantic import SecretStr

from gateways.sealing import Seal
from gateways.sendgrid_mail import HOST as SENDGRID_HOST
from gateways.sendgrid_mail import SendGridMail
from gateways.stripe_api import StripeApi
from gateways.stripe_cards import StripeCards
from gateways.stripe_checkout import StripeCheckout
from gateways.stripe_records import StripeRecords
from gateways.stripe_saved_cards import StripeSavedCards
from gateways.typst_documents import TypstDocuments
from settings import Settings
from tasks.calls import Gateways
from tasks.links import Links

PAYMENTS, MAIL = "payments", "mail"


@contextmanager
def open_vendors(
    settings: Settings,
    queues: set[str],
    *,
    connections: int,
    stripe_heard: Callable[[bool], None] | None = None,
) -> Iterator[Gateways]:
    """What the jobs in ``queues`` ask outside; closed when the block ends.

    Ends the process with one line that names the setting, when a key that they need is not set.

    Args:
        settings: Where the vendors are, and our keys to them.
        queues: Those that the worker serves.
        connections: How many calls may be under way at each vendor: one for each thread.
        stripe_heard: Told of each call of Stripe whether it was answered.
    """
    with ExitStack() as ends:
        api, cards, checkout, saved_cards, records = None, None, None, None, None
        links, mail, documents = None, None, None
        if PAYMENTS in queues:
            api = ends.enter_context(
                StripeApi(
                    _key(settings.stripe_secret_key, "STRIPE_SECRET_KEY", PAYMENTS),
                    base_url=settings.stripe_api_base,
                    connections=connections,
                    heard=stripe_heard,
                    seal=Seal(_key(settings.secret_key, "SECRET_KEY", PAYMENTS)),
                )
            )
            cards, records = StripeCards(api), StripeRecords(api)
            checkout, saved_cards = StripeCheckout(api), StripeSavedCards(api)
        if MAIL in queues:
            mail = ends.enter_context(
                SendGridMail(
                    _key(settings.sendgrid_api_key, "SENDGRID_API_KEY", MAIL),
                    host=settings.sendgrid_api_base or SENDGRID_HOST,
                    connections=connections,
                )
            )
            documents = TypstDocuments()
        for queue in sorted(queues & {PAYMENTS, MAIL}):
            links = Links(settings.public_url, _key(settings.secret_key, "SECRET_KEY", queue))
        yield Gateways(
            cards=cards,
            checkout=checkout,
            saved_cards=saved_cards,
            payment_records=records,
            links=links,
            mail=mail,
            mail_sender=settings.mail_from,
            documents=documents,
            stripe_rate=settings.stripe_rate,
            is_stripe_reachable=None if api is None else api.is_reachable,
        )


def _key(key: SecretStr | None, name: str, queue: str) -> str:
    if key is None:
        sys.stderr.write(
            f"duecourse: settings: {name}: is not set, and a worker of {queue} needs it\n"
        )
        raise SystemExit(2)
    return key.get_secret_value()
