"""Only a file that its owner alone can write may name a command: mode, owner, and the folders above it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from diagnostics.errors import UsageError
from diagnostics.monitor.rules import trusted
from diagnostics.monitor.settings import MonitorSettings

COMMANDS = """
[[rule]]
name = "page"
trigger = "loop_lag"
above = 1
[[rule.action]]
do = "command"
argv = ["/bin/true"]
"""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    folder = tmp_path / "etc"
    folder.mkdir(mode=0o755)
    file = folder / "rules.toml"
    file.write_text(COMMANDS, encoding="utf-8")
    file.chmod(0o644)
    return file


def monitor_takes(file: Path) -> str:
    """ "" where a monitor starts with this file, else what it says."""
    try:
        (rule,) = MonitorSettings.of({"DIAGNOSTICS_RULES": str(file)}).rules
    except UsageError as error:
        return str(error)
    return "" if rule.name == "page" else "other rules"


def test_a_file_of_ones_own_may_call_commands(rules: Path) -> None:
    assert monitor_takes(rules) == ""


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666, 0o662])
def test_one_that_others_can_write_may_not(rules: Path, mode: int) -> None:
    rules.chmod(mode)
    said = monitor_takes(rules)
    assert "rule 'page' calls a command, and " in said
    assert f"mode {mode:o}" in said
    # The same rights are no matter where no command is called.
    rules.write_text(COMMANDS.replace("command", "log").replace('argv = ["/bin/true"]', ""), encoding="utf-8")
    assert monitor_takes(rules) == ""


@pytest.mark.parametrize(("mode", "safe"), [(0o775, False), (0o777, False), (0o1777, True), (0o755, True)])
def test_nor_one_that_others_can_replace(rules: Path, mode: int, safe: bool) -> None:
    rules.parent.chmod(mode)
    said = monitor_takes(rules)
    assert (said == "") == safe
    assert safe or f"the folder {rules.parent} has the mode {mode:o}" in said


def test_a_link_counts_by_what_it_leads_to_and_by_where_it_lies(rules: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.toml"
    link.symlink_to(rules)
    assert monitor_takes(link) == ""
    rules.parent.chmod(0o777)
    assert f"the folder {rules.parent} has the mode 777" in monitor_takes(link)
    rules.parent.chmod(0o755)
    open_folder = tmp_path / "open"
    open_folder.mkdir()
    open_folder.chmod(0o777)
    (open_folder / "link.toml").symlink_to(rules)
    assert f"the folder {open_folder} has the mode 777" in monitor_takes(open_folder / "link.toml")


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root: a file of another user's")
def test_another_users_file_may_not(rules: Path) -> None:
    os.chown(rules, 65534, 65534)
    assert "belongs to uid 65534" in monitor_takes(rules)
    os.chown(rules, 0, 0)
    os.chown(rules.parent, 65534, 65534)
    assert f"the folder {rules.parent} belongs to uid 65534" in monitor_takes(rules)


def test_what_is_no_file_or_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trusted, "MAX_BYTES", 10)
    large = tmp_path / "large.toml"
    large.write_text("# " + 20 * "x", encoding="utf-8")
    for path, says in ((large, "more than 10 bytes"), (tmp_path, "cannot be read"), (Path("/dev/null"), "is no file")):
        with pytest.raises(UsageError, match=says):
            trusted.read_rules(path)


def test_what_a_rule_names_and_is_not_there_stops_the_monitor_at_its_start(rules: Path) -> None:
    rules.write_text(COMMANDS.replace("/bin/true", "/nonexistent/page"), encoding="utf-8")
    assert "rule 'page': /nonexistent/page is no program that can be started" in monitor_takes(rules)
