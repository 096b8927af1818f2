"""What became of tries that failed, as the recovery report tells it at the end of the month."""

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import text
from sqlalchemy.orm import Session

from billing.recovery import Part
from models import Client
from tasks.charging import charge_invoice
from tasks.marking_paid import mark_invoice_paid
from tasks.recovery import recovery_report
from tasks.voiding import void_invoice
from tests.stories.conftest import Till
from tests.worlds import audited, tick

NEW_YORK = ZoneInfo("America/New_York")
FIRST_OF_JUNE = datetime(2026, 6, 1, 12, tzinfo=NEW_YORK)
SOFT = "pm_card_chargeDeclinedInsufficientFunds"
LOST = "pm_card_chargeDeclinedLostCard"
JUNE = (date(2026, 6, 1), date(2026, 6, 30))


def money_comes_on(till: Till, client: Client) -> None:
    """The client's card pays from now on, and always was the same: test cards never change."""
    till.top_up(client)
    with Session(till.engine) as session, session.begin():
        session.execute(text("SET LOCAL session_replication_role = replica"))
        session.execute(
            text(
                "UPDATE payment_attempts AS tried SET payment_method = card.payment_method"
                "  FROM billing_methods AS card"
                " WHERE card.client_id = tried.client_id AND tried.client_id = :client"
            ),
            {"client": client.id},
        )


def recovered(till: Till, first: date, last: date) -> dict[str, Part]:
    with Session(till.engine) as session:
        report = recovery_report(session, till.account, first, last)
        return report["usd"].outcomes if report else {}


def test_the_report_says_which_step_brought_what(till: Till) -> None:
    cards = {
        **dict.fromkeys(
            ("retried", "clicked", "paid outside", "with credit", "void", "open"), SOFT
        ),
        **dict.fromkeys(("new card", "lost"), LOST),
        "never failed": "pm_card_visa",
    }
    clients = {
        name: till.client(name, card, time_zone=NEW_YORK.key) for name, card in cards.items()
    }
    tick(till.engine, now=FIRST_OF_JUNE)
    till.work(FIRST_OF_JUNE)
    failed = recovered(till, *JUNE)
    assert (failed["failed"], failed["open"]) == (Part(8, 8_000), Part(8, 8_000))

    money_comes_on(till, clients["retried"])
    till.sweep(FIRST_OF_JUNE + timedelta(days=3))
    money_comes_on(till, clients["clicked"])
    till.ask(charge_invoice, invoice_id=till.invoice(clients["clicked"]).id)
    outside = till.invoice(clients["paid outside"])
    till.ask(mark_invoice_paid, invoice_id=outside.id, amount=600)
    till.deposit(clients["with credit"], 400)
    till.ask(void_invoice, invoice_id=till.invoice(clients["void"]).id)
    till.put_on_card(clients["new card"], "pm_card_visa", now=FIRST_OF_JUNE + timedelta(days=4))
    till.work(FIRST_OF_JUNE + timedelta(days=4))

    assert recovered(till, *JUNE) == {
        "failed": Part(8, 8_000),
        "recovered": Part(3, 4_000),
        "retry_1": Part(1, 1_000),
        "new_card": Part(1, 1_000),
        "staff": Part(1, 1_000),
        "outside": Part(1, 600),
        "credit": Part(1, 400),
        "open": Part(4, 3_000),
        "given_up": Part(),
        "withdrawn": Part(1, 1_000),
    }
    assert recovered(till, date(2026, 5, 1), date(2026, 5, 31)) == {}
    assert recovered(till, date(2026, 6, 2), date(2026, 6, 30)) == {}
    assert audited(till.engine, till.account) == []
