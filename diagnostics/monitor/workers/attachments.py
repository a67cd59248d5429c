"""The list of attached processes, `<root>/attached.json`: written by the commands that attach, read by the monitor.

With it a restarted monitor finds these agents again. The agent of such a process listens in a folder in that process's own
file system, see `attach.folder`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ...protocol import agents_folder, private_folder
from ..attach.attach import Attachment, still_there
from ..kernel.process import lives

__all__ = ["Attachments"]


class Attachments:
    """The list of one registry. Several commands may write it at once."""

    def __init__(self, root: Path) -> None:
        self._path = root / "attached.json"
        self._read: tuple[int, list[Attachment]] = (0, [])

    def all(self) -> list[Attachment]:
        """The attachments whose processes live, oldest first."""
        try:
            changed = self._path.stat().st_mtime_ns
        except OSError:  # nothing was attached yet
            return []
        if changed != self._read[0]:
            self._read = (changed, _read(self._path))
        return [made for made in self._read[1] if lives(made.who)]

    def folders(self) -> Iterator[tuple[Path, int]]:
        """(folder of the agent's socket, pid) of each."""
        for made in self.all():
            yield Path(agents_folder(f"/proc/{made.who.pid}/root{made.folder}")), made.who.pid

    def to_json(self) -> list[dict[str, Any]]:
        """For people. `agent`: whether it is still loaded; another command may have unloaded it."""
        return [
            {"pid": made.who.pid, "since": made.since, "how": made.how, "uid": made.uid, "agent": still_there(made)}
            for made in self.all()
        ]

    def add(self, made: Attachment) -> None:
        self._change(lambda attached: [each for each in attached if each.who.pid != made.who.pid] + [made])

    def remove(self, pid: int) -> None:
        self._change(lambda attached: [each for each in attached if each.who.pid != pid])

    def _change(self, change: Callable[[list[Attachment]], list[Attachment]]) -> None:
        """Write the changed list, without attachments whose processes have ended; their folders are removed."""
        private_folder(self._path.parent)
        with open(self._path.with_suffix(".lock"), "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            attached = _read(self._path)
            for made in attached:
                if not lives(made.who):
                    # Removes it where the process had our file system; in a container it went with that.
                    shutil.rmtree(made.folder, ignore_errors=True)
            left = change([made for made in attached if lives(made.who)])
            new = self._path.with_suffix(".new")
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with open(descriptor, "w", encoding="utf-8") as file:
                json.dump([made.to_json() for made in left], file)
            new.replace(self._path)


def _read(path: Path) -> list[Attachment]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # no file, or damaged: processes can still be detached by pid
        return []
    attachments: list[Attachment] = []
    for each in entries if isinstance(entries, list) else ():
        with contextlib.suppress(KeyError, TypeError, ValueError):
            attachments.append(Attachment.from_json(each))
    return attachments
