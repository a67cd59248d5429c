"""Runs a CPU-heavy rendering or reading in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import sys
from pathlib import Path

from ...errors import TargetError

__all__ = ["run_reader"]

# The service's CPU time comes first.
_NICENESS = 10


async def run_reader(
    *arguments: str, output: Path | None = None, patience: float = 120.0, python: str = sys.executable
) -> None:
    """Run `python ARGUMENTS` in a process of its own, its standard output written to `output`.

    The process has its own GIL and a high nice value. `output` is written whole or not at all.
    patience   seconds before the process is killed
    Raises TargetError with the process's standard error, OSError.
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
            with contextlib.suppress(ProcessLookupError):  # it has ended already
                os.setpriority(os.PRIO_PROCESS, process.pid, _NICENESS)
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
        raise TargetError(f"rendering failed with exit code {process.returncode}: {text}", code="rendering_failed")
    if partial and output:
        partial.replace(output)


def _clean_environment(*, own: bool) -> dict[str, str]:
    """The monitor's environment without the variables that would give the reader an agent.

    own   whether the reader runs on this interpreter; for another one PYTHONPATH and PYTHONHOME are left out
    """
    others = () if own else ("PYTHONPATH", "PYTHONHOME")
    left_out = ("DIAGNOSTICS_DIR", "DIAGNOSTICS_AGENT", *others)
    return {key: value for key, value in os.environ.items() if key not in left_out}
