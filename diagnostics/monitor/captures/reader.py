"""Runs a rendering or reading that takes CPU time and memory in a process of its own.

The law of this file: nothing else is lost by it. The service and the monitor have the CPU first; and where the memory of the
monitor's container does not suffice, the kernel kills this process and not the monitor beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import sys
from pathlib import Path

from ...errors import TargetError
from ..kernel.headroom import read_headroom

__all__ = ["render", "run_reader"]

# The code of the error where the kernel, or somebody, has killed the process.
_KILLED = "rendering_killed"
_MORE_ROOM = (
    "give the monitor's container 128 MiB more, or make it of the capture's file elsewhere: diagnostics flamegraph FILE"
)

# The service's CPU time comes first.
_NICENESS = 10
# oom_score_adj (proc(5)): of the processes whose memory is used up, the one with the highest value is killed.
_FIRST_TO_GO = "1000"


async def run_reader(
    *arguments: str, output: Path | None = None, patience: float = 120.0, python: str = sys.executable
) -> None:
    """Run `python ARGUMENTS` in a process of its own, its standard output written to `output`.

    The process has its own GIL and a high nice value. `output` is written whole or not at all.
    patience   seconds before the process is killed
    Raises TargetError with the process's standard error, or with the code rendering_killed; OSError.
    """
    partial = output.with_name(output.name + ".partial") if output else None
    stdout = open(partial, "wb") if partial else None  # noqa: SIM115, ASYNC230  # closed below; open is fast
    try:
        process = await asyncio.create_subprocess_exec(
            python, "-P", "-X", "utf8", *arguments,  # memray opens its reports in the encoding of the locale
            stdin=asyncio.subprocess.DEVNULL, stdout=stdout or asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE, env=_clean_environment(own=python == sys.executable),
        )  # fmt: skip
        try:
            _comes_last(process.pid)
            async with asyncio.timeout(patience):
                _, said = await process.communicate()
        except BaseException:
            if process.returncode is None:
                process.kill()
                await process.wait()
            raise
    except TimeoutError as error:
        raise TargetError(
            f"rendering took longer than {patience:g} s and was ended", remedy="take a shorter window"
        ) from error
    finally:
        if stdout:
            stdout.close()
    if process.returncode != 0:
        text = said.decode("utf-8", "replace").strip()[-500:]
        if partial:
            partial.unlink()
        if os.strerror(errno.ENOSPC) in text:  # the reader, not this process, met a full disk
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if process.returncode == -signal.SIGKILL:
            raise TargetError(
                "rendering was ended by SIGKILL: most likely the memory that this monitor may use does not suffice",
                code=_KILLED,
                remedy=_MORE_ROOM,
            )
        raise TargetError(f"rendering failed with exit code {process.returncode}: {text}", code="rendering_failed")
    if partial and output:
        partial.replace(output)


async def render(file: Path, *arguments: str, needs_bytes: int, output: Path | None = None) -> str | None:
    """As `run_reader`, to make one `file` that a capture can do without: returns why it was not made where memory is short,
    and None where it was made.

    needs_bytes   what the process takes at least: with less left it is not begun
    output        as in `run_reader`; None where the arguments name `file`
    """
    left = read_headroom(os.getpid())
    if left is not None and left.free_bytes < needs_bytes:
        return (
            f"{file.name}: making it takes {needs_bytes // 2**20} MiB, and this monitor may use {left.free_bytes // 2**20} MiB "
            f"more ({left.source}); {_MORE_ROOM}"
        )
    try:
        await run_reader(*arguments, output=output)
    except TargetError as error:
        if error.code != _KILLED:
            raise
        file.unlink(missing_ok=True)  # noqa: ASYNC240  # as fast as a system call
        return f"{file.name}: {error}"
    return None


def _comes_last(pid: int) -> None:
    """Gives this child of ours the least CPU time, and makes it the first to be killed for memory."""
    with contextlib.suppress(ProcessLookupError):  # it has ended already
        # Not below its own value, which the monitor has where the service's is high: only root may go back.
        os.setpriority(os.PRIO_PROCESS, pid, max(_NICENESS, os.getpriority(os.PRIO_PROCESS, pid)))
    with contextlib.suppress(OSError):  # likewise; or /proc cannot be written, and all children are equal
        Path(f"/proc/{pid}/oom_score_adj").write_text(_FIRST_TO_GO, encoding="utf-8")


def _clean_environment(*, own: bool) -> dict[str, str]:
    """The monitor's environment without the variables that would give the reader an agent.

    own   whether the reader runs on this interpreter; for another one PYTHONPATH and PYTHONHOME are left out
    """
    others = () if own else ("PYTHONPATH", "PYTHONHOME")
    left_out = ("DIAGNOSTICS_DIR", "DIAGNOSTICS_AGENT", *others)
    return {key: value for key, value in os.environ.items() if key not in left_out}
