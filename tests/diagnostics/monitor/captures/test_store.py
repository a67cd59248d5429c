from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.errors import NoRoomError, NotFoundError
from diagnostics.monitor.captures.store import Limits, Store, as_no_room


def keep(store: Store, kind: str = "memray", data: bytes = b"data") -> str:
    capture_id, folder = store.new(kind)
    (folder / "profile.json").write_bytes(data)
    store.publish(capture_id, {"id": capture_id, "kind": kind, "state": "done"})
    return capture_id


def test_a_capture_is_there_whole_with_sizes_and_sums(tmp_path: Path) -> None:
    store = Store(tmp_path)
    capture_id = keep(store)
    manifest = store.manifest(capture_id)
    assert manifest["artifacts"] == [
        {
            "name": "profile.json",
            "bytes": 4,
            "sha256": "3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7",
        }
    ]
    assert store.artifact(capture_id, "profile.json").read_bytes() == b"data"
    assert Store(tmp_path).manifests() == [manifest]


def test_an_unfinished_capture_is_not_shown_and_goes_at_the_next_start(tmp_path: Path) -> None:
    store = Store(tmp_path)
    _, folder = store.new("memray")
    (folder / "half").write_bytes(b"h")
    assert store.manifests() == []
    assert Store(tmp_path).manifests() == []
    assert not folder.exists()


def test_captures_of_one_second_have_ids_of_their_own(tmp_path: Path) -> None:
    store = Store(tmp_path)
    ids = [keep(store) for _ in range(5)]
    assert len(set(ids)) == 5


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "..", "manifest.json", "", "a/b", "profile.json\x00"])
def test_only_listed_artifacts_are_found_however_they_are_spelled(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path)
    (tmp_path / "secret").write_text("s")
    capture_id = keep(store)
    with pytest.raises(NotFoundError):
        store.artifact(capture_id, name)


@given(capture_id=st.text())
def test_no_spelling_of_an_id_leaves_the_folder(tmp_path_factory: pytest.TempPathFactory, capture_id: str) -> None:
    root = tmp_path_factory.getbasetemp() / "ids"
    store = Store(root)
    with pytest.raises(NotFoundError):
        store.manifest(capture_id)
    with pytest.raises(NotFoundError):
        store.delete(capture_id)


def test_the_oldest_go_when_there_are_too_many_too_large_or_too_old(tmp_path: Path) -> None:
    store = Store(tmp_path, Limits(captures=3))
    ids = [keep(store) for _ in range(5)]
    assert [manifest["id"] for manifest in store.manifests()] == ids[:1:-1]
    store.tidy()
    assert [manifest["id"] for manifest in store.manifests()] == ids[:2:-1]
    large = Store(tmp_path / "large", Limits(total_bytes=3000))
    ids = [keep(large, data=b"x" * 1000) for _ in range(4)]
    large.tidy()
    assert large.used_bytes() <= 3000
    assert ids[-1] in {manifest["id"] for manifest in large.manifests()}
    aged = Store(tmp_path / "aged", Limits(age_seconds=60))
    old, new = keep(aged), keep(aged)
    past = time.time() - 120
    os.utime(aged.folder / old, (past, past))
    aged.tidy()
    assert [manifest["id"] for manifest in aged.manifests()] == [new]


def test_a_disk_without_room_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    store = Store(tmp_path, Limits(free_bytes=1 << 60))
    with pytest.raises(NoRoomError, match="DIAGNOSTICS_DIR to another disk"):
        store.new("memray")
    assert list(store.folder.iterdir()) == []


def test_a_disk_that_fills_up_is_no_room_and_other_errors_stay_themselves(tmp_path: Path) -> None:
    with pytest.raises(NoRoomError), as_no_room(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(PermissionError), as_no_room(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_a_manifest_is_plain_json(tmp_path: Path) -> None:
    store = Store(tmp_path)
    capture_id = keep(store)
    assert json.loads((store.folder / capture_id / "manifest.json").read_text())["id"] == capture_id
