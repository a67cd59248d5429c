"""top, list, diff, flamegraph and convert, as a user runs them: `cli.main` with files of every format."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from diagnostics import cli
from diagnostics.analysis.formats import collapsed, decode, native, pprof
from diagnostics.analysis.profile import Frame, Profile, Sample, ValueType

MIB = 1024 * 1024
TYPES = (ValueType("inuse_space", "bytes"), ValueType("inuse_objects", "count"))


def profile(*rows: tuple[str, int, str]) -> Profile:
    samples = tuple(
        Sample(
            tuple(Frame(name, "/srv/app.py", 3) for name in names.split()), (size, size // 1024), (("route", route),)
        )
        for names, size, route in rows
    )
    return Profile("tracemalloc", TYPES, samples, 1_790_000_000.0, 5.0, ("what C code allocated",))


BEFORE = profile(("append pump", 1 * MIB, "/stream"), ("parse", 2 * MIB, "/chat"))
AFTER = replace(profile(("append pump", 9 * MIB, "/stream"), ("parse", 2 * MIB, "/chat")), time=1_790_000_060.0)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "before.json").write_bytes(native.encode(BEFORE))
    (tmp_path / "after.pb.gz").write_bytes(pprof.encode(AFTER))
    (tmp_path / "a_name_that_says_nothing").write_bytes(collapsed.encode(AFTER))
    return tmp_path


def run(capfdbinary: pytest.CaptureFixture[bytes], *argv: str) -> tuple[int, str, str]:
    code = cli.main(list(argv))
    out, err = capfdbinary.readouterr()
    return code, out.decode(), err.decode()


def test_top_of_every_format(files: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    for name in ("after.pb.gz", "a_name_that_says_nothing"):
        code, out, _ = run(capfdbinary, "top", name, "-n", "1")
        assert code == 0
        assert out.splitlines()[2].split()[-2:] == ["append", "/srv/app.py"]
    code, out, _ = run(capfdbinary, "top", "before.json", "--type", "inuse_objects", "--lines")
    assert "parse /srv/app.py:3" in out
    assert "not covered: what C code allocated" in out


def test_the_folder_of_a_capture_is_as_good_as_the_profile_in_it(
    files: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    folders = []
    for name, one in (("before", BEFORE), ("after", AFTER)):
        folders.append(files / f"20261130T113951-{name}")
        folders[-1].mkdir()
        (folders[-1] / "profile.json").write_bytes(native.encode(one))
    _, out, _ = run(capfdbinary, "diff", *map(str, folders))
    assert "+8.00 MiB  100.0%" in out
    assert run(capfdbinary, "top", str(folders[0]))[1] == run(capfdbinary, "top", f"{folders[0]}/profile.json")[1]
    _, out, err = run(capfdbinary, "flamegraph", str(folders[0]))
    assert (files / f"{folders[0].name}.html").exists(), (out, err)


def test_several_files_are_added_up_and_selected(files: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    _, out, _ = run(capfdbinary, "top", "before.json", "after.pb.gz", "--focus", "pump")
    assert "10.00 MiB  100.0%" in out
    assert "parse" not in out
    _, out, _ = run(capfdbinary, "top", "before.json", "--label", "route=/chat")
    assert "append" not in out


def test_diff_names_what_grew_first(files: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    code, out, _ = run(capfdbinary, "diff", "before.json", "after.pb.gz")
    assert code == 0
    assert "60 s window" in out
    assert "+8.00 MiB  100.0%" in out
    assert "parse" not in out


def test_list_shows_the_source_from_another_folder(files: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    (files / "src").mkdir()
    (files / "src" / "app.py").write_text("one\ntwo\nkept.append(chunk)\nfour\n", encoding="utf-8")
    code, out, _ = run(capfdbinary, "list", "^append$", "after.pb.gz", "--source", "src")
    assert code == 0
    assert "9.00 MiB  9.00 MiB     3  kept.append(chunk)" in out


def test_list_shows_nothing_but_source(files: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    secret = files / "secret.env"
    secret.write_text("KEY=hunter2\n" * 5, encoding="utf-8")
    hostile = replace(BEFORE, samples=(Sample((Frame("f", str(secret), 3),), (1, 1)),))
    (files / "hostile.json").write_bytes(native.encode(hostile))
    _, out, _ = run(capfdbinary, "list", "f", "hostile.json")
    assert "hunter2" not in out
    assert "(no source)" in out


def test_flamegraph_writes_beside_and_does_not_overwrite_unasked(
    files: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    code, out, _ = run(capfdbinary, "flamegraph", "after.pb.gz", "--before", "before.json")
    assert (code, out) == (0, "after.html\n")
    assert b'"differential":true' in (files / "after.html").read_bytes()
    code, _, err = run(capfdbinary, "flamegraph", "after.pb.gz")
    assert code == 2
    assert "after.html is already there" in err
    assert run(capfdbinary, "flamegraph", "after.pb.gz", "-o", "after.html")[0] == 0


@pytest.mark.parametrize("ending", [".pb.gz", ".pprof", ".json"])
def test_convert_there_and_back(files: Path, capfdbinary: pytest.CaptureFixture[bytes], ending: str) -> None:
    assert run(capfdbinary, "convert", "before.json", f"out{ending}") == (0, "", "")
    assert decode((files / f"out{ending}").read_bytes()) == BEFORE


def test_captures_of_two_kinds_are_compared_and_added_up_by_the_type_that_the_refusal_advises(
    files: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    other = replace(AFTER, kind="memray", sample_types=(TYPES[0], ValueType("blocks", "count")))
    (files / "other.json").write_bytes(native.encode(other))
    for command in ("top", "diff"):
        code, _, err = run(capfdbinary, command, "before.json", "other.json")
        assert code == 2
        assert "with --type" in err
        code, out, err = run(
            capfdbinary, command, "before.json", "other.json", "--type", "inuse_space", "--focus", "pump"
        )
        assert code == 0, err
        assert {"top": "10.00 MiB", "diff": "8.00 MiB"}[command] in out


def test_convert_to_one_type_takes_the_one_asked_for(files: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert run(capfdbinary, "convert", "before.json", "out.folded", "--type", "inuse_objects")[0] == 0
    assert (files / "out.folded").read_text(encoding="utf-8").splitlines()[
        0
    ] == "pump (/srv/app.py:3);append (/srv/app.py:3) 1024"
    assert run(capfdbinary, "convert", "before.json", "out.html")[0] == 0


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["top", "missing.json"], "no such file: missing.json"),
        (["top", "."], "is not the folder of a capture: it has no profile.json"),
        (["top", ".", "--of", "high-water"], "is not the folder of a memray capture: it has no capture.bin"),
        (["top", "/dev/null"], "not a file"),
        (["top", "empty"], "empty: no known format: it is empty"),
        (["top", "cut.pb.gz"], "cut.pb.gz: gzip data that is cut off"),
        (["top", "cut.bin"], "cut off"),
        (["top", "before.json", "--type", "x"], "choose from: inuse_space, inuse_objects"),
        (["top", "before.json", "--focus", "("], "not a regular expression"),
        (["top", "before.json", "--focus", "nobody"], "none of the 2 stacks"),
        (["top", "before.json", "--label", "route"], "not KEY=VALUE"),
        (["top", "before.json", "-o", "no/such/folder"], "cannot write"),
        (["list", "nobody", "before.json"], "no function matches"),
        (["diff", "before.json", "a_name_that_says_nothing"], "different sample types"),
        (["convert", "before.json", "out.xlsx"], "end its name in one of: .pb.gz"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_exit_code_2_with_the_reason(
    files: Path, capfdbinary: pytest.CaptureFixture[bytes], argv: list[str], reason: str
) -> None:
    (files / "empty").touch()
    (files / "cut.pb.gz").write_bytes(pprof.encode(AFTER)[:-9])
    (files / "cut.bin").write_bytes(b"\x04\x22\x4d\x18@@\xc0\x99\x00\x00")
    code, out, err = run(capfdbinary, *argv)
    assert (code, out) == (2, "")
    assert reason in err
    assert "Traceback" not in err


def test_a_memray_capture_is_an_artifact_like_the_others(tmp_path: Path) -> None:
    pytest.importorskip("memray")
    path = tmp_path / "capture"
    subject = "import memray, sys\nwith memray.Tracker(sys.argv[1]):\n    kept = bytearray(5_000_000)\n"
    subprocess.run([sys.executable, "-c", subject, str(path)], check=True, timeout=250)
    command = [sys.executable, "-m", "diagnostics", "top", "--of", "high-water", str(path)]
    done = subprocess.run(command, check=False, capture_output=True, encoding="utf-8", timeout=250)
    assert done.returncode == 0, done.stderr
    assert "peak_space 4.7" in done.stdout


def test_the_reader_of_the_output_may_leave(files: Path) -> None:
    many = replace(BEFORE, samples=tuple(Sample((Frame(f"f{n}", "/srv/x.py", n),), (n, 1)) for n in range(20_000)))
    (files / "many.json").write_bytes(native.encode(many))
    command = f"{sys.executable} -m diagnostics top many.json -n 20000 | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], check=False, capture_output=True, encoding="utf-8", timeout=250)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1


def test_the_version_is_the_distributions() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "diagnostics", "--version"], capture_output=True, encoding="utf-8", check=True
    )
    assert told.stdout.strip() == f"highwater-diagnostics {importlib.metadata.version('highwater-diagnostics')}"
