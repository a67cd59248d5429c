"""What a relay under test has around it, and what can be killed there: upstreams, a Redis, a collector of OTLP.

They outlive relays, and come back on the ports that they had.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from diagnostics.proof.subjects.processes import free_port

__all__ = ["UNREACHABLE", "Surroundings"]

# Why an upstream that stands before the one that answers cannot be reached.
UNREACHABLE = ("refused", "no_such_name", "certificate_of_nobody", "speaks_no_tls")


class Surroundings:
    """The processes beside relays. `ports` are those that a relay may keep connections to."""

    def __init__(self, folder: Path) -> None:
        self._certificate = _certificate(folder)
        # Bound and not listening: who connects is refused, and nobody else gets the port.
        self._refusing = socket.socket()
        self._refusing.bind(("127.0.0.1", 0))
        self._upstream: subprocess.Popen[str] | None = None
        self._upstream_ports = [0, 0, 0]
        self._otlp: subprocess.Popen[str] | None = None
        self._otlp_port = 0
        self.redis: subprocess.Popen[bytes] | None = None
        self._redis_port = free_port()

    @classmethod
    @contextlib.contextmanager
    def started(cls) -> Iterator[Surroundings]:
        with tempfile.TemporaryDirectory(prefix="chaos-around-") as folder:
            made = cls(Path(folder))
            try:
                made.start_upstream()
                made.start_otlp()
                made.start_redis()
                yield made
            finally:
                made.kill_redis()
                made.kill_otlp()
                made.kill_upstream()
                made._refusing.close()

    @property
    def ports(self) -> set[int]:
        return {*self._upstream_ports, self._otlp_port, self._redis_port}

    @property
    def redis_url(self) -> str:
        return f"redis://127.0.0.1:{self._redis_port}/0"

    @property
    def otlp_url(self) -> str:
        return f"http://127.0.0.1:{self._otlp_port}"

    @property
    def otlp_pid(self) -> int:
        assert self._otlp is not None
        return self._otlp.pid

    @property
    def upstream_pid(self) -> int:
        assert self._upstream is not None
        return self._upstream.pid

    @property
    def upstream_url(self) -> str:
        return f"http://127.0.0.1:{self._upstream_ports[0]}/v1"

    def unreachable_url(self, why: str) -> str:
        """An upstream that nobody reaches; `why` is one of UNREACHABLE."""
        return {
            "refused": f"http://127.0.0.1:{self._refusing.getsockname()[1]}/v1",
            "no_such_name": "http://upstream.invalid/v1",  # RFC 6761: there is never such a name
            "certificate_of_nobody": f"https://127.0.0.1:{self._upstream_ports[1]}/v1",
            "speaks_no_tls": f"https://127.0.0.1:{self._upstream_ports[2]}/v1",
        }[why]

    def start_upstream(self) -> None:
        arguments = [*map(str, self._upstream_ports), *([str(self._certificate)] if self._certificate else [])]
        self._upstream, line = _started("tests.chaos.upstream", *arguments)
        self._upstream_ports = [int(port) for port in line.split()]

    def kill_upstream(self) -> None:
        _kill(self._upstream)

    def start_otlp(self) -> None:
        self._otlp, line = _started("tests.chaos.otlp", str(self._otlp_port))
        self._otlp_port = int(line)

    def kill_otlp(self) -> None:
        _kill(self._otlp)

    def start_redis(self) -> None:
        if self.redis is None and shutil.which("redis-server"):
            where = ["--port", str(self._redis_port), "--bind", "127.0.0.1"]
            self.redis = subprocess.Popen(
                ["redis-server", *where, "--save", "", "--appendonly", "no"], stdout=subprocess.DEVNULL
            )

    def kill_redis(self) -> None:
        redis, self.redis = self.redis, None
        if redis is not None:
            redis.kill()
            redis.wait(30)


def _started(module: str, *arguments: str) -> tuple[subprocess.Popen[str], str]:
    """A process that ends with its stdin, and the line that it prints when it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"{module} did not start"
    return process, line


def _kill(process: subprocess.Popen[str] | None) -> None:
    if process is not None:
        assert process.stdin is not None
        assert process.stdout is not None
        process.kill()
        process.wait(30)
        process.stdin.close()
        process.stdout.close()


def _certificate(folder: Path) -> Path | None:
    """One that signs itself, with its key, in one file; None where there is no openssl."""
    if not shutil.which("openssl"):
        return None
    made = folder / "certificate.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
            "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(made), "-out",
            str(folder / "public.pem"),
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    made.write_bytes(made.read_bytes() + (folder / "public.pem").read_bytes())
    return made
