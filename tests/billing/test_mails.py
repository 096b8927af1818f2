from itertools import permutations, product

import pytest

from billing.mails import (
    DEFAULTS,
    MAIL_TRANSITIONS,
    MailKind,
    MailState,
    state_after,
    switched_on,
)

EDGES = [
    ("queued", "claimed"),
    ("queued", "accepted"),
    ("queued", "delivered"),
    ("queued", "bounced"),
    ("queued", "suppressed"),
    # It was certainly not taken, so it waits again.
    ("claimed", "queued"),
    ("claimed", "accepted"),
    ("claimed", "delivered"),
    ("claimed", "bounced"),
    ("claimed", "refused"),
    ("claimed", "unknown"),
    ("claimed", "suppressed"),
    ("unknown", "accepted"),
    ("unknown", "delivered"),
    ("unknown", "bounced"),
    ("unknown", "suppressed"),
    ("accepted", "delivered"),
    ("accepted", "bounced"),
    ("accepted", "suppressed"),
    ("delivered", "bounced"),
]
MISSING = sorted(set(product(MailState, MailState)) - {*EDGES})


@pytest.mark.parametrize(("state", "news"), EDGES)
def test_news_of_a_mail_is_taken(state: str, news: str) -> None:
    assert state_after(MailState(state), MailState(news)) == news


@pytest.mark.parametrize(("state", "news"), MISSING)
def test_late_and_repeated_news_changes_nothing(state: MailState, news: MailState) -> None:
    assert state_after(state, news) == state


@pytest.mark.parametrize(
    ("events", "known"),
    [
        (["accepted", "delivered"], "delivered"),
        (["accepted", "delivered", "bounced"], "bounced"),
        (["accepted", "bounced"], "bounced"),
        (["accepted", "suppressed"], "suppressed"),
    ],
)
@pytest.mark.parametrize("start", ["queued", "claimed", "unknown"])
def test_events_lead_to_the_same_state_in_any_order_and_twice(
    start: str, events: list[str], known: str
) -> None:
    for order in permutations(events * 2):
        state = MailState(start)
        for event in order:
            state = state_after(state, MailState(event))
        assert state == known


def test_the_table_has_every_state_and_cannot_be_changed_at_run_time() -> None:
    assert MAIL_TRANSITIONS.keys() == {*MailState}
    with pytest.raises(TypeError):
        MAIL_TRANSITIONS[MailState.DELIVERED] = frozenset()  # type: ignore[index]  # what is tested


def test_every_mail_is_on_in_a_new_account() -> None:
    assert DEFAULTS == {
        "invoice_ready": True,
        "receipt": True,
        "payment_failed": True,
        "authentication_needed": True,
        "card_expiring": True,
    }
    assert DEFAULTS.keys() == {*MailKind}


@pytest.mark.parametrize(
    ("account", "client", "sent"),
    [
        ({}, {}, "yes"),
        ({"receipt": False}, {}, "no"),
        ({"receipt": True}, {}, "yes"),
        ({}, {"receipt": False}, "no"),
        ({"receipt": False}, {"receipt": True}, "yes"),
        ({"receipt": True}, {"receipt": False}, "no"),
        # Another mail's switch says nothing about this one.
        ({"invoice_ready": False}, {"payment_failed": False}, "yes"),
    ],
)
def test_the_clients_switch_goes_before_the_accounts_and_that_before_the_default(
    account: dict[str, bool], client: dict[str, bool], sent: str
) -> None:
    assert switched_on(MailKind.RECEIPT, account, client) is (sent == "yes")
