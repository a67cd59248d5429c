"""Each alert has a runbook, each runbook an alert; and what a runbook tells to type at night works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from dashboards.queries import PENDING
from diagnostics.cli import COMMANDS
from diagnostics.monitor.captures.kinds import KINDS
from diagnostics.monitor.web.metrics import METRICS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "runbooks"
INDEX = FOLDER / "README.md"
PAGES = sorted(path for path in FOLDER.glob("*.md") if path != INDEX)
GROUPS = yaml.safe_load((ROOT / "dashboards" / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}
TITLES = {
    re.sub(r"\{\{.*", "", panel["title"])
    for path in (ROOT / "dashboards").glob("*.json")
    for panel in yaml.safe_load(path.read_text(encoding="utf-8"))["panels"]
}


def test_alerts_and_runbooks_are_the_same() -> None:
    assert {ROOT / rule["annotations"]["runbook_url"] for rule in ALERTS.values()} == set(PAGES)


@pytest.mark.parametrize(("name", "rule"), ALERTS.items(), ids=list(ALERTS))
def test_a_runbook_leads_from_the_symptom_to_the_fix(name: str, rule: dict[str, dict[str, str]]) -> None:
    text = (ROOT / rule["annotations"]["runbook_url"]).read_text(encoding="utf-8")
    assert text.startswith(f"# {name}\n")
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    order = [heading for heading in headings if heading in ("See", "Capture", "Fix")]
    assert order == ["See", "Capture", "Fix"]
    assert "    $ " in text, "the output of a command, as it was"


def test_the_index_lists_them_with_their_severity() -> None:
    rows = re.findall(r"^\| \[(\w+)\]\(([\w.-]+)\) \| (\w+) \|", INDEX.read_text(encoding="utf-8"), re.MULTILINE)
    wanted = [(name, Path(r["annotations"]["runbook_url"]).name, r["labels"]["severity"]) for name, r in ALERTS.items()]
    assert sorted(rows) == sorted(wanted)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_kinds_and_links_exist(page: Path) -> None:
    # Options are checked with those of all other pages, in test_commands.py.
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r"^ {4}\$ diagnostics (\w+)", text, re.MULTILINE)) <= set(COMMANDS)
    assert set(re.findall(r"--kind (\w+)", text)) <= set(KINDS)
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_metrics_and_panels_that_it_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    names = {spec.name for spec in METRICS} | set(PENDING)
    series = set(re.findall(r"`?\b((?:stream|diagnostics)_\w+?)(?:_(?:count|sum|bucket))?[{`]", text))
    assert series - names == set()
    # Panels are in italics, and so are dashboards and their rows.
    others = {"Streams", "Memory", "Incident", "Capture"}
    assert set(re.findall(r"(?<!\*)\*([A-Z][^*\n]+)\*(?!\*)", text)) - TITLES - others == set()
