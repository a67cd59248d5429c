"""Keeps the start-up hook first where this process becomes, or starts, a command that brings a start-up hook of its own.

`opentelemetry-instrument uvicorn app:app` puts a folder with a sitecustomize in front on PYTHONPATH and executes uvicorn.
Python runs the first sitecustomize only, and OpenTelemetry's does not run the next one; ours does. So just before another
program is executed, our folder is moved in front again: ours runs first, takes its folder away, and runs theirs.

The moment is found by an audit hook. One that is written in Python makes each audited call (`open`, `id`, `socket.connect`)
about a tenth of a microsecond dearer and cannot be taken out. So there is one only in a process that looks like a launcher:
where a word of its command line names a program.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["launches", "start"]

# Options of Python itself that take the next word.
_WITH_A_WORD = {"-W", "-X", "--check-hash-based-pycs"}
# Where the environment stands among an event's arguments.
_ENVIRONMENT = {"os.exec": 2, "os.posix_spawn": 2, "subprocess.Popen": 3}


def start(hook_folder: str) -> None:
    """Watch this process if it is a launcher."""
    if not launches(sys.orig_argv):
        return

    def before(event: str, arguments: tuple[Any, ...]) -> None:
        place = _ENVIRONMENT.get(event)
        if place is None:
            return
        try:
            _put_in_front(arguments[place] if arguments[place] is not None else os.environ, hook_folder)
        except (AttributeError, LookupError, TypeError):
            # An environment that is no dictionary of strings. What is raised here would keep the program from being started;
            # the monitor says of a process without an agent what it lacks.
            pass

    sys.addaudithook(before)


def launches(words: list[str]) -> bool:
    """Whether a Python with this command line (`sys.orig_argv`) is given a command: a later word names a program."""
    left = iter(words[1:])
    for word in left:
        if word in _WITH_A_WORD:
            next(left, None)
        elif word == "-m":
            next(left, None)
            break
        elif not word.startswith("-") or word == "-c":
            break
    before = ""
    for word in left:
        # `python -m debugpy -m uvicorn`: a module, which this process itself will run.
        if not word.startswith("-") and before != "-m" and _is_program(word):
            return True
        before = word
    return False


def _is_program(word: str) -> bool:
    folders = [""] if "/" in word else os.environ.get("PATH", os.defpath).split(os.pathsep)
    return any(os.access(path, os.X_OK) and os.path.isfile(path) for path in (os.path.join(f, word) for f in folders))


def _put_in_front(environment: Any, folder: str) -> None:
    path = environment.get("PYTHONPATH")
    if not isinstance(path, str):
        return
    entries = path.split(os.pathsep)
    if folder in entries[1:]:
        environment["PYTHONPATH"] = os.pathsep.join([folder, *(entry for entry in entries if entry != folder)])
