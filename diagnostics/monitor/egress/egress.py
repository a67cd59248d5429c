"""Egress at work: one task that sends what waits, one upload after the other, and never in anybody's way.

A capture is handed over when it is published, a recording is found when its worker has ended; both are only noted then, and are
read and sent by the task. The files of a capture stay in the local store, which bounds them: an upload whose files were
deleted before it was sent is `lost`, and is told so. The manifest is sent last, under names that depend on nothing but the
capture: what is sent twice, because a monitor was killed in between, is there once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from ...errors import DiagnosticsError, NotFoundError
from ..audit import Asker, Audit
from ..captures.kept.store import Store
from ..failures import Failures
from ..recording.endings import WorkerEnd
from . import manifest as manifests
from .collector import Collector, recorded
from .counts import EgressCounts
from .destination import MANIFEST, folder_of, word
from .queue import ENDED, INCIDENT, Queue, Quota, Upload, urgency_of
from .settings import EgressSettings
from .spool import Spool
from .store import ObjectStore

__all__ = ["Egress"]

log = logging.getLogger("diagnostics.monitor")

# Uploads that have ended are remembered, beyond as many as the store keeps captures: for those that were deleted since.
_REMEMBERED: Final = 200
# Ends of workers are looked for this often.
_LOOK_SECONDS: Final = 1.0
# At its end the monitor goes on sending for so long; what is left waits for the next one. Who has started it gives it five
# seconds in all (agent/instrument/monitor_process.py).
_LAST_SECONDS: Final = 3.0


class Egress:
    """Sends to `settings.destination`; a monitor without one has no Egress.

    root    the monitor's private folder
    store   the captures
    ends    the ends of workers that are news, the last first
    audit   told of each upload that has ended well: data has left this machine
    """

    def __init__(
        self,
        root: Path,
        settings: EgressSettings,
        store: Store,
        ends: Callable[[], Iterable[WorkerEnd]],
        audit: Audit,
    ) -> None:
        assert settings.destination is not None
        self.destination = settings.destination
        self._objects = ObjectStore(settings.destination, settings.timeout_seconds, writes=True)
        self._service = word(settings.service, "service")
        self._host = word(socket.gethostname(), "host")
        self._collector = Collector(store, self._service, self._host)
        self._store = store
        self._ends = ends
        self._audit = audit
        self._spool = Spool(root)
        remembered = _REMEMBERED + store.limits.captures  # a kept capture that was forgotten would be sent again
        self._queue = Queue(settings.waiting, settings.tries, remembered)
        self._quota = Quota(settings.bytes_a_day)
        left = self._spool.load(time.time())
        try:
            self._queue.restore(left.uploads)
        except ValueError as error:
            left = self._spool.put_aside(error)
            self._queue = Queue(settings.waiting, settings.tries, remembered)
        self._since = left.since
        self._quota.day, self._quota.used = left.day, left.used
        self._woken = asyncio.Event()
        self._closing = False
        self._changed = True
        self._sending: str | None = None
        self._failing: str | None = None  # what the last try said, None once one has succeeded
        self._unsaved: str | None = None  # why the queue's file could not be written
        self._ended: Counter[tuple[str, str]] = Counter()
        self._failed_tries: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()

    def published(self, capture: dict[str, Any]) -> None:
        """A capture is kept now: note it, if it succeeded. Returns at once."""
        if capture["state"] != "done" or self._queue.get(capture["id"]) is not None:
            return
        size = sum(artifact["bytes"] for artifact in capture["artifacts"])
        urgency = urgency_of(str(capture.get("by") or ""))
        self._add(Upload(capture["id"], "capture", str(capture["worker"]), urgency, capture["created"], size))

    async def run(self) -> None:
        """Send what waits, until cancelled. A step that fails is counted and logged, and the next one is due."""
        failures = Failures("a step of egress")
        try:
            await self._recover()
        except Exception as error:  # noqa: BLE001  # what an earlier monitor left must not keep this one from sending
            failures.failed(error)
        while True:
            try:
                await self._note_ends()
                if self._closing and self._due() is None:
                    return
                await self._step()
            except Exception as error:  # noqa: BLE001  # whatever it is: what was not sent is needed after the crash
                failures.failed(error)
                await asyncio.sleep(_LOOK_SECONDS)

    async def close(self, running: asyncio.Task[None]) -> None:
        """Send what can be sent within a few seconds, let `running`, the task of `run`, end, and keep the rest.

        To be called once captures and recorder are closed, so that the ends of workers that they have noticed are sent, too.
        """
        self._closing = True
        self._woken.set()
        await asyncio.wait([running], timeout=_LAST_SECONDS)
        running.cancel()
        await asyncio.wait([running])
        await self._save()
        if waiting := self._queue.waiting():
            log.warning("egress: %d uploads wait for the next monitor with this folder", len(waiting))

    def state_of(self, capture_id: str) -> dict[str, Any] | None:
        """`{"state", "tries", "error"}` of a capture's upload; None where it is not known here, as of one that runs."""
        upload = self._queue.get(capture_id)
        if upload is None:
            return None
        return {**upload.to_json(), **({"state": "sending"} if upload.id == self._sending else {})}

    def counts_of(self, worker: str) -> EgressCounts:
        return EgressCounts(
            {outcome: self._ended[worker, outcome] for outcome in ENDED},
            self._failed_tries[worker],
            self._bytes[worker],
            sum(upload.worker == worker for upload in self._queue.waiting()),
        )

    def to_json(self) -> dict[str, Any]:
        """The state as a whole. `failing`: what the last try said, or that the quota is spent; null where all is well."""
        counts: Counter[str] = Counter()
        for (_, outcome), count in self._ended.items():
            counts[outcome] += count
        return {
            "url": self.destination.url,
            "waiting": len(self._queue.waiting()),
            **{outcome: counts[outcome] for outcome in ENDED},
            "bytes": self._bytes.total(),
            "failing": self._failing or self._held(),
        }

    def _held(self) -> str | None:
        """Why nothing is sent, though something waits and nothing has failed."""
        waiting, left = self._queue.waiting(), self._quota.left(time.time())
        if not waiting or any(upload.bytes <= left for upload in waiting):
            return None
        return f"the {self._quota.limit} bytes of this day are spent, it goes on at midnight UTC"

    def _add(self, upload: Upload) -> None:
        if not self._quota.fits(upload.bytes):
            upload.state, upload.error = (
                "failed",
                f"its {upload.bytes} bytes are more than DIAGNOSTICS_EGRESS_BYTES_A_DAY",
            )
            self._end(upload)
        dropped = self._queue.add(upload)
        if dropped is not None:
            self._end(dropped)
        self._changed = True
        self._woken.set()

    def _end(self, upload: Upload) -> None:
        self._ended[upload.worker, upload.state] += 1
        if upload.state != "sent":
            log.error("egress: %s is not sent (%s): %s", upload.id, upload.state, upload.error)

    async def _recover(self) -> None:
        """Note captures that were kept but not written into the queue's file before an earlier monitor ended."""
        for capture in reversed(await asyncio.to_thread(self._store.manifests)):
            if capture["created"] >= self._since:
                self.published(capture)

    async def _note_ends(self) -> None:
        for end in self._ends():
            if end.path is None or end.ending.noticed < self._since:
                continue
            upload_id = manifests.id_of_recording(end.ending.noticed)
            known = self._queue.get(upload_id)
            told = end.to_json()
            # What the parent says later of the exit status is written into the recording: then it is sent once more.
            if known is None or (known.end or {}).get("said") != told["said"]:
                paths, size = await asyncio.to_thread(recorded, end.path)
                self._add(Upload(upload_id, "recording", end.worker, INCIDENT, end.ending.noticed, size, paths, told))

    def _due(self) -> Upload | None:
        now = time.time()
        return self._queue.next(now, self._quota.left(now))

    async def _step(self) -> None:
        upload = self._due()
        if self._changed:
            await self._save()
        if upload is not None:
            await self._try(upload)
            return
        self._woken.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), _LOOK_SECONDS)

    async def _try(self, upload: Upload) -> None:
        self._sending = upload.id
        try:
            await self._send(upload)
        except (NotFoundError, FileNotFoundError):
            upload.state, upload.error = "lost", "its files were deleted, or damaged, before it was sent"
            self._end(upload)
        except (DiagnosticsError, OSError) as error:
            self._failed(upload, error.message if isinstance(error, DiagnosticsError) else str(error))
        except Exception as error:
            # A defect of ours: it must not hold up the other uploads.
            log.exception("egress: %s could not be sent", upload.id)
            self._failed(upload, f"{type(error).__name__}, see the monitor's log")
        else:
            upload.state, upload.error = "sent", None
            self._end(upload)
            self._audit.note("egress", "sent", Asker("the monitor"), capture=upload.id, url=self.destination.url)
            if self._failing is not None:
                log.warning("egress: %s takes uploads again", self.destination.url)
            self._failing = None
        finally:
            self._sending = None
            self._changed = True

    async def _send(self, upload: Upload) -> None:
        manifest, files = await asyncio.to_thread(self._collector.of, upload)
        folder = folder_of(self._service, self._host, upload.id)
        for file in files:
            if file.name not in upload.done:
                await self._objects.put(f"{folder}/{file.name}", file.path, file.bytes)
                upload.done.append(file.name)
                self._sent(upload, file.bytes)
                await self._save()
        content = manifests.written(manifest)
        await self._objects.put(f"{folder}/{MANIFEST}", content, len(content))
        self._sent(upload, len(content))

    def _sent(self, upload: Upload, count: int) -> None:
        self._quota.spend(time.time(), count)
        self._bytes[upload.worker] += count

    def _failed(self, upload: Upload, said: str) -> None:
        self._failed_tries[upload.worker] += 1
        if self._queue.failed(upload, time.time(), said, random.random()):  # noqa: S311  # no secret: when to come back
            self._end(upload)
        elif self._failing != said:  # once for each reason, not once for each try
            log.warning(
                "egress: %s was not sent, it is tried again (%d of %d): %s",
                upload.id, upload.tries, self._queue.tries, said,
            )  # fmt: skip
        self._failing = said

    async def _save(self) -> None:
        self._changed = False
        kept = self._since, self._queue.to_json(), self._quota.day, self._quota.used
        try:
            await asyncio.to_thread(self._spool.save, *kept)
            self._unsaved = None
        except (OSError, DiagnosticsError) as error:
            # Sending goes on: a full disk is among the incidents whose evidence is wanted.
            self._changed = True
            if self._unsaved != str(error):
                log.warning(
                    "egress: the queue cannot be written, and until it can it ends with this monitor: %s", error
                )
            self._unsaved = str(error)
