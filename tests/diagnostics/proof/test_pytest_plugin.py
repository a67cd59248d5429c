"""The fixture in a suite of someone else's, run by a pytest of its own; and the example of docs/pytest.md."""

from __future__ import annotations

import re
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from diagnostics.proof.pytest_plugin import parse_bytes

pytest_plugins = ["pytester"]
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "pytest.md"
PLUGIN = "diagnostics.proof.pytest_plugin"


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder with the files of docs/pytest.md in it."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name, source in re.findall(
        r"^`(\w+\.py)`:\n\n```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    ):
        (pytester.path / name).write_text(source, encoding="utf-8")
    assert {path.name for path in pytester.path.glob("*.py")} >= {"service.py", "test_service.py"}
    return pytester


def run(suite: pytest.Pytester, *words: str) -> pytest.RunResult:
    # Where the package is installed, pytest has found the plugin already.
    installed = any(point.value == PLUGIN for point in entry_points(group="pytest11"))
    options = [] if installed else ["-p", PLUGIN]
    return suite.runpytest_subprocess(
        *options, "--strict-markers", "-p", "no:cacheprovider", "-p", "no:randomly", *words, timeout=800
    )


@pytest.mark.long
def test_the_example_of_the_manual_passes_and_its_leak_is_named(suite: pytest.Pytester) -> None:
    # Each test waits for a service of its own most of the time: both at once.
    result = run(suite, "--numprocesses", "2")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*/leaking of service:app: LEAK",
            "*remains*above the limit of 4,096*",
            "*peak*",
            "*held at the end of a capture:",
        ]
    )
    assert re.search(r"remember \(\S*service\.py:\d+\)", result.stdout.str())


def test_bad_usage_is_an_error_with_a_remedy(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        test_service="""
        def test_neither(stream_growth):
            stream_growth(path="/")

        def test_no_port(stream_growth):
            stream_growth(command="true", path="/")

        def test_no_size(stream_growth):
            stream_growth("service:app", path="/", remains="a little")
        """
    )
    result = run(suite)
    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines(["*needs an app or a command*", "*has no {port}*", "*is no size above 0*"])


def test_the_plugin_costs_a_suite_that_does_not_use_it_nothing(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        test_service="""
        import sys

        def test_nothing_heavy_is_imported():
            assert not {"rich", "httpx2", "uvicorn", "memray", "httptools"} & set(sys.modules)
        """
    )
    run(suite).assert_outcomes(passed=1)


def test_sizes_are_read_with_their_unit() -> None:
    assert [parse_bytes(limit) for limit in (1, "12", "4 KiB", "1.5MiB")] == [1, 12, 4096, 1_572_864]
    for wrong in ("4 kB", "-1", "", 0):
        with pytest.raises(ValueError, match="is no size above 0"):
            parse_bytes(wrong)


def test_the_entry_point_names_the_plugin() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"highwater-diagnostics": PLUGIN}
    assert PLUGIN not in sys.modules or hasattr(sys.modules[PLUGIN], "stream_growth")
