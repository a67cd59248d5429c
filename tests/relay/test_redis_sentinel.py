"""A Redis that Sentinels know, and one that has become a replica: real ones, with passwords, and with TLS."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from diagnostics.proof.subjects.processes import free_port
from relay.redis_client import FAILURES, client
from relay.redis_url import parse_redis_url

needs_redis = pytest.mark.needs("redis-server", "redis-server")

PASSWORD, SENTINELS_PASSWORD = "of, redis@/", "of: sentinel&?"


class Started:
    """Processes of redis-server in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, lines: str, *more: str) -> None:
        """One with this configuration."""
        folder = self._folder / str(len(self._processes))
        folder.mkdir()
        (folder / "conf").write_text(f"bind 127.0.0.1\nsave ''\ndir {folder}\n{lines}\n", encoding="utf-8")
        with open(folder / "log", "wb") as log:
            command = ["redis-server", str(folder / "conf"), *more]
            self._processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait(60)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Started]:
    started = Started(tmp_path)
    try:
        yield started
    finally:
        started.end()


def certificate(folder: Path) -> tuple[Path, Path]:
    key, made = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out",
         str(made)],
        check=True, capture_output=True,
    )  # fmt: skip
    return key, made


async def ask(url: str, seconds: float = 60) -> Any:
    """What one command at the primary is answered, once it is there: processes start, and Sentinel looks for it first."""
    before = _descriptors()
    redis = client(url, connections=2, connect_seconds=10, answer_seconds=10)
    until = time.monotonic() + seconds
    try:
        while True:
            try:
                return await redis.incr("count")
            except FAILURES:
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(0.05)
    finally:
        await redis.aclose()
        # A connection that has failed is closed without waiting for it; with TLS, that takes an answer of the other side.
        async with asyncio.timeout(60):
            while _descriptors() > before:
                await asyncio.sleep(0.01)


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@needs_redis
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_the_primary_that_a_sentinel_knows_is_spoken_to_with_the_passwords_of_both(
    redis: Started, tmp_path: Path, tls: bool
) -> None:
    port, sentinel, nobody = free_port(), free_port(), free_port()
    secure, query = "", f"sentinel_password={quote(SENTINELS_PASSWORD, safe='')}"
    if tls:
        key, made = certificate(tmp_path)
        secure = f"tls-cert-file {made}\ntls-key-file {key}\ntls-ca-cert-file {made}\ntls-auth-clients no\n"
        secure += "tls-replication yes\nport 0\ntls-"
        query += f"&ssl_ca_certs={made}"
    redis.start(f'requirepass "{PASSWORD}"\n{secure}port {port}')
    known = f'sentinel monitor my 127.0.0.1 {port} 1\nsentinel auth-pass my "{PASSWORD}"'
    redis.start(f'requirepass "{SENTINELS_PASSWORD}"\n{secure}port {sentinel}\n{known}', "--sentinel")
    scheme = "rediss+sentinel" if tls else "redis+sentinel"
    places = f"127.0.0.1:{nobody},127.0.0.1:{sentinel}"

    url = f"{scheme}://:{quote(PASSWORD, safe='')}@{places}/my/1?{query}"
    assert asyncio.run(ask(url)) == 1
    assert asyncio.run(ask(url)) == 2

    for wrong in (url.replace("/my/", "/your/"), url.replace("sentinel_password=", "sentinel_password=x")):
        with pytest.raises(FAILURES, match="no Sentinel knows of a primary of") as told:
            asyncio.run(ask(wrong, seconds=0))
        assert PASSWORD not in f"{told.value}{told.value.__cause__}"
        assert SENTINELS_PASSWORD not in f"{told.value}{told.value.__cause__}"


@needs_redis
def test_a_redis_that_has_become_a_replica_is_left(redis: Started) -> None:
    """A connection to it would stay open, and refuse every write."""
    port, other = free_port(), free_port()
    redis.start(f"port {port}")
    redis.start(f"port {other}")

    async def run() -> None:
        url = f"redis://127.0.0.1:{port}/0"
        await ask(url)
        await ask(f"redis://127.0.0.1:{other}/0")
        ours = client(url, connections=1, connect_seconds=10, answer_seconds=10)

        async def pipelined() -> None:
            pipeline = ours.pipeline(transaction=False)
            pipeline.incr("count")
            await pipeline.execute()

        try:
            before = await ours.client_id()
            await ours.slaveof("127.0.0.1", other)
            for write in (lambda: ours.incr("count"), pipelined):
                with pytest.raises(FAILURES, match="not the primary any more"):
                    await write()
                now = await ours.client_id()
                assert now > before, "it is another connection"
                before = now
        finally:
            await ours.aclose()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("url", "sentinels", "service", "redis", "sentinel"),
    [
        ("redis+sentinel://a/my", (("a", 26379),), "my", "redis://localhost/0?", "redis://localhost?"),
        (
            "redis+sentinel://u:p%40w@a:1,[::1]:2,c/my%20own/3?sentinel_username=v&sentinel_password=password%26y",
            (("a", 1), ("::1", 2), ("c", 26379)),
            "my own",
            "redis://u:p%40w@localhost/3?",
            "redis://localhost?username=v&password=password%26y",
        ),
        (
            "rediss+sentinel://:p@a/my/0?ssl_ca_certs=/c",
            (("a", 26379),),
            "my",
            "rediss://:p@localhost/0?ssl_ca_certs=%2Fc",
            "rediss://localhost?ssl_ca_certs=%2Fc",
        ),
    ],
)
def test_a_url_of_sentinels(url: str, sentinels: Any, service: str, redis: str, sentinel: str) -> None:
    parsed = parse_redis_url(url)
    assert parsed is not None
    assert (parsed.sentinels, parsed.service, parsed.redis, parsed.sentinel) == (sentinels, service, redis, sentinel)
    assert "password" not in repr(parsed)


@pytest.mark.parametrize("url", ["redis://a:1/0", "rediss://u:p@a", "unix:///run/redis"])
def test_a_url_of_one_redis(url: str) -> None:
    assert parse_redis_url(url) is None


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://u:secret@a", "redis\\+sentinel://"),
        ("redis+sentinel://u:secret@a", "/SERVICE"),
        ("redis+sentinel://u:secret@a/my/first", "/SERVICE"),
        ("redis+sentinel://u:secret@a:b/my", "each Sentinel"),
        ("redis+sentinel://u:secret@a,,b/my", "each Sentinel"),
        ("redis+sentinel:///my", "each Sentinel"),
    ],
)
def test_what_is_no_url_of_either_is_told_without_its_password(url: str, told: str) -> None:
    with pytest.raises(ValueError, match=told) as raised:
        parse_redis_url(url)
    assert "secret" not in str(raised.value)
