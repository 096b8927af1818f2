"""Through which Stripe account a charge goes, and whose word about it is taken."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from billing.errors import InvalidInput, NotFound, RuleViolation
from gateways.merchants import Merchant
from gateways.sandbox.stripe.cardholders import make_cardholder
from gateways.sandbox.stripe.server import StripeSandbox
from gateways.sealing import Seal
from gateways.stripe_api import StripeApi
from gateways.stripe_cards import StripeCards
from gateways.stripe_events import event_from
from models import Account, Client, PaymentAttempt, StripeMerchant, WebhookEvent
from tasks.accounts import change_account, create_account
from tasks.calls import Gateways
from tasks.charging import charge_invoice
from tasks.merchants import charge_by_own_key, forget_own_key, merchant_of
from tasks.own_webhooks import own_event_readers
from tasks.payment_refunds import refund_payment
from tasks.webhooks import store_payment_event
from tests.cards import (
    BANK,
    QUEUES,
    a_client_with,
    an_open_invoice,
    attempt_states,
    attempts_of,
    card_of,
    do,
    invoice_of,
    payments,
    put_on,
    sweep,
)
from tests.conftest import STRIPE_KEY
from tests.processes import SECRET_KEY
from tests.worlds import NOW, a_client, audited, together, work

ADA, BOB = "acct_ada", "acct_bob"
OWN_KEY = "sk_test_acct_own_1_of4242"
NEW_KEY = "sk_test_acct_own_2_of9999"
OTHER_KEY = "sk_test_acct_other_1_of1111"
SECRET = "whsec_of_the_own_account"
OTHER_SECRET = "whsec_of_the_other_account"
SEAL = Seal(SECRET_KEY)
SUCCEEDED = "payment_intent.succeeded"


def charge_through(engine: Engine, account: Account, stripe_account: str | None) -> None:
    with Session(engine) as session, session.begin():
        change_account(session, account.id, {"stripe_account": stripe_account}, now=NOW)


def charge_by(
    engine: Engine,
    account: Account,
    key: str,
    *,
    same: bool | None = None,
    webhook_secret: str | None = SECRET,
) -> StripeMerchant:
    with Session(engine, expire_on_commit=False) as session, session.begin():
        return charge_by_own_key(
            session,
            session.get_one(Account, account.id),
            SEAL,
            secret_key=key,
            webhook_secret=webhook_secret,
            same_stripe_account=same,
        )


def current(engine: Engine, account: Account) -> Merchant:
    with Session(engine) as session:
        return merchant_of(session, session.get_one(Account, account.id))


def a_client_at(
    engine: Engine,
    account: Account,
    stripe: StripeSandbox,
    stripe_account: str,
    card: str = "pm_card_visa",
) -> Client:
    """A client whose card was left at a Stripe account."""
    client = a_client(engine, account)
    put_on(
        engine,
        client,
        make_cardholder(stripe.url, payment_method=card, stripe_account=stripe_account),
    )
    return client


def asked_at(stripe: StripeSandbox, *, method: str = "POST") -> list[tuple[str, str]]:
    """Which Stripe accounts were asked for what by us, in order."""
    return [
        (request.account, request.path.split("/")[2])
        for request in stripe.control.requests(method=method)
        if request.path.split("/")[2] in {"payment_intents", "refunds"}
    ]


def deliver(
    engine: Engine,
    vendors: Gateways,
    payload: Mapping[str, Any],
    merchant_id: UUID | None = None,
) -> None:
    """An event that comes in, and is worked."""
    with Session(engine) as session, session.begin():
        store_payment_event(
            session, event_from(payload), requested_by="webhook:stripe", merchant_id=merchant_id
        )
    work(engine, now=NOW, gateways=vendors, queues=QUEUES)


def last_outcome(engine: Engine) -> str | None:
    with Session(engine) as session:
        found = select(WebhookEvent.outcome).order_by(WebhookEvent.id.desc()).limit(1)
        return session.scalar(found)


def changed(
    event: Mapping[str, Any], *, number: int = 1, account: str | None = None, **intent: Any
) -> dict[str, Any]:
    """Another event like that, of another Stripe account, with other things said of the payment."""
    told = {name: value for name, value in event.items() if name != "account"}
    about = {**event["data"]["object"], **intent}
    return {
        **told,
        "id": f"{event['id']}_{number}",
        "data": {"object": about},
        **({} if account is None else {"account": account}),
    }


def a_debit_under_way(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe: StripeSandbox,
    stripe_account: str | None,
) -> UUID:
    """An invoice whose bank debit Stripe has taken, and settled since: only an event tells of it."""
    stripe.control.set(settle_after=None)
    if stripe_account is None:
        client = a_client_with(engine, account, stripe, BANK)
    else:
        client = a_client_at(engine, account, stripe, stripe_account, BANK)
    invoice_id = an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    assert attempt_states(engine, invoice_id) == ["processing"]
    stripe.control.settle(str(attempts_of(engine, invoice_id)[0].payment_intent))
    return invoice_id


def test_an_account_charges_through_a_connected_one(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    charge_through(engine, account, ADA)
    client = a_client_at(engine, account, stripe_sandbox, ADA)
    invoice_id = an_open_invoice(engine, account, client)

    sweep(engine, vendors)

    assert invoice_of(engine, invoice_id).status == "paid"
    assert asked_at(stripe_sandbox) == [(ADA, "payment_intents")]
    [intent] = stripe_sandbox.control.payment_intents(account=ADA)
    assert intent["metadata"].keys() == {"account", "client", "invoice", "attempt"}
    assert audited(engine, account) == []


def test_what_was_charged_is_refunded_where_it_was_made(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    charge_through(engine, account, ADA)
    client = a_client_at(engine, account, stripe_sandbox, ADA)
    an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    charge_through(engine, account, BOB)

    [payment] = payments(engine)
    job = do(
        engine, vendors, refund_payment, account, payment_id=payment.id, to="card", reason="late"
    )

    assert job.state == "succeeded", job.error
    assert asked_at(stripe_sandbox) == [(ADA, "payment_intents"), (ADA, "refunds")]
    assert audited(engine, account) == []


def test_a_lost_answer_is_asked_for_where_the_charge_was_made(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    charge_through(engine, account, ADA)
    client = a_client_at(engine, account, stripe_sandbox, ADA)
    invoice_id = an_open_invoice(engine, account, client)
    stripe_sandbox.control.add_fault("lost_answer", times=3)
    sweep(engine, vendors)
    assert attempt_states(engine, invoice_id) == ["unknown"]

    charge_through(engine, account, None)
    sweep(engine, vendors, now=NOW + timedelta(minutes=2))

    assert invoice_of(engine, invoice_id).status == "paid"
    assert set(asked_at(stripe_sandbox)) == {(ADA, "payment_intents")}
    assert len(stripe_sandbox.control.payment_intents()) == 1


def test_the_same_attempt_never_moves_to_another_stripe_account(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    invoice_id = an_open_invoice(engine, account, a_client_with(engine, account, stripe_sandbox))
    sweep(engine, vendors)
    charge_through(engine, account, ADA)

    moves = update(PaymentAttempt).where(PaymentAttempt.invoice_id == invoice_id)
    with (
        pytest.raises(DBAPIError, match="stays at the Stripe account"),
        engine.begin() as connection,
    ):
        connection.execute(moves.values(merchant_id=current(engine, account).id))
    for change in ("UPDATE stripe_merchants SET key_hint = NULL", "DELETE FROM stripe_merchants"):
        with pytest.raises(DBAPIError), engine.begin() as connection:
            connection.execute(text(change))


def test_an_account_charges_by_its_own_key(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    charge_by(engine, account, OWN_KEY)
    client = a_client_at(engine, account, stripe_sandbox, "acct_own")
    invoice_id = an_open_invoice(engine, account, client)

    sweep(engine, vendors)

    assert invoice_of(engine, invoice_id).status == "paid"
    assert asked_at(stripe_sandbox) == [("acct_own", "payment_intents")]


def test_a_new_key_of_the_same_stripe_account_takes_over_all_of_the_old_ones(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    first = charge_by(engine, account, OWN_KEY)
    client = a_client_at(engine, account, stripe_sandbox, "acct_own")
    an_open_invoice(engine, account, client)
    sweep(engine, vendors)

    second = charge_by(engine, account, NEW_KEY, same=True, webhook_secret=None)

    assert second.merchant_id == first.merchant_id == first.id
    assert second.sealed_webhook_secret == first.sealed_webhook_secret
    assert SEAL.open(str(current(engine, account).sealed_key)) == NEW_KEY
    invoice_id = an_open_invoice(engine, account, client, "5.00")
    sweep(engine, vendors)
    assert invoice_of(engine, invoice_id).status == "paid"
    [first_payment, _] = payments(engine)
    job = do(
        engine, vendors, refund_payment, account, payment_id=first_payment.id, to="card", reason="x"
    )
    assert job.state == "succeeded", job.error


def test_a_key_says_whether_it_is_of_the_stripe_account_of_the_last_one(
    engine: Engine, account: Account
) -> None:
    with pytest.raises(InvalidInput, match="same_stripe_account"):
        charge_by(engine, account, OWN_KEY, same=True)
    first = charge_by(engine, account, OWN_KEY)
    with pytest.raises(InvalidInput, match="same_stripe_account"):
        charge_by(engine, account, NEW_KEY)
    with pytest.raises(InvalidInput, match="webhook_secret"):
        charge_by(engine, account, OTHER_KEY, same=False, webhook_secret=None)
    with pytest.raises(InvalidInput, match="must be true, as that webhook secret tells"):
        charge_by(engine, account, OTHER_KEY, same=False)

    other = charge_by(engine, account, OTHER_KEY, same=False, webhook_secret=OTHER_SECRET)

    assert other.merchant_id not in {first.merchant_id, None}
    with Session(engine) as session, session.begin():
        forget_own_key(session, session.get_one(Account, account.id))
    assert current(engine, account) == Merchant()
    with pytest.raises(NotFound), Session(engine) as session:
        forget_own_key(session, session.get_one(Account, account.id))


def test_an_earlier_webhook_secret_leads_back_to_its_stripe_account(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    first = charge_by(engine, account, OWN_KEY)
    invoice_id = a_debit_under_way(engine, account, vendors, stripe_sandbox, "acct_own")
    charge_by(engine, account, OTHER_KEY, same=False, webhook_secret=OTHER_SECRET)
    with pytest.raises(InvalidInput, match="must be false, as that webhook secret tells"):
        charge_by(engine, account, NEW_KEY, same=True)

    back = charge_by(engine, account, NEW_KEY, same=False)

    assert back.merchant_id == first.merchant_id == current(engine, account).id
    # What the same endpoint tells of the time before is still believed.
    with Session(engine) as session:
        [(merchant_id, _), _] = own_event_readers(session, account.id, SEAL)
    [event] = stripe_sandbox.control.events(SUCCEEDED)
    deliver(engine, vendors, changed(event, number=1), merchant_id)
    assert invoice_of(engine, invoice_id).status == "paid"


def test_a_card_is_charged_only_where_it_was_left(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    charge_through(engine, account, ADA)
    invoice_id = an_open_invoice(engine, account, client)

    sweep(engine, vendors)
    clicked = do(engine, vendors, charge_invoice, account, invoice_id=invoice_id)

    assert asked_at(stripe_sandbox) == []
    assert (clicked.state, clicked.reason) == ("skipped", "no_billing_method")
    assert "another Stripe account" in (clicked.result or {})["message"]
    assert invoice_of(engine, invoice_id).next_attempt_at is None

    put_on(engine, client, make_cardholder(stripe_sandbox.url, stripe_account=ADA))
    work(engine, now=NOW, gateways=vendors, queues=QUEUES)
    assert invoice_of(engine, invoice_id).status == "paid"


def test_a_card_left_elsewhere_is_good_again_once_the_account_goes_back(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    charge_through(engine, account, ADA)
    charge_through(engine, account, None)
    invoice_id = an_open_invoice(engine, account, client)

    sweep(engine, vendors)

    assert invoice_of(engine, invoice_id).status == "paid"
    assert card_of(engine, client) is not None


def test_two_accounts_never_charge_through_one_connected_account(
    engine: Engine, account: Account
) -> None:
    with Session(engine, expire_on_commit=False) as session, session.begin():
        other = create_account(session, "Cardinal Prep")

    def claim(of: Account) -> None:
        charge_through(engine, of, ADA)

    outcomes = together(lambda: claim(account), lambda: claim(other))

    [refusal] = [one for one in outcomes if one is not None]
    assert isinstance(refusal, RuleViolation)
    assert refusal.code == "stripe_account_taken"
    assert {current(engine, one).stripe_account for one in (account, other)} == {ADA, None}


@pytest.mark.parametrize("wrong", ["", "ada", "acct_", "acct_a b", "acct_ä", "acct_1\n"])
def test_a_stripe_account_looks_like_one(engine: Engine, account: Account, wrong: str) -> None:
    with pytest.raises(InvalidInput, match="stripe_account"):
        charge_through(engine, account, wrong)


def test_a_key_that_cannot_be_opened_charges_nothing_and_says_why(
    engine: Engine, account: Account, stripe_sandbox: StripeSandbox
) -> None:
    charge_by(engine, account, OWN_KEY)
    client = a_client_at(engine, account, stripe_sandbox, "acct_own")
    invoice_id = an_open_invoice(engine, account, client)
    with StripeApi(STRIPE_KEY, base_url=stripe_sandbox.url, seal=Seal("another" * 8)) as api:
        job = do(
            engine, Gateways(cards=StripeCards(api)), charge_invoice, account, invoice_id=invoice_id
        )

    assert job.state == "scheduled"
    assert "sealed under another SECRET_KEY" in (job.error or {})["message"]
    assert asked_at(stripe_sandbox) == []
    assert attempt_states(engine, invoice_id) == ["pending"]


def test_no_secret_is_told_to_a_log_a_job_or_a_reader(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    with capture_logs() as logs:
        row = charge_by(engine, account, OWN_KEY)
        client = a_client_at(engine, account, stripe_sandbox, "acct_own")
        invoice_id = an_open_invoice(engine, account, client)
        stripe_sandbox.control.add_fault("server_error", times=None)
        do(engine, vendors, charge_invoice, account, invoice_id=invoice_id)
    with engine.connect() as connection:
        told = [
            str(connection.execute(text(f"SELECT json_agg(t) FROM {table} t")).scalar())  # noqa: S608
            for table in ("jobs", "job_attempts", "payment_attempts", "stripe_merchants")
        ]
    said = [str(logs), *told, repr(current(engine, account)), repr(row)]

    assert "sealed_key" not in repr(current(engine, account))
    for secret in (OWN_KEY, SECRET):
        assert not [one for one in said if secret in one]
    assert row.key_hint == "4242"


def test_an_event_settles_a_charge_of_the_stripe_account_it_comes_from(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    charge_through(engine, account, ADA)
    invoice_id = a_debit_under_way(engine, account, vendors, stripe_sandbox, ADA)
    [event] = stripe_sandbox.control.events(SUCCEEDED)
    assert event["account"] == ADA

    deliver(engine, vendors, event)

    assert invoice_of(engine, invoice_id).status == "paid"
    assert audited(engine, account) == []


@pytest.mark.parametrize("made_at", [None, ADA])
@pytest.mark.parametrize("told_by", [None, ADA, BOB])
def test_nobody_settles_what_was_charged_elsewhere(  # noqa: PLR0917 - fixtures, and the two sides
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    made_at: str | None,
    told_by: str | None,
) -> None:
    charge_through(engine, account, made_at)
    invoice_id = a_debit_under_way(engine, account, vendors, stripe_sandbox, made_at)
    [event] = stripe_sandbox.control.events(SUCCEEDED)

    deliver(engine, vendors, changed(event, account=told_by))

    is_believed = made_at == told_by
    assert invoice_of(engine, invoice_id).status == ("paid" if is_believed else "open")
    assert last_outcome(engine) == ("succeeded" if is_believed else "not_ours")


def test_an_own_key_charge_is_settled_by_its_own_endpoint_alone(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    own = charge_by(engine, account, OWN_KEY)
    invoice_id = a_debit_under_way(engine, account, vendors, stripe_sandbox, "acct_own")
    other = charge_by(engine, account, OTHER_KEY, same=False, webhook_secret=OTHER_SECRET)
    [event] = stripe_sandbox.control.events(SUCCEEDED)

    deliver(engine, vendors, changed(event, number=1))
    deliver(engine, vendors, changed(event, number=2, account="acct_own"))
    deliver(engine, vendors, changed(event, number=3), other.merchant_id)
    deliver(engine, vendors, changed(event, number=4, account=ADA), own.merchant_id)
    assert invoice_of(engine, invoice_id).status == "open"

    # Others cannot forestall it by using up its id.
    deliver(engine, vendors, changed(event, number=3), own.merchant_id)
    assert invoice_of(engine, invoice_id).status == "paid"
    assert audited(engine, account) == []


def test_an_own_endpoint_settles_nothing_of_the_deployments(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    invoice_id = a_debit_under_way(engine, account, vendors, stripe_sandbox, None)
    own = charge_by(engine, account, OWN_KEY)
    [event] = stripe_sandbox.control.events(SUCCEEDED)

    deliver(engine, vendors, event, own.merchant_id)
    assert (invoice_of(engine, invoice_id).status, last_outcome(engine)) == ("open", "not_ours")

    deliver(engine, vendors, event)
    assert invoice_of(engine, invoice_id).status == "paid"


def test_another_amount_than_asked_for_is_recorded_as_it_came_and_flagged(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    invoice_id = a_debit_under_way(engine, account, vendors, stripe_sandbox, None)
    [event] = stripe_sandbox.control.events(SUCCEEDED)

    with capture_logs() as logs:
        deliver(engine, vendors, changed(event, amount_received=400))

    [payment] = payments(engine)[:1]
    assert (payment.amount, payment.flagged) == (400, "another_amount")
    assert invoice_of(engine, invoice_id).amount_paid >= 400
    assert "payment of another amount than asked for" in {entry["event"] for entry in logs}
    assert audited(engine, account) == []


def test_another_currency_than_asked_for_is_refused_and_logged(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    invoice_id = a_debit_under_way(engine, account, vendors, stripe_sandbox, None)
    [event] = stripe_sandbox.control.events(SUCCEEDED)

    with capture_logs() as logs:
        deliver(engine, vendors, changed(event, currency="jpy"))

    assert payments(engine) == []
    assert attempt_states(engine, invoice_id) == ["processing"]
    [error] = [entry for entry in logs if entry["log_level"] == "error"]
    assert error["event"] == "payment in another currency than asked for"


def test_an_event_of_a_refund_is_believed_of_its_own_amount_and_stripe_account(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    charge_through(engine, account, ADA)
    client = a_client_at(engine, account, stripe_sandbox, ADA)
    an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    [payment] = payments(engine)
    stripe_sandbox.control.add_fault("lost_answer", times=3, path="/v1/refunds")
    do(engine, vendors, refund_payment, account, payment_id=payment.id, to="card", reason="late")
    [event] = stripe_sandbox.control.events("refund.created")

    deliver(engine, vendors, changed(event, number=1, account=BOB))
    assert last_outcome(engine) == "not_ours"
    deliver(engine, vendors, changed(event, number=2, account=ADA, amount=1))
    assert last_outcome(engine) == "not_ours"
    deliver(engine, vendors, event)
    assert last_outcome(engine) == "succeeded"
    assert audited(engine, account) == []


def test_events_that_the_last_release_queued_with_the_payments_are_still_handled(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    invoice_id = a_debit_under_way(engine, account, vendors, stripe_sandbox, None)
    [event] = stripe_sandbox.control.events(SUCCEEDED)
    with Session(engine) as session, session.begin():
        store_payment_event(session, event_from(event), requested_by="webhook:stripe")
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE jobs SET queue = 'payments' WHERE kind = 'handle_payment_event'")
        )

    work(engine, now=NOW, gateways=vendors, queues=("payments",))

    assert invoice_of(engine, invoice_id).status == "paid"
