"""The settings as the relay's parts take them: the options of each, made from the fields."""

from __future__ import annotations

from pathlib import Path

from ..admission.gate import Admission
from ..admission.keys import ClientKey, parse_keys
from ..admission.sharing import SharedOptions
from ..admission.signed import Signing, parse_secrets
from ..events.options import KafkaOptions, parse_properties
from ..hub.options import RedisOptions
from ..hub.topic import History
from ..hub.topics import Bounds
from ..memory.budget import StreamBudget
from ..resume.logs import Bounds as LogBounds
from ..resume.options import ResumeOptions, SharedThrough
from ..stream.patience import Limits
from ..upstream.options import Timeouts, UpstreamOptions
from .fields import Fields

__all__ = ["Settings"]


class Settings(Fields):
    """The relay's settings: times in seconds, sizes in bytes."""

    @property
    def policies(self) -> list[str]:
        """The overflow policies that a subscriber may choose."""
        return self.subscriber_policies.split(",")

    @property
    def topics(self) -> Bounds:
        """The bounds of topics, their histories and their subscribers."""
        return Bounds(
            history=History(self.topic_history_bytes, self.topic_history_events, self.topic_history_seconds),
            max_topics=self.max_topics,
            max_bytes=self.topics_bytes,
            max_subscribers=self.max_subscribers,
            topic_subscribers=self.topic_subscribers,
        )

    @property
    def redis(self) -> RedisOptions | None:
        """The Redis through which topics are shared; None where each process has its own topics."""
        if self.redis_url is None:
            return None
        return RedisOptions(
            url=self.redis_url.get_secret_value(),
            prefix=self.redis_prefix,
            timeout_seconds=self.redis_timeout_seconds,
            patience_seconds=self.redis_patience_seconds,
        )

    @property
    def resuming(self) -> ResumeOptions | None:
        """How streams are kept for clients that come back; None where they are not."""
        if self.resume == "off":
            return None
        redis = self.redis if self.resume == "redis" else None
        return ResumeOptions(
            LogBounds(self.resume_stream_bytes, self.resume_bytes, self.resume_seconds),
            self.resume_grace_seconds,
            SharedThrough(redis.url, redis.prefix, redis.timeout_seconds, redis.patience_seconds) if redis else None,
        )

    @property
    def kafka(self) -> KafkaOptions | None:
        """The Kafka that is told of the ends of streams; None where none is."""
        if not self.kafka_bootstrap_servers:
            return None
        text = Path(self.kafka_config).read_text(encoding="utf-8") if self.kafka_config else ""
        return KafkaOptions(
            servers=self.kafka_bootstrap_servers,
            topic=self.kafka_topic,
            max_events=self.kafka_queue_events,
            max_bytes=self.kafka_queue_bytes,
            timeout_seconds=self.kafka_timeout_seconds,
            properties=parse_properties(text),
        )

    @property
    def stream_budget(self) -> StreamBudget:
        """The budget of one stream, divided among the layers that hold its bytes."""
        return StreamBudget(self.stream_budget_bytes)

    @property
    def upstream(self) -> UpstreamOptions:
        """The options of requests to upstreams."""
        pool, connect = self.pool_timeout_seconds, self.connect_timeout_seconds
        return UpstreamOptions(
            budget=self.stream_budget,
            max_connections=self.upstream_max_connections,
            max_response_bytes=self.max_response_bytes,
            stream=Timeouts(pool, connect, self.read_timeout_seconds),
            answer=Timeouts(pool, connect, self.response_timeout_seconds),
            retries=self.upstream_retries,
        )

    @property
    def keys(self) -> tuple[ClientKey, ...]:
        """The client keys; empty: none is needed."""
        return parse_keys(self.client_keys.get_secret_value()) if self.client_keys else ()

    @property
    def signing(self) -> Signing | None:
        """What signs URLs and checks them; None where none are signed."""
        if self.url_secrets is None:
            return None
        return Signing(self.keys, parse_secrets(self.url_secrets.get_secret_value()))

    @property
    def origins(self) -> list[str]:
        """The origins of foreign pages whose requests are let in."""
        return [origin for origin in self.cors_origins.split(",") if origin]

    @property
    def hosts(self) -> list[str]:
        """The relay's host names besides localhost and IP addresses, in lower case."""
        return [host.strip().lower() for host in self.allowed_hosts.split(",") if host.strip()]

    @property
    def admission(self) -> Admission:
        """The limits of admission (admission/gate.py)."""
        return Admission(
            max_streams=self.max_streams,
            budget_bytes=self.budget_bytes,
            stream_bytes=self.stream_budget_bytes,
            memory_share=self.memory_share,
            key_max_streams=self.key_max_streams,
            rate=self.rate,
            key_rate=self.key_rate,
            burst=self.rate_burst,
        )

    @property
    def sharing(self) -> SharedOptions | None:
        """The limits that several relays share; None where each has its own."""
        if not self.shared_limits or self.redis_url is None:
            return None
        return SharedOptions(
            url=self.redis_url.get_secret_value(),
            prefix=f"{self.redis_prefix}limit:",
            timeout_seconds=self.shared_limits_timeout_seconds,
            lease_seconds=self.shared_limits_lease_seconds,
            rate=self.rate,
            key_rate=self.key_rate,
            burst=self.rate_burst,
            key_max_streams=self.key_max_streams,
        )

    @property
    def limits(self) -> Limits:
        """The time-outs of a stream, and its heartbeat."""
        return Limits(
            read=self.read_timeout_seconds,
            write=self.write_timeout_seconds,
            idle=self.idle_timeout_seconds,
            total=self.stream_timeout_seconds,
            heartbeat=self.heartbeat_seconds,
        )
