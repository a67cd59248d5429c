"""What malloc has in use under each allocator that people preload: right, or unknown with the reason."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from diagnostics.agent.readings.allocation import allocators, by_ctypes

ROOT = Path(__file__).parents[5]
# 50 MB in blocks that malloc serves, and half of them given back.
PROGRAM = """
import json, sys
if sys.argv[1:] == ["by ctypes"]:
    sys.modules["diagnostics.agent.readings.allocation._figures"] = None  # as where it was not built
from diagnostics.agent.readings.allocation import allocators

allocators.read()
before = allocators.read().to_json()
kept = [bytes(4000) for _ in range(12_500)]
planted = allocators.read().to_json()
del kept[6_250:]
print(json.dumps([before, planted, allocators.read().to_json()]))
"""
PLANTED = 12_500 * 4033
# Of whichever release this Debian has.
MIMALLOC = next((path.name for path in Path("/usr/lib").glob("*/libmimalloc.so.?")), "libmimalloc.so.2")


def readings(python: str = sys.executable, way: str = "", called: str = "", **environment: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [called or python, "-c", PROGRAM, *([way] if way else [])], executable=python,
        capture_output=True, encoding="utf-8", timeout=60, check=True,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip
    assert done.stderr == ""
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def library(name: str) -> str:
    (found,) = Path("/usr/lib").glob(f"*/{name}")
    return str(found)


BOTH_WAYS = pytest.mark.parametrize("way", ["", "by ctypes"])


@BOTH_WAYS
@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({}, id="glibc"),
        pytest.param({"MALLOC_ARENA_MAX": "1"}, id="one-arena"),
        pytest.param({"MALLOC_ARENA_TEST": "1"}, id="arena-test"),
        pytest.param({"PYTHONMALLOC": "debug"}, id="pymalloc-debug"),
        pytest.param({"PYTHONMALLOC": "malloc"}, id="no-pymalloc"),
        pytest.param({"PYTHONMALLOC": "malloc_debug"}, id="no-pymalloc-debug"),
        pytest.param(
            {"LD_PRELOAD": "libjemalloc.so.2"}, id="jemalloc", marks=pytest.mark.needs("libjemalloc.so.2", "libjemalloc2")
        ),
        pytest.param(
            {"LD_PRELOAD": "libjemalloc.so.2", "PYTHONMALLOC": "malloc"}, id="jemalloc-alone",
            marks=pytest.mark.needs("libjemalloc.so.2", "libjemalloc2"),
        ),
        pytest.param(
            {"LD_PRELOAD": "libtcmalloc_minimal.so.4"}, id="tcmalloc",
            marks=pytest.mark.needs("libtcmalloc_minimal.so.4", "libtcmalloc-minimal4"),
        ),
    ],
)  # fmt: skip
def test_what_was_planted_is_in_use_and_what_was_given_back_is_not(environment: dict[str, str], way: str) -> None:
    given = {name: library(value) if name == "LD_PRELOAD" else value for name, value in environment.items()}
    before, planted, after = readings(way=way, **given)
    assert planted["in_use_bytes"] - before["in_use_bytes"] == pytest.approx(PLANTED, rel=0.05)
    assert planted["malloc_live_bytes"] - before["malloc_live_bytes"] == pytest.approx(PLANTED, rel=0.05)
    assert planted["in_use_bytes"] - after["in_use_bytes"] == pytest.approx(PLANTED / 2, rel=0.05)
    assert planted["malloc_free_bytes"] >= 0
    if environment.get("PYTHONMALLOC", "").startswith("malloc"):
        assert planted["in_use_bytes"] == planted["malloc_live_bytes"]
        assert "PYTHONMALLOC" in planted["unknown"]["python_live_bytes"]
    else:
        assert planted["unknown"] == {}


@pytest.mark.needs(MIMALLOC, "libmimalloc2.0")
@BOTH_WAYS
@pytest.mark.parametrize("python", ["pymalloc", "malloc"])
def test_an_allocator_that_tells_nothing_is_unknown_with_its_name_and_never_zero(python: str, way: str) -> None:
    for told in readings(way=way, LD_PRELOAD=library(MIMALLOC), PYTHONMALLOC=python):
        for name in ("in_use_bytes", "malloc_live_bytes", "malloc_free_bytes", "malloc_mapped_bytes"):
            assert told[name] is None
        assert "libmimalloc" in told["unknown"]["malloc_live_bytes"]
        assert "libmimalloc" in told["unknown"]["in_use_bytes"]


@BOTH_WAYS
@pytest.mark.parametrize("called", ["/usr/bin/python3", "python3"])
@pytest.mark.parametrize("preload", ["", "libjemalloc.so.2"])
def test_a_python_that_is_linked_to_fixed_addresses_is_no_allocator(preload: str, called: str, way: str) -> None:
    """Debian's: the program has a jump of its own to malloc, which looks as if it were malloc.

    Where it was called by its bare name, as from a shell, the linker knows it by that and not by its path.
    """
    system = Path("/usr/bin/python3")
    asked = [str(system), "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
    if not system.exists() or subprocess.run(asked, check=False).returncode:
        pytest.skip("there is no Python 3.11 or newer of the system's own")
    if preload and not any(Path("/usr/lib").glob(f"*/{preload}")):
        pytest.skip(f"{preload} is not installed")
    environment = {"LD_PRELOAD": library(preload)} if preload else {}
    before, planted, _ = readings(str(system), way, called, **environment)
    assert planted["unknown"] == {}
    assert planted["malloc_live_bytes"] - before["malloc_live_bytes"] == pytest.approx(PLANTED, rel=0.05)


def test_both_ways_say_the_same() -> None:
    figures = pytest.importorskip("diagnostics.agent.readings.allocation._figures", reason="it was not built")
    assert figures.serves("malloc") == by_ctypes.serves("malloc") != ""
    assert figures.serves("no_such_symbol_anywhere") == by_ctypes.serves("no_such_symbol_anywhere") == ""
    assert figures.mallinfo2() == pytest.approx(by_ctypes.mallinfo2(), rel=0.05)
    printed = figures.pymalloc(None), by_ctypes.pymalloc(None)
    live, other = (allocators.parse_pymalloc(text)[0] for text in printed)
    assert live == pytest.approx(other, rel=0.01)
    # What steps aside for the statistics prints them itself, says that pymalloc is not in charge, or fails.
    assert figures.pymalloc(lambda _stream: 0) == by_ctypes.pymalloc(lambda _stream: 0) == ""
    assert allocators.parse_pymalloc(figures.pymalloc(lambda _stream: -1))[0] == pytest.approx(live, rel=0.01)
    for way in (figures, by_ctypes):
        with pytest.raises(ZeroDivisionError):
            way.pymalloc(lambda stream: stream // 0)


def test_behind_a_tracer_in_use_is_unknown_with_the_reason() -> None:
    for told in readings(PYTHONTRACEMALLOC="1"):
        assert told["in_use_bytes"] is None
        assert "tracer" in told["unknown"]["in_use_bytes"]
