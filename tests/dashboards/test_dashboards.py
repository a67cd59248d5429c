"""The dashboards: current, about metrics that exist, and by the rules of Grafana's dashboard-linter.

The rules are those of https://github.com/grafana/dashboard-linter/tree/main/docs/rules; a test's name is the rule's.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.models import units

from dashboards.boards import BOARDS
from dashboards.build import main, rendered
from dashboards.queries import PENDING
from diagnostics.monitor.web.metrics import METRICS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "dashboards"
DOCUMENTS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))
}
REGISTRY = {spec.name: (spec.kind, {"worker", *spec.labels}) for spec in METRICS}
UNITS = [value for value in vars(units).values() if isinstance(value, str)]
SCRAPED = {"job", "instance", "le"}

SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}(\[[^]]*\])?")


def panels(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in document["panels"] if panel["type"] != "row"]


def each_panel() -> Iterator[Any]:
    for name, document in DOCUMENTS.items():
        for panel in panels(document):
            yield pytest.param(document, panel, id=f"{name}: {panel['title']}")


def expressions() -> Iterator[tuple[str, str]]:
    for name, document in DOCUMENTS.items():
        for panel in panels(document):
            for target in panel["targets"]:
                yield f"{name}: {panel['title']}", target["expr"]
        for annotation in document["annotations"]["list"]:
            yield f"{name}: {annotation['name']}", annotation["expr"]


def family(metric: str) -> str:
    """The metric that a series of a histogram belongs to; any other is its own."""
    stem = re.sub(r"_(bucket|sum|count)$", "", metric)
    return stem if stem in REGISTRY or stem in PENDING else metric


def recorded() -> dict[str, set[str]]:
    """The recording rules' names and the labels that they keep by name: instance_worker is job, instance, worker."""
    rules = [
        rule
        for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
    ]
    return {rule["record"]: {"job", *rule["record"].split(":")[0].split("_")} for rule in rules if "record" in rule}


# --- current ---


def test_the_files_are_what_the_tables_give() -> None:
    assert {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")} == rendered()
    assert set(DOCUMENTS) == {"streams", "memory", "incident"}


def test_check_says_what_is_stale_and_changes_nothing(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("dashboards.build.FOLDER", tmp_path)
    assert main(["--check"]) == 1
    assert "streams.json" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert main([]) == 0
    assert main(["--check"]) == 0


def test_it_runs_as_a_script() -> None:
    command = [sys.executable, str(FOLDER / "build.py"), "--check"]
    done = subprocess.run(command, check=False, capture_output=True, encoding="utf-8", cwd=ROOT, timeout=250)
    assert (done.returncode, done.stderr) == (0, "")


# --- about metrics that exist ---


def test_every_metric_is_in_the_registry_or_pending() -> None:
    known = set(REGISTRY) | set(PENDING) | set(recorded())
    found = {family(metric) for _, expr in expressions() for metric, _, _ in SELECTOR.findall(expr)}
    assert found - known == set()
    assert len(found) > 25


def test_nothing_is_pending_that_the_registry_has() -> None:
    assert set(PENDING) & set(REGISTRY) == set(), "these are exported now: remove their lines in dashboards/queries.py"


def test_every_metric_of_the_registry_is_shown() -> None:
    found = {family(metric) for _, expr in expressions() for metric, _, _ in SELECTOR.findall(expr)}
    assert (set(REGISTRY) | set(PENDING)) - found == set()


def test_labels_are_those_that_the_metrics_have() -> None:
    """In matchers, in `by (...)` and in legends: a label that no metric has gives one nameless line, and no error."""
    wrong = []
    for document in DOCUMENTS.values():
        for panel in panels(document):
            for target in panel["targets"]:
                known = set(SCRAPED)
                for metric, _, _ in SELECTOR.findall(target["expr"]):
                    name = family(metric)
                    known |= recorded().get(name) or REGISTRY.get(name, ("", {"worker", *PENDING.get(name, ())}))[1]
                used = set(re.findall(r"(\w+)=~?\"", target["expr"]))
                used |= {label for by in re.findall(r"by \(([^)]*)\)", target["expr"]) for label in by.split(", ")}
                legend = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
                grouped = [set(by.split(", ")) for by in re.findall(r"by \(([^)]*)\)", target["expr"])]
                if used - known or (legend and not any(legend <= by for by in grouped)):
                    wrong.append((panel["title"], target["expr"], target["legendFormat"]))
    assert wrong == []


# --- dashboard-linter ---


@pytest.mark.parametrize("name", DOCUMENTS)
def test_template_datasource_rule(name: str) -> None:
    sources = [v for v in DOCUMENTS[name]["templating"]["list"] if v["type"] == "datasource"]
    assert [(v["name"], v["label"], v["query"]) for v in sources] == [("datasource", "Data source", "prometheus")]


@pytest.mark.parametrize("label", ["job", "instance"])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_template_job_rule_and_template_instance_rule(name: str, label: str) -> None:
    (variable,) = [v for v in DOCUMENTS[name]["templating"]["list"] if v["name"] == label]
    assert variable["label"] == label.capitalize()
    assert variable["type"] == "query"
    assert variable["datasource"]["uid"] == "$datasource"
    if name == "incident" and label == "instance":
        # The exception: an incident is looked at one instance at a time, or two time axes lie over each other.
        assert not variable["multi"]
        assert not variable["includeAll"]
    else:
        assert variable["multi"]
        assert variable["allValue"] == ".+"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_template_label_promql_rule_and_on_time_change_reload_rule(name: str) -> None:
    for variable in DOCUMENTS[name]["templating"]["list"]:
        if variable["type"] == "query":
            assert re.fullmatch(r'label_values\(\w+(\{job=~"\$job"\})?, (job|instance)\)', variable["query"])
            assert variable["refresh"] == 2
            assert re.match(r"label_values\((\w+)", variable["query"])[1] in REGISTRY  # type: ignore[index]


@pytest.mark.parametrize(("document", "panel"), list(each_panel()))
def test_panel_rules(document: dict[str, Any], panel: dict[str, Any]) -> None:
    """panel-datasource, panel-title-description, panel-units and panel-no-targets rules."""
    assert panel["datasource"]["uid"] == "$datasource"
    assert panel["title"]
    assert len(panel["description"]) > 10
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["targets"]
    assert [target["refId"] for target in panel["targets"]] == list("ABCDEFGH")[: len(panel["targets"])]
    assert all(target["legendFormat"] for target in panel["targets"])
    assert all(target["datasource"]["uid"] == "$datasource" for target in panel["targets"])


@pytest.mark.parametrize(("where", "expr"), list(expressions()))
def test_target_rules(where: str, expr: str) -> None:
    """target-job, target-instance, target-rate-interval and target-counter-agg rules."""
    found = SELECTOR.findall(expr)
    assert found, where
    for metric, matchers, window in found:
        assert matchers.startswith('job=~"$job", instance=~"$instance"')
        assert window in ("", "[$__rate_interval]")
        counts = REGISTRY.get(family(metric), ("",))[0] != "gauge" and ":" not in metric
        if family(metric) in PENDING:
            counts = metric.endswith(("_total", "_bucket"))
        assert bool(window) is counts, f"{metric}: a counter is rated, a gauge is not"
    without_selectors = SELECTOR.sub("", expr)
    assert not re.search(r"\b(stream|memory|diagnostics)_\w+", without_selectors), "a selector without job and instance"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_uneditable_dashboard_rule(name: str) -> None:
    assert DOCUMENTS[name]["editable"] is False


# --- what a reader sees ---


@pytest.mark.parametrize("name", DOCUMENTS)
def test_panels_have_their_own_place_and_title(name: str) -> None:
    everything = DOCUMENTS[name]["panels"]
    cells = [
        (x, y)
        for panel in everything
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells)), "panels overlap"
    assert max(x for x, _ in cells) < 24
    titles = [panel["title"] for panel in panels(DOCUMENTS[name])]
    assert len(titles) == len(set(titles))
    numbers = [panel["id"] for panel in panels(DOCUMENTS[name])]
    assert numbers == list(range(1, len(numbers) + 1))


def test_latencies_show_the_traces_behind_them() -> None:
    shown = {
        panel["title"]
        for panel in panels(DOCUMENTS["incident"])
        if any(target["exemplar"] for target in panel["targets"])
    }
    assert shown == {"Time to first event", "From a client's leaving to its upstream's end"}
    for document in DOCUMENTS.values():
        for panel in panels(document):
            for target in panel["targets"]:
                # Only a histogram's buckets carry them.
                assert not target["exemplar"] or "_bucket" in target["expr"]


def test_captures_are_annotations_on_every_board() -> None:
    for document in DOCUMENTS.values():
        (annotation,) = document["annotations"]["list"]
        assert "diagnostics_captures_total" in annotation["expr"]
        assert annotation["tagKeys"] == "kind,outcome"


def test_an_incident_is_on_one_time_axis() -> None:
    (incident,) = [board for board in BOARDS if board.one_instance]
    assert incident.title == DOCUMENTS["incident"]["title"]
    assert DOCUMENTS["incident"]["graphTooltip"] == 2
    assert {panel["gridPos"]["w"] for panel in panels(DOCUMENTS["incident"])} == {24}
