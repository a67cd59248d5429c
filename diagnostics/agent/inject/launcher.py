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
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["launches", "start"]

# Options of the interpreter that take the next word as their value.
_WITH_A_WORD = {"-W", "-X", "--check-hash-based-pycs"}


def start(hook_folder: str) -> None:
    """Add the audit hook to this process if its command line names another program."""
    if launches(sys.orig_argv):
        sys.addaudithook(_Watch(hook_folder))


class _Watch:
    """The audit hook. An exception in it prevents the audited call, so it raises only what that call itself would."""

    def __init__(self, hook_folder: str) -> None:
        self._folder = hook_folder

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.exec":
            program, words, environment = arguments
            if environment is None:
                self._put_in_front(os.environ)
                return
            changed = dict(environment)
            if self._put_in_front(changed):
                # Python has copied the environment already, so the audited `execve` would use the old one. This one replaces
                # it: it does not return, or raises the same error.
                posix.execve(program, words, changed)
        elif event == "subprocess.Popen":
            environment = arguments[3]
            self._put_in_front(os.environ if environment is None else environment)

    def _put_in_front(self, environment: Any) -> bool:
        """Move the folder to the front of `environment`'s PYTHONPATH; False where it is not on it, or is first already.

        A mapping of bytes or a read-only one is left as it is; the monitor then reports that the process has no agent.
        """
        path = environment.get("PYTHONPATH")
        entries = path.split(os.pathsep) if isinstance(path, str) else []
        if self._folder not in entries[1:]:
            return False
        try:
            environment["PYTHONPATH"] = os.pathsep.join(
                [self._folder, *(each for each in entries if each != self._folder)]
            )
        except TypeError:
            return False
        return True


def launches(words: list[str]) -> bool:
    """Whether a Python with this command line (`sys.orig_argv`) is given a command: a later word names a program."""
    words_left = iter(words[1:])
    for word in words_left:
        if word in _WITH_A_WORD:
            next(words_left, None)
        elif word == "-m":
            next(words_left, None)
            break
        elif not word.startswith("-") or word == "-c":
            break
    before = ""
    for word in words_left:
        # `python -m debugpy -m uvicorn`: the word after -m is a module that this process itself will run.
        if not word.startswith("-") and before != "-m" and _is_program(word):
            return True
        before = word
    return False


def _is_program(word: str) -> bool:
    folders = [""] if "/" in word else os.environ.get("PATH", os.defpath).split(os.pathsep)
    return any(os.access(path, os.X_OK) and os.path.isfile(path) for path in (os.path.join(f, word) for f in folders))
