"""Each revision on a database that was in use before it."""

from datetime import date

import pytest
from alembic import command
from psycopg.errors import RestrictViolation
from sqlalchemy import Engine, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from models import Account, Client, CreditBalance, CreditEntry, Queue, schema
from models.reconciliation import standing_differences
from models.schema import migrate
from tasks.accounts import create_account
from tasks.acknowledging import acknowledge_difference
from tasks.credit_balances import balance_of
from tasks.drafting import draft_invoice
from tasks.finalizing import finalize_invoice
from tests.worlds import a_charge, audited, invoices_of, perform

# As the first release wrote them: an open invoice, two negative ones, a void one, a draft, and a
# finished run; of another client, one negative invoice in another currency.
IN_USE = """
SET LOCAL session_replication_role = replica;
INSERT INTO accounts (name) VALUES ('Bluebird Prep');
INSERT INTO clients (account_id, name)
SELECT accounts.id, new.name FROM accounts, (VALUES ('Ada'), ('Bob'), ('Eve')) AS new (name);
INSERT INTO billing_runs (account_id, as_of_at, finished_at) SELECT id, now(), now() FROM accounts;
INSERT INTO number_series (account_id, document, next_number)
SELECT id, 'invoice', 7 FROM accounts;
INSERT INTO invoices (account_id, client_id, run_id, status, number, currency, subtotal, total,
                      credit_applied, issued_on, due_on, finalized_at, paid_at, voided_at)
SELECT clients.account_id, clients.id, billing_runs.id, new.status, new.number, new.currency,
       new.total, new.total, LEAST(new.total, 0), '2026-05-01', '2026-05-15', '2026-05-01',
       CASE new.status WHEN 'paid' THEN date '2026-05-01' END,
       CASE new.status WHEN 'void' THEN date '2026-05-02' END
  FROM (VALUES ('Ada', 'INV-000001', 'open', 'usd', 1000), ('Ada', 'INV-000002', 'paid', 'usd', -300),
               ('Ada', 'INV-000003', 'paid', 'usd', -50), ('Ada', 'INV-000004', 'void', 'usd', 700),
               ('Bob', 'INV-000005', 'paid', 'eur', -20), ('Bob', 'INV-000006', 'paid', 'usd', 0))
       AS new (client, number, status, currency, total)
  JOIN clients ON clients.name = client CROSS JOIN billing_runs;
INSERT INTO invoices (account_id, client_id, currency, subtotal, total)
SELECT account_id, id, 'usd', -90, -90 FROM clients WHERE name = 'Eve';
INSERT INTO charges (account_id, client_id, invoice_id, charged_on, description, quantity, amount,
                     currency)
SELECT account_id, client_id, id, '2026-04-01', 'Labelling', 1, total, currency FROM invoices;
INSERT INTO invoice_lines (invoice_id, position, charge_id, charged_on, description, quantity,
                           amount)
SELECT invoice_id, 1, charges.id, charged_on, description, quantity, amount
  FROM charges JOIN invoices ON invoices.id = invoice_id WHERE status <> 'draft';
INSERT INTO ledger_entries (account_id, client_id, invoice_id, event, currency, effective_on)
SELECT account_id, client_id, id, 'finalize', currency, issued_on FROM invoices WHERE total <> 0
   AND status <> 'draft' UNION ALL
SELECT account_id, client_id, id, 'void', currency, issued_on FROM invoices WHERE status = 'void';
INSERT INTO ledger_postings (entry_id, ledger_account, currency, amount)
SELECT entries.id, side.account, entries.currency, side.sign * total
       * CASE event WHEN 'void' THEN -1 ELSE 1 END
  FROM ledger_entries AS entries JOIN invoices ON invoices.id = invoice_id
 CROSS JOIN LATERAL (VALUES (CASE WHEN total < 0 THEN 'credit' ELSE 'receivable' END, 1),
                            ('revenue', -1)) AS side (account, sign)
"""


# As the release before acknowledgements wrote it: one that stands, and one that was looked at again.
DIFFERED = """
INSERT INTO accounts (name) VALUES ('Bluebird Prep');
INSERT INTO reconciliations (account_id, job_id, since, until, requested_by, finished_at)
SELECT id, uuid7(), now() - interval '1 day', now(), 'cli', now() FROM accounts;
INSERT INTO reconciliation_differences (reconciliation_id, difference, stripe_id, currency, theirs,
                                        their_amount, repaired, rechecked_at)
SELECT id, 'refund_made_elsewhere', new.stripe_id, 'usd', 'succeeded', 250, false, new.rechecked_at
  FROM reconciliations,
       (VALUES ('re_1', NULL), ('re_2', now())) AS new (stripe_id, rechecked_at)
"""


def in_use_since_the_first_release(engine: Engine) -> Account:
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE; CREATE SCHEMA public"))
        config = schema._config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for statement in IN_USE.split(";"):
            connection.execute(text(statement))
        connection.execute(text("SET LOCAL session_replication_role = origin"))
        migrate(connection)
    with Session(engine, expire_on_commit=False) as session:
        return session.scalars(select(Account)).one()


def client_named(engine: Engine, name: str) -> Client:
    with Session(engine, expire_on_commit=False) as session:
        return session.scalars(select(Client).where(Client.name == name)).one()


def test_what_negative_invoices_owe_is_in_hand_after_the_upgrade(
    engine: Engine, session: Session
) -> None:
    account = in_use_since_the_first_release(engine)

    balances = session.execute(
        select(Client.name, CreditBalance.currency, CreditBalance.balance)
        .join(Client, Client.id == CreditBalance.client_id)
        .order_by(Client.name)
    )
    assert [tuple(row) for row in balances] == [("Ada", "usd", 350), ("Bob", "eur", 20)]
    entries = session.scalars(select(CreditEntry).order_by(CreditEntry.amount)).all()
    assert [one.amount for one in entries] == [20, 50, 300]
    assert {(one.kind, one.requested_by) for one in entries} == {("negative_invoice", "migration")}
    assert {one.created_at.date() for one in entries} == {date(2026, 5, 1)}
    assert audited(engine, account) == []


def test_what_was_open_before_the_upgrade_is_collected_by_hand(
    engine: Engine, session: Session
) -> None:
    account = in_use_since_the_first_release(engine)

    old = invoices_of(engine, account)
    assert not any(invoice.auto_collect or invoice.next_attempt_at for invoice in old)
    assert {invoice.attempt_count for invoice in old} == {0}
    assert (account.auto_collect, account.dunning_days, account.notifications) == (
        True,
        [3, 5, 7, 7],
        {},
    )
    assert set(session.scalars(select(Queue.name))) == {"billing", "mail", "ops", "payments"}


def test_credit_from_before_the_upgrade_is_used_by_the_next_invoice(
    engine: Engine, session: Session
) -> None:
    account = in_use_since_the_first_release(engine)
    ada = client_named(engine, "Ada")
    a_charge(engine, ada, date(2026, 6, 1), "2.00")
    perform(engine, draft_invoice, account, client_id=ada.id)
    perform(engine, finalize_invoice, account, invoice_id=invoices_of(engine, ada)[-1].id)

    last = invoices_of(engine, ada)[-1]
    assert (last.number, last.status, last.credit_applied) == ("INV-000007", "paid", 200)
    assert balance_of(session, ada.id, "usd") == 150
    assert audited(engine, account) == []


def test_a_draft_from_before_the_upgrade_gives_its_credit_when_it_is_finalized(
    engine: Engine, session: Session
) -> None:
    account = in_use_since_the_first_release(engine)
    eve = client_named(engine, "Eve")
    assert balance_of(session, eve.id, "usd") == 0

    perform(engine, finalize_invoice, account, invoice_id=invoices_of(engine, eve)[0].id)

    assert balance_of(session, eve.id, "usd") == 90
    assert audited(engine, account) == []


def test_numbers_lines_and_amounts_due_go_on_after_the_upgrade(
    engine: Engine, session: Session
) -> None:
    account = in_use_since_the_first_release(engine)

    old = [one for one in invoices_of(engine, account) if one.number]
    assert [(one.number, one.sequence, one.series_year) for one in old] == [
        (f"INV-{place:06}", place, 0) for place in range(1, 7)
    ]
    # What is due is computed otherwise now, and is the same.
    assert [one.amount_due for one in old] == [1_000, 0, 0, 0, 0, 0]
    assert session.execute(text("SELECT count(*) FROM invoice_lines WHERE net = amount")).one() == (
        6,
    )
    series = session.execute(
        text("SELECT document, year, first_number, next_number FROM number_series")
    )
    assert [tuple(row) for row in series] == [("invoice", 0, 1, 7)]
    assert (account.number_format, account.review_hours, account.books_closed_through) == (
        "INV-{seq:06}",
        0,
        None,
    )


def upgrade_to(engine: Engine, revision: str, *statements: str) -> None:
    """The next revisions on what is there, and then what somebody does by hand, unhindered."""
    with engine.begin() as connection:
        config = schema._config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        for statement in statements:
            connection.execute(text(statement))


@pytest.mark.parametrize("given_back", [0, 1])
def test_an_invoice_of_which_too_much_went_back_stops_no_upgrade(
    engine: Engine, session: Session, given_back: int
) -> None:
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE; CREATE SCHEMA public"))
    upgrade_to(engine, "0001", *IN_USE.split(";"))
    upgrade_to(
        engine,
        "0009",
        f"UPDATE invoices SET amount_refunded = {given_back} WHERE status = 'open'",  # noqa: S608
    )

    with engine.begin() as connection:
        migrate(connection)

    is_proven = "SELECT convalidated FROM pg_constraint WHERE conname = 'ck_invoices_given_back'"
    assert session.execute(text(is_proven)).scalar_one() is (given_back == 0)
    with pytest.raises(IntegrityError, match="ck_invoices_given_back"), session.begin_nested():
        session.execute(text("UPDATE invoices SET amount_refunded = 2 WHERE status = 'open'"))


def test_what_is_finalized_stays_locked_after_the_upgrade(engine: Engine, session: Session) -> None:
    in_use_since_the_first_release(engine)
    for change in ("invoices SET due_on = due_on + 1", "invoice_lines SET net = 1"):
        with pytest.raises(DBAPIError) as refused, session.begin_nested():
            session.execute(text(f"UPDATE {change}"))
        assert isinstance(refused.value.orig, RestrictViolation)


def test_differences_from_before_the_upgrade_stand_and_can_be_acknowledged(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE; CREATE SCHEMA public"))
        config = schema._config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0009")
        for statement in DIFFERED.split(";"):
            connection.execute(text(statement))
        migrate(connection)
    with Session(engine, expire_on_commit=False) as session:
        account = session.scalars(select(Account)).one()
    [told] = audited(engine, account)
    assert told.subject == "re_1"

    with Session(engine) as session, session.begin():
        [one] = session.scalars(standing_differences(account.id))
        acknowledge_difference(session, account.id, one.id, "By hand", requested_by="cli")

    assert audited(engine, account) == []


def test_an_empty_database_is_upgraded_all_the_way(engine: Engine, session: Session) -> None:
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE; CREATE SCHEMA public"))
        migrate(connection)

    account = create_account(session, "New")
    session.commit()

    assert audited(engine, account) == []
