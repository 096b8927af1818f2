from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from cli import importing
from models import Account, BillingPeriod, Charge, Client
from tests.cli.conftest import Command
from tests.drafts import in_review
from tests.worlds import a_charge, a_client, change, invoices_of

pytestmark = pytest.mark.usefixtures("account")

File = Callable[..., Path]

MAY = "acme,2026-05-31,FNSKU labelling,120,0.2750,usd,r-1"
MARCH = "acme,2026-03-02,Storage,12.375,0.6875,usd,r-2"
OTHER = "bell,2026-05-02,Poly bagging,40,0.3825,gbp,r-3"


def counted(engine: Engine) -> tuple[int, int, int]:
    """Clients, charges and billing periods in the database."""
    with Session(engine) as session:
        tables = (Client, Charge, BillingPeriod)
        clients, charges, periods = (
            session.scalar(select(func.count()).select_from(table)) or 0 for table in tables
        )
    return clients, charges, periods


def test_charges_are_recorded_and_clients_created(
    command: Command, charges_file: File, session: Session
) -> None:
    answer = command("import", charges_file(MAY, MARCH, OTHER), "--json")
    assert answer.code == 0
    assert answer.document["account"] == "Bluebird Prep"
    assert answer.document["created"] == 3
    assert answer.document["already_there"] == 0
    assert answer.document["clients_created"] == 2
    assert answer.document["bad"] == []
    clients = session.scalars(select(Client).order_by(Client.name)).all()
    assert [(one.name, one.external_ref) for one in clients] == [("acme", "acme"), ("bell", "bell")]
    assert {one.billing_cycle for one in clients} == {"manual"}
    assert {one.billing_starts_on for one in clients} == {None}
    assert session.scalar(select(Charge.amount).where(Charge.external_ref == "r-2")) == 851


def test_rows_of_a_period_in_review_join_its_draft(
    command: Command,
    charges_file: File,
    engine: Engine,
    account: Account,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    acme = a_client(engine, account, name="Acme Ltd", external_ref="acme")
    a_charge(engine, acme, date(2026, 5, 1))
    [draft] = in_review(engine, account, acme)
    monkeypatch.setattr(importing, "CHUNK", 1)

    assert command("import", charges_file(MAY, MARCH, OTHER)).code == 0

    [after] = invoices_of(engine, acme)
    assert (after.id, after.total) == (draft.id, 1000 + 3300 + 851)


def test_a_row_of_an_archived_client_is_bad(
    command: Command, charges_file: File, engine: Engine, account: Account
) -> None:
    acme = a_client(engine, account, name="Acme Ltd", external_ref="acme")
    change(engine, acme, archived=True)

    answer = command("import", charges_file(MAY, OTHER), "--json")

    assert answer.code == 1
    [bad] = answer.document["bad"]
    assert (bad["line"], bad["reason"].partition(":")[0]) == (2, "client")
    assert counted(engine) == (1, 0, 0)


def test_a_client_on_a_cycle_starts_in_the_month_of_its_first_charge_wherever_it_stands(
    command: Command, charges_file: File, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "CHUNK", 1)
    path = charges_file(MAY, OTHER, MARCH)
    options = ("--billing-cycle", "monthly", "--time-zone", "America/Chicago")
    assert command("import", path, *options).code == 0
    acme, bell = session.scalars(select(Client).order_by(Client.name))
    assert (acme.billing_starts_on, acme.time_zone) == (date(2026, 3, 1), "America/Chicago")
    assert (bell.billing_starts_on, bell.billing_cycle) == (date(2026, 5, 1), "monthly")
    first = session.scalars(
        select(BillingPeriod.period_start)
        .where(BillingPeriod.client_id == acme.id)
        .order_by(BillingPeriod.period_start)
    ).first()
    assert first == date(2026, 3, 1)


def test_a_client_who_is_there_keeps_what_it_has(
    command: Command, charges_file: File, engine: Engine, account: Account, session: Session
) -> None:
    a_client(engine, account, name="Acme Ltd", external_ref="acme")
    path = charges_file(MAY)
    assert command("import", path, "--billing-cycle", "monthly").code == 0
    acme = session.scalars(select(Client)).one()
    assert (acme.name, acme.billing_cycle) == ("Acme Ltd", "manual")


@pytest.mark.parametrize(
    ("flag", "kept"),
    [(["--auto-collect"], True), (["--no-auto-collect"], False), ([], None)],
)
def test_whether_a_new_clients_card_is_charged_by_itself_is_said_or_left_to_the_account(
    *,
    command: Command,
    charges_file: File,
    engine: Engine,
    account: Account,
    session: Session,
    flag: list[str],
    kept: bool | None,
) -> None:
    there = a_client(engine, account, name="Known", external_ref="bell")
    assert command("import", charges_file(MAY, OTHER), *flag).code == 0
    acme = session.scalars(select(Client).where(Client.external_ref == "acme")).one()
    assert acme.auto_collect is kept
    assert session.get_one(Client, there.id).auto_collect is None


def test_running_it_again_changes_nothing(
    command: Command, charges_file: File, engine: Engine
) -> None:
    path = charges_file(MAY, MARCH, OTHER)
    command("import", path, "--billing-cycle", "monthly")
    before = counted(engine)
    answer = command("import", path, "--billing-cycle", "monthly", "--json")
    assert answer.code == 0
    assert (answer.document["created"], answer.document["already_there"]) == (0, 3)
    assert answer.document["clients_created"] == 0
    assert counted(engine) == before


def test_a_longer_file_adds_only_what_is_new(
    command: Command, charges_file: File, engine: Engine
) -> None:
    command("import", charges_file(MAY))
    answer = command("import", charges_file(MAY, MARCH, MAY), "--json")
    assert (answer.document["created"], answer.document["already_there"]) == (1, 2)
    assert counted(engine)[1] == 2


@pytest.fixture(params=[1, 1_000])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows recorded by one statement."""
    monkeypatch.setattr(importing, "CHUNK", request.param)


@pytest.mark.usefixtures("chunk")
def test_every_bad_row_is_named_and_none_is_kept(
    command: Command, charges_file: File, engine: Engine, account: Account
) -> None:
    a_charge(engine, a_client(engine, account), date(2026, 5, 1), external_ref="taken")
    known = a_client(engine, account, name="known", external_ref="known")
    a_charge(engine, known, date(2026, 5, 1), external_ref="known-1")
    before = counted(engine)
    far = datetime.now(UTC).date() + timedelta(days=800)
    path = charges_file(
        MAY,
        "acme,2026-05-31,Work,-1,1,usd,r-4",
        "acme,2026-05-31,Work,1,1,usd,taken",
        "known,2026-05-31,Work,1,1,usd,taken",
        "known,2026-05-01,FNSKU labelling,1,99,usd,known-1",
        MAY.replace("120", "121"),
        f"later,{far},Work,1,1,usd,r-5",
        "acme,2026-05-31,Work,1,1,usd",
    )
    answer = command("import", path, "--json", "--billing-cycle", "monthly")
    assert answer.code == 1
    assert answer.document["kept"] is False
    assert (answer.document["created"], answer.document["clients_created"]) == (0, 0)
    reasons = {one["line"]: one["reason"] for one in answer.document["bad"]}
    assert list(reasons) == [3, 4, 5, 6, 7, 8, 9]
    assert reasons[3].startswith("quantity: must be above zero")
    assert reasons[4] == "external_ref: taken belongs to another client's charge"
    assert reasons[5] == reasons[4]
    assert reasons[6].startswith("external_ref: known-1 belongs to a charge with another unit_pri")
    assert reasons[7] == "external_ref: r-1 is on line 2 with other content"
    assert reasons[8].startswith("charged_on: a new client's billing cannot start more than a year")
    assert reasons[9] == "has 6 fields, the header names 7"
    assert counted(engine) == before


def test_skip_bad_keeps_the_good_rows_and_creates_no_client_for_bad_ones(
    command: Command, charges_file: File, session: Session
) -> None:
    path = charges_file(
        "acme,2026-01-31,Too early to count,0,1,usd,r-0",
        MAY,
        "ghost,2026-05-31,Work,1,1,nonsense,r-4",
        f"thief{MAY.removeprefix('acme')}",
        MARCH,
    )
    answer = command("import", path, "--skip-bad", "--json", "--billing-cycle", "monthly")
    assert answer.code == 1
    assert answer.document["kept"] is True
    assert (answer.document["created"], answer.document["clients_created"]) == (2, 1)
    assert [one["line"] for one in answer.document["bad"]] == [2, 4, 5]
    acme = session.scalars(select(Client)).one()
    assert acme.billing_starts_on == date(2026, 3, 1)


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("stray", [f"bell{MAY.removeprefix('acme')}", MAY.replace("120", "121")])
def test_a_bad_row_does_not_claim_the_reference_of_a_charge_that_is_there(
    command: Command, charges_file: File, stray: str
) -> None:
    assert command("import", charges_file(MAY)).code == 0
    path = charges_file(stray, MAY, OTHER, name="again.csv")
    first = command("import", path, "--skip-bad", "--json").document
    second = command("import", path, "--skip-bad", "--json").document
    assert [one["line"] for one in first["bad"]] == [2]
    assert first["bad"] == second["bad"]
    assert (first["created"], first["already_there"]) == (1, 1)
    assert (second["created"], second["already_there"]) == (0, 2)


def test_people_are_told_the_same(command: Command, charges_file: File) -> None:
    path = charges_file(MAY, "acme,2026-05-31,[bold]Work,x,1,usd,r-4")
    answer = command("import", path)
    assert answer.code == 1
    assert "3   quantity: must be a plain decimal number" in answer.stdout
    assert "nothing kept: 1 bad of 2 rows" in answer.stdout
    answer = command("import", path, "--skip-bad")
    assert "1 charge recorded, 0 already there, 1 bad, 1 client created" in answer.stdout


def test_two_hundred_bad_rows_are_printed_and_the_rest_counted(
    command: Command, charges_file: File
) -> None:
    path = charges_file(*(f"acme,2026-05-31,Work,0,1,usd,r-{number}" for number in range(205)))
    answer = command("import", path)
    assert answer.stdout.count("quantity: must be above zero") == 200
    assert "and 5 more bad rows" in answer.stdout


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        ("client,charged_on,description,quantity,unit_price,currency", "missing external_ref"),
        ("client;charged_on;description", "missing client, charged_on"),
    ],
)
def test_a_file_of_something_else_is_refused_in_one_line(
    command: Command, charges_file: File, header: str, complaint: str
) -> None:
    answer = command("import", charges_file(header=header))
    assert answer.code == 1
    assert complaint in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
    assert answer.stdout == ""


def test_a_file_with_no_rows_is_fine(command: Command, charges_file: File) -> None:
    answer = command("import", charges_file(), "--json")
    assert answer.code == 0
    assert answer.document["rows"] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["import", "no-such-file.csv"],
        ["import"],
        ["import", "FILE", "--billing-cycle", "hourly"],
        ["import", "FILE", "--time-zone", "Mars/Olympus"],
        ["import", "FILE", "--auto-collect=yes"],
    ],
)
def test_wrong_usage_is_told_and_exits_with_2(
    command: Command, charges_file: File, arguments: list[str]
) -> None:
    path = str(charges_file(MAY))
    answer = command(*(path if one == "FILE" else one for one in arguments))
    assert answer.code == 2
    assert answer.stderr
    assert answer.stdout == ""
    answer = command(*(path if one == "FILE" else one for one in arguments), "--json")
    assert answer.code == 2
    assert answer.document["error"]
