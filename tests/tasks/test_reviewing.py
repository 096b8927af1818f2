from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from billing.errors import IllegalTransition, NotFound, RuleViolation
from models import Account, BillingRun, Client, Invoice, Job
from tasks.drafting import delete_draft
from tasks.finalizing import finalize_invoice
from tasks.outcomes import Done
from tasks.period_outcomes import settle_period
from tasks.reviewing import finalize_reviewed
from tasks.run_conclusions import conclude_run, run_for_update
from tests.mailbox import MAY_5, mails_of, monthly
from tests.money import assert_no_money_is_lost, deposit, with_a_card
from tests.reviews import boundary_of, change_business, delete, end_reviews, states
from tests.worlds import (
    NOW,
    a_charge,
    audited,
    bill,
    change,
    counted,
    invoices_of,
    perform,
    periods_of,
    tick,
    together,
)

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
JUNE, JULY, AUGUST = (date(2026, month, 1) for month in (6, 7, 8))
ROUNDS = 20


def on(month: int, day: int, hour: int = 0) -> datetime:
    return datetime(2026, month, day, hour, tzinfo=UTC)


def drafts_of(engine: Engine, client: Client) -> list[Invoice]:
    """A client's drafts, oldest boundary first."""
    drafts = [one for one in invoices_of(engine, client) if one.status == "draft"]
    return sorted(drafts, key=lambda one: boundary_of(engine, one))


def test_a_run_drafts_and_nobody_is_told_or_charged_until_the_review_is_over(
    engine: Engine, account: Account
) -> None:
    client = monthly(engine, account, "10.00", review_hours=48)
    with_a_card(engine, account, client)

    tick(engine, now=NOW)

    [draft] = invoices_of(engine, client)
    assert (draft.status, draft.number, draft.review_ends_at) == ("draft", None, NOW + 48 * HOUR)
    assert states(engine, client) == [("drafted", None), ("open", None)]
    end_reviews(engine, now=NOW + 48 * HOUR - timedelta(seconds=1))
    assert invoices_of(engine, client)[0].status == "draft"
    assert mails_of(engine, client) == []
    assert audited(engine, account) == []


def test_when_the_review_is_over_the_draft_is_finalized_told_and_collected(
    engine: Engine, session: Session, account: Account
) -> None:
    client = monthly(engine, account, "10.00", review_hours=48)
    with_a_card(engine, account, client)
    tick(engine, now=NOW)
    then = NOW + 48 * HOUR

    end_reviews(engine, now=then)

    [invoice] = invoices_of(engine, client)
    assert (invoice.number, invoice.status, invoice.review_ends_at) == ("INV-000001", "open", None)
    # The date is the boundary's; the days to pay are counted from the day it is seen.
    assert (invoice.issued_on, invoice.due_on) == (JUNE, date(2026, 6, 17))
    assert (invoice.auto_collect, invoice.next_attempt_at) == (True, then)
    assert states(engine, client)[0] == ("billed", None)
    [mail] = mails_of(engine, client)
    assert (mail.kind, mail.invoice_ids) == ("invoice_ready", [invoice.id])
    assert mail.told["charged"] == [str(invoice.id)]
    kinds = session.scalars(select(Job.kind).where(Job.finished_at.is_(None))).all()
    assert "collect_client" in kinds
    assert_no_money_is_lost(engine, account)


def test_nothing_is_finalized_or_told_twice(engine: Engine, account: Account) -> None:
    client = monthly(engine, account, "10.00", review_hours=1)
    tick(engine, now=NOW)

    for minutes in range(60, 64):
        end_reviews(engine, now=NOW + timedelta(minutes=minutes))
    perform(engine, finalize_reviewed, account, now=NOW + DAY, client_id=client.id)

    assert [one.number for one in invoices_of(engine, client)] == ["INV-000001"]
    assert len(mails_of(engine, client)) == 1


def test_a_run_that_ends_again_does_not_tell_what_the_review_told(
    engine: Engine, account: Account
) -> None:
    client = monthly(engine, account, "10.00", review_hours=1)
    by_hand = monthly(engine, account, "10.00", review_hours="person")
    run = bill(engine, account, now=NOW)
    end_reviews(engine, now=NOW + HOUR)
    [draft] = drafts_of(engine, by_hand)
    perform(engine, finalize_invoice, account, invoice_id=draft.id)

    with Session(engine) as session, session.begin():
        again = session.scalars(run_for_update(run.id)).one()
        conclude_run(session, again, now=NOW + DAY, requested_by="test")

    assert len(mails_of(engine, client)) == len(mails_of(engine, by_hand)) == 1


def test_drafts_for_a_person_wait_for_ever_and_later_ones_behind_them(
    engine: Engine, account: Account
) -> None:
    change_business(engine, account, review_hours=None)
    client = monthly(engine, account, "10.00")
    a_charge(engine, client, date(2026, 6, 5))
    tick(engine, now=NOW)
    change_business(engine, account, review_hours=0)
    tick(engine, now=on(7, 1))
    end_reviews(engine, now=on(12, 31))

    may, june = drafts_of(engine, client)
    assert (may.review_ends_at, june.review_ends_at) == (None, on(7, 1))
    assert states(engine, client)[:2] == [("drafted", None), ("drafted", None)]

    perform(engine, finalize_invoice, account, now=on(7, 2), invoice_id=may.id)
    assert states(engine, client)[:2] == [("billed", None), ("drafted", None)]
    end_reviews(engine, now=on(7, 2))

    assert states(engine, client)[:2] == [("billed", None), ("billed", None)]
    assert [boundary_of(engine, one) for one in invoices_of(engine, client)] == [JUNE, JULY]
    assert audited(engine, account) == []


def test_a_later_draft_waits_for_an_older_one_whose_review_was_longer(
    engine: Engine, account: Account
) -> None:
    client = monthly(engine, account, "10.00", review_hours=40 * 24)
    a_charge(engine, client, date(2026, 6, 5))
    tick(engine, now=on(6, 1))
    change(engine, client, review_hours=24)
    tick(engine, now=on(7, 1))

    end_reviews(engine, now=on(7, 5))
    assert len(drafts_of(engine, client)) == 2

    end_reviews(engine, now=on(7, 11))
    first, second = invoices_of(engine, client)
    assert [boundary_of(engine, first), boundary_of(engine, second)] == [JUNE, JULY]
    # Its boundary is too far back by now, and no date goes back behind the one before.
    assert (first.issued_on, second.issued_on) == (date(2026, 7, 11), date(2026, 7, 11))
    [mail] = mails_of(engine, client)
    assert mail.invoice_ids == [first.id, second.id]


def test_drafts_in_two_currencies_are_finalized_together_oldest_boundary_first(
    engine: Engine, account: Account
) -> None:
    client = monthly(engine, account, "10.00", review_hours=24, billing_starts_on=date(2026, 4, 1))
    a_charge(engine, client, MAY_5, currency="eur")
    a_charge(engine, client, date(2026, 4, 5), currency="eur")
    a_charge(engine, client, date(2026, 4, 5))
    bill(engine, account, now=NOW)

    end_reviews(engine, now=NOW + DAY)

    billed = [(boundary_of(engine, one), one.currency) for one in invoices_of(engine, client)]
    assert billed == [
        (date(2026, 5, 1), "eur"), (date(2026, 5, 1), "usd"), (JUNE, "eur"), (JUNE, "usd")
    ]  # fmt: skip
    [mail] = mails_of(engine, client)
    assert len(mail.invoice_ids) == 4
    assert_no_money_is_lost(engine, account)


def test_staff_finalize_one_draft_of_a_period_earlier_and_the_other_follows_by_itself(
    engine: Engine, account: Account
) -> None:
    client = monthly(engine, account, "10.00", review_hours=24)
    a_charge(engine, client, MAY_5, currency="eur")
    tick(engine, now=NOW)
    euros = next(one for one in drafts_of(engine, client) if one.currency == "eur")

    perform(engine, finalize_invoice, account, now=NOW + HOUR, invoice_id=euros.id)
    assert states(engine, client)[0] == ("drafted", None)
    end_reviews(engine, now=NOW + DAY)

    assert states(engine, client)[0] == ("billed", None)
    assert [len(mail.invoice_ids) for mail in mails_of(engine, client)] == [1, 1]


def test_a_client_without_review_is_billed_at_once_beside_one_with(
    engine: Engine, account: Account
) -> None:
    change_business(engine, account, review_hours=24)
    at_once = monthly(engine, account, "10.00", review_hours=0)
    reviewed = monthly(engine, account, "10.00")
    by_person = monthly(engine, account, "10.00", review_hours="person")

    run = bill(engine, account, now=NOW)

    assert [one.status for one in invoices_of(engine, at_once)] == ["open"]
    assert [one.review_ends_at for one in drafts_of(engine, reviewed)] == [NOW + DAY]
    assert [one.review_ends_at for one in drafts_of(engine, by_person)] == [None]
    assert {one.run_id for one in invoices_of(engine, account)} == {run.id}
    assert [len(mails_of(engine, one)) for one in (at_once, reviewed, by_person)] == [1, 0, 0]


def test_a_deleted_draft_is_not_drafted_by_itself_and_its_charges_join_the_next(
    engine: Engine, account: Account
) -> None:
    client = monthly(engine, account, "10.00", review_hours=24)
    a_charge(engine, client, date(2026, 6, 5))
    tick(engine, now=NOW)
    [draft] = drafts_of(engine, client)
    delete(engine, account, draft.id)
    tick(engine, now=NOW + DAY)
    bill(engine, account, now=NOW + DAY)
    assert states(engine, client)[0] == ("skipped", "draft_deleted")
    assert invoices_of(engine, client) == []

    tick(engine, now=on(7, 1))

    [draft] = drafts_of(engine, client)
    assert draft.total == 2000
    # What a run of the client alone finds of it then is nothing, and stays told as it was.
    bill(engine, account, now=on(7, 2), client_id=client.id)
    assert states(engine, client)[:2] == [("skipped", "draft_deleted"), ("drafted", None)]


def test_a_run_of_one_client_drafts_again_what_was_deleted(
    engine: Engine, account: Account
) -> None:
    client = monthly(engine, account, "10.00", review_hours=24)
    tick(engine, now=NOW)
    delete(engine, account, drafts_of(engine, client)[0].id)

    bill(engine, account, now=NOW + DAY, client_id=client.id)

    [draft] = drafts_of(engine, client)
    assert (draft.total, draft.review_ends_at) == (1000, NOW + 2 * DAY)
    assert states(engine, client)[0] == ("drafted", None)


def test_going_manual_leaves_drafts_in_review(engine: Engine, account: Account) -> None:
    client = monthly(engine, account, "10.00", review_hours=24)
    tick(engine, now=NOW)

    change(engine, client, billing_cycle="manual")
    assert states(engine, client) == [("drafted", None), ("skipped", "switched_to_manual")]
    end_reviews(engine, now=NOW + DAY)

    assert states(engine, client)[0] == ("billed", None)


def test_credit_pays_when_the_review_is_over_and_not_before(
    engine: Engine, account: Account
) -> None:
    client = monthly(engine, account, "10.00", review_hours=24)
    deposit(engine, account, client, 400)
    tick(engine, now=NOW)
    assert drafts_of(engine, client)[0].credit_applied == 0

    end_reviews(engine, now=NOW + DAY)

    [invoice] = invoices_of(engine, client)
    assert (invoice.credit_applied, invoice.amount_due) == (400, 600)
    assert_no_money_is_lost(engine, account)


def test_one_bad_client_never_stops_the_others(
    engine: Engine, session: Session, account: Account
) -> None:
    bad, good = (monthly(engine, account, "10.00", review_hours=1) for _ in range(2))
    tick(engine, now=NOW)
    with engine.begin() as connection:
        connection.execute(
            text(
                "CREATE FUNCTION refuse_final() RETURNS trigger LANGUAGE plpgsql AS $fn$ BEGIN"
                " RAISE EXCEPTION 'not this one'; END $fn$;"
                " CREATE TRIGGER refuse_final BEFORE UPDATE ON invoices FOR EACH ROW"
                f" WHEN (NEW.client_id = '{bad.id}') EXECUTE FUNCTION refuse_final()"
            )
        )

    end_reviews(engine, now=NOW + HOUR)

    assert [one.status for one in invoices_of(engine, good)] == ["open"]
    assert [one.status for one in invoices_of(engine, bad)] == ["draft"]
    failed = session.scalars(select(Job).where(Job.kind == "finalize_reviewed")).all()
    assert {job.subject_id: job.state for job in failed} == {bad.id: "failed", good.id: "succeeded"}


def test_what_is_not_due_yet_or_waits_is_not_found_every_minute(
    engine: Engine, session: Session, account: Account
) -> None:
    monthly(engine, account, "10.00", review_hours="person")
    waiting = monthly(engine, account, "10.00", review_hours="person")
    paused = monthly(engine, account, "10.00", review_hours=1)
    a_charge(engine, waiting, date(2026, 6, 5))
    tick(engine, now=NOW)
    change(engine, waiting, review_hours=0)
    change(engine, paused, paused={"billing": True})
    tick(engine, now=on(7, 1))

    end_reviews(engine, now=on(8, 1))

    assert session.scalars(select(Job).where(Job.kind == "finalize_reviewed")).all() == []


def test_the_sweep_reads_drafts_by_the_end_of_their_review(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.execute(text("SET enable_seqscan = off"))
        plan = "\n".join(
            connection.scalars(
                text("EXPLAIN SELECT id FROM invoices WHERE review_ends_at <= now()")
            ).all()
        )
    assert "ix_invoices_review_ends_at" in plan


def test_as_many_statements_draft_a_page_with_review_as_without(
    engine: Engine, account: Account
) -> None:
    statements = []
    for clients in (2, 12):
        for _ in range(clients):
            monthly(engine, account, "10.00", review_hours=24)
        with counted(engine) as counting:
            bill(engine, account, now=NOW)
        statements.append(len(counting))
    assert statements[0] == statements[1]


def test_invoices_may_bear_the_day_on_which_they_are_finalized(
    engine: Engine, account: Account
) -> None:
    change_business(engine, account, invoice_date="finalization")
    reviewed = monthly(engine, account, "10.00", review_hours=48)
    at_once = monthly(engine, account, "10.00")
    tick(engine, now=NOW + DAY)
    end_reviews(engine, now=NOW + 3 * DAY)

    [invoice] = invoices_of(engine, reviewed)
    assert (invoice.issued_on, invoice.due_on) == (date(2026, 6, 4), date(2026, 6, 18))
    assert [one.issued_on for one in invoices_of(engine, at_once)] == [date(2026, 6, 2)]


def a_reviewed_draft(engine: Engine, account: Account) -> tuple[Client, UUID]:
    client = monthly(engine, account, "10.00", review_hours=24)
    tick(engine, now=NOW)
    return client, drafts_of(engine, client)[0].id


@pytest.mark.parametrize("staff", ["finalize", "delete", "both"])
def test_a_draft_ends_once_however_many_want_to_end_it(
    engine: Engine, account: Account, staff: str
) -> None:
    numbers = 0
    for _ in range(ROUNDS // 2):
        client, draft = a_reviewed_draft(engine, account)
        calls: list[Any] = [
            partial(perform, engine, finalize_reviewed, account, now=NOW + DAY, client_id=client.id)
        ]
        if staff != "delete":
            calls.append(partial(perform, engine, finalize_invoice, account, invoice_id=draft))
        if staff != "finalize":
            calls.append(partial(perform, engine, delete_draft, account, invoice_id=draft))
        by_itself, *by_staff = together(*calls)

        assert isinstance(by_itself, Done), by_itself
        refused = IllegalTransition | NotFound | RuleViolation
        assert all(isinstance(one, Done | refused) for one in by_staff), by_staff
        finalized = invoices_of(engine, client)
        ended = [one for one in by_staff if isinstance(one, Done)]
        assert len(ended) + (by_itself.result["invoices"] != []) >= 1
        assert len(mails_of(engine, client)) == len(finalized)
        if not finalized:
            with Session(engine) as session, session.begin():
                settle_period(session, periods_of(engine, client)[0].id, NOW)
            assert states(engine, client)[0] == ("skipped", "draft_deleted")
        else:
            assert finalized[0].status == "open"
            assert states(engine, client)[0] == ("billed", None)
        numbers += len(finalized)

    assert sorted(str(one.number) for one in invoices_of(engine, account)) == [
        f"INV-{index:06}" for index in range(1, numbers + 1)
    ]
    assert audited(engine, account) == []


def test_a_run_that_dies_between_drafting_and_its_end_loses_no_draft(
    engine: Engine, session: Session, account: Account
) -> None:
    reviewed = monthly(engine, account, "10.00", review_hours=1)
    at_once = monthly(engine, account, "10.00")
    run = bill(engine, account, now=NOW)
    # As if its job had died after its last page.
    session.execute(text("UPDATE billing_runs SET finished_at = NULL"))
    session.execute(text("DELETE FROM mails"))
    session.commit()

    end_reviews(engine, now=NOW + HOUR)
    tick(engine, now=NOW + HOUR)

    session.expire_all()
    assert session.get_one(BillingRun, run.id).finished_at is not None
    for client in (reviewed, at_once):
        assert [one.status for one in invoices_of(engine, client)] == ["open"]
        assert len(mails_of(engine, client)) == 1
