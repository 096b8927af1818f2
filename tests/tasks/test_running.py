import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from billing.errors import InvalidInput, NotFound, RuleViolation
from models import Account, JobAttempt
from models.database import connect
from tasks.calls import Call, Gateways, Step
from tasks.enqueueing import enqueue
from tasks.kinds import JobKind, Run, job
from tasks.leases import LeaseKeeper
from tasks.outcomes import AwaitChildren, Done, Fail, Outcome, Retry, Skip, Snooze
from tasks.running import AWAIT_CHILDREN_AT_MOST, Runner
from tests.jobs import (
    LEASE,
    a_job,
    change_job,
    dispatch,
    job_of,
    kinds_of_its_own,
    let_lease_expire,
    pause,
    rescue,
    resume,
    runs_of,
    states,
)
from tests.worlds import NOW, together, work


@pytest.fixture(autouse=True)
def _catalogue_kept() -> Iterator[None]:
    with kinds_of_its_own():
        yield


@pytest.fixture
def leases(engine: Engine) -> LeaseKeeper:
    return LeaseKeeper(engine, lease=LEASE, run_limit=timedelta(minutes=10))


@pytest.fixture
def runner(engine: Engine, leases: LeaseKeeper) -> Runner:
    return Runner(engine, leases, worker="test", lease=LEASE)


def new_account(session: Session, name: str = "Ada") -> None:
    """A change of the domain that a test can look for."""
    session.execute(text("INSERT INTO accounts (name) VALUES (:name)"), {"name": name})


def accounts(engine: Engine) -> list[str]:
    with Session(engine) as session:
        return list(session.scalars(select(Account.name)))


def run_now(engine: Engine, runner: Runner, kind: JobKind, **fields: Any) -> UUID:
    """Enqueue a job of the kind and run it once."""
    job_id = a_job(engine, kind=kind.name, max_attempts=kind.max_attempts, **fields)
    dispatch(engine)
    runner.run(kind, job_id)
    return job_id


# What a run is told


def test_a_run_knows_its_job_its_account_and_its_time(
    engine: Engine, runner: Runner, account: Account
) -> None:
    told: list[Run] = []

    @job(queue="ops")
    def listen(run: Run, _session: Session, word: str) -> Outcome:
        told.append(run)
        return Done({"word": word})

    job_id = run_now(
        engine, runner, listen, account_id=account.id, args={"word": "hi"}, requested_by="api:abc"
    )

    [run] = told
    written = job_of(engine, job_id)
    assert (run.job_id, run.account_id, run.attempt) == (job_id, account.id, 1)
    assert (run.now, run.requested_by) == (written.started_at, "api:abc")
    assert (written.state, written.result) == ("succeeded", {"word": "hi"})


def test_a_story_gives_its_own_time(engine: Engine, leases: LeaseKeeper) -> None:
    told: list[Run] = []

    @job(queue="ops")
    def listen(run: Run, _session: Session) -> Outcome:
        told.append(run)
        return Done({})

    run_now(engine, Runner(engine, leases, worker="test", lease=LEASE, clock=lambda: NOW), listen)

    assert [run.now for run in told] == [NOW]


# Once


def test_one_message_delivered_to_several_workers_runs_once(engine: Engine, runner: Runner) -> None:
    @job(queue="ops")
    def count(_run: Run, session: Session) -> Outcome:
        new_account(session, name=str(_run.job_id))
        return Done({})

    for _ in range(10):
        job_id = a_job(engine, kind="count")
        dispatch(engine)
        together(*[lambda job_id=job_id: runner.run(count, job_id)] * 3)
        assert runs_of(engine, job_id) == [(1, "succeeded")]
    assert len(accounts(engine)) == 10


def test_a_message_that_comes_after_the_end_does_nothing(engine: Engine, runner: Runner) -> None:
    @job(queue="ops")
    def count(_run: Run, session: Session) -> Outcome:
        new_account(session)
        return Done({})

    job_id = run_now(engine, runner, count)
    runner.run(count, job_id)

    assert accounts(engine) == ["Ada"]


# Outcomes


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuleViolation("invoice_not_draft", "cannot"), "invoice_not_draft"),
        (NotFound("invoice", "7"), "invoice_not_found"),
        (InvalidInput("as_of", "must be past"), "invalid"),
    ],
)
def test_a_rule_that_forbids_the_work_ends_it_skipped_under_the_rule_s_code(
    engine: Engine, runner: Runner, error: Exception, reason: str
) -> None:
    @job(queue="ops")
    def refuse(_run: Run, session: Session) -> Outcome:
        new_account(session)
        raise error

    skipped = job_of(engine, run_now(engine, runner, refuse))

    assert (skipped.state, skipped.reason) == ("skipped", reason)
    assert skipped.result == {"message": str(error)}
    assert accounts(engine) == []


def test_work_that_finds_nothing_to_do_says_why(engine: Engine, runner: Runner) -> None:
    @job(queue="ops")
    def look(_run: Run, _session: Session) -> Outcome:
        return Skip("nothing_due", "nothing is due")

    skipped = job_of(engine, run_now(engine, runner, look))

    assert (skipped.state, skipped.reason) == ("skipped", "nothing_due")
    assert skipped.result == {"message": "nothing is due"}


def test_an_error_is_tried_again_later_and_leaves_nothing_behind(
    engine: Engine, runner: Runner
) -> None:
    @job(queue="ops")
    def stumble(run: Run, session: Session) -> Outcome:
        new_account(session)
        if run.attempt == 1:
            raise ConnectionError("the line is dead")
        return Done({})

    job_id = run_now(engine, runner, stumble)

    failed = job_of(engine, job_id)
    assert failed.state == "failed"
    assert failed.error == {"type": "ConnectionError", "message": "the line is dead"}
    assert accounts(engine) == []
    assert work(engine) == 0

    change_job(engine, job_id, run_at=text("now()"))
    assert work(engine) == 1
    assert job_of(engine, job_id).error is None
    assert accounts(engine) == ["Ada"]
    assert runs_of(engine, job_id) == [(1, "failed"), (2, "succeeded")]


def test_the_wait_between_attempts_grows(engine: Engine, runner: Runner) -> None:
    @job(queue="ops")
    def stumble(_run: Run, _session: Session) -> Outcome:
        raise ConnectionError

    job_id = run_now(engine, runner, stumble)
    for seconds in (1, 3, 9, 27):
        failed = job_of(engine, job_id)
        assert failed.started_at is not None
        wait = (failed.run_at - failed.started_at).total_seconds()
        assert seconds <= wait < seconds * 1.25 + 1
        change_job(engine, job_id, run_at=text("now()"))
        work(engine)


def raise_it(_run: Run, _session: Session) -> Outcome:
    raise ConnectionError("down")


def return_it(_run: Run, _session: Session) -> Outcome:
    return Retry(ConnectionError("down"), timedelta(0))


@pytest.mark.parametrize("body", [raise_it, return_it])
def test_when_attempts_are_used_up_the_job_is_dead(
    engine: Engine, runner: Runner, body: Callable[..., Outcome]
) -> None:
    job_id = run_now(engine, runner, job(queue="ops", max_attempts=3)(body))
    for _ in range(3):
        change_job(engine, job_id, run_at=text("now()"))
        work(engine)

    dead = job_of(engine, job_id)
    assert (dead.state, dead.reason) == ("dead", "attempts_exhausted")
    assert dead.error == {"type": "ConnectionError", "message": "down"}
    assert runs_of(engine, job_id) == [(1, "failed"), (2, "failed"), (3, "failed")]


def test_work_that_can_never_succeed_is_dead_at_once(
    engine: Engine, runner: Runner, logs: list[dict[str, Any]]
) -> None:
    @job(queue="ops")
    def give_up(_run: Run, _session: Session) -> Outcome:
        return Fail(ValueError("the page is lost"), "page_unfinished")

    dead = job_of(engine, run_now(engine, runner, give_up))

    assert (dead.state, dead.reason) == ("dead", "page_unfinished")
    assert dead.error == {"type": "ValueError", "message": "the page is lost"}
    assert [entry["log_level"] for entry in logs] == ["error"]


def test_arguments_that_do_not_fit_are_dead_with_what_is_wrong(
    engine: Engine, runner: Runner
) -> None:
    @job(queue="ops")
    def listen(_run: Run, _session: Session, word: str) -> Outcome:
        return Done({"word": word})

    dead = job_of(engine, run_now(engine, runner, listen, args={"wort": "hallo"}))

    assert (dead.state, dead.reason) == ("dead", "invalid_arguments")
    assert dead.error is not None
    assert dead.error["type"] == "ValidationError"


def test_a_snooze_uses_up_no_attempt(engine: Engine, runner: Runner) -> None:
    @job(queue="ops", max_attempts=1)
    def doze(_run: Run, session: Session) -> Outcome:
        new_account(session, name=f"Account {len(accounts(engine))}")
        return Done({}) if len(accounts(engine)) == 2 else Snooze(timedelta(hours=1))

    job_id = run_now(engine, runner, doze)
    for _ in range(2):
        assert job_of(engine, job_id).state == "scheduled"
        assert work(engine) == 0
        change_job(engine, job_id, run_at=text("now()"))
        work(engine)

    assert job_of(engine, job_id).state == "succeeded"
    assert runs_of(engine, job_id) == [(1, "snoozed"), (1, "snoozed"), (1, "succeeded")]
    assert len(accounts(engine)) == 3


def test_a_parent_runs_again_when_its_children_have_ended(engine: Engine, runner: Runner) -> None:
    @job(queue="ops")
    def grow(_run: Run, _session: Session) -> Outcome:
        raise RuleViolation("too_small", "cannot grow")

    @job(queue="ops")
    def bloom(_run: Run, _session: Session) -> Outcome:
        return Done({})

    @job(queue="ops", max_attempts=1)
    def raise_children(run: Run, session: Session) -> Outcome:
        if "succeeded" in states(engine):
            return Done({})
        for kind in (grow, bloom):
            enqueue(session, kind, account_id=None, requested_by="test", parent_id=run.job_id)
        return AwaitChildren(2)

    job_id = run_now(engine, runner, raise_children)
    waiting = job_of(engine, job_id)
    assert (waiting.state, waiting.children_pending) == ("scheduled", 2)
    assert waiting.started_at is not None
    assert waiting.run_at - waiting.started_at >= AWAIT_CHILDREN_AT_MOST

    assert work(engine) == 3
    assert sorted(states(engine)) == ["skipped", "succeeded", "succeeded"]
    assert runs_of(engine, job_id) == [(1, "awaiting_children"), (1, "succeeded")]


def test_children_of_a_run_that_fails_were_never_there(engine: Engine, runner: Runner) -> None:
    @job(queue="ops")
    def raise_children(run: Run, session: Session) -> Outcome:
        enqueue(session, itself, account_id=None, requested_by="test", parent_id=run.job_id)
        raise ConnectionError

    itself = raise_children
    run_now(engine, runner, raise_children)

    assert states(engine) == ["failed"]


def test_work_asked_for_again_while_it_runs_is_done_again(engine: Engine, runner: Runner) -> None:
    @job(queue="ops")
    def read(_run: Run, session: Session) -> Outcome:
        seen = session.scalars(select(Account.name)).all()
        if not seen:
            with Session(engine) as other, other.begin():
                new_account(other)
                enqueue(other, read_kind, account_id=None, requested_by="test", unique_key="read")
        return Done({"seen": list(seen)})

    read_kind = read
    job_id = run_now(engine, runner, read, unique_key="read")
    assert job_of(engine, job_id).state == "ready"

    assert work(engine) == 1
    assert job_of(engine, job_id).result == {"seen": ["Ada"]}


# Faults


def test_a_run_that_lost_its_lease_keeps_nothing(
    engine: Engine, runner: Runner, logs: list[dict[str, Any]]
) -> None:
    @job(queue="ops")
    def stall(run: Run, session: Session) -> Outcome:
        new_account(session, name=f"Attempt {run.attempt}")
        if run.attempt == 1:
            # As if the process had been stopped here for longer than its lease.
            let_lease_expire(engine, run.job_id)
            rescue(engine)
        return Done({"attempt": run.attempt})

    job_id = run_now(engine, runner, stall)

    assert accounts(engine) == []
    assert job_of(engine, job_id).state == "ready"
    assert "lease lost, nothing kept" in [entry["event"] for entry in logs]
    assert work(engine) == 1
    assert accounts(engine) == ["Attempt 2"]
    assert runs_of(engine, job_id) == [(1, "rescued"), (2, "succeeded")]


def test_a_run_that_lost_its_lease_cannot_fail_its_successor(
    engine: Engine, runner: Runner
) -> None:
    paused, go_on = threading.Event(), threading.Event()

    @job(queue="ops")
    def stall(run: Run, _session: Session) -> Outcome:
        if run.attempt == 1:
            paused.set()
            assert go_on.wait(10)
            raise ConnectionError
        go_on.set()
        first.join(10)
        return Done({})

    job_id = a_job(engine, kind="stall")
    dispatch(engine)
    first = threading.Thread(target=runner.run, args=(stall, job_id))
    first.start()
    assert paused.wait(10)
    let_lease_expire(engine, job_id)
    rescue(engine)
    dispatch(engine)
    runner.run(stall, job_id)

    assert not first.is_alive()
    assert job_of(engine, job_id).state == "succeeded"
    assert runs_of(engine, job_id) == [(1, "rescued"), (2, "succeeded")]


def test_a_connection_that_dies_in_the_middle_is_a_failed_attempt(
    engine: Engine, runner: Runner
) -> None:
    @job(queue="ops")
    def cut(_run: Run, session: Session) -> Outcome:
        new_account(session)
        session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        return Done({})

    failed = job_of(engine, run_now(engine, runner, cut))

    assert failed.state == "failed"
    assert accounts(engine) == []


def test_a_restart_of_the_server_between_two_jobs_costs_no_attempt(
    engine: Engine, leases: LeaseKeeper
) -> None:
    url = engine.url.render_as_string(hide_password=False)
    jobs = connect(url, process="test", connections=1, pre_ping=False)
    claims = connect(url, process="test", connections=1, pre_ping=False, autocommit=True)
    runner = Runner(jobs, leases, worker="test", lease=LEASE, claims=claims)

    @job(queue="ops")
    def open_one(_run: Run, session: Session) -> Outcome:
        new_account(session)
        return Done({})

    run_now(engine, runner, open_one)
    with engine.begin() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    job_id = run_now(engine, runner, open_one)

    assert runs_of(engine, job_id) == [(1, "succeeded")]
    jobs.dispose()
    claims.dispose()


def test_a_change_that_is_refused_at_commit_is_a_failed_attempt(
    engine: Engine, runner: Runner
) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE seats (number int UNIQUE DEFERRABLE INITIALLY DEFERRED)"
        )

    @job(queue="ops")
    def overbook(_run: Run, session: Session) -> Outcome:
        session.execute(text("INSERT INTO seats VALUES (1), (1)"))
        return Done({})

    failed = job_of(engine, run_now(engine, runner, overbook))

    assert failed.state == "failed"
    assert failed.error is not None
    assert failed.error["type"] == "UniqueViolation"


def test_an_error_of_the_database_is_told_without_the_values_it_was_about(
    engine: Engine, runner: Runner
) -> None:
    @job(queue="ops")
    def collide(_run: Run, session: Session) -> Outcome:
        for _ in range(2):
            session.execute(text("INSERT INTO queues (name) VALUES (:name)"), {"name": "secret"})
        return Done({})

    failed = job_of(engine, run_now(engine, runner, collide))

    assert failed.error is not None
    assert failed.error["type"] == "UniqueViolation"
    assert "pk_queues" in failed.error["message"]
    assert "secret" not in str(failed.error)


def test_a_lease_is_held_exactly_as_long_as_the_work_goes_on(
    engine: Engine, runner: Runner, leases: LeaseKeeper
) -> None:
    held: list[int] = []

    @job(queue="ops")
    def look(_run: Run, _session: Session) -> Outcome:
        held.append(leases.held)
        raise ConnectionError

    run_now(engine, runner, look)

    assert (held, leases.held) == ([1], 0)


def test_a_paused_queue_starts_nothing_and_resumes(engine: Engine, runner: Runner) -> None:
    @job(queue="ops")
    def count(_run: Run, session: Session) -> Outcome:
        new_account(session)
        return Done({})

    job_id = a_job(engine, kind="count")
    dispatch(engine)
    pause(engine)
    runner.run(count, job_id)
    assert (work(engine), accounts(engine)) == (0, [])

    resume(engine)
    assert work(engine) == 1
    assert accounts(engine) == ["Ada"]


# Calls


class Words:
    """What calls are asked and answered, in place of any vendor."""

    def __init__(self, *answers: object) -> None:
        self.asked: list[str] = []
        self._answers = list(answers)

    def ask(self, word: str) -> object:
        self.asked.append(word)
        answer = self._answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


def note(session: Session, answer: object) -> Outcome:
    """Keep the answer where a test can see it."""
    new_account(session, name=str(answer))
    return Done({"answer": str(answer)})


def test_a_call_is_made_between_two_transactions(engine: Engine, runner: Runner) -> None:
    seen: list[tuple[list[str], list[str]]] = []

    def ask(_gateways: Gateways) -> str:
        open_ones = text(
            "SELECT state FROM pg_stat_activity WHERE datname = current_database()"
            " AND backend_type = 'client backend' AND pid <> pg_backend_pid() AND state <> 'idle'"
        )
        with engine.connect() as connection:
            seen.append((accounts(engine), list(connection.scalars(open_ones))))
        return "answered"

    @job(queue="ops")
    def call(_run: Run, session: Session) -> Step:
        new_account(session, name="asked")
        return Call(ask, note)

    job_id = run_now(engine, runner, call)

    # What was written before is there for all to see, and no transaction is open.
    assert seen == [(["asked"], [])]
    assert accounts(engine) == ["asked", "answered"]
    assert job_of(engine, job_id).result == {"answer": "answered"}
    assert runs_of(engine, job_id) == [(1, "succeeded")]


def test_a_call_is_made_through_the_gateways_of_the_process(
    engine: Engine, leases: LeaseKeeper
) -> None:
    gateways = Gateways(mail_sender="billing@bluebird-prep.example")
    runner = Runner(engine, leases, worker="test", lease=LEASE, gateways=gateways)

    @job(queue="ops")
    def call(_run: Run, _session: Session) -> Step:
        return Call(lambda through: through.mail_sender, note)

    run_now(engine, runner, call)

    assert accounts(engine) == ["billing@bluebird-prep.example"]


def test_a_process_without_the_gateway_fails_and_tries_again(
    engine: Engine, runner: Runner
) -> None:
    @job(queue="ops")
    def call(_run: Run, _session: Session) -> Step:
        return Call(lambda through: through.cards, note)

    failed = job_of(engine, run_now(engine, runner, call))

    assert (failed.state, (failed.error or {})["type"]) == ("failed", "GatewayMissing")


def test_calls_follow_one_another_until_there_is_an_outcome(engine: Engine, runner: Runner) -> None:
    words = Words("one", "two", "three")

    def call(word: str) -> Call:
        return Call(lambda _gateways: words.ask(word), record)

    def record(session: Session, answer: object) -> Step:
        note(session, answer)
        return Done({"last": str(answer)}) if answer == "three" else call(f"after {answer}")

    @job(queue="ops")
    def chain(_run: Run, _session: Session) -> Step:
        return call("first")

    job_id = run_now(engine, runner, chain)

    assert words.asked == ["first", "after one", "after two"]
    assert accounts(engine) == ["one", "two", "three"]
    assert job_of(engine, job_id).result == {"last": "three"}
    assert runs_of(engine, job_id) == [(1, "succeeded")]


def test_a_chain_that_breaks_keeps_what_was_answered_before(engine: Engine, runner: Runner) -> None:
    words = Words("one", ConnectionError("the line is dead"))

    def record(session: Session, answer: object) -> Step:
        note(session, answer)
        return Call(lambda _gateways: words.ask("second"), note)

    @job(queue="ops")
    def chain(_run: Run, _session: Session) -> Step:
        return Call(lambda _gateways: words.ask("first"), record)

    job_id = run_now(engine, runner, chain)

    assert accounts(engine) == ["one"]
    assert runs_of(engine, job_id) == [(1, "failed")]


def test_a_call_that_fails_is_tried_again_with_what_was_written_before(
    engine: Engine, runner: Runner
) -> None:
    words = Words(ConnectionError("the line is dead"), "answered")

    @job(queue="ops")
    def call(run: Run, session: Session) -> Step:
        new_account(session, name=f"asked {run.attempt}")
        return Call(lambda _gateways: words.ask("word"), note)

    job_id = run_now(engine, runner, call)
    failed = job_of(engine, job_id)
    assert (failed.state, failed.attempt) == ("failed", 1)
    assert failed.error == {"type": "ConnectionError", "message": "the line is dead"}
    assert accounts(engine) == ["asked 1"]

    change_job(engine, job_id, run_at=text("now()"))
    assert work(engine) == 1

    assert accounts(engine) == ["asked 1", "asked 2", "answered"]
    assert runs_of(engine, job_id) == [(1, "failed"), (2, "succeeded")]


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (RuleViolation("invoice_not_open", "cannot"), "skipped", "invoice_not_open"),
        (ConnectionError("down"), "dead", "attempts_exhausted"),
    ],
)
def test_what_a_call_raises_is_the_outcome_of_the_run(
    engine: Engine, runner: Runner, error: Exception, state: str, reason: str
) -> None:
    @job(queue="ops", max_attempts=1)
    def call(_run: Run, _session: Session) -> Step:
        return Call(lambda _gateways: Words(error).ask("word"), note)

    ended = job_of(engine, run_now(engine, runner, call))

    assert (ended.state, ended.reason) == (state, reason)


def test_an_answer_that_cannot_be_written_down_leaves_nothing_of_it(
    engine: Engine, runner: Runner
) -> None:
    def stumble(session: Session, answer: object) -> Outcome:
        note(session, answer)
        raise ConnectionError

    @job(queue="ops")
    def call(_run: Run, session: Session) -> Step:
        new_account(session, name="asked")
        return Call(lambda _gateways: "answered", stumble)

    failed = job_of(engine, run_now(engine, runner, call))

    assert failed.state == "failed"
    assert accounts(engine) == ["asked"]


def test_a_run_that_lost_its_lease_before_its_call_does_not_make_it(
    engine: Engine, runner: Runner, logs: list[dict[str, Any]]
) -> None:
    words = Words("answered")

    @job(queue="ops")
    def call(run: Run, session: Session) -> Step:
        new_account(session, name=f"asked {run.attempt}")
        if run.attempt == 1:
            let_lease_expire(engine, run.job_id)
            rescue(engine)
        return Call(lambda _gateways: words.ask(f"attempt {run.attempt}"), note)

    job_id = run_now(engine, runner, call)
    assert (words.asked, accounts(engine)) == ([], [])
    assert "lease lost, nothing kept" in [entry["event"] for entry in logs]

    assert work(engine) == 1
    assert words.asked == ["attempt 2"]
    assert accounts(engine) == ["asked 2", "answered"]
    assert runs_of(engine, job_id) == [(1, "rescued"), (2, "succeeded")]


def test_a_run_that_lost_its_lease_during_its_call_writes_no_answer_down(
    engine: Engine, runner: Runner, logs: list[dict[str, Any]]
) -> None:
    words = Words("too late", "answered")

    @job(queue="ops")
    def call(run: Run, session: Session) -> Step:
        new_account(session, name=f"asked {run.attempt}")

        def ask(_gateways: Gateways) -> object:
            if run.attempt == 1:
                let_lease_expire(engine, run.job_id)
                rescue(engine)
            return words.ask("word")

        return Call(ask, note)

    job_id = run_now(engine, runner, call)
    assert accounts(engine) == ["asked 1"]
    assert "lease lost, nothing kept" in [entry["event"] for entry in logs]

    assert work(engine) == 1
    assert accounts(engine) == ["asked 1", "asked 2", "answered"]
    assert runs_of(engine, job_id) == [(1, "rescued"), (2, "succeeded")]


def test_a_run_that_lost_its_lease_in_a_chain_makes_no_further_call(
    engine: Engine, runner: Runner
) -> None:
    words = Words("one", "two")

    def record(run: Run, session: Session, answer: object) -> Step:
        note(session, answer)
        let_lease_expire(engine, run.job_id)
        rescue(engine)
        return Call(lambda _gateways: words.ask("second"), note)

    @job(queue="ops")
    def chain(run: Run, _session: Session) -> Step:
        return Call(lambda _gateways: words.ask("first"), partial(record, run))

    job_id = run_now(engine, runner, chain)

    assert (words.asked, accounts(engine)) == (["first"], [])
    assert job_of(engine, job_id).state == "ready"


def test_a_failed_call_whose_lease_was_lost_cannot_fail_its_successor(
    engine: Engine, runner: Runner
) -> None:
    @job(queue="ops")
    def call(run: Run, _session: Session) -> Step:
        def ask(_gateways: Gateways) -> object:
            let_lease_expire(engine, run.job_id)
            rescue(engine)
            raise ConnectionError

        return Call(ask, note)

    job_id = run_now(engine, runner, call)

    assert job_of(engine, job_id).state == "ready"
    assert runs_of(engine, job_id) == [(1, "rescued")]


def test_a_lease_is_held_during_a_call(engine: Engine, runner: Runner, leases: LeaseKeeper) -> None:
    @job(queue="ops")
    def call(_run: Run, _session: Session) -> Step:
        return Call(lambda _gateways: leases.held, note)

    run_now(engine, runner, call)

    assert (accounts(engine), leases.held) == (["1"], 0)


def test_work_asked_for_again_during_a_call_is_done_again(engine: Engine, runner: Runner) -> None:
    @job(queue="ops")
    def call(_run: Run, _session: Session) -> Step:
        def ask(_gateways: Gateways) -> str:
            if not accounts(engine):
                a_job(engine, kind="call", unique_key="call")
            return "answered"

        return Call(ask, note)

    job_id = run_now(engine, runner, call, unique_key="call")
    assert job_of(engine, job_id).state == "ready"

    assert work(engine) == 1
    assert job_of(engine, job_id).state == "succeeded"
    assert accounts(engine) == ["answered", "answered"]


def test_a_snooze_says_what_it_waits_out(engine: Engine, runner: Runner) -> None:
    @job(queue="ops", max_attempts=1)
    def wait(_run: Run, session: Session) -> Outcome:
        new_account(session)
        return Snooze(timedelta(hours=1), ConnectionError("too many requests"))

    job_id = run_now(engine, runner, wait)

    waiting = job_of(engine, job_id)
    assert (waiting.state, waiting.attempt) == ("scheduled", 0)
    assert waiting.error == {"type": "ConnectionError", "message": "too many requests"}
    assert accounts(engine) == ["Ada"]
    with Session(engine) as session:
        [run] = session.scalars(select(JobAttempt).where(JobAttempt.job_id == job_id))
    assert (run.outcome, run.error) == ("snoozed", waiting.error)


def test_what_was_waited_out_is_forgotten_once_the_work_is_done(
    engine: Engine, runner: Runner
) -> None:
    @job(queue="ops")
    def wait(_run: Run, session: Session) -> Outcome:
        if accounts(engine):
            return Done({})
        new_account(session)
        return Snooze(timedelta(0), ConnectionError("too many requests"))

    job_id = run_now(engine, runner, wait)
    assert work(engine) == 1

    done = job_of(engine, job_id)
    assert (done.state, done.error) == ("succeeded", None)
