"""Whether a process listens is asked of its own sockets: what else is connected on the machine costs it nothing."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

from diagnostics.agent.inject import lookout

LOOKS = """
import socket, sys
from diagnostics.agent.inject import lookout

listener = socket.create_server(("127.0.0.1", 0))
opened = []
sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == "open" else None)
looking = lookout._Lookout()
for _ in range(3):
    looking.serves()
print([path for path in opened if "/net/" in path])
"""


def test_listening_tcp_sockets_are_found_among_others_and_left_open(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        client = stack.enter_context(socket.create_connection(listener.getsockname()))
        accepted = stack.enter_context(listener.accept()[0])
        datagrams = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        local = stack.enter_context(socket.socket(socket.AF_UNIX))
        local.bind(str(tmp_path / "local"))
        local.listen()
        bound = stack.enter_context(socket.socket())
        bound.bind(("127.0.0.1", 0))
        six = [stack.enter_context(socket.create_server(("::1", 0), family=socket.AF_INET6))] if _has_six() else []
        mine = {
            one.fileno(): str(os.fstat(one.fileno()).st_ino)
            for one in (listener, client, accepted, datagrams, local, bound, *six)
        }
        with socket.socket() as closed:
            gone = closed.fileno()
        found = lookout._listening({**mine, gone: "closed"})
        assert found == {mine[one.fileno()] for one in (listener, *six)}
        client.sendall(b"still open")
        assert accepted.recv(100) == b"still open"


def test_a_look_does_not_read_the_machines_connections() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOOKS],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    assert done.stdout.strip() == "[]"


def _has_six() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False
