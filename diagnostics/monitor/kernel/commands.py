"""A process's command as it may be shown: the program and, of Python, the module or script, without arguments."""

from __future__ import annotations

import re
from pathlib import Path

from .family import program_of

__all__ = ["shown_command"]

# Options of the interpreter that take the next word as their value (python --help).
_WITH_WORD = frozenset({"-W", "-X", "--check-hash-based-pycs"})
# The code that the standard library's pools pass with -c is no secret: "from multiprocessing.spawn import spawn_main; ...".
_OF_POOLS = re.compile(r"from (multiprocessing(?:\.\w+)*) import (\w+)")


def shown_command(pid: int, proc: Path = Path("/proc")) -> str:
    """The program of `pid` and, of Python, the module or script, without arguments, which may be secrets.

    `python3.11 -m celery`, `python3.11 job.py`, `python3.11 (multiprocessing.spawn.spawn_main)`, `nginx`. Empty where the
    process has ended.
    """
    program = program_of(pid, proc)
    if not program.startswith("python"):
        return program
    try:
        words = (proc / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")[1:]
    except OSError:
        return program
    while words:
        word = words.pop(0)
        if word == "-m" and words:
            return f"{program} -m {words[0][:80]}"
        if word == "-c":
            of_pool = _OF_POOLS.search(words[0]) if words else None
            return f"{program} ({of_pool[1]}.{of_pool[2]})" if of_pool else f"{program} -c"
        if word in _WITH_WORD and words:
            words.pop(0)
        elif word and not word.startswith("-"):
            return f"{program} {word.rpartition('/')[2][:80]}"
    return program
