"""The rules: valid, tested for both answers, and each with a page that says what to do."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards.queries import PENDING
from diagnostics.agent.record import OUTCOMES
from diagnostics.analysis.verdict.causes import CAUSES
from diagnostics.monitor.web.metrics import METRICS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "dashboards"
GROUPS: list[dict[str, Any]] = yaml.safe_load((FOLDER / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
RULES: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]
ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for rule in RULES if "alert" in rule}
TESTS: list[dict[str, Any]] = yaml.safe_load((FOLDER / "alerts_test.yaml").read_text(encoding="utf-8"))["tests"]
# Ours, by what they begin with; a name with a colon is a recording rule's.
OURS = re.compile(r"(?<![\w:])((?:stream|memory|event_loop|asyncio|gc|buffer_pool|diagnostics)_\w+)(?![\w:(])")


def promtool(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["promtool", *words], check=False, capture_output=True, encoding="utf-8", cwd=FOLDER, timeout=250
    )


@pytest.mark.needs("promtool", "prometheus")
def test_the_rules_are_valid() -> None:
    done = promtool("check", "rules", "--lint-fatal", "alerts.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(RULES)} rules found" in done.stdout


@pytest.mark.needs("promtool", "prometheus")
def test_the_rules_fire_and_stay_silent_as_they_should() -> None:
    done = promtool("test", "rules", "alerts_test.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_verdict_pages_somebody_where_it_is_an_alarm_and_only_there() -> None:
    """The rule did not know that mapped files which become resident are none."""
    left_out = re.search(r'cause!~"([^"]+)"', ALERTS["MemoryVerdict"]["expr"])
    assert left_out is not None
    assert set(left_out[1].split("|")) == {word for word, cause in CAUSES.items() if not cause.alarm}


@pytest.mark.parametrize("name", ALERTS)
def test_each_alert_is_tested_for_both_answers(name: str) -> None:
    cases = [
        bool(case.get("exp_alerts")) for test in TESTS for case in test["alert_rule_test"] if case["alertname"] == name
    ]
    assert set(cases) == {True, False}


@pytest.mark.parametrize("name", ALERTS)
def test_each_alert_says_how_bad_what_and_where_to_read_on(name: str) -> None:
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in ("critical", "warning")
    annotations = alert["annotations"]
    assert set(annotations) == {"summary", "description", "runbook_url"}
    assert "$labels.instance" in annotations["summary"]
    dashed = re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()
    assert annotations["runbook_url"] == f"docs/runbooks/{dashed}.md"
    assert "for" in alert, "a single reading is no trouble"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_the_metrics_are_known(rule: dict[str, Any]) -> None:
    known = {spec.name for spec in METRICS} | set(PENDING)
    stems = {re.sub(r"_(bucket|sum|count)$", "", name) for name in OURS.findall(rule["expr"])}
    assert stems <= known | set(OURS.findall(" ".join(sorted(known))))
    for outcome in re.findall(r'outcome!?=~?"([^"]*)"', rule["expr"]):
        assert set(outcome.split("|")) <= set(OUTCOMES)


def test_recordings_are_used_and_named_by_what_they_keep() -> None:
    text = (FOLDER / "alerts.yaml").read_text(encoding="utf-8") + "".join(
        path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")
    )
    for rule in RULES:
        if "record" in rule:
            level, *rest = rule["record"].split(":")
            assert level == "instance_worker"
            assert len(rest) == 2
            assert text.count(rule["record"]) > 1, f"{rule['record']} is recorded for nobody"
