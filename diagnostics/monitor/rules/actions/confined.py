"""Runs in the process of a rule's command, before it: sets its limits, and becomes it.

    python -I confined.py CPU_SECONDS ADDRESS_SPACE_BYTES PROGRAM WORD ...

In a process of its own, because a function between fork and exec may find a lock that another thread holds (subprocess's
preexec_fn). Standard library only, and nothing of this package: it is run by its path.
"""

from __future__ import annotations

import os
import resource
import sys

# What a command that tells somebody needs, and not what one that went wrong could take.
_MOST_DESCRIPTORS = 256
_MOST_FILE_BYTES = 256 * 1024 * 1024


def main(cpu_seconds: int, memory_bytes: int, argv: list[str]) -> None:
    for name, most in (
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_NOFILE, _MOST_DESCRIPTORS),
        (resource.RLIMIT_FSIZE, _MOST_FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(name)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(name, (least, least))
    os.execv(argv[0], argv)  # noqa: S606  # no shell: that is the point


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
