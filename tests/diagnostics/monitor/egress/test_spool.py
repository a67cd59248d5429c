"""The queue's file: whole or not there, its owner's alone, and put aside where it cannot be read."""

from __future__ import annotations

import json
import logging
import stat
from pathlib import Path

import pytest

from diagnostics.monitor.egress.spool import Spool, Spooled


def test_what_was_saved_is_loaded_and_is_its_owners_alone(tmp_path: Path) -> None:
    assert Spool(tmp_path).load(7.0) == Spooled(7.0)
    Spool(tmp_path).save(7.0, [{"id": "a"}], 20_000, 512)
    assert Spool(tmp_path).load(9.0) == Spooled(7.0, [{"id": "a"}], 20_000, 512)
    assert stat.S_IMODE((tmp_path / "egress").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "egress/queue.json").stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "egress").iterdir()] == ["queue.json"]


def test_a_folder_that_is_tidied_away_is_made_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    (tmp_path / "egress").rmdir()
    spool.save(7.0, [], 0, 0)
    assert spool.load(9.0) == Spooled(7.0)


@pytest.mark.parametrize(
    "left",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"schema": "highwater.egress.queue/1"}',
        '{"schema": "another/1", "since": 1}',
        "[" * 9999,
        json.dumps({"schema": "highwater.egress.queue/1", "since": "x", "uploads": [], "day": 0, "used": 0}),
    ],
    ids=range(8),
)
def test_a_damaged_file_is_put_aside_and_everything_that_is_kept_is_sent_again(
    left: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tmp_path)
    (tmp_path / "egress/queue.json").write_text(left, encoding="utf-8")
    with caplog.at_level(logging.ERROR):
        assert spool.load(9.0) == Spooled(0.0)
    assert "queue.damaged" in caplog.text
    assert (tmp_path / "egress/queue.damaged").read_text(encoding="utf-8") == left
    assert spool.load(9.0) == Spooled(9.0)
