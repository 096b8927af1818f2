"""What comes to its end later, by itself: bank debits, slow refunds and checkout sessions."""

import asyncio
import time
from collections.abc import Callable

from gateways.sandbox.stripe import intents, refunds, sessions
from gateways.sandbox.stripe.books import Books
from gateways.sandbox.stripe.errors import ApiError
from gateways.sandbox.stripe.settings import Settings
from gateways.sandbox.stripe.store import Store

IDLE_SECONDS = 0.1
_SETTLING = {
    "payment_intent": intents.settle_as_it_will,
    "refund": refunds.settle_as_it_will,
    "checkout.session": sessions.expire_in_time,
}


async def settle_what_is_due(store: Store, on_events: Callable[[], None]) -> None:
    """Settle for ever."""
    while True:
        for object_id in store.due_settlements(time.time()):
            _settle(object_id, store)
            on_events()
        await asyncio.sleep(IDLE_SECONDS)


def _settle(object_id: str, store: Store) -> None:
    with store.transaction():
        found = store.find(object_id)
        if found is not None:
            books = Books(store, Settings.of(store.settings()), found.account, time.time())
            try:
                with store.savepoint():
                    _SETTLING[found.body["object"]](books, object_id)
            except ApiError:  # It was cancelled, or settled by hand, meanwhile.
                pass
        store.forget_settlement(object_id)
