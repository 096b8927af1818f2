# ruff: noqa: S608 - every statement is the test's own.

from datetime import UTC, date, datetime
from uuid import UUID

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from models import Account, Job, job_ledger
from tasks import audits
from tasks.accounts import create_account
from tasks.audits import RULES, audit, audit_books
from tasks.drafting import draft_invoice
from tasks.enqueueing import enqueue
from tasks.finalizing import finalize_invoice
from tasks.leases import LeaseKeeper
from tasks.outcomes import Done
from tasks.running import Runner
from tasks.voiding import void_invoice
from tests.jobs import LEASE, change_job, dispatch, job_of, states
from tests.worlds import NOW, a_charge, a_client, audited, bill, invoices_of, perform, work


def books(engine: Engine, account: Account) -> None:
    """Invoices open, void, paid at once and drafted; a period billed, one empty, one open."""
    client = a_client(engine, account, billing_cycle="monthly", billing_starts_on=date(2026, 4, 1))
    for price in ("10.00", "2.50"):
        a_charge(engine, client, date(2026, 4, 2), price)
    bill(engine, account, now=NOW)
    for price in ("-3.00", "5.00"):
        charge = a_charge(engine, client, date(2026, 6, 1), price)
        perform(engine, draft_invoice, account, client_id=client.id, charge_ids=[charge])
        perform(engine, finalize_invoice, account, invoice_id=invoices_of(engine, client)[-1].id)
    perform(engine, void_invoice, account, invoice_id=invoices_of(engine, client)[-1].id)
    a_charge(engine, client, date(2026, 6, 1), "7.00")
    perform(engine, draft_invoice, account, client_id=client.id)


def tamper(session: Session, *statements: str) -> None:
    """Change the tables behind the triggers' back."""
    session.execute(text("SET LOCAL session_replication_role = replica"))
    for statement in statements:
        changed = session.connection().execute(text(statement))
        assert changed.rowcount > 0, statement


OPEN = "(SELECT id FROM invoices WHERE status = 'open')"
BREACHES = [
    (
        "ledger_entries_balance",
        ["UPDATE ledger_postings SET amount = amount - 1 WHERE ledger_account = 'credit'"],
    ),
    ("invoices_agree_with_ledger", ["UPDATE invoices SET amount_paid = 1 WHERE status = 'open'"]),
    (
        "invoices_agree_with_ledger",
        [
            (
                "UPDATE ledger_postings SET amount = -amount WHERE entry_id ="
                " (SELECT id FROM ledger_entries WHERE event = 'void')"
            )
        ],
    ),
    (
        "finalized_invoices_are_posted_once",
        [f"UPDATE ledger_entries SET event = 'void' WHERE invoice_id = {OPEN}"],
    ),
    (
        "entries_follow_the_postings_table",
        [
            (
                "UPDATE ledger_postings SET amount = amount * 2 WHERE entry_id ="
                " (SELECT entry_id FROM ledger_postings WHERE ledger_account = 'credit')"
            )
        ],
    ),
    (
        "drafts_are_not_posted",
        [
            (
                "INSERT INTO ledger_entries"
                " (account_id, client_id, invoice_id, event, currency, effective_on)"
                " SELECT account_id, client_id, id, 'finalize', currency, '2026-06-01'"
                " FROM invoices WHERE status = 'draft'"
            )
        ],
    ),
    (
        "lines_sum_to_totals",
        [
            f"UPDATE charges SET amount = amount + 1 WHERE invoice_id = {OPEN}",
            f"UPDATE invoice_lines SET amount = amount + 1 WHERE invoice_id = {OPEN}",
        ],
    ),
    ("lines_match_charges", [f"UPDATE charges SET amount = 1 WHERE invoice_id = {OPEN}"]),
    ("lines_match_charges", [f"DELETE FROM charges WHERE invoice_id = {OPEN}"]),
    ("lines_match_charges", [f"UPDATE charges SET invoice_id = NULL WHERE invoice_id = {OPEN}"]),
    (
        "lines_match_charges",
        [
            (
                "INSERT INTO charges (account_id, client_id, invoice_id, charged_on, description,"
                " quantity, amount, currency) SELECT account_id, client_id, id, '2026-06-01',"
                " 'More', 1, 1, 'usd' FROM invoices WHERE status = 'open'"
            )
        ],
    ),
    (
        "draft_totals_match_charges",
        ["UPDATE invoices SET subtotal = 1, total = 1 WHERE status = 'draft'"],
    ),
    ("numbers_are_gapless", ["UPDATE number_series SET next_number = next_number + 1"]),
    ("numbers_are_gapless", ["UPDATE number_series SET next_number = next_number - 1"]),
    ("numbers_are_gapless", ["DELETE FROM number_series"]),
    (
        "numbers_are_gapless",
        ["UPDATE invoices SET number = 'INV-000007' WHERE number = 'INV-000002'"],
    ),
    (
        "periods_tile_time",
        ["UPDATE billing_periods SET ends_at = ends_at - interval '1 s' WHERE state = 'billed'"],
    ),
    (
        "periods_tile_time",
        ["UPDATE billing_periods SET period_end = '2026-05-02' WHERE state = 'billed'"],
    ),
    ("periods_tile_time", ["DELETE FROM billing_periods WHERE state = 'empty'"]),
    (
        "billed_periods_have_invoices",
        ["UPDATE billing_periods SET state = 'empty' WHERE state = 'billed'"],
    ),
    (
        "billed_periods_have_invoices",
        ["UPDATE billing_periods SET state = 'billed' WHERE state = 'empty'"],
    ),
]


def test_sound_books_have_no_differences(engine: Engine, account: Account) -> None:
    assert audited(engine, account) == []
    books(engine, account)

    assert audited(engine, account) == []


def test_a_breach_is_named_by_exactly_its_rule(
    engine: Engine, session: Session, account: Account
) -> None:
    books(engine, account)
    for rule, statements in BREACHES:
        tamper(session, *statements)

        differences = audit(session, account.id)

        named = {one.rule for one in differences}
        # An entry with other amounts is also not what the table of postings says.
        assert named in ({rule}, {rule, "entries_follow_the_postings_table"}), statements
        assert all(one.subject and one.found for one in differences), statements
        session.rollback()


def test_every_rule_has_been_seen_to_fail() -> None:
    assert {rule for rule, _ in BREACHES} == set(RULES)


def test_an_audit_looks_at_one_account_alone(
    engine: Engine, session: Session, account: Account
) -> None:
    other = create_account(session, "Other")
    session.commit()
    books(engine, account)
    for _, statements in BREACHES:
        tamper(session, *statements)

        assert audit(session, account.id) != []
        assert audit(session, other.id) == []
        session.rollback()


def test_differences_of_a_rule_are_listed_up_to_a_limit(
    engine: Engine, session: Session, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audits, "MAX_DIFFERENCES_LISTED", 1)
    books(engine, account)
    tamper(session, f"UPDATE charges SET amount = 1 WHERE invoice_id = {OPEN}")

    assert len(audit(session, account.id)) == 1


def test_the_nightly_audit_counts_the_differences_of_all_accounts(
    engine: Engine, session: Session, account: Account
) -> None:
    other = create_account(session, "Other")
    session.commit()
    for owner in (account, other):
        books(engine, owner)
    tamper(session, "UPDATE number_series SET next_number = 90")
    session.commit()

    nightly = enqueue(session, audit_books, account_id=None, requested_by="test").id
    session.commit()

    work(engine)

    counts = {**dict.fromkeys(RULES, 0), "numbers_are_gapless": 2}
    assert job_of(engine, nightly).result == {"accounts": 2, "differences": counts}
    children = session.scalars(select(Job).where(Job.parent_id == nightly)).all()
    assert {child.account_id for child in children} == {account.id, other.id}
    counts["numbers_are_gapless"] = 1
    assert [child.result for child in children] == [{"differences": counts}] * 2


def test_the_nightly_audit_of_no_account_is_done_at_once(engine: Engine) -> None:
    outcome = perform(engine, audit_books, None)

    assert outcome == Done({"accounts": 0, "differences": dict.fromkeys(RULES, 0)})


@pytest.fixture
def halfway(engine: Engine, session: Session, account: Account) -> tuple[UUID, UUID]:
    """The nightly audit, fanned out, and the audit of its one account, which has not started."""
    nightly = enqueue(session, audit_books, account_id=None, requested_by="test").id
    session.commit()
    dispatch(engine)
    leases = LeaseKeeper(engine, lease=LEASE, run_limit=LEASE)
    Runner(engine, leases, worker="test", lease=LEASE).run(audit_books, nightly)
    return nightly, session.scalars(select(Job.id).where(Job.account_id == account.id)).one()


def test_the_nightly_audit_woken_too_early_waits_on(
    engine: Engine, halfway: tuple[UUID, UUID]
) -> None:
    nightly, audit_of_account = halfway
    change_job(engine, audit_of_account, state="scheduled", run_at=datetime(2100, 1, 1, tzinfo=UTC))
    change_job(engine, nightly, run_at=NOW)

    assert work(engine) == 1
    assert states(engine) == ["scheduled", "scheduled"]

    change_job(engine, audit_of_account, state="ready")
    work(engine)
    assert states(engine) == ["succeeded", "succeeded"]
    assert (job_of(engine, nightly).result or {})["accounts"] == 1


def test_an_account_whose_audit_did_not_end_is_not_taken_for_sound(
    engine: Engine, halfway: tuple[UUID, UUID]
) -> None:
    nightly, audit_of_account = halfway
    with engine.begin() as connection:
        assert job_ledger.cancel(connection, audit_of_account)

    work(engine)

    job = job_of(engine, nightly)
    assert (job.state, job.reason) == ("dead", "audit_unfinished")
    assert job.error is not None
    assert str(audit_of_account) in job.error["message"]
