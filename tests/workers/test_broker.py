import socket
import time
from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import CurrentMessage

from workers.broker import NAMESPACE, DoorbellBroker, build_broker, connect_redis


@pytest.fixture
def broker(redis_url: str) -> Iterator[DoorbellBroker]:
    broker = build_broker(redis_url)
    yield broker
    broker.client.close()


def a_message(name: str, redis_id: str, queue: str = "ops") -> dramatiq.Message[Any]:
    return dramatiq.Message(
        queue_name=queue,
        actor_name=name,
        args=(),
        kwargs={},
        options={"redis_message_id": redis_id},
        message_id=name,
    )


def taken_from(broker: RedisBroker, queue: str = "ops") -> list[str]:
    """The actors' names of all messages of a queue, as dramatiq's own consumer takes them."""
    messages = iter(broker.consume(queue, prefetch=100, timeout=10))
    names = []
    while (message := next(messages)) is not None:
        names.append(message.actor_name)
    return names


def test_a_stock_dramatiq_consumer_takes_what_was_rung_in_order(
    broker: DoorbellBroker, redis_url: str
) -> None:
    broker.ring([a_message(name, name) for name in ("first", "second", "third")])

    stock: RedisBroker = RedisBroker(url=redis_url, namespace=NAMESPACE)
    assert taken_from(stock) == ["first", "second", "third"]
    stock.client.close()


def test_messages_go_to_their_own_queues(broker: DoorbellBroker) -> None:
    broker.ring([a_message("draft", "1", "billing"), a_message("prune", "2", "ops")])

    assert taken_from(broker, "billing") == ["draft"]
    assert taken_from(broker, "ops") == ["prune"]


def test_an_acknowledged_message_leaves_nothing_in_redis(broker: DoorbellBroker) -> None:
    broker.ring([a_message("prune", "1")])
    consumer = broker.consume("ops", timeout=10)
    message = next(iter(consumer))
    assert message is not None
    consumer.ack(message)

    assert list(broker.client.scan_iter("duecourse:ops*")) == []


def test_a_message_rung_again_takes_the_place_of_the_one_that_waits(
    broker: DoorbellBroker,
) -> None:
    broker.ring([a_message("first", "1"), a_message("second", "2")])
    for _ in range(3):
        broker.ring([a_message("first", "1")], again=True)

    assert broker.client.llen("duecourse:ops") == 2
    assert taken_from(broker) == ["second", "first"]


def test_no_queue_has_a_queue_of_delayed_messages(broker: DoorbellBroker) -> None:
    broker.declare_queue("ops")
    broker.declare_queue("ops")

    assert broker.get_declared_queues() == {"ops"}
    assert broker.get_declared_delay_queues() == set()


def test_none_of_dramatiq_s_own_retries_or_limits_is_at_work(broker: DoorbellBroker) -> None:
    assert [type(middleware) for middleware in broker.middleware] == [CurrentMessage]


def test_a_redis_that_is_away_is_noticed_within_seconds() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        client = connect_redis(f"redis://127.0.0.1:{nobody.getsockname()[1]}/0")
        began = time.monotonic()
        with pytest.raises(redis.ConnectionError):
            client.ping()
        client.close()
    assert time.monotonic() - began < 5


def test_a_redis_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.broker.SOCKET_TIMEOUT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = connect_redis(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        began = time.monotonic()
        with pytest.raises(redis.TimeoutError):
            client.ping()
        client.close()
    assert time.monotonic() - began < 3


def test_a_worker_that_has_enough_leaves_the_rest_in_redis_until_it_can_take_many(
    broker: DoorbellBroker,
) -> None:
    broker.ring([a_message(str(number), str(number)) for number in range(40)])
    consumer = broker.consume("ops", prefetch=16, timeout=10)
    taken = [message for message in (next(consumer) for _ in range(17)) if message is not None]
    assert len(taken) == 16

    for done in taken[:3]:
        consumer.ack(done)
    assert next(consumer) is None
    assert broker.client.llen("duecourse:ops") == 24

    consumer.ack(taken[3])
    assert next(consumer) is not None
    assert broker.client.llen("duecourse:ops") == 20


def test_a_worker_of_one_thread_takes_one_message_at_a_time(broker: DoorbellBroker) -> None:
    broker.ring([a_message(str(number), str(number)) for number in range(4)])
    consumer = broker.consume("ops", prefetch=2, timeout=10)
    first, second = next(consumer), next(consumer)
    assert first is not None
    assert second is not None

    consumer.ack(first)
    assert next(consumer) is not None
