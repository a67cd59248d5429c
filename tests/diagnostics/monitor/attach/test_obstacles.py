"""What stands in the way of attaching, made for real: a process in state D, a seccomp filter, missing capabilities, workers
that end meanwhile. Each is named before anything is touched, and the service goes on as it was."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from diagnostics.commands._attaching import Attaching, login_uid
from diagnostics.errors import NotFoundError, RefusedError, TargetError, TargetSilentError
from diagnostics.monitor.attach.attach import attach, detach
from diagnostics.monitor.attach.check import Check, check
from diagnostics.monitor.attach.folder import AgentFolder
from diagnostics.monitor.attach.ptrace import CAN_CALL

ROOT = Path(__file__).parents[4]

by_call = pytest.mark.skipif(not CAN_CALL, reason="calls into a running Python are made on x86-64 only")
as_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="capabilities can be dropped by root only"
)

# Answers each line of its standard input with the modules of ours that it has loaded. It wakes up by itself, as servers do.
ECHO = """
import os, select, sys
print("begun", flush=True)
while True:
    if select.select([0], [], [], 0.02)[0]:
        if not os.read(0, 1):
            break
        print([name for name in sys.modules if name.startswith("_highwater_diagnostics")], flush=True)
"""
# The same with an event loop that wakes up only for its clients, in a network namespace whose loopback is up.
IDLE = """
import asyncio, fcntl, os, socket, struct, sys
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh22x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
def answer():
    if not os.read(0, 1):
        raise SystemExit
    print([name for name in sys.modules if name.startswith("_highwater_diagnostics")], flush=True)
async def main():
    asyncio.get_running_loop().add_reader(0, answer)
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    print("begun", flush=True)
    await server.serve_forever()
asyncio.run(main())
"""
# A child that vfork(2)'s parent waits for, in state D: glibc's clone() with CLONE_VFORK, whose child runs pause().
VFORK = """
import ctypes, sys
libc = ctypes.CDLL(None)
stack = ctypes.create_string_buffer(65536)
top = (ctypes.addressof(stack) + 65536) & ~15
print("begun", flush=True)
libc.clone(ctypes.cast(libc.pause, ctypes.c_void_p), ctypes.c_void_p(top), 0x4000 | 17, None)
print([name for name in sys.modules if name.startswith("_highwater_diagnostics")], flush=True)
"""
# The codes of what stands in the way of process argv[1], asked in another process.
ASK = """
import json, sys
from pathlib import Path
from diagnostics.monitor.attach.check import check
yama = [Path(word) for word in sys.argv[2:]]
print(json.dumps([[problem.code, problem.says] for problem in check(int(sys.argv[1]), *yama).problems]))
"""
# Before that, a seccomp filter that refuses ptrace, process_vm_readv and process_vm_writev with EPERM: seccomp(2), and the
# numbers of x86-64.
FILTER = """
import ctypes, struct
calls = (101, 310, 311)
program = struct.pack("<HBBI", 0x20, 0, 0, 0)
for left, number in zip(range(len(calls) - 1, -1, -1), calls):
    program += struct.pack("<HBBI", 0x15, left + 1, 0, number)
program += struct.pack("<HBBI", 0x06, 0, 0, 0x7FFF0000) + struct.pack("<HBBI", 0x06, 0, 0, 0x00050000 | 1)
held = ctypes.create_string_buffer(program)
header = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(program) // 8, ctypes.addressof(held)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, header, 0, 0) == 0, ctypes.get_errno()
"""


# Attaches to process argv[1] and detaches again; tells whose the folder in its /tmp was, and whether its agent listened.
ATTACH = """
import sys
from diagnostics.monitor.attach.attach import attach, detach
from diagnostics.monitor.attach.folder import AgentFolder
pid = int(sys.argv[1])
attach(pid, patience=60)
folder = AgentFolder.of(pid)
print(folder.outside.stat().st_uid, len(folder.sockets()) == 1)
detach(pid)
"""


@contextlib.contextmanager
def running(*program: str) -> Iterator[subprocess.Popen[str]]:
    """A Python that has said "begun"; at the end it has printed nothing to its standard error.

    program   its source, or the whole command
    """
    with subprocess.Popen(
        program if program[1:] else [sys.executable, "-I", "-c", *program],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
    ) as process:  # fmt: skip
        try:
            assert process.stdout
            assert process.stdout.readline() == "begun\n"
            yield process
        finally:
            process.kill()
            assert process.communicate()[1] == ""


def untouched(process: subprocess.Popen[str]) -> bool:
    """Whether the process answers, has nothing of ours, and has no folder of an agent."""
    assert process.stdin
    assert process.stdout
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline() == "[]\n" and AgentFolder.of(process.pid) is None


def codes(checked: Check) -> list[str]:
    return [problem.code for problem in checked.problems]


def asked(pid: int, *before: str, first: str = "", more: Sequence[str] = ()) -> dict[str, str]:
    """What another process, started by the words `before`, finds about process `pid`: code -> sentence."""
    done = subprocess.run(
        [*before, sys.executable, "-c", first + ASK, str(pid), *more],
        cwd=ROOT, capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the flags of clone() and the stack are written for x86-64")
def test_a_process_in_state_d_is_named_and_goes_on_as_it_was() -> None:
    with running(VFORK) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        deadline = time.monotonic() + 60
        while not (child := children.read_text(encoding="utf-8").split()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        try:
            with pytest.raises(TargetError, match=r"\(state D\) and cannot be stopped") as raised:
                attach(process.pid)
            assert raised.value.code == "disk_wait"
            assert AgentFolder.of(process.pid) is None
            state = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
            assert "TracerPid:\t0\n" in state
        finally:
            os.kill(int(child[0]), signal.SIGKILL)
        assert process.communicate(timeout=60) == ("[]\n", "")
        assert process.returncode == 0


def test_a_stopped_process_is_named_and_stays_stopped_until_it_is_continued() -> None:
    with running(ECHO) as process:
        os.kill(process.pid, signal.SIGSTOP)
        assert os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        with pytest.raises(TargetError, match="is stopped"):
            attach(process.pid)
        assert codes(check(process.pid)) == ["stopped"]
        os.kill(process.pid, signal.SIGCONT)
        assert untouched(process)


@by_call
def test_an_agent_in_a_process_that_is_stopped_is_taken_out_once_it_runs_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diagnostics.monitor.attach.attach._ASK_SECONDS", 0.5)
    with running(ECHO) as process:
        attach(process.pid, patience=60)
        os.kill(process.pid, signal.SIGSTOP)
        assert os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        with pytest.raises(TargetSilentError, match="does not answer") as raised:
            detach(process.pid)
        assert "stopped" in str(raised.value.remedy)
        os.kill(process.pid, signal.SIGCONT)
        monkeypatch.undo()
        deadline = time.monotonic() + 60
        while AgentFolder.of(process.pid) is not None:  # it may have heard the first one only now
            assert time.monotonic() < deadline
            with contextlib.suppress(NotFoundError, TargetSilentError):
                detach(process.pid)
        while not untouched(process):
            assert time.monotonic() < deadline


@by_call
def test_under_a_seccomp_filter_that_refuses_ptrace_it_says_so() -> None:
    with running(ECHO) as process:
        assert asked(process.pid) == {}
        found = asked(process.pid, first=FILTER)
        assert set(found) == {"seccomp"}
        assert "a seccomp filter is on" in found["seccomp"]
        assert untouched(process)


@pytest.mark.parametrize(
    ("scope", "with_capability", "without"),
    [("0", [], []), ("1", [], ["ptrace_scope"]), ("2", [], ["ptrace_scope"]), ("3", ["ptrace_off"], ["ptrace_off"])],
)
@as_root
def test_yamas_setting_stands_in_the_way_of_who_lacks_the_capability(
    scope: str, with_capability: list[str], without: list[str], tmp_path: Path
) -> None:
    """The setting is the kernel's own file where the kernel has Yama; here it is read from one that says what is asked."""
    setting = tmp_path / "ptrace_scope"
    setting.write_text(f"{scope}\n", encoding="utf-8")
    with running(ECHO) as process:
        assert list(asked(process.pid, more=[str(setting)])) == with_capability
        dropped = ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"]
        found = asked(process.pid, *dropped, more=[str(setting)])
        # The process has a capability that this one lacks, so the kernel refuses whatever Yama says.
        assert list(found) == (without or ["not_permitted"])
        assert untouched(process)


@as_root
def test_from_a_user_namespace_of_its_own_nothing_outside_may_be_traced() -> None:
    """Its root has every capability, CAP_SYS_PTRACE as well, over what is in that namespace."""
    words = ["unshare", "--user", "--map-root-user"]
    if subprocess.run([*words, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no user namespace can be made here")
    with running(ECHO) as process:
        found = asked(process.pid, *words)
        assert list(found) == ["not_permitted"]
        assert "user namespace" in found["not_permitted"]
        assert untouched(process)


@by_call
def test_of_several_workers_those_that_are_gone_are_told_and_the_others_are_attached(tmp_path: Path) -> None:
    """One has ended, and its parent has not noticed; one is killed while it is attached; the last one is as it was."""
    said: list[str] = []
    gone = subprocess.Popen(["true"])
    assert os.waitid(os.P_PID, gone.pid, os.WEXITED | os.WNOWAIT)
    with running(ECHO) as one, running(ECHO) as another:
        attaching = Attaching(tmp_path / "dir", said.append)
        try:
            errors = attaching.attach([gone.pid, one.pid, 4194305, another.pid], 60)
            assert [error.code for error in errors] == ["zombie", "no_process"]
            assert sorted(attaching.made) == sorted([one.pid, another.pid])
            folder = Path(attaching.made[one.pid].folder)
            assert folder.is_dir()
            one.kill()
            one.wait()
            assert attaching.recorded() == [another.pid]
            left = attaching.detach([one.pid, another.pid], force=False)
            assert [error.code for error in left] == ["not_found"]
            assert not folder.exists(), "the folder of the killed worker was left behind"
        finally:
            gone.wait()
        assert attaching.recorded() == []
        deadline = time.monotonic() + 60
        while not untouched(another):
            assert time.monotonic() < deadline
    lines = [json.loads(line) for line in (tmp_path / "dir" / "audit.log").read_text(encoding="utf-8").splitlines()]
    assert sorted((line["event"], line["outcome"], line["pid"]) for line in lines) == sorted(
        [
            ("attach", "zombie", gone.pid), ("attach", "no_process", 4194305),
            ("attach", "done", one.pid), ("attach", "done", another.pid),
            ("detach", "not_found", one.pid), ("detach", "done", another.pid),
        ]
    )  # fmt: skip
    assert {(line["who"], line["uid"], line["login_uid"]) for line in lines} == {
        ("the command line", os.getuid(), login_uid())
    }
    assert all(line["time"].endswith("Z") for line in lines)


@by_call
@as_root
def test_with_the_rights_of_the_container_that_attaches_another_users_service_is_attached_to() -> None:
    """docs/deploy/attach.yaml: root, with what container runtimes give and SYS_PTRACE. Without the file the image's user."""
    python = "/usr/bin/python3"
    release = subprocess.run([python, "--version"], capture_output=True, encoding="utf-8", check=False).stdout
    if not release.startswith(("Python 3.11", "Python 3.12", "Python 3.13")):
        pytest.skip("no Python 3.11 to 3.13 that another user may run is installed as /usr/bin/python3")
    given = (
        "chown,dac_override,fowner,fsetid,kill,setgid,setuid,setpcap,net_bind_service,net_raw,sys_chroot,mknod,setfcap"
    )
    rights = "".join(f",+{name}" for name in (*given.split(","), "sys_ptrace"))
    container = ["setpriv", f"--bounding-set=-all{rights}", "--inh-caps=-all"]
    service = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", python, "-I", "-c", ECHO]
    with running(*service) as process:
        nobody = ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-all"]
        assert set(asked(process.pid, *nobody)) == {"another_user"}
        done = subprocess.run(
            [*container, sys.executable, "-c", ATTACH, str(process.pid)],
            cwd=ROOT, capture_output=True, encoding="utf-8", check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, "65534 True\n"), done.stderr
        deadline = time.monotonic() + 60
        while not untouched(process):
            assert time.monotonic() < deadline


@by_call
@as_root
def test_an_idle_loop_in_a_network_namespace_of_its_own_is_woken_up_in_there() -> None:
    """As in every container, attached to from the machine that it runs on."""
    words = ["unshare", "--net"]
    if subprocess.run([*words, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no network namespace can be made here")
    before = Path("/proc/self/ns/net").readlink()
    with running(*words, sys.executable, "-I", "-c", IDLE) as process:
        attach(process.pid, patience=60)
        folder = AgentFolder.of(process.pid)
        assert folder is not None
        assert len(folder.sockets()) == 1
        detach(process.pid)
        deadline = time.monotonic() + 60
        while not untouched(process):
            assert time.monotonic() < deadline
    assert Path("/proc/self/ns/net").readlink() == before


@by_call
@pytest.mark.parametrize("unloads", [True, False])
def test_an_agent_that_cannot_be_loaded_is_told_with_the_reason_and_prints_nothing(
    unloads: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "diagnostics"
    shutil.copytree(ROOT / "diagnostics", package, ignore=shutil.ignore_patterns("__pycache__", "monitor", "proof"))
    with open(package / "agent" / "lifecycle.py", "a", encoding="utf-8") as file:
        file.write("raise ImportError('broken')\n")
    if not unloads:
        with open(package / "agent" / "at_fork.py", "a", encoding="utf-8") as file:
            file.write("def let_go(owner): raise OSError('stuck')\n")
    monkeypatch.setattr("diagnostics.monitor.attach.folder._PACKAGE", package)
    with running(ECHO) as process:
        also = "" if unloads else r" \(and while unloading: OSError: stuck\)"
        with pytest.raises(TargetError) as raised:
            attach(process.pid, patience=60)
        assert re.search(rf"did not take the agent: ImportError: broken{also}$", raised.value.message)
        assert AgentFolder.of(process.pid) is None
        assert untouched(process) == unloads


def test_who_had_logged_in_before_sudo_is_told_and_nobody_is_nobody(tmp_path: Path) -> None:
    told = tmp_path / "loginuid"
    assert login_uid(told) is None
    for text, uid in (("1000", 1000), ("0", 0), ("4294967295", None), ("", None)):
        told.write_text(text, encoding="utf-8")
        assert login_uid(told) == uid


@by_call
def test_where_tracing_is_refused_after_all_the_error_names_the_way_on() -> None:
    """Another tracer has come between the check and the attempt."""
    strace = shutil.which("strace") or shutil.which("gdb")
    if strace is None:
        pytest.skip("no other tracer (strace, gdb) is installed")
    options = ["-p"] if strace.endswith("strace") else ["-q", "-p"]
    with running(ECHO) as process:
        tracer = subprocess.Popen(
            [strace, *options, str(process.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            deadline = time.monotonic() + 60
            while f"TracerPid:\t{tracer.pid}\n" not in Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8"):
                assert time.monotonic() < deadline
                assert tracer.poll() is None
                time.sleep(0.02)
            found = check(process.pid)
            assert [problem.code for problem in found.problems][:1] in (["traced"], ["stopped"])
            with pytest.raises((RefusedError, TargetError)):
                attach(process.pid)
        finally:
            tracer.kill()
            tracer.communicate()
        deadline = time.monotonic() + 60
        while codes(check(process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert untouched(process)
