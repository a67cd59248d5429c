from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.errors import NoRoomError, NotFoundError
from diagnostics.monitor.captures.kept.store import Limits, Store, as_no_room


def keep(store: Store, kind: str = "memray", data: bytes = b"data") -> str:
    capture_id, folder = store.new(kind)
    (folder / "profile.json").write_bytes(data)
    told = {"id": capture_id, "kind": kind, "state": "done", "worker": "0", "pid": 1, "created": 1.8e9, "progress": 1.0}
    store.publish(capture_id, {**told, "options": {}, "error": None, "result": None})
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
    (tmp_path / "secret").write_text("s", encoding="utf-8")
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
    assert json.loads((store.folder / capture_id / "manifest.json").read_text(encoding="utf-8"))["id"] == capture_id


def _without(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def _changed(**more: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **more}), encoding="utf-8")

    return change


def _written(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "manifest.json").write_text(text, encoding="utf-8")


def _only_a_file(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    folder.write_text("no folder", encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_without("manifest.json"), "it has no manifest.json"),
        (_without("profile.json"), "its artifact 'profile.json' is gone"),
        (_written(""), "cannot be read"),
        (_written('{"id":'), "cannot be read"),
        (_written("[" * 100_000), "cannot be read"),
        (_written('{"id": ' + "9" * 5000 + "}"), "cannot be read"),
        (_written("[]"), "is a JSON list"),
        (_written("{}"), "has no 'id'"),
        (_changed(id="another"), "is that of 'another'"),
        (_changed(created=float("nan")), "cannot be read"),
        (_changed(artifacts=["profile.json"]), "lists 'profile.json' as an artifact"),
        (_changed(artifacts=[{"name": "profile.json"}]), "as an artifact"),
        (_changed(result=[]), "has no 'result'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_capture_takes_nothing_else_away(tmp_path: Path, spoil: Callable[[Path], object], says: str) -> None:
    store = Store(tmp_path)
    good, bad = keep(store), keep(store, "tasks")
    spoil(store.folder / bad)
    for found in (store, Store(tmp_path)):  # also for the next monitor
        broken, whole = found.manifests()[-2:]
        assert (broken["id"], broken["kind"], broken["state"], whole["id"]) == (bad, "tasks", "broken", good)
        assert says in broken["error"]["message"]
        json.dumps(broken, allow_nan=False)
        assert found.kept_bytes()["0"] in (4, 8)
        assert found.used_bytes() > 4
        with pytest.raises(NotFoundError, match="broken"):
            found.artifact(bad, "profile.json")
        keep(found)
    store.delete(bad)
    assert bad not in [each["id"] for each in store.manifests()]


def test_what_is_no_folder_and_what_vanishes_meanwhile_fails_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    good, bad = keep(store), keep(store)
    _only_a_file(store.folder / bad)
    assert [(each["id"], each["state"]) for each in store.manifests()] == [(bad, "broken"), (good, "done")]
    store.delete(bad)
    assert [each["id"] for each in store.manifests()] == [good]
    shutil.rmtree(store.folder)
    assert (store.manifests(), store.kept_bytes(), store.used_bytes()) == ([], {}, 0)
    assert store.manifest(keep(store))["state"] == "done"
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700


def test_the_limits_hold_with_broken_captures_among_them(tmp_path: Path) -> None:
    store = Store(tmp_path, Limits(captures=3))
    for _ in range(5):
        (store.folder / keep(store) / "manifest.json").write_text("{", encoding="utf-8")
    keep(store)
    assert len(store.manifests()) == 3
