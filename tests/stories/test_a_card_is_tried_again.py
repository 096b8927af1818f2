"""A card that declines, told by the calendar."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from gateways.sandbox.sendgrid.client import SendGridControl
from tasks.calls import Gateways
from tests.stories.conftest import Till
from tests.worlds import audited, tick

NEW_YORK = ZoneInfo("America/New_York")
FIRST_OF_JUNE = datetime(2026, 6, 1, tzinfo=NEW_YORK)
THIRD_DAY_AT_TEN = datetime(2026, 6, 4, 10, tzinfo=NEW_YORK)


def test_a_declined_card_is_tried_on_the_third_day_at_ten_and_pays(
    till: Till, vendors: Gateways, sendgrid_control: SendGridControl
) -> None:
    ada = till.client(
        "Ada Imports",
        "pm_card_chargeDeclinedInsufficientFunds",
        email="ada@example.com",
        time_zone=NEW_YORK.key,
    )

    tick(till.engine, now=FIRST_OF_JUNE)
    till.work(FIRST_OF_JUNE, gateways=vendors)
    declined = till.invoice(ada)
    assert (declined.status, declined.next_attempt_at) == ("open", THIRD_DAY_AT_TEN)

    till.top_up(ada)
    till.sweep(THIRD_DAY_AT_TEN - timedelta(seconds=1), gateways=vendors)
    assert [attempt.state for attempt in till.attempts(ada)] == ["declined"]
    till.sweep(THIRD_DAY_AT_TEN, gateways=vendors)
    till.sweep(THIRD_DAY_AT_TEN + timedelta(minutes=1), gateways=vendors)

    assert [attempt.state for attempt in till.attempts(ada)] == ["declined", "succeeded"]
    assert till.charged(ada) == [1_000]
    paid = till.invoice(ada)
    assert (paid.status, paid.paid_at, paid.next_attempt_at) == ("paid", THIRD_DAY_AT_TEN, None)
    assert [(mail.kind, mail.state) for mail in till.mails(ada)] == [
        ("invoice_ready", "accepted"),
        ("payment_failed", "accepted"),
        ("receipt", "accepted"),
    ]
    arrived = {mail.custom_args["mail"]: mail for mail in sendgrid_control.mails()}
    ready, failed, receipt = (arrived[str(mail.id)] for mail in till.mails(ada))
    assert {mail.recipients[0] for mail in arrived.values()} == {"ada@example.com"}
    assert b"insufficient funds" in failed.eml
    assert b"4 June 2026" in failed.eml
    assert len({ready.subject, failed.subject, receipt.subject}) == 3
    assert audited(till.engine, till.account) == []
