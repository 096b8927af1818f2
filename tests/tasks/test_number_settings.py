from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, event, text
from sqlalchemy.orm import Session

from billing.errors import InvalidInput, RuleViolation
from billing.number_formats import MAX_NEXT_NUMBER, DocumentType
from models import Account, Client
from tasks.accounts import change_account, create_account
from tasks.billing_pages import bill_page
from tasks.drafting import draft_invoice
from tasks.finalizing import finalize_invoice, finalize_invoices
from tasks.number_settings import next_number
from tasks.numbering import number_documents
from tests.jobs import wait_until_blocked
from tests.money import a_draft, an_invoice, invoice_of
from tests.worlds import (
    NOW,
    a_charge,
    a_client,
    audited,
    invoices_of,
    perform,
    together,
)

LAST_YEAR = datetime(2025, 12, 31, 12, tzinfo=UTC)
THIS_YEAR = datetime(2026, 1, 1, 12, tzinfo=UTC)
YEARLY: dict[str, Any] = {"number_reset": "yearly", "number_format": "INV-{year}-{seq:03}"}


@pytest.fixture
def client(engine: Engine, account: Account) -> Client:
    return a_client(engine, account)


def change(engine: Engine, account: Account, *, now: datetime = NOW, **changes: Any) -> None:
    with Session(engine) as session, session.begin():
        change_account(session, account.id, changes, now=now)


def shown(engine: Engine, account: Account, now: datetime = NOW) -> int:
    with Session(engine) as session:
        return next_number(session, session.get_one(Account, account.id), now=now)


def given_at(engine: Engine, account: Account, client: Client, *days: datetime) -> list[str | None]:
    """The numbers of new invoices, finalized at these times."""
    return [an_invoice(engine, account, client, now=day).number for day in days]


def credit_notes_numbered(engine: Engine, account: Account, *days: date) -> list[str]:
    with Session(engine) as session:
        numbers = number_documents(
            session, session.get_one(Account, account.id), DocumentType.CREDIT_NOTE, days
        )
    return [number.text for number in numbers]


def refusal(engine: Engine, account: Account, **changes: Any) -> RuleViolation:
    with pytest.raises(RuleViolation) as refused:
        change(engine, account, **changes)
    return refused.value


def test_a_new_format_carries_the_series_on(
    engine: Engine, account: Account, client: Client
) -> None:
    assert given_at(engine, account, client, NOW, NOW) == ["INV-000001", "INV-000002"]

    change(engine, account, number_format="{year}/{month}/{seq}")

    assert shown(engine, account) == 3
    assert given_at(engine, account, client, NOW) == ["2026/06/3"]
    assert audited(engine, account) == []


def test_yearly_numbers_start_again_with_the_year_of_issue(
    engine: Engine, account: Account, client: Client
) -> None:
    change(engine, account, **YEARLY)

    numbers = given_at(engine, account, client, LAST_YEAR, LAST_YEAR, THIS_YEAR, LAST_YEAR)

    assert numbers == ["INV-2025-001", "INV-2025-002", "INV-2026-001", "INV-2025-003"]
    assert (shown(engine, account, LAST_YEAR), shown(engine, account, THIS_YEAR)) == (4, 2)
    assert audited(engine, account) == []


def test_a_december_boundary_finalized_in_january_is_of_the_old_year(
    engine: Engine, account: Account
) -> None:
    change(engine, account, **YEARLY)
    client = a_client(
        engine,
        account,
        now=datetime(2025, 12, 1, tzinfo=UTC),
        billing_cycle="weekly",
        billing_starts_on=date(2025, 12, 20),
    )
    a_charge(engine, client, date(2025, 12, 21))
    drafted = a_draft(engine, account, a_client(engine, account))
    perform(engine, finalize_invoice, account, invoice_id=drafted.id, now=THIS_YEAR)
    with Session(engine) as session, session.begin():
        run = session.execute(
            text(
                "INSERT INTO billing_runs (account_id, as_of_at, created_at)"
                " VALUES (:account, :now, :now) RETURNING id"
            ),
            {"account": account.id, "now": THIS_YEAR},
        ).scalar_one()

    perform(
        engine,
        bill_page,
        account,
        now=THIS_YEAR,
        run_id=run,
        boundary=date(2025, 12, 22),
        first_client=UUID(int=0),
        last_client=UUID(int=2**128 - 1),
    )

    [late] = invoices_of(engine, client)
    assert (late.number, late.issued_on) == ("INV-2025-001", date(2025, 12, 22))
    assert invoice_of(engine, drafted.id).number == "INV-2026-001"
    assert audited(engine, account) == []


def test_a_year_that_has_numbers_of_another_series_carries_on_from_them(
    engine: Engine, account: Account, client: Client
) -> None:
    change(engine, account, number_format="INV-{year}-{seq:03}")
    given_at(engine, account, client, LAST_YEAR, THIS_YEAR, THIS_YEAR)

    change(engine, account, number_reset="yearly")

    assert shown(engine, account, THIS_YEAR) == 4
    numbers = given_at(engine, account, client, LAST_YEAR, THIS_YEAR)
    assert numbers == ["INV-2025-002", "INV-2026-004"]
    assert given_at(engine, account, client, datetime(2027, 1, 1, tzinfo=UTC)) == ["INV-2027-001"]
    assert audited(engine, account) == []


def test_what_would_come_to_a_number_that_exists_is_refused_with_an_example(
    engine: Engine, account: Account, client: Client
) -> None:
    change(engine, account, number_format="1{seq}")
    assert given_at(engine, account, client, *[NOW] * 3) == ["11", "12", "13"]

    refused = refusal(engine, account, number_format="{seq}")

    assert refused.code == "number_format_taken"
    assert "13" in refused.message
    # What goes back to one series after years of several would repeat what those gave.
    change(engine, account, number_format="{year}-{seq}")
    change(engine, account, number_reset="yearly")
    given_at(engine, account, client, NOW)
    assert given_at(engine, account, client, NOW) == ["2026-2"]
    change(engine, account, number_reset="never")
    assert given_at(engine, account, client, NOW) == ["2026-4"]
    assert refusal(engine, account, number_reset="yearly").code == "number_format_taken"
    change(engine, account, number_reset="yearly", number_format="{year}/{seq}")
    assert given_at(engine, account, client, NOW) == ["2026/3"]
    assert audited(engine, account) == []


def test_a_refused_change_leaves_everything_as_it_was(
    engine: Engine, account: Account, client: Client
) -> None:
    change(engine, account, number_format="1{seq}", next_number=7)
    assert given_at(engine, account, client, NOW) == ["17"]

    refusal(engine, account, name="Other", number_format="{seq}")
    refusal(engine, account, number_format="X{seq}", next_number=20)

    with Session(engine) as session:
        kept = session.get_one(Account, account.id)
    assert (kept.name, kept.number_format) == ("Bluebird Prep", "1{seq}")
    assert given_at(engine, account, client, NOW) == ["18"]


def test_a_series_begins_where_it_is_told_until_it_has_begun(
    engine: Engine, account: Account, client: Client
) -> None:
    change(engine, account, next_number=5000)
    change(engine, account, next_number=1200)
    assert shown(engine, account) == 1200
    assert audited(engine, account) == []

    assert given_at(engine, account, client, NOW, NOW) == ["INV-001200", "INV-001201"]

    refused = refusal(engine, account, next_number=1300)
    assert refused.code == "number_series_used"
    assert shown(engine, account) == 1202
    assert audited(engine, account) == []


def test_the_next_number_is_that_of_this_year_where_they_start_again(
    engine: Engine, account: Account, client: Client
) -> None:
    change(engine, account, **YEARLY, next_number=40, now=THIS_YEAR)

    assert (shown(engine, account, LAST_YEAR), shown(engine, account, THIS_YEAR)) == (1, 40)
    assert given_at(engine, account, client, THIS_YEAR, LAST_YEAR) == [
        "INV-2026-040",
        "INV-2025-001",
    ]
    assert refusal(engine, account, next_number=50).code == "number_series_used"
    # The year is the account's own: here it is 2027 already.
    change(
        engine,
        account,
        time_zone="Pacific/Auckland",
        next_number=9,
        now=datetime(2026, 12, 31, 20, tzinfo=UTC),
    )
    assert given_at(engine, account, client, datetime(2026, 12, 31, 20, tzinfo=UTC)) == [
        "INV-2027-009"
    ]


def test_a_series_cannot_begin_below_numbers_that_look_like_its_own(
    engine: Engine, account: Account, client: Client
) -> None:
    change(engine, account, number_format="INV-{year}-{seq:03}")
    given_at(engine, account, client, *[THIS_YEAR] * 3)
    change(engine, account, number_reset="yearly")

    assert refusal(engine, account, next_number=3).code == "number_format_taken"

    change(engine, account, next_number=30)
    assert given_at(engine, account, client, THIS_YEAR) == ["INV-2026-030"]


def test_a_series_that_would_begin_at_its_end_is_refused(
    engine: Engine, account: Account, client: Client
) -> None:
    change(engine, account, number_format="9{seq:011}2026")
    assert given_at(engine, account, client, NOW) == ["9000000000012026"]

    refused = refusal(engine, account, number_reset="yearly", number_format="{seq}{year}")

    assert refused.code == "number_format_taken"
    with pytest.raises(InvalidInput, match="next_number"):
        change(engine, account, next_number=MAX_NEXT_NUMBER + 1)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"number_format": "INV"}, "number_format"),
        ({"number_format": "INV-{seq}-{seq}"}, "number_format"),
        ({"number_format": "Ünï-{seq}"}, "number_format"),
        # The one that there is does not bear the year.
        ({"number_reset": "yearly"}, "number_format"),
        ({"number_reset": "monthly"}, "number_reset"),
        ({"credit_note_format": "CN"}, "credit_note_format"),
        ({"next_number": 0}, "next_number"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_field(
    engine: Engine, account: Account, changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        change(engine, account, **changes)

    assert refused.value.field == field


def test_credit_notes_have_a_format_of_their_own_and_start_again_only_if_it_bears_the_year(
    engine: Engine, account: Account
) -> None:
    days = (LAST_YEAR.date(), THIS_YEAR.date())
    change(engine, account, **YEARLY, next_number=77)

    assert credit_notes_numbered(engine, account, *days) == ["CN-000001", "CN-000002"]

    change(engine, account, credit_note_format="CN/{year}/{seq}")
    assert credit_notes_numbered(engine, account, *days) == ["CN/2025/1", "CN/2026/1"]


def test_two_accounts_number_apart(engine: Engine, account: Account, client: Client) -> None:
    with Session(engine, expire_on_commit=False) as session, session.begin():
        other = create_account(session, "Rival Prep")
    given_at(engine, account, client, NOW)

    change(engine, other, number_format="INV-{seq}")

    assert given_at(engine, other, a_client(engine, other), NOW) == ["INV-1"]


def test_who_gives_a_number_while_the_format_changes_gives_it_before_or_in_the_new_one(
    engine: Engine, account: Account, client: Client
) -> None:
    """The account was read before the change, the number is given after it."""
    draft = a_draft(engine, account, client)
    with Session(engine) as early, Session(engine) as changing:
        stale = early.get_one(Account, account.id)
        assert stale.number_format == "INV-{seq:06}"
        change_account(changing, account.id, {"number_format": "N{seq}"}, now=NOW)

        def finalize() -> None:
            finalize_invoices(early, stale, [draft.id], now=NOW, requested_by="test")
            early.commit()

        def commit() -> None:
            wait_until_blocked(engine)
            changing.commit()

        assert together(finalize, commit) == [None, None]

    assert invoice_of(engine, draft.id).number == "N1"


def test_a_format_waits_for_numbers_that_are_being_given(
    engine: Engine, account: Account, client: Client
) -> None:
    """Under the format that held so far a new series is begun, which the change must see."""
    change(engine, account, number_format="1{seq}")
    draft = a_draft(engine, account, client)
    with Session(engine) as giving:
        holder = giving.get_one(Account, account.id)
        finalize_invoices(giving, holder, [draft.id], now=NOW, requested_by="test")

        def commit() -> None:
            wait_until_blocked(engine)
            giving.commit()

        refused, done = together(partial(change, engine, account, number_format="{seq}"), commit)

    assert done is None
    assert isinstance(refused, RuleViolation)
    assert refused.code == "number_format_taken"


def test_yearly_numbers_stay_gapless_across_new_year_under_fifty_of_which_some_give_up(
    engine: Engine, account: Account, client: Client
) -> None:
    change(engine, account, **YEARLY)
    drafts = [a_draft(engine, account, client).id for _ in range(50)]

    def finalize(index: int) -> None:
        with Session(engine) as session:
            finalize_invoices(
                session,
                session.get_one(Account, account.id),
                [drafts[index]],
                now=(LAST_YEAR, THIS_YEAR)[index % 2],
                requested_by="test",
            )
            if index % 5:
                session.commit()

    outcomes: list[Any] = []
    for first in range(0, 50, 15):  # More than that, and they wait for connections.
        some = range(first, min(first + 15, 50))
        outcomes += together(*[partial(finalize, index) for index in some])

    assert outcomes == [None] * 50
    numbers = [one.number for one in invoices_of(engine, client) if one.number]
    assert numbers == [f"INV-{year}-{index:03}" for year in (2025, 2026) for index in range(1, 21)]
    assert audited(engine, account) == []


@dataclass(frozen=True)
class Finalize:
    """Some invoices, on one day."""

    day: datetime
    invoices: int = 1


@dataclass(frozen=True)
class Change:
    """Whichever of the settings are given."""

    number_format: str | None = None
    number_reset: str | None = None
    next_number: int | None = None


# Look-alikes on purpose: one's literal digits are the other's sequence numbers or years.
FORMATS = st.sampled_from(
    [
        "{seq}", "1{seq}", "2026{seq}", "{year}{seq}", "{seq}{year}", "{year}-{seq}",
        "{year}{month}{seq}", "{seq:02}", "0{seq:01}", "{month}{seq}{year}", "{year}1{seq}",
    ]
)  # fmt: skip
DAYS = st.sampled_from(
    [datetime(*day, 12, tzinfo=UTC) for day in [(2025, 12, 31), (2026, 1, 1), (2026, 11, 1)]]
)
STEPS = (
    st.builds(Finalize, DAYS, st.integers(1, 3))
    | st.builds(Finalize, DAYS)
    | st.builds(Change, FORMATS, st.none() | st.sampled_from(["never", "yearly"]))
    | st.builds(Change, st.none(), st.sampled_from(["never", "yearly"]))
    | st.builds(Change, st.none() | FORMATS, st.none(), st.sampled_from([1, 2, 9, 10, 12, 2026]))
)

REFUSED_WITH = {None, "number_format_taken", "number_series_used", "invalid"}


@given(st.lists(STEPS, min_size=4, max_size=14))
@settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_whatever_is_changed_no_number_repeats_none_is_left_out_and_finalizing_never_fails(
    engine: Engine, steps: list[Finalize | Change]
) -> None:
    with Session(engine, expire_on_commit=False) as session, session.begin():
        account = create_account(session, str(uuid4()))
    client = a_client(engine, account)
    for step in steps:
        if isinstance(step, Finalize):
            for _ in range(step.invoices):
                an_invoice(engine, account, client, now=step.day)
        else:
            changes = {name: value for name, value in vars(step).items() if value is not None}
            [refused] = together(partial(change, engine, account, **changes))
            assert getattr(refused, "code", None) in REFUSED_WITH, refused
    numbers = [one.number for one in invoices_of(engine, client)]
    assert None not in numbers
    assert len(set(numbers)) == len(numbers)
    assert audited(engine, account) == []


def test_to_number_takes_as_many_statements_for_one_as_for_a_hundred(
    engine: Engine, account: Account
) -> None:
    def statements(days: int) -> int:
        sent: list[str] = []

        def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
            sent.append(statement)

        with Session(engine) as session:
            owner = session.get_one(Account, account.id)
            event.listen(engine, "before_cursor_execute", note)
            number_documents(session, owner, DocumentType.INVOICE, [NOW.date()] * days)
            event.remove(engine, "before_cursor_execute", note)
        return len(sent)

    assert statements(1) == statements(100) == 3


def test_a_draft_never_has_a_number(engine: Engine, account: Account, client: Client) -> None:
    a_charge(engine, client, date(2026, 5, 1))
    perform(engine, draft_invoice, account, client_id=client.id)

    change(engine, account, number_format="N-{seq}")

    assert invoices_of(engine, client)[0].number is None
