import pytest

from gateways.cards import CardsUnavailable
from gateways.mail import Accepted, Mail, Mailbox
from gateways.merchants import DEPLOYMENT
from gateways.sandbox.sendgrid.client import SendGridControl
from settings import Settings
from tasks.calls import GatewayMissing
from tests.processes import SECRET_KEY
from workers.vendors import open_vendors

SERVERS = {
    "DATABASE_URL": "postgresql://h/d",
    "REDIS_URL": "redis://h/0",
    "SECRET_KEY": SECRET_KEY,
}
NO_VENDORS = {
    "STRIPE_SECRET_KEY": "",
    "STRIPE_API_BASE": "",
    "SENDGRID_API_KEY": "",
    "SENDGRID_API_BASE": "",
}


def settings(**given: str) -> Settings:
    return Settings.model_validate({**SERVERS, **NO_VENDORS, **given})


def test_a_worker_of_other_queues_needs_no_vendor_and_has_none() -> None:
    with open_vendors(settings(), {"billing", "ops"}, connections=1) as gateways:
        for name in ("cards", "checkout", "saved_cards", "mail", "documents"):
            with pytest.raises(GatewayMissing):
                getattr(gateways, name)


def test_each_queue_has_what_its_jobs_ask_and_nothing_else(
    vendor_settings: dict[str, str], sendgrid_control: SendGridControl
) -> None:
    given = settings(**vendor_settings)
    with open_vendors(given, {"payments"}, connections=2) as gateways:
        with pytest.raises(GatewayMissing):
            _ = gateways.mail
        assert gateways.cards is gateways.cards
        assert gateways.checkout is gateways.checkout
        assert gateways.saved_cards is gateways.saved_cards

    mail = Mail(sender=Mailbox("a@a.example"), to=(Mailbox("b@b.example"),), subject="S", text="T")
    with open_vendors(given, {"mail"}, connections=2) as gateways:
        with pytest.raises(GatewayMissing):
            _ = gateways.cards
        assert gateways.documents is gateways.documents
        assert isinstance(gateways.mail.send(mail), Accepted)
    assert [one.recipients for one in sendgrid_control.mails()] == [["b@b.example"]]


def test_cards_are_asked_where_the_settings_say() -> None:
    nowhere = settings(STRIPE_SECRET_KEY="sk_test_x", STRIPE_API_BASE="http://127.0.0.1:1")
    with (
        open_vendors(nowhere, {"payments", "ops"}, connections=1) as gateways,
        pytest.raises(CardsUnavailable),
    ):
        gateways.cards.retrieve("pi_1", DEPLOYMENT)


@pytest.mark.parametrize(
    ("queue", "name"), [("payments", "STRIPE_SECRET_KEY"), ("mail", "SENDGRID_API_KEY")]
)
def test_a_key_that_a_queue_needs_and_that_is_not_set_ends_the_process_with_one_line(
    capsys: pytest.CaptureFixture[str], queue: str, name: str
) -> None:
    with (
        pytest.raises(SystemExit) as ended,
        open_vendors(settings(), {"ops", queue}, connections=1),
    ):
        pass
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        f"duecourse: settings: {name}: is not set, and a worker of {queue} needs it\n"
    )
