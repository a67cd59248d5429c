"""A port that is free now is bound some seconds later: until then nobody else may be given it."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from diagnostics.proof.subjects import processes

CHOOSE = """
import sys
from diagnostics.proof.subjects import processes
processes._PORTS = 400
print(*(processes.free_port() for _ in range(30)), flush=True)
sys.stdin.read()
"""


def test_processes_that_ask_at_the_same_time_get_ports_of_their_own() -> None:
    """Of 400 ports 120: if each process chose for itself, about 13 would be chosen twice."""
    asking = [
        subprocess.Popen(
            [sys.executable, "-c", CHOOSE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
        )
        for _ in range(4)
    ]
    try:
        ports = [port for one in asking if one.stdout for port in one.stdout.readline().split()]
        assert len(ports) == len(set(ports)) == 120
    finally:
        for one in asking:
            one.communicate()


def test_a_process_keeps_few_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(10):
        processes.free_port()
    monkeypatch.setattr(processes, "_MOST_CLAIMED", 4)
    ports = [processes.free_port() for _ in range(40)]
    for port in ports[:30]:  # given back
        with socket.socket(socket.AF_UNIX) as claim:
            claim.bind(f"\0highwater-port-{port}")
    with socket.socket(socket.AF_UNIX) as claim, pytest.raises(OSError, match="in use"):
        claim.bind(f"\0highwater-port-{ports[-1]}")
