"""Programs beside a resolver that never answers, as in an outage: in a network and with files of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

__all__ = ["needs_namespaces", "said_beside_it"]

ROOT = Path(__file__).parents[1]
# Which the program begins with: the loopback interface is up (SIOCSIFFLAGS), and questions are taken.
RESOLVER = """
import fcntl, socket, struct
resolver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
fcntl.ioctl(resolver, 0x8914, struct.pack("16sh", b"lo", 1))
resolver.bind(("127.0.0.1", 53))
"""

needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0
    or shutil.which("unshare") is None
    or subprocess.run(["unshare", "-n", "-m", "true"], capture_output=True, check=False).returncode != 0,
    reason="namespaces of one's own are made by root only, where the kernel lets it",
)


def said_beside_it(folder: Path, program: str, seconds: float = 120) -> str:
    """What a program of Python prints; it must end with 0 and say nothing on standard error."""
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:30 attempts:5\n", encoding="utf-8")
    (folder / "hosts").write_text("127.0.0.1 localhost\n", encoding="utf-8")
    (folder / "program.py").write_text(RESOLVER + program, encoding="utf-8")
    steps = [
        f"mount --bind {folder}/resolv.conf /etc/resolv.conf",
        f"mount --bind {folder}/hosts /etc/hosts",
        f"exec {sys.executable} {folder}/program.py",
    ]
    done = subprocess.run(
        ["unshare", "-n", "-m", "sh", "-ec", "\n".join(steps)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert (done.stderr, done.returncode) == ("", 0), done.stdout + done.stderr
    return done.stdout
