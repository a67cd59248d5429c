"""The field suite can say no: a service that is not as it is alone breaks a promise, and one that is keeps them."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
# Serves until SIGTERM; where something of ours is in its environment it can tell, and ADDED is what it does then.
SERVICE = """
import http.server, os, signal, sys

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass

print("serving with process", os.getpid(), flush=True)
code = 7
if "DIAGNOSTICS_MONITOR_URL" in os.environ:
    ADDED
signal.signal(signal.SIGTERM, lambda *_: os._exit(code))
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


@pytest.fixture
def of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    monkeypatch.syspath_prepend(str(ROOT))
    before = set(sys.modules)
    yield lambda name: importlib.import_module(f"tests.field.{name}")
    for name in [name for name in sys.modules if name.startswith("tests.") and name not in before]:
        del sys.modules[name]


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("added", "broken"),
    [
        pytest.param("pass", [], id="the same"),
        pytest.param("print('observed', flush=True)", ["stdout (TERM)"], id="says more"),
        pytest.param("sys.stderr.write('warned\\n')", ["stderr (TERM)"], id="warns"),
        pytest.param("code = 9", ["signals (TERM)"], id="ends otherwise"),
    ],
)
def test_a_service_that_is_not_as_it_is_alone_breaks_a_promise(
    of: Any, tmp_path: Path, added: str, broken: list[str]
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "service.py").write_text(SERVICE.replace("ADDED", added), encoding="utf-8")
    service = of("table").Service("it", "It", (), (sys.executable, str(tmp_path / "service.py"), "{port}"))

    def lived(observed: bool) -> Any:
        place = tmp_path / ("observed" if observed else "alone")
        return of("life").live(service, tmp_path, place, ("TERM",), observed=observed, upstream="")

    report = of("promises").Report()
    of("alike").compare(lived(False), lived(True), "TERM", report)
    judged = [name for name in report.named("broken") if not name.startswith("time to")]  # those are the machine's
    assert judged == broken
    assert "environment" in report.named("kept")


def test_what_was_not_measured_is_not_kept(of: Any) -> None:
    promises = of("promises")
    report = promises.Report()
    assert report.state == promises.BROKEN  # nothing was checked at all
    report.judge("starts", True, "it did")
    assert report.state == promises.KEPT
    report.unknown("captures", "no time")
    assert report.state == promises.UNKNOWN
    report.judge("stops", False, "it did not")
    assert report.state == promises.BROKEN
    assert promises.Report.from_json(report.to_json()) == report


def test_the_page_is_written_between_its_markers_and_names_what_is_broken(of: Any) -> None:
    page, promises = of("page"), of("promises")
    report = promises.Report()
    report.judge("stdout (TERM)", False, "+ a | line")
    service = of("table").Service("it", "It", (), ())
    result = page.Result(service, report, {"it": "1.0"}, "3.11.7", "2026-01-01 00:00", (0.5, 1.0), 60.0)
    found = page.marked(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n", [result])
    assert found.startswith("before\n")
    assert found.endswith("\nafter\n")
    assert "old" not in found
    assert "0 of 1 services kept all promises" in found
    assert "**broken**: stdout (TERM)" in found
    assert "+ a \\| line" in found
    assert page.Result.from_json(service, result.to_json()) == result
    with pytest.raises(ValueError, match="field: begin"):
        page.marked("no markers", [result])


def test_every_service_says_what_it_needs(of: Any) -> None:
    services = of("table").read()
    assert len(services) >= 13
    for service in services.values():
        assert all("==" in requirement for requirement in service.requirements), service.name
        assert service.ready or any("{port}" in word for word in service.command), service.name
        assert service.load is not None, service.name
        assert all(name.isupper() for row in service.signals for name in row), service.name
        used = {
            word for text in map(str, (service.command, service.environment)) for word in re.findall(r"{(\w+)}", text)
        }
        assert used <= {"bin", "port", "apps", "folder", "upstream"}, service.name
