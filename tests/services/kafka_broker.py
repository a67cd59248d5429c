"""A Kafka broker for tests: librdkafka's, on a real socket. Its first line is its HOST:PORT; it serves until its input ends."""

import sys

from confluent_kafka import Producer


def main() -> None:
    cluster = Producer({"test.mock.num.brokers": 1, "log_level": 2})
    (broker,) = cluster.list_topics(timeout=60).brokers.values()
    print(f"{broker.host}:{broker.port}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
