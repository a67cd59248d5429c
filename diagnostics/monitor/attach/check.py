"""Whether a process can be attached to, before it is tried: a list of obstacles, each with its remedy.

Only reads /proc and files. Nothing is stopped, and nothing written.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ..kernel.process import proc_is_ours, runs
from .folder import AgentFolder, candidates
from .interpreter import Interpreter, find_interpreter
from .ptrace import CAN_CALL, refused_by_kernel
from .remedies import REMEDIES
from .remote_debugging import remote_debugging

__all__ = ["Check", "Problem", "check"]

_OLDEST: Final = (3, 11)
_BY_CALL: Final = {(3, 11), (3, 12), (3, 13)}
_BY_REMOTE_DEBUGGING: Final = {(3, 14)}
_CAP_SYS_PTRACE: Final = 1 << 19
_DISK_SECONDS: Final = 1.0
_YAMA: Final = Path("/proc/sys/kernel/yama/ptrace_scope")
_STATES: Final = {"Z": "zombie", "X": "zombie", "D": "disk_wait", "T": "stopped"}


@dataclass(frozen=True, slots=True)
class Problem:
    """One obstacle. `code`: its key in REMEDIES; `says`: the finding, a sentence."""

    code: str
    says: str

    @property
    def remedy(self) -> dict[str, str]:
        """The remedy by the place where the service runs: "linux", "docker", "kubernetes"."""
        return REMEDIES[self.code]

    def to_json(self) -> dict[str, Any]:
        return {"code": self.code, "says": self.says, "remedy": self.remedy}


@dataclass(slots=True)
class Check:
    """The findings about process `pid`; attaching is possible where there is no problem.

    uid, gid      the process's effective ones, as seen in this user namespace
    interpreter   None where no Python was found, or the process could not be read
    """

    pid: int
    uid: int = -1
    gid: int = -1
    interpreter: Interpreter | None = None
    problems: list[Problem] = field(default_factory=list)

    @property
    def how(self) -> str | None:
        """The mechanism by which the agent would be loaded, in words; None where the interpreter is not known."""
        if self.interpreter is None:
            return None
        by_call = self.interpreter.version[:2] in _BY_CALL
        return "a call on the main thread (ptrace)" if by_call else "remote debugging (PEP 768)"

    def add(self, code: str, says: str) -> None:
        self.problems.append(Problem(code, says))


def check(pid: int, yama: Path = _YAMA) -> Check:
    """Check process `pid`. Never raises: every finding is a Problem.

    yama    the file with the setting kernel.yama.ptrace_scope; a kernel without Yama has none
    """
    checked = Check(pid)
    if not _is_there(checked):
        return checked
    status = _status(pid)
    checked.uid, checked.gid = (int(status.get(name, "-1 -1").split()[1]) for name in ("Uid", "Gid"))
    if pid == os.getpid():
        checked.add("itself", f"process {pid} is this command itself")
        return checked
    if "VmSize" not in status and status.get("State", "?")[0] not in "ZX":
        checked.add("not_python", f"process {pid} ({status.get('Name', '?')}) is a thread of the kernel")
        return checked
    if _by_state(checked, status):
        return checked
    _by_rights(checked, status, _number(yama))
    try:
        _by_interpreter(checked)
    except PermissionError:
        if not checked.problems:
            checked.add("not_permitted", f"/proc/{pid} of process {pid} may not be read")
        return checked
    if not checked.problems:
        _by_memory(checked)
    return checked


def _is_there(checked: Check) -> bool:
    pid = checked.pid
    if not proc_is_ours():
        checked.add("foreign_proc", "/proc shows another PID namespace than the one that this command is in")
    elif pid <= 0 or not (runs(pid) and Path(f"/proc/{pid}").exists()):
        checked.add("no_process", f"there is no process {pid} here")
    elif not Path(f"/proc/{pid}/task/{pid}").exists():
        checked.add("no_process", f"{pid} is a thread, and no process")
    return not checked.problems


def _status(pid: int) -> dict[str, str]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _by_state(checked: Check, status: dict[str, str]) -> bool:
    state = status.get("State", "?")[0]
    until = time.monotonic() + _DISK_SECONDS
    while state == "D" and time.monotonic() < until:  # a short file read is in D, too
        time.sleep(0.01)
        state = _status(checked.pid).get("State", "?")[0]
    code = _STATES.get(state)
    says = {
        "zombie": "has ended, and its parent has not yet asked for its exit status",
        "disk_wait": "waits in the kernel (state D) and cannot be stopped: for a disk, a network file system, a child of "
        "vfork(2)",
        "stopped": "is stopped (state T): its main thread runs nothing",
    }
    if code is not None:
        checked.add(code, f"process {checked.pid} {says[code]}")
    return code is not None


def _by_rights(checked: Check, status: dict[str, str], scope: int | None) -> None:
    pid, own = checked.pid, _status(os.getpid())
    tracer = int(status.get("TracerPid", "0") or 0)
    if tracer:
        name = _status(tracer).get("Name", "a process that is not seen from here")
        checked.add("traced", f"process {pid} is being traced by process {tracer} ({name}): a debugger, or strace")
    privileged = bool(int(own.get("CapEff", "0"), 16) & _CAP_SYS_PTRACE)
    refused = refused_by_kernel()
    if refused is not None:
        why = "a seccomp filter is on" if own.get("Seccomp", "0") != "0" else "this kernel or its security module"
        checked.add("seccomp", f"this command may trace nobody at all: {refused} ({why})")
    uids = {int(each) for each in status.get("Uid", "").split()[:3]}
    if not privileged and uids != {os.getuid()}:
        checked.add(
            "another_user",
            f"process {pid} runs as uid {checked.uid}, this command as uid {os.geteuid()} without CAP_SYS_PTRACE",
        )
    if scope == 3:
        checked.add("ptrace_off", "kernel.yama.ptrace_scope is 3: nobody may trace anybody until the next boot")
    elif scope in (1, 2) and not privileged:
        checked.add("ptrace_scope", f"kernel.yama.ptrace_scope is {scope}, and this command has no CAP_SYS_PTRACE")
    if not checked.problems:
        try:
            os.close(os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC))
        except OSError as error:
            checked.add(
                "not_permitted",
                f"the kernel does not let this command into process {pid} ({error.strerror}): it has capabilities that "
                "this command lacks, may not be dumped, or is in another user namespace",
            )


def _by_interpreter(checked: Check) -> None:
    interpreter = find_interpreter(checked.pid)
    if isinstance(interpreter, str):
        static = "statically" in interpreter and "Python's files" in interpreter
        checked.add("static" if static else "not_python", f"process {checked.pid}: {interpreter}")
        return
    checked.interpreter = interpreter
    version = interpreter.version[:2]
    if version < _OLDEST:
        checked.add("too_old", f"process {checked.pid} runs {interpreter}; the agent needs Python 3.11 or newer")
    elif version not in _BY_CALL | _BY_REMOTE_DEBUGGING:
        checked.add("too_new", f"process {checked.pid} runs {interpreter}, which this version does not know")
    elif version in _BY_CALL and not CAN_CALL:
        checked.add("machine", f"process {checked.pid} runs {interpreter} on {os.uname().machine}")
    if "_PyRuntime" not in interpreter.addresses and not checked.problems:
        checked.add("static", f"process {checked.pid}: its {interpreter} does not export what is needed")


def _by_memory(checked: Check) -> None:
    pid, interpreter = checked.pid, checked.interpreter
    assert interpreter is not None
    if interpreter.version[:2] in _BY_REMOTE_DEBUGGING:
        with remote_debugging(pid, interpreter.version, interpreter.addresses["_PyRuntime"]) as remote:
            if not remote.enabled:
                checked.add("remote_debugging_off", f"remote debugging is disabled in process {pid}")
    folder = AgentFolder.of(pid)
    if folder is not None:
        since = folder.noted().get("since")
        checked.add("attached", f"process {pid} has been attached to{f' ({since})' if since else ''}: {folder.inside}")
    elif not list(candidates(pid)):
        checked.add("no_folder", f"process {pid} has no temporary folder")


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
