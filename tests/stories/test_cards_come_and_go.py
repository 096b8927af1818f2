"""Clients change their cards, or their banks do; told by the calendar."""

from datetime import timedelta

from sqlalchemy import update
from sqlalchemy.orm import Session

from gateways.sandbox.sendgrid.client import SendGridControl
from gateways.sandbox.stripe.cardholders import make_cardholder
from models import BillingMethod, CardRole, CardSetup, Client
from models.database import database_now
from tasks.billing_methods import set_backup_method
from tasks.calls import Gateways
from tasks.card_setups import ask_for_setup
from tasks.clients import change_client
from tests.mailbox import Read, inbox
from tests.stories.conftest import JUNE, Till
from tests.worlds import audited, tick, work

DAY = timedelta(days=1)
AT_TEN = timedelta(hours=10)


def bill_may(till: Till, vendors: Gateways) -> None:
    tick(till.engine, now=JUNE)
    till.work(JUNE, gateways=vendors)


def card_of(till: Till, client: Client) -> BillingMethod:
    with Session(till.engine) as session:
        return session.get_one(BillingMethod, client.id)


def last_mail(control: SendGridControl) -> Read:
    return inbox(control)[-1]


def test_a_card_that_is_replaced_between_two_tries_pays_at_once(
    till: Till, vendors: Gateways, sendgrid_control: SendGridControl
) -> None:
    ada = till.client("Ada", "pm_card_chargeDeclinedInsufficientFunds", email="ada@example.com")
    bill_may(till, vendors)
    till.sweep(JUNE + 3 * DAY + AT_TEN, gateways=vendors)
    assert [attempt.state for attempt in till.attempts(ada)] == ["declined"] * 2
    assert till.invoice(ada).next_attempt_at == JUNE + 8 * DAY + AT_TEN

    till.put_on_card(ada, "pm_card_mastercard", now=JUNE + 4 * DAY)
    till.work(JUNE + 4 * DAY, gateways=vendors)
    # The old schedule is no more.
    till.sweep(JUNE + 8 * DAY + AT_TEN, gateways=vendors)

    paid = till.invoice(ada)
    assert (paid.status, paid.paid_at, paid.failures) == ("paid", JUNE + 4 * DAY, 0)
    assert till.charged(ada) == [1_000]
    assert last_mail(sendgrid_control).says("Mastercard ending in 4444")
    assert audited(till.engine, till.account) == []


def test_a_stolen_card_gives_way_to_the_one_behind_it_for_good(
    till: Till, vendors: Gateways, sendgrid_control: SendGridControl
) -> None:
    ada = till.client("Ada", "pm_card_chargeDeclinedStolenCard", email="ada@example.com")
    holder = make_cardholder(till.stripe.url, payment_method="pm_card_amex", name=ada.name)
    with Session(till.engine) as session, session.begin():
        set_backup_method(
            session,
            till.account.id,
            ada.id,
            stripe_customer=holder.customer,
            payment_method=holder.payment_method,
            now=JUNE - DAY,
            requested_by="test",
        )
        change_client(session, till.account, ada.id, {"use_backup_card": True}, now=JUNE - DAY)
    till.work(JUNE - DAY, gateways=vendors)

    bill_may(till, vendors)

    assert [attempt.state for attempt in till.attempts(ada)] == ["declined", "succeeded"]
    assert till.invoice(ada).status == "paid"
    assert card_of(till, ada).payment_method == holder.payment_method
    # The client hears of the money and of no trouble.
    assert [mail.kind for mail in till.mails(ada)] == ["invoice_ready", "receipt"]
    assert last_mail(sendgrid_control).says("American Express ending in 0005")
    assert audited(till.engine, till.account) == []


def test_a_card_that_the_bank_renews_goes_on_by_itself(till: Till, vendors: Gateways) -> None:
    ada = till.client("Ada", "pm_card_chargeDeclinedExpiredCard", email="ada@example.com")
    till.work(JUNE - DAY, gateways=vendors)
    bill_may(till, vendors)
    assert (card_of(till, ada).stopped_for, till.invoice(ada).next_attempt_at) == (
        "expired_card",
        None,
    )

    # Stripe's test cards never change, so behind its back the client gets one that pays.
    renewed = make_cardholder(till.stripe.url, name=ada.name)
    with Session(till.engine) as session, session.begin():
        session.execute(
            update(BillingMethod)
            .where(BillingMethod.client_id == ada.id)
            .values(
                stripe_customer=renewed.customer,
                payment_method=renewed.payment_method,
            )
        )
    till.stripe.update_card(renewed.payment_method, exp_month=3, exp_year=2041)
    assert till.hear("payment_method.automatically_updated") == 1
    till.work(JUNE + 12 * DAY, gateways=vendors)

    paid = till.invoice(ada)
    assert (paid.status, paid.paid_at) == ("paid", JUNE + 12 * DAY)
    assert (card_of(till, ada).exp_year, card_of(till, ada).stopped_for) == (2041, None)
    assert audited(till.engine, till.account) == []


def test_a_client_without_a_card_leaves_one_on_its_page_and_the_invoice_is_paid(
    till: Till, vendors: Gateways
) -> None:
    ada = till.client("Ada", None, email="ada@example.com")
    bill_may(till, vendors)
    assert (till.invoice(ada).status, till.attempts(ada)) == ("open", [])

    # The local Stripe lives by the real clock, and so do its pages.
    with Session(till.engine) as session, session.begin():
        setup_id = ask_for_setup(
            session,
            ada.id,
            CardRole.DEFAULT,
            return_url="http://duecourse.example/p/token",
            now=database_now(session),
            requested_by="client",
        ).id
    work(till.engine, gateways=vendors)
    with Session(till.engine) as session:
        page = str(session.get_one(CardSetup, setup_id).checkout_session)
    till.stripe.save_card(page)
    assert till.hear("checkout.session.completed") == 1
    work(till.engine, gateways=vendors)

    assert till.invoice(ada).status == "paid"
    assert till.charged(ada) == [1_000]
    assert card_of(till, ada).brand == "visa"
    assert [mail.kind for mail in till.mails(ada)] == ["invoice_ready", "receipt"]
    assert audited(till.engine, till.account) == []
