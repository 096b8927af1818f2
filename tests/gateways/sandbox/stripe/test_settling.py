import time
from pathlib import Path

from gateways.sandbox.stripe import sessions
from gateways.sandbox.stripe.books import PLATFORM, Books, Call
from gateways.sandbox.stripe.parameters import OPERATIONS, check
from gateways.sandbox.stripe.settings import Settings
from gateways.sandbox.stripe.settling import _settle
from gateways.sandbox.stripe.store import Store

HOUR = 3600


def test_a_page_expires_by_itself_when_its_time_has_come(tmp_path: Path) -> None:
    store = Store(tmp_path / "stripe.sqlite3")
    now = time.time()
    two_hours_ago = Books(store, Settings(), PLATFORM, now - 2 * HOUR)
    made = [
        sessions.create(
            Call(
                {},
                check(
                    {
                        "mode": "setup",
                        "currency": "usd",
                        "success_url": "https://pay.example",
                        "expires_at": str(int(now) + hours * HOUR),
                    },
                    OPERATIONS["POST", "/v1/checkout/sessions"],
                ),
                "",
            ),
            two_hours_ago,
        )["id"]
        for hours in (-1, 1)
    ]
    assert store.due_settlements(now) == made[:1]
    _settle(made[0], store)
    assert store.due_settlements(now) == []
    found = [store.find(session) for session in made]
    assert [session and session.body["status"] for session in found] == ["expired", "open"]
    store.close()
