"""Why a process has no agent, concluded from /proc: its program, flags, user and initial environment."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from ...agent.inject import HOOK_FOLDER

__all__ = ["why_no_agent"]

_OLDEST: Final = (3, 11)
_PYTHON: Final = re.compile(r"python|pypy")


def why_no_agent(pid: int, proc: Path = Path("/proc")) -> str:
    """A sentence why the start-up hook gave process `pid` no agent."""
    folder = proc / str(pid)
    words = [word.decode(errors="replace") for word in _bytes(folder / "cmdline").split(b"\0")]
    program = _program(folder, words)
    why = (
        (None if _PYTHON.match(program) else f"{program or 'its program'} is not started as Python")
        or _by_flag(words)
        or _by_version(folder, program)
        or _by_environment(folder)
        or _by_user(folder)
    )
    if why:
        return f"this process has no agent: {why}; it is read from outside"
    return (
        "this process has no agent (it has not served yet; where it never listens on a port, start it with "
        "DIAGNOSTICS_AGENT=always); it is read from outside"
    )


def _program(folder: Path, words: list[str]) -> str:
    """The name of the program: of /proc/PID/exe where readable, since services overwrite their command line."""
    try:
        return str((folder / "exe").readlink()).removesuffix(" (deleted)").rpartition("/")[2]
    except OSError:
        return words[0].rpartition("/")[2] if words else ""


def _by_flag(words: list[str]) -> str | None:
    for word in words[1:]:
        if not word.startswith("-") or word in ("-", "-c", "-m"):
            break
        flag = re.match(r"-[bBdhiOPqRsuvx]*([IES])", word)
        if flag:
            return f"Python was started with -{flag[1]}, which ignores the start-up hook"
    return None


def _by_version(folder: Path, program: str) -> str | None:
    """By the version in the interpreter's name or in the path of a mapped library: `.../lib/python3.9/...`."""
    match = re.search(r"(\d)\.(\d+)", program) or re.search(
        r"python(\d)\.(\d+)", _bytes(folder / "maps").decode(errors="replace")
    )
    if match and (int(match[1]), int(match[2])) < _OLDEST:
        return f"it runs Python {match[1]}.{match[2]}, and the agent needs {_OLDEST[0]}.{_OLDEST[1]} or newer"
    return None


def _by_environment(folder: Path) -> str | None:
    """By the environment at the process's start (/proc/PID/environ); later changes do not show there."""
    try:
        environment = (folder / "environ").read_bytes()
    except OSError:
        return None
    given = dict(pair.split("=", 1) for pair in environment.decode(errors="replace").split("\0") if "=" in pair)
    entries = [os.path.normpath(entry) for entry in given.get("PYTHONPATH", "").split(os.pathsep) if entry]
    if HOOK_FOLDER not in entries:
        return (
            "its PYTHONPATH has no start-up hook: it was not started by `diagnostics run`, or whoever started it gave it "
            "another environment (pass PYTHONPATH and the DIAGNOSTICS_ variables on; `diagnostics attach` puts an agent in)"
        )
    if "DIAGNOSTICS_DIR" not in given:
        return "its environment has no DIAGNOSTICS_DIR (pass the DIAGNOSTICS_ variables on)"
    for entry in entries[: entries.index(HOOK_FOLDER)]:
        if (Path(entry) / "sitecustomize.py").exists():
            return (
                f"{entry}/sitecustomize.py comes before the start-up hook on its PYTHONPATH and does not run the next one "
                "(put the other folder behind ours, or start `diagnostics run` by the other command)"
            )
    return None


def _by_user(folder: Path) -> str | None:
    ids = dict(re.findall(r"^([UG]id):\t\d+\t(\d+)", _bytes(folder / "status").decode(errors="replace"), re.MULTILINE))
    uid, gid, own = int(ids.get("Uid", os.geteuid())), int(ids.get("Gid", -1)), os.geteuid()
    if uid == own:
        return None
    if own != 0:
        return f"it runs as uid {uid}, whose agent the monitor of uid {own} may not ask (run that one as root)"
    for place in _code_of(folder):
        closed = next((each for each in (*reversed(place.parents), place) if not _may_enter(each, uid, gid)), None)
        if closed is not None:
            return (
                f"it has become uid {uid}, which may not enter {closed}, so that nothing below {place} can be loaded "
                "(install it where that user can read it)"
            )
    return None


def _code_of(folder: Path) -> list[Path]:
    """The folders of the agent's code and, where a mapped file shows it, of the interpreter's standard library."""
    library = re.search(r"(/\S*/python\d\.\d+)/", _bytes(folder / "maps").decode(errors="replace"))
    return [Path(HOOK_FOLDER), *([Path(library[1])] if library else [])]


def _may_enter(folder: Path, uid: int, gid: int) -> bool:
    """Whether a folder's mode lets this user or group enter; supplementary groups and ACLs are not considered."""
    try:
        facts = folder.stat()
    except OSError:
        return True  # unknown
    bit = 0o100 if facts.st_uid == uid else 0o010 if facts.st_gid == gid else 0o001
    return bool(facts.st_mode & bit)


def _bytes(path: Path) -> bytes:
    """The file's bytes; empty where it cannot be read: the process has ended, or is another user's."""
    try:
        return path.read_bytes()
    except OSError:
        return b""
