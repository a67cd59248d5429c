"""The relay's settings, one field each with its default and description, and what two of them must agree on."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import AliasChoices, Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ..memory.budget import MIN_BUDGET_BYTES, StreamBudget
from ..memory.buffer import POLICIES, OverflowPolicy
from .values import (
    BaseUrl,
    BaseUrls,
    Brokers,
    Bytes,
    ClientKeys,
    KafkaConfig,
    Limit,
    Origins,
    Policies,
    RedisUrl,
    Seconds,
    UrlSecrets,
    is_loopback,
)

__all__ = ["SECRETS", "Fields"]

# Keys, and a URL that may hold one: never printed, and without a flag, since every user of the machine can read command lines.
SECRETS = frozenset({"upstream_api_key", "fallback_api_key", "client_keys", "redis_url", "url_secrets"})


class Fields(BaseSettings):
    """The relay's settings: times in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(
        env_prefix="RELAY_",
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
    )

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8080, ge=0, le=65535, description="port to listen on; 0 takes any free one")

    workers: int = Field(1, ge=1, description="processes that serve, on one port and with one monitor")
    client_keys: ClientKeys | None = Field(
        None, description="who may ask: NAME:SCOPE+SCOPE:SHA256, by commas; unset, everybody may"
    )
    url_secrets: UrlSecrets | None = Field(
        None,
        description="what URLs are signed by, the same at all relays: one secret, or two by commas; unset, none are",
    )
    url_seconds: int = Field(60, ge=1, le=3600, description="how long a signed URL may be good for")
    cors_origins: Origins = Field(
        "", description="origins of the pages that may ask, by commas, or *; empty: none but the relay's own"
    )

    allowed_hosts: str = Field(
        "", description="names besides localhost and IP addresses by which clients without a key may ask, by commas"
    )
    allow_anyone: bool = Field(
        False, description="whether to listen for others than this machine with an upstream's key and no client keys"
    )
    trusted_proxies: str = Field(
        "", description="addresses or networks of proxies whose X-Forwarded-For is believed, by commas; empty: none"
    )

    upstream_base_url: BaseUrl | None = Field(
        None, description="the upstream, ending in /v1; unset, the simulator is started as a child"
    )
    upstream_api_key: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("RELAY_UPSTREAM_API_KEY", "OPENAI_API_KEY"),
        description="the upstream's key; falls back to OPENAI_API_KEY",
    )
    fallback_base_urls: BaseUrls = Field("", description="upstreams to ask when that one is down, in order, by commas")
    fallback_api_key: SecretStr | None = Field(
        None, description="the fallbacks' key; the upstream's is never sent to them"
    )
    breaker_failures: int = Field(5, ge=1, description="outages in a row after which an upstream is left alone")
    breaker_open_seconds: Seconds = Field(10.0, description="for how long; then one request tries it")
    degraded_message: str = Field("", description="what to answer when all upstreams are down; empty: an error")
    upstream_retries: int = Field(
        2, ge=0, le=10, description="how often a request is tried again before its first byte"
    )
    upstream_max_connections: int = Field(
        2000, ge=1, description="connections to the upstream, one for each open stream"
    )
    pool_timeout_seconds: Seconds = Field(10.0, description="longest wait for one of these connections")
    connect_timeout_seconds: Seconds = Field(5.0, description="longest wait for a new connection to be made")
    read_timeout_seconds: Seconds = Field(60.0, description="longest silence of the upstream in a stream")
    response_timeout_seconds: Seconds = Field(
        600.0, description="longest silence of the upstream in an answer that does not stream"
    )

    max_event_bytes: Bytes = Field(1024 * 1024, description="largest SSE event that is relayed")
    max_request_bytes: Bytes = Field(16 * 1024 * 1024, description="largest request body")
    max_response_bytes: Bytes = Field(32 * 1024 * 1024, description="largest answer that does not stream")
    head_timeout_seconds: Seconds = Field(
        10.0, description="longest wait for the head of a request, and for the first one"
    )
    request_body_timeout_seconds: Seconds = Field(30.0, description="longest wait for a request's body")
    requests_bytes: int = Field(
        128 * 1024 * 1024,
        ge=1024 * 1024,
        description="most that all requests together may hold: heads that are not whole, and bodies; more get 503",
    )
    max_connections: int = Field(
        16_000, ge=0, description="client connections at once; more are closed as they come; 0: no limit"
    )
    stream_budget_bytes: int = Field(
        256 * 1024, ge=MIN_BUDGET_BYTES, description="most that one stream may hold, kernel buffers included"
    )

    read_ahead_bytes: int = Field(
        0,
        ge=0,
        description="of an upstream's bytes, how many may wait for a slow client; 0: it is read as its client reads",
    )

    max_streams: int = Field(2000, ge=0, description="streams and answers under way at once; more get 503; 0: no limit")
    budget_bytes: int = Field(
        512 * 1024 * 1024, ge=0, description="what all streams may hold; each reserves its budget of it; 0: no limit"
    )
    memory_share: float = Field(
        0.9,
        ge=0,
        le=1,
        description="share of the memory limit in use above which new streams get 503; 0: not looked at",
    )
    memory_limit_bytes: int = Field(0, ge=0, description="memory limit of the process beside its cgroup's; 0: none")
    rate: Limit = Field(0.0, description="requests a second, of all callers together; more get 429; 0: no limit")
    key_rate: Limit = Field(0.0, description="requests a second of one caller; more get 429; 0: no limit")
    rate_burst: int = Field(20, ge=1, description="requests that may come at once within these rates")
    key_max_streams: int = Field(0, ge=0, description="streams of one caller open at once; more get 429; 0: no limit")
    shared_limits: bool = Field(
        False,
        description="whether rates and streams of a caller are counted over all relays, in the Redis of RELAY_REDIS_URL",
    )
    shared_limits_timeout_seconds: Seconds = Field(
        0.5, description="longest wait for Redis; then a relay goes by its own limits"
    )
    shared_limits_lease_seconds: float = Field(
        30.0, ge=1, le=86400, description="after which the streams of a relay that was killed are counted no more"
    )

    write_timeout_seconds: Seconds = Field(30.0, description="longest time that a client may take nothing")
    idle_timeout_seconds: Limit = Field(300.0, description="longest time without an event of the upstream; 0: no limit")
    stream_timeout_seconds: Limit = Field(3600.0, description="longest life of a stream; 0: no limit")
    heartbeat_seconds: Limit = Field(15.0, description="silence after which a comment is sent; 0: none is")
    retry_seconds: Limit = Field(3.0, description="when EventSource is told to connect again after a loss; 0: not told")

    max_topics: int = Field(1000, ge=1, description="topics at once; an event for one more gets 503")
    topic_event_bytes: Bytes = Field(32 * 1024, description="largest event of a topic, as it is sent")
    topic_history_bytes: Bytes = Field(
        256 * 1024, description="most that is kept of one topic, for those who come back"
    )
    topic_history_events: int = Field(1000, ge=1, description="most events that are kept of one topic")
    topic_history_seconds: int = Field(3600, ge=1, description="how long an event is kept")
    topics_bytes: int = Field(64 * 1024 * 1024, ge=1024, description="most that is kept of all topics together")
    max_subscribers: int = Field(1000, ge=0, description="subscribers of all topics; more get 503; 0: no limit")
    topic_subscribers: int = Field(1000, ge=0, description="subscribers of one topic; more get 503; 0: no limit")
    subscriber_bytes: Bytes = Field(48 * 1024, description="how much may wait for one subscriber")
    subscriber_policy: OverflowPolicy = Field("block", description="what happens when more would: an overflow policy")
    subscriber_policies: Policies = Field(
        ",".join(POLICIES), description="policies that a subscriber may choose by ?policy=, by commas"
    )
    stream_events_topic: str = Field(
        "",
        pattern=r"^([A-Za-z0-9._~-]{1,128})?$",
        description="topic that is told of each stream's end; empty: none is",
    )
    redis_url: RedisUrl | None = Field(
        None,
        description="Redis that several relays share their topics through, or its Sentinels; unset, each has its own",
    )
    redis_prefix: str = Field("relay:", min_length=1, max_length=64, description="how all keys in Redis begin")
    redis_timeout_seconds: Seconds = Field(2.0, description="longest wait for Redis")
    redis_patience_seconds: Limit = Field(30.0, description="how long subscribers wait for Redis to come back")

    resume: Literal["off", "memory", "redis"] = Field(
        "off", description="where streams are kept for clients that come back: off, memory, or redis (RELAY_REDIS_URL)"
    )
    resume_grace_seconds: Seconds = Field(
        30.0, description="how long an upstream goes on after its client has left, where streams are kept"
    )
    resume_seconds: Seconds = Field(300.0, description="how long a stream is kept after its end")
    resume_stream_bytes: Bytes = Field(2 * 1024 * 1024, description="most that is kept of one stream")
    resume_bytes: Bytes = Field(
        64 * 1024 * 1024, description="most that is kept of all streams together; counts in RELAY_BUDGET_BYTES"
    )
    kafka_bootstrap_servers: Brokers = Field(
        "", description="Kafka brokers that are told of each stream's end, HOST:PORT by commas; empty: none is"
    )
    kafka_topic: str = Field(
        "relay-stream-ended", pattern=r"^[A-Za-z0-9._-]{1,249}$", description="the topic in Kafka of these events"
    )
    kafka_config: KafkaConfig | None = Field(
        None, description="file with further properties of librdkafka, NAME=VALUE on each line: TLS, SASL"
    )
    kafka_queue_events: int = Field(10_000, ge=1, le=1_000_000, description="most events that may wait for Kafka")
    kafka_queue_bytes: int = Field(
        8 * 1024 * 1024, ge=64 * 1024, le=2**31 - 1024, description="most bytes of these events"
    )
    kafka_timeout_seconds: float = Field(
        30.0, ge=1, le=86400, description="after which an event that Kafka has not taken is given up"
    )

    default_model: str = Field("gpt-4o-mini", min_length=1, description="model of GET /stream without ?model=")
    keep_alive_seconds: int = Field(75, ge=1, description="how long an idle client connection is kept")
    drain_seconds: float = Field(
        10.0, ge=0, allow_inf_nan=False, description="how long open streams may go on after SIGTERM"
    )
    log_format: str = Field(
        "auto", pattern="^(auto|json|text)$", description="json, text, or auto: text on a terminal, else json"
    )
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="debug, info, warning or error")

    diagnostics_listen: str = Field(
        "127.0.0.1:6060", validation_alias="DIAGNOSTICS_LISTEN", description="the monitor's address, HOST:PORT"
    )
    diagnostics_dir: str | None = Field(
        None, validation_alias="DIAGNOSTICS_DIR", description="where agents register and artifacts are kept"
    )

    @field_validator("read_ahead_bytes")
    @classmethod
    def _fits_the_budget(cls, value: int, info: ValidationInfo) -> int:
        if value and "stream_budget_bytes" in info.data:
            budget = StreamBudget(info.data["stream_budget_bytes"])
            if not budget.read_bytes <= value <= budget.spare_bytes:
                raise ValueError(
                    f"it must be 0 or from {budget.read_bytes} to {budget.spare_bytes}, "
                    "what RELAY_STREAM_BUDGET_BYTES leaves for it"
                )
        return value

    @model_validator(mode="after")
    def _not_open_to_all(self) -> Self:
        spends_a_key = self.upstream_base_url is not None and self.upstream_api_key is not None
        if spends_a_key and self.client_keys is None and not self.allow_anyone and not is_loopback(self.host):
            raise ValueError(
                f"RELAY_HOST is {self.host!r}, so that others than this machine can ask, there is a key for the upstream, "
                "and RELAY_CLIENT_KEYS is not set: everybody would spend that key; set RELAY_CLIENT_KEYS, or "
                "RELAY_ALLOW_ANYONE=true where something else checks who asks"
            )
        return self

    @model_validator(mode="after")
    def _signs_for_keys(self) -> Self:
        if self.url_secrets is not None and self.client_keys is None:
            raise ValueError(
                "RELAY_URL_SECRETS is set, and RELAY_CLIENT_KEYS is not: a signed URL stands for a key, and without keys "
                "everybody may ask anyway; set RELAY_CLIENT_KEYS, or leave RELAY_URL_SECRETS unset"
            )
        return self

    @model_validator(mode="after")
    def _shares_through_redis(self) -> Self:
        if self.shared_limits and self.redis_url is None:
            raise ValueError(
                "RELAY_SHARED_LIMITS is set, and RELAY_REDIS_URL is not: set it to the Redis of all relays"
            )
        return self

    @field_validator("subscriber_bytes")
    @classmethod
    def _holds_an_event(cls, value: int, info: ValidationInfo) -> int:
        if {"stream_budget_bytes", "topic_event_bytes"} <= info.data.keys():
            least, most = (
                info.data["topic_event_bytes"],
                StreamBudget(info.data["stream_budget_bytes"]).subscriber_bytes,
            )
            if not least <= value <= most:
                raise ValueError(
                    f"it must be from RELAY_TOPIC_EVENT_BYTES, {least}, to {most}, what RELAY_STREAM_BUDGET_BYTES leaves for it"
                )
        return value

    @field_validator("resume")
    @classmethod
    def _is_reached_again(cls, value: str, info: ValidationInfo) -> str:
        if value == "redis" and info.data.get("redis_url") is None:
            raise ValueError("it is redis, and RELAY_REDIS_URL does not say which one")
        if value == "memory" and info.data.get("workers", 1) > 1:
            raise ValueError(
                "it is memory, and RELAY_WORKERS is above 1: a client that comes back may meet another worker; it must be redis"
            )
        return value

    @field_validator("resume_bytes")
    @classmethod
    def _holds_a_stream(cls, value: int, info: ValidationInfo) -> int:
        least = info.data.get("resume_stream_bytes", value)
        if value < least:
            raise ValueError(f"it must be from RELAY_RESUME_STREAM_BYTES on, {least}")
        most = info.data.get("budget_bytes", 0) - info.data.get("stream_budget_bytes", 0)
        if info.data.get("resume", "off") != "off" and 0 <= most < value:
            raise ValueError(f"it must be {most} at most, what RELAY_BUDGET_BYTES leaves beside one stream")
        return value
