"""`diagnostics run -- CMD`: CMD is signalled, stopped and ended as without us. After the tests of tini and dumb-init."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

RUN = (sys.executable, "-m", "diagnostics", "run", "--listen", "127.0.0.1:0", "--")

# Says each signal that it gets, in a line.
RECORDER = """
import os, signal
open("/proc/self/comm", "wb").write(b"\\xff) d\\xe4mon")  # as a title that a library sets may be: no UTF-8
told = {number for number in signal.valid_signals() if number not in (signal.SIGKILL, signal.SIGSTOP)}
signal.pthread_sigmask(signal.SIG_BLOCK, told)
print("ready", os.getpid(), flush=True)
while True:
    number = signal.sigwaitinfo(told).si_signo
    print("got", int(number), flush=True)
    if number == signal.SIGALRM:
        break
"""
CATCHABLE = sorted(set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGALRM})


@pytest.fixture
def recorder(launch: Any, tmp_path: Path) -> Any:
    launched = launch(*RUN, sys.executable, "-c", RECORDER, env={"DIAGNOSTICS_DIR": str(tmp_path / "dir")})
    launched.wait_for("ready", patience=60)
    return launched


def got(launched: Any) -> list[int]:
    return [int(number) for number in re.findall(r"^got (\d+)\n", launched.output, re.MULTILINE)]  # whole lines only


def pending(pid: int) -> int:
    """The signals that this process has been sent and has not taken yet, as a mask."""
    masks = re.findall(
        r"^S\w+Pnd:\t(\w+)", Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace"), re.MULTILINE
    )
    return int(masks[0], 16) | int(masks[1], 16)


def test_every_signal_that_can_be_caught_reaches_the_command_once(recorder: Any, eventually: Any) -> None:
    for number in CATCHABLE:
        recorder.process.send_signal(number)
        eventually(lambda number=number: number in got(recorder), what=f"signal {number}")
    assert recorder.end(signal.SIGALRM) == 0
    assert sorted(got(recorder)) == sorted([*CATCHABLE, signal.SIGALRM])


def test_what_is_sent_to_the_whole_group_reaches_the_command_once(recorder: Any, eventually: Any) -> None:
    sent = [
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGUSR1,
        signal.SIGWINCH,
        signal.SIGINT,
        signal.SIGTTIN,
    ]
    for count, number in enumerate(sent, 1):
        os.killpg(recorder.process.pid, number)
        eventually(lambda count=count: len(got(recorder)) == count, what=f"signal {number}")
        # Two of one number that are pending at the same time are one (signal(7)): it has to have taken this one.
        eventually(lambda: not pending(recorder.process.pid), what=f"signal {number}, taken by `run`")
    # And one to the process alone after it is a second one, not the first one's echo.
    recorder.process.send_signal(signal.SIGINT)
    eventually(lambda: len(got(recorder)) == len(sent) + 1)
    assert recorder.end(signal.SIGALRM) == 0
    assert got(recorder) == [*sent, signal.SIGINT, signal.SIGALRM]


@pytest.mark.parametrize(
    ("script", "ends"),
    [("exit 0", 0), ("exit 255", 255)]
    + [(f"kill -{name} $$", -getattr(signal, f"SIG{name}")) for name in ("TERM", "INT", "QUIT", "KILL", "SEGV")],
)
def test_it_ends_as_the_command_did(launch: Any, tmp_path: Path, script: str, ends: int) -> None:
    launched = launch(*RUN, "sh", "-c", script, env={"DIAGNOSTICS_DIR": str(tmp_path / "dir")})
    assert launched.process.wait(60) == ends


LISTENS = """
import os, sys, time, wsgiref.simple_server
with wsgiref.simple_server.make_server("127.0.0.1", 0, None):
    print("pid", os.getpid(), flush=True)
    while not os.path.exists(sys.argv[1]):
        time.sleep(0.05)
    exec(sys.argv[2])
"""


@pytest.mark.parametrize(
    ("ends", "line"),
    [
        ("os.kill(os.getpid(), 10)", "diagnostics: worker 0 (pid PID) has ended. It was ended by SIGUSR1"),
        ("os._exit(7)", ""),
    ],
    ids=["by a signal", "with an exit code"],
)
def test_a_death_by_a_signal_is_a_line_that_says_whose_it_is_and_an_exit_is_none(
    launch: Any, http: Any, eventually: Any, tmp_path: Path, ends: str, line: str
) -> None:
    env = {"DIAGNOSTICS_DIR": str(tmp_path / "dir"), "DIAGNOSTICS_RECORD_INTERVAL_SECONDS": "0.05"}
    launched = launch(*RUN, sys.executable, "-c", LISTENS, str(tmp_path / "go"), ends, env=env)
    pid = launched.wait_for("pid ").split()[1]
    monitor = launched.wait_for("diagnostics http").split()[1]
    eventually(lambda: http(f"{monitor}/timeline?worker=0").json().get("rows"))
    (tmp_path / "go").touch()
    launched.process.wait(60)
    told = [each for each in launched.output.splitlines() if "has ended" in each]
    assert [each.startswith(line.replace("PID", pid)) for each in told] == [True] * bool(line), launched.output


@pytest.mark.parametrize("before", ["", "trap '' HUP USR1; ", "trap '' PIPE USR2; ", "trap '' INT; "])
def test_the_command_has_the_signal_dispositions_and_the_mask_that_it_would_have(before: str, tmp_path: Path) -> None:
    # awk tells what it was given: unlike Python it changes none of them.
    awk = ["awk", "/^Sig(Blk|Ign|Cgt)/", "/proc/self/status"]
    environment = {**os.environ, "DIAGNOSTICS_DIR": str(tmp_path / "dir")}

    def told(*command: str) -> str:
        script = before + 'exec "$@"'
        ended = subprocess.run(
            ["sh", "-c", script, "sh", *command],
            env=environment,
            check=True,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
        )
        return ended.stdout

    alone, beside = told(*awk), told(*RUN, *awk)
    if "PIPE" in before:  # Python does not say whether it found SIGPIPE ignored: see docs/any-service.md
        ignored = re.search(r"SigIgn:\t(\w+)", alone)
        assert ignored
        alone = alone.replace(ignored[1], f"{int(ignored[1], 16) & ~(1 << signal.SIGPIPE - 1):016x}")
    assert beside == alone


def test_a_second_sigint_forces_the_end_as_it_does_without_us(launch: Any, tmp_path: Path, eventually: Any) -> None:
    program = (
        "import os, signal, sys, time\n"
        "def first(*_):\n"
        "    signal.signal(signal.SIGINT, lambda *_: os._exit(7))\n"
        "    print('draining', flush=True)\n"
        "signal.signal(signal.SIGINT, first)\n"
        "print('ready', flush=True)\n"
        "while True: time.sleep(0.05)\n"
    )
    launched = launch(*RUN, sys.executable, "-c", program, env={"DIAGNOSTICS_DIR": str(tmp_path / "dir")})
    launched.wait_for("ready", patience=60)
    os.killpg(launched.process.pid, signal.SIGINT)
    launched.wait_for("draining")
    time.sleep(0.2)  # the group's one signal must not be both
    assert launched.process.poll() is None
    os.killpg(launched.process.pid, signal.SIGINT)
    assert launched.process.wait(30) == 7


def test_a_monitor_that_dies_leaves_the_service_as_it_is(recorder: Any, eventually: Any) -> None:
    (monitor,) = [pid for pid in children(recorder.process.pid) if os.getpgid(pid) == pid]
    os.kill(monitor, signal.SIGKILL)
    recorder.wait_for("the monitor has ended; the service goes on without it")
    recorder.process.send_signal(signal.SIGUSR2)
    eventually(lambda: signal.SIGUSR2 in got(recorder))
    assert recorder.end(signal.SIGALRM) == 0


def test_who_kills_it_kills_the_command(recorder: Any, eventually: Any) -> None:
    command = int(recorder.wait_for("ready").split()[1])
    recorder.end(signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{command}").exists() or state(command) == "Z", what="the command to end")


def test_a_command_stopped_by_somebody_else_is_not_followed_and_signals_still_reach_it(
    recorder: Any, eventually: Any
) -> None:
    command = int(recorder.wait_for("ready").split()[1])
    os.kill(command, signal.SIGSTOP)
    eventually(lambda: state(command) == "T")
    recorder.process.send_signal(signal.SIGUSR1)
    os.kill(command, signal.SIGCONT)
    eventually(lambda: signal.SIGUSR1 in got(recorder))
    assert recorder.end(signal.SIGALRM) == 0


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()]


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]


class Terminal:
    """bash on a terminal of its own, with job control."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], environment)
        self.output = ""

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def enter(self, line: str) -> None:
        """Type a line at bash's prompt until its echo shows that bash has it.

        On a busy machine what is typed right behind the prompt is lost now and then, whatever bash had run before.
        """
        deadline = time.monotonic() + 60
        self.type(line)
        while line[:2] not in self.output:
            ready, _, _ = select.select([self.fd], [], [], 3)
            if ready:
                self.output += os.read(self.fd, 65536).decode(errors="replace")
            elif time.monotonic() < deadline:
                self.type("\x15" + line)  # Ctrl-U: not behind a part of it
            else:
                pytest.fail(f"bash does not echo {line!r}; output:\n{self.output!r}")
        self.type("\n")

    def wait_for(self, pattern: str, patience: float = 60.0) -> re.Match[str]:
        """Reads until the pattern comes; what came before it is forgotten."""
        deadline = time.monotonic() + patience
        while not (found := re.search(pattern, self.output)):
            ready, _, _ = select.select([self.fd], [], [], max(deadline - time.monotonic(), 0))
            assert ready, f"{pattern!r} did not come; output:\n{self.output}"
            self.output += os.read(self.fd, 65536).decode(errors="replace")
        self.output = self.output[found.end() :]
        return found


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    environment = {**os.environ, "DIAGNOSTICS_DIR": str(tmp_path / "dir"), "PS1": "prompt> ", "RUN": " ".join(RUN)}
    (tmp_path / "recorder.py").write_text(INTERACTIVE, encoding="utf-8")
    made = Terminal({**environment, "PROGRAM": str(tmp_path / "recorder.py"), "PYTHON": sys.executable})
    yield made
    os.close(made.fd)  # hangs up: bash ends, and its jobs with it
    os.waitpid(made.pid, 0)


INTERACTIVE = """
import os, signal, sys, threading
def say(number, frame):
    size = os.get_terminal_size() if number == signal.SIGWINCH else ""
    os.write(1, f"got {int(number)} {size}\\n".encode())  # print may be what the signal has interrupted
def read():
    for line in sys.stdin:
        print("read", line.strip(), flush=True)
        if line.strip() == "end":
            os._exit(4)
# A signal that comes right before the main thread reads would be told only when there is a line: another thread reads.
came, wake = os.pipe()
os.set_blocking(wake, False)
signal.set_wakeup_fd(wake)
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH, signal.SIGCONT):
    signal.signal(number, say)
print("in front:", os.tcgetpgrp(0) == os.getpgrp(), flush=True)
threading.Thread(target=read, daemon=True).start()
while True:
    os.read(came, 1)
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash has the job control that this is about")
def test_job_control_at_a_terminal(terminal: Terminal) -> None:
    import fcntl
    import struct
    import termios

    terminal.wait_for("prompt> ")
    terminal.enter("$RUN $PYTHON $PROGRAM")
    terminal.wait_for("in front: True")
    terminal.type("hello\n")
    terminal.wait_for("read hello")
    terminal.type("\x03")
    terminal.wait_for(r"got 2\b")
    terminal.type("\x1c")
    terminal.wait_for(r"got 3\b")
    fcntl.ioctl(terminal.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
    terminal.wait_for(r"got 28 .*columns=77, lines=33")
    for _ in range(2):
        terminal.type("\x1a")
        terminal.wait_for(r"Stopped")
        terminal.wait_for("prompt> ")
        terminal.enter("fg")
        terminal.wait_for(r"got 18\b")
        terminal.type("again\n")
        terminal.wait_for("read again")
    # In the background it is stopped when it reads from the terminal, as any job is.
    terminal.type("\x1a")
    terminal.wait_for(r"Stopped")
    terminal.wait_for("prompt> ")
    terminal.enter("bg; until jobs -l | grep tty; do sleep 0.1; done")
    terminal.wait_for(r"Stopped \(tty input\)")
    terminal.wait_for("prompt> ")
    terminal.enter("fg")
    terminal.wait_for(r"got 18\b")
    terminal.type("end\n")
    terminal.wait_for("read end")
    terminal.wait_for("prompt> ")
    terminal.enter("echo status $?")
    terminal.wait_for("status 4")
    assert "got 2" not in terminal.output


@pytest.mark.e2e
def test_gunicorns_signals_work_as_without_us(
    launch: Any, tmp_path: Path, eventually: Any, free_port: Callable[[], int]
) -> None:
    (tmp_path / "wsgi.py").write_text(
        "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'x']\n",
        encoding="utf-8",
    )
    port = free_port()
    words = [
        sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", "1", "--pid", str(tmp_path / "pid"),
        "--no-control-socket", "--graceful-timeout", "5", "wsgi:app",
    ]  # fmt: skip
    launched = launch(*RUN, *words, env={"DIAGNOSTICS_DIR": str(tmp_path / "dir")}, cwd=tmp_path)
    launched.wait_for("Booting worker", patience=60)
    master = int(eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(encoding="utf-8")))

    def workers(count: int) -> list[int]:
        return eventually(
            lambda: len(found := children(master)) == count and found, patience=30, what=f"{count} workers"
        )  # type: ignore[no-any-return]

    (first,) = workers(1)
    launched.process.send_signal(signal.SIGTTIN)
    assert first in workers(2)
    launched.process.send_signal(signal.SIGTTOU)
    workers(1)
    launched.process.send_signal(signal.SIGHUP)
    eventually(lambda: len(found := children(master)) == 1 and first not in found, patience=30, what="a new worker")
    launched.process.send_signal(signal.SIGUSR2)  # a second master beside the first
    second = int(
        eventually(
            lambda: (tmp_path / "pid.2").exists() and (tmp_path / "pid.2").read_text(encoding="utf-8"), patience=30
        )
    )
    eventually(lambda: children(second), patience=30, what="the second master's worker")
    os.kill(second, signal.SIGTERM)
    eventually(lambda: second not in children(master), patience=60, what="the second master's end")
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert client.recv(4)
    assert launched.end(signal.SIGTERM, patience=60) == 0
