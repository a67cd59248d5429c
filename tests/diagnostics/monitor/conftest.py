"""A real memory cgroup with a limit, for what happens near it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from diagnostics.monitor.kernel.hierarchy import find_cgroup


@pytest.fixture
def memory_cgroup(eventually: Any) -> Iterator[Callable[[int], Path]]:
    """(bytes) -> the folder of a new memory cgroup with that limit; skips where this user may make none."""
    made: list[Path] = []

    def make(limit: int) -> Path:
        found = find_cgroup(os.getpid())
        if isinstance(found, str):
            pytest.skip(f"no memory cgroup can be made here: {found}")
        version = found.version
        folder = found.mount / f"highwater-test-{os.getpid()}-{len(made)}"
        try:
            folder.mkdir()
            (folder / ("memory.max" if version == 2 else "memory.limit_in_bytes")).write_text(
                str(limit), encoding="utf-8"
            )
        except OSError as error:
            if folder.is_dir():
                folder.rmdir()
            pytest.skip(f"no limited memory cgroup can be made here: {error.strerror}")
        made.append(folder)
        return folder

    yield make
    for folder in made:
        # Pages of a killed process may be given back a moment after it.
        eventually(lambda folder=folder: not (folder / "cgroup.procs").read_text(encoding="utf-8"))
        folder.rmdir()
