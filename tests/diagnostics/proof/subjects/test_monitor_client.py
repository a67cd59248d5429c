"""A capture that explains waits for its turn, and one that takes too long is out of the way of the next."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from diagnostics.errors import TargetSilentError
from diagnostics.proof.subjects import monitor_client
from diagnostics.proof.subjects.monitor_client import LoadCapture
from diagnostics.proof.subjects.subject import Launch, serve_command, subject

GROWING = Path(__file__).parents[3] / "e2e" / "growing"


@pytest.mark.timeout(300)
def test_captures_of_one_service_do_not_fail_because_of_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a service, its monitor and memray as they are: ten seconds, most of them the captures' own."""
    launch = Launch(serve_command("kinds:app", 0), {"PYTHONPATH": str(GROWING)})

    async def main() -> LoadCapture:
        async with subject("fixed", launch, folder=tmp_path) as one:
            await one.ready()
            monkeypatch.setattr(monitor_client, "_GROWN_SECONDS", 0.2)
            patience = monitor_client._CAPTURE_SECONDS
            monkeypatch.setattr(monitor_client, "_CAPTURE_SECONDS", -60.0)
            over: list[str] = []
            with pytest.raises(TargetSilentError, match="is still"):
                await one.monitor.capture(30.0, lambda: over.append("over"))
            assert over == ["over"]
            monkeypatch.setattr(monitor_client, "_CAPTURE_SECONDS", patience)
            # Two at once, right after one that was given up while it was to run for half a minute.
            first, second = await asyncio.gather(
                one.monitor.capture(0.3, lambda: None), one.monitor.capture(0.3, lambda: None)
            )
            assert b"<html" in first.flamegraph[:2000].lower()
            return second

    assert asyncio.run(main()).grown_unknown == ""
