"""Three months with a review, some of them late, and a pause over two boundaries, by their calendar."""

from datetime import UTC, date, datetime, timedelta

from models import Client
from tasks.finalizing import finalize_invoice
from tests.reviews import change_business, delete, end_reviews, states
from tests.stories.conftest import Business, Till
from tests.worlds import change, charges, tick

BILLED, DRAFTED, OPEN = ("billed", None), ("drafted", None), ("open", None)
HELD = ("held", "paused")
HOURS_48 = timedelta(hours=48)


def at(month: int, day: int, hour: int = 0) -> datetime:
    return datetime(2026, month, day, hour, tzinfo=UTC)


def a_minute(till: Till, now: datetime) -> None:
    """All that the scheduler does in a minute."""
    tick(till.engine, now=now)
    end_reviews(till.engine, now=now)
    till.sweep(now)


def more_charges(till: Till, client: Client) -> None:
    """In each month from June to October."""
    dated = [(date(2026, month, 5), f"{month}.00") for month in range(6, 11)]
    charges(till.engine, client, dated)


def ready_mails(till: Till, client: Client) -> list[int]:
    """How many invoices each of a client's "ready" mails lists."""
    return [len(one.invoice_ids) for one in till.mails(client) if one.kind == "invoice_ready"]


def test_three_months_of_reviews_two_of_them_after_downtime(business: Business, till: Till) -> None:
    client = till.client("Reviewed", review_hours=48, price="5.00")
    more_charges(till, client)

    # June: two days in which nobody sees anything, then number, mail and card.
    a_minute(till, at(6, 1))
    a_minute(till, at(6, 2, 23))
    assert states(till.engine, client) == [DRAFTED, OPEN]
    assert (till.mails(client), till.charged(client)) == ([], [])
    a_minute(till, at(6, 3))
    assert till.charged(client) == [500]
    [may] = till.invoices(client)
    assert (may.status, may.issued_on, may.due_on) == ("paid", date(2026, 6, 1), date(2026, 6, 17))

    # The scheduler is down over two boundaries. Both drafts have their two days all the same.
    back = at(8, 1, 9)
    a_minute(till, back)
    assert states(till.engine, client) == [BILLED, DRAFTED, DRAFTED, OPEN]
    assert {one.review_ends_at for one in till.invoices(client)[1:]} == {back + HOURS_48}
    a_minute(till, back + HOURS_48)
    assert states(till.engine, client) == [BILLED, BILLED, BILLED, OPEN]
    june, july = till.invoices(client)[1:]
    assert (june.number, july.number) == ("INV-000002", "INV-000003")
    # July's boundary lies over a month back by now: all of the catch-up bears this day.
    assert {june.issued_on, july.issued_on} == {date(2026, 8, 3)}
    assert sorted(till.charged(client)) == [500, 600, 700]
    # One mail a review, not one an invoice; and what it told stays told once.
    assert ready_mails(till, client) == [1, 2]
    a_minute(till, back + 2 * HOURS_48)
    assert len(till.invoices(client)) == 3
    assert ready_mails(till, client) == [1, 2]
    assert business.differences() == []


def test_staff_finalize_one_draft_early_and_delete_another(business: Business, till: Till) -> None:
    client = till.client("Watched", review_hours=48, price="5.00")
    more_charges(till, client)
    a_minute(till, at(6, 1))
    till.ask(finalize_invoice, invoice_id=till.invoice(client).id)
    till.work(at(6, 1, 10))
    assert states(till.engine, client) == [BILLED, OPEN]
    assert till.charged(client) == [500]

    a_minute(till, at(7, 1))
    delete(till.engine, till.account, till.invoices(client)[-1].id, now=at(7, 1, 8))
    a_minute(till, at(7, 10))
    assert states(till.engine, client)[1] == ("skipped", "draft_deleted")
    a_minute(till, at(8, 1))
    a_minute(till, at(8, 3))

    # July took June's charges along.
    assert [one.total for one in till.invoices(client)] == [500, 1300]
    assert sorted(till.charged(client)) == [500, 1300]
    assert ready_mails(till, client) == [1, 1]
    assert business.differences() == []


def test_a_pause_over_two_boundaries_loses_no_period(business: Business, till: Till) -> None:
    paused = till.client("Paused", price="5.00")
    other = till.client("Other", price="5.00")
    for client in (paused, other):
        more_charges(till, client)
    change(till.engine, paused, paused={"billing": True})

    a_minute(till, at(6, 1))
    a_minute(till, at(7, 1))
    assert states(till.engine, paused) == [HELD, HELD, OPEN]
    assert states(till.engine, other) == [BILLED, BILLED, OPEN]

    # Collection is paused for everyone while billing goes on again.
    change_business(till.engine, till.account, paused={"collection": True})
    change(till.engine, paused, paused={"billing": False})
    a_minute(till, at(7, 3))
    assert states(till.engine, paused) == [BILLED, BILLED, OPEN]
    assert [one.total for one in till.invoices(paused)] == [500, 600]
    assert ready_mails(till, paused) == [2]
    assert till.charged(paused) == []

    change_business(till.engine, till.account, paused={"collection": False})
    for minute in range(3):
        till.sweep(at(7, 4) + timedelta(minutes=minute))
    assert sorted(till.charged(paused)) == [500, 600]
    assert {one.status for one in till.invoices(paused)} == {"paid"}

    a_minute(till, at(8, 1))
    assert states(till.engine, paused) == [BILLED, BILLED, BILLED, OPEN]
    assert sorted(till.charged(paused)) == sorted(till.charged(other)) == [500, 600, 700]
    assert business.differences() == []
