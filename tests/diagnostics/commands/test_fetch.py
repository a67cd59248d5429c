"""`diagnostics fetch`, and the commands that read artifacts where they are: what is verified, and where nothing is written."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diagnostics import cli
from diagnostics.analysis.formats import native
from diagnostics.analysis.profile import Frame, Profile, Sample, ValueType
from tests.s3 import S3

OLD, NEW = "20261129T131400-000001-tracemalloc", "20261129T141400-000001-tracemalloc"


def profile(size: int) -> bytes:
    samples = (Sample((Frame("append", "/srv/app.py", 3),), (size, 1), ()),)
    types = (ValueType("inuse_space", "bytes"), ValueType("inuse_objects", "count"))
    return native.encode(Profile("tracemalloc", types, samples, 1_790_000_000.0, 5.0, ()))


def stored(folder: Path, size: int = 4096, **changed: Any) -> Path:
    """A capture as egress leaves it, with what is changed in its manifest."""
    folder.mkdir(parents=True)
    (folder / "profile.json").write_bytes(profile(size))
    (folder / "notes.txt").write_bytes(b"two\n")
    artifacts = [
        {"name": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name in ("notes.txt", "profile.json")
        if (content := (folder / name).read_bytes())
    ]
    manifest = {"schema": "highwater.egress/1", "id": folder.name, "artifacts": artifacts, **changed}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


@pytest.fixture
def evidence(tmp_path: Path) -> Path:
    root = tmp_path / "evidence"
    stored(root / "service/host-a" / OLD, 4096)
    stored(root / "service/host-b" / NEW, 8192)
    (root / "service/host-b/another's.txt").write_text("not ours", encoding="utf-8")
    begun = root / "service/host-b" / NEW.replace("14", "15", 1)
    begun.mkdir()
    (begun / "profile.json").write_bytes(b"an upload that has not ended has no manifest")
    return root


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def call(*words: Any) -> tuple[int, str, str]:
        capfd.readouterr()
        code = cli.main([str(word) for word in words])
        return code, *capfd.readouterr()

    return call


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_what_is_there_is_listed_newest_first_and_whole_captures_only(run: Run, evidence: Path) -> None:
    code, output, errors = run("fetch", "--list", f"file://{evidence}")
    assert (code, errors) == (0, "")
    first, second = output.splitlines()
    assert first.startswith(f"file://{evidence}/service/host-b/{NEW}  3 files, ")
    assert second.startswith(f"file://{evidence}/service/host-a/{OLD}  3 files, ")
    code, output, errors = run("fetch", "--list", "-n", 1, f"file://{evidence}/service")
    assert (code, len(output.splitlines())) == (0, 1)
    assert "1 older captures are there" in errors
    code, output, _ = run("fetch", "--list", f"file://{evidence}/service/host-a/{OLD}")
    assert (code, len(output.splitlines())) == (0, 1)
    assert files(Path()) == []


def test_a_capture_an_artifact_or_all_below_a_prefix(run: Run, evidence: Path, tmp_path: Path) -> None:
    whole = ["manifest.json", "notes.txt", "profile.json"]
    code, output, errors = run("fetch", f"file://{evidence}/service/host-a/{OLD}")
    assert (code, errors) == (0, "")
    assert sorted(output.splitlines()) == [f"{OLD}/{name}" for name in whole] == files(Path())
    code, output, _ = run("fetch", f"file://{evidence}/service/host-a/{OLD}/notes.txt", "-o", tmp_path / "one")
    assert (code, output, files(tmp_path / "one")) == (0, f"{tmp_path}/one/notes.txt\n", ["notes.txt"])
    code, _, _ = run("fetch", f"file://{evidence}", "-o", tmp_path / "all")
    assert code == 0
    assert files(tmp_path / "all") == [f"{each}/{name}" for each in (OLD, NEW) for name in whole]
    kept = json.loads((tmp_path / "all" / NEW / "manifest.json").read_text(encoding="utf-8"))
    assert kept["id"] == NEW


def test_every_command_reads_an_artifact_where_it_is(run: Run, evidence: Path) -> None:
    old, new = f"file://{evidence}/service/host-a/{OLD}", f"file://{evidence}/service/host-b/{NEW}/profile.json"
    code, output, errors = run("top", old)
    assert (code, errors) == (0, "")
    assert "append" in output
    code, output, _ = run("diff", old, new)
    assert code == 0
    assert "+4.00 KiB" in output
    code, output, _ = run("list", "append", new)
    assert (code, "append" in output) == (0, True)
    assert run("convert", new, "new.pb.gz")[0] == 0
    assert run("flamegraph", new, "--before", old, "-o", "flame.html")[0] == 0
    assert files(Path()) == ["flame.html", "new.pb.gz"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("fetch", "{}/none"), 2, "is not there"),
        (("fetch", "{}/service/host-a/" + NEW), 2, "is not there"),
        (("fetch", "{}/service/host-a/" + OLD + "/none.txt"), 2, "it has notes.txt, profile.json"),
        (("fetch", "{}/service/host-b/" + NEW.replace("14", "15", 1)), 2, "manifest.json is not there"),
        (("fetch", "-n", "0", "{}"), 2, "-n is 0"),
        (("fetch", "https://example.com/x"), 2, "write s3://bucket/prefix"),
        (("fetch", "s3://key:hush@evidence/x"), 2, "which is not repeated here"),
        (("top", "{}/service"), 2, "neither a capture nor an artifact"),
        (("blackbox", "{}/service/host-a/" + OLD + "/none.ring"), 2, "no artifact 'none.ring'"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, tuple) else str(value)[:20],
)
def test_what_is_not_there_is_one_line_with_what_to_do(
    run: Run, evidence: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    got, output, errors = run(*(word.format(f"file://{evidence}") for word in words))
    assert (got, output) == (code, "")
    assert said in errors
    assert len(errors.splitlines()) == 1
    assert "hush" not in errors
    assert files(Path()) == []


@pytest.mark.parametrize(
    "name", ["../out", "/tmp/out", "a/b", "..", ".hidden", "", "a\x00", "x" * 101, "p.partial", "\x1b[2J", 7, None]
)
def test_names_of_a_hostile_store_write_nothing(run: Run, tmp_path: Path, name: Any) -> None:
    facts = {"name": name, "bytes": 4, "sha256": hashlib.sha256(b"two\n").hexdigest()}
    folder = stored(tmp_path / "evil" / OLD, artifacts=[facts])
    before = files(tmp_path)
    for address in (f"file://{folder}", f"file://{tmp_path}/evil"):
        code, output, errors = run("fetch", address, "-o", tmp_path / "into")
        assert (code, output) == (3, "")
        assert "the store sent" in errors
        assert "\x1b" not in errors
    assert [path for path in files(tmp_path) if path not in before] == []


@pytest.mark.parametrize(
    "changed",
    [
        {"schema": "another/1"}, {"id": NEW}, {"artifacts": None}, {"artifacts": [7]}, {"artifacts": [{}] * 101},
        {"artifacts": [{"name": "notes.txt", "bytes": -1, "sha256": "0" * 64}]},
        {"artifacts": [{"name": "notes.txt", "bytes": 4, "sha256": "no sum"}]},
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_a_manifest_that_is_none_of_ours_is_refused(run: Run, tmp_path: Path, changed: dict[str, Any]) -> None:
    folder = stored(tmp_path / "evil" / OLD, **changed)
    code, output, errors = run("fetch", f"file://{folder}", "-o", tmp_path / "into")
    assert (code, output, len(errors.splitlines())) == (3, "", 1)
    assert not (tmp_path / "into").exists()


@pytest.mark.parametrize("content", [b"too\n", b"tw", b"", b"two\nand more", b"x" * 3_000_000])
def test_what_was_changed_or_cut_off_is_not_kept(run: Run, evidence: Path, tmp_path: Path, content: bytes) -> None:
    folder = evidence / "service/host-a" / OLD
    (folder / "notes.txt").write_bytes(content)
    for address in (folder, folder / "notes.txt"):
        code, output, errors = run("fetch", f"file://{address}", "-o", tmp_path / "into")
        assert (code, output) == (3, "")
        assert "notes.txt" in errors
    assert files(tmp_path / "into") == []
    (folder / "manifest.json").write_bytes(b"{")
    assert run("fetch", f"file://{folder}", "-o", tmp_path / "into")[0] == 3
    assert files(tmp_path / "into") == []


def test_a_bucket_with_the_names_of_others(
    run: Run, evidence: Path, s3: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    bucket = s3.bucket()
    for path in files(evidence):
        s3.put(bucket, f"prod/{path}", (evidence / path).read_bytes())
    for key in (f"sp ace/{OLD}/manifest.json", f"x{OLD}/manifest.json", f"{OLD}/manifest.json/more", "folder/"):
        s3.put(bucket, f"prod/{key}", b"{}")
    code, output, errors = run("fetch", "--list", f"s3://{bucket}/prod")
    assert (code, errors) == (0, "")
    assert [line.split()[0].rpartition("/")[2] for line in output.splitlines()] == [NEW, OLD]
    code, _, errors = run("fetch", f"s3://{bucket}", "-o", tmp_path / "into")
    assert (errors, code) == ("", 0)
    whole = ("manifest.json", "notes.txt", "profile.json")
    assert files(tmp_path / "into") == [f"{each}/{name}" for each in (OLD, NEW) for name in whole]
    code, output, _ = run("top", f"s3://{bucket}/prod/service/host-a/{OLD}")
    assert (code, "append" in output) == (0, True)
    s3.put(bucket, f"prod/evil\x1b[2J/{OLD}/manifest.json", b"{}")
    code, output, errors = run("fetch", "--list", f"s3://{bucket}/prod")
    assert (code, output) == (3, "")
    assert "name a place below it" in errors
    assert "\x1b" not in errors
    assert run("fetch", "--list", f"s3://{bucket}/prod/service")[0] == 0


def test_nothing_is_written_through_a_link(run: Run, evidence: Path, tmp_path: Path) -> None:
    into, elsewhere = tmp_path / "into", tmp_path / "elsewhere"
    elsewhere.mkdir()
    into.mkdir()
    (into / OLD).symlink_to(elsewhere)
    code, _, errors = run("fetch", f"file://{evidence}/service/host-a/{OLD}", "-o", into)
    assert (code, "is a link" in errors) == (2, True)
    assert files(elsewhere) == []
    os.unlink(into / OLD)
    (into / OLD).mkdir()
    (into / OLD / "notes.txt").symlink_to(elsewhere / "notes.txt")
    assert run("fetch", f"file://{evidence}/service/host-a/{OLD}", "-o", into)[0] == 0
    assert files(elsewhere) == []
    assert not (into / OLD / "notes.txt").is_symlink()
