"""Quick scenarios for real: what remains, when the process exits, and the relay under the work of two of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(900)]

VERIFY = [sys.executable, "-m", "diagnostics", "verify"]
# Where each scenario has one app only.
TWO = ("--jobs", "2")


def test_a_leak_and_a_shutdown_that_never_ends_are_found_and_their_fixes_are_fixes(tmp_path: Path) -> None:
    numbers = tmp_path / "numbers.json"
    command = [*VERIFY, "never_started_generator", "stuck_drain", "--no-capture", "--json", str(numbers)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=800, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    generator, drain = json.loads(numbers.read_text(encoding="utf-8"))["scenarios"]
    broken, fixed = generator["sides"]
    assert (broken["decision"], fixed["decision"]) == ("LEAK", "BOUNDED")
    # What stays is the buffer of 64 KiB that was registered for each stream, not just something above the threshold. On a busy
    # machine some clients are gone before their request is read.
    assert 40_000 < broken["finding"]["intervals"]["remains"]["mean"] < 80_000
    broken, fixed = drain["sides"]
    assert (broken["decision"], fixed["decision"]) == ("UNBOUNDED", "BOUNDED")
    assert broken["finding"]["intervals"]["exit"]["unit"] == "seconds"
    # Its streams were served, and ended by a last event, not cut off.
    assert all(load["outcomes"] == {"completed": 4} for load in fixed["loads"])
    assert "exit, s" in done.stdout


def test_the_relay_is_bounded_under_the_work_that_breaks_others(tmp_path: Path) -> None:
    numbers, file = tmp_path / "numbers.json", Path("relay/proof.toml").resolve()
    command = [*VERIFY, "orphaned_task", "stuck_drain", "--relay", str(file), "--relay-alone", "--no-capture", *TWO]
    done = subprocess.run(
        [*command, "--json", str(numbers)],
        capture_output=True,
        encoding="utf-8",
        timeout=800,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    orphans, drain = (scenario["sides"][0] for scenario in json.loads(numbers.read_text(encoding="utf-8"))["scenarios"])
    assert (orphans["side"], orphans["decision"]) == ("relay", "BOUNDED")
    # It was read as Python is, not by what the kernel tells, and its clients left in the midst of their streams.
    assert orphans["read"] == "in_use"
    assert all(load["outcomes"]["left"] > 20 for load in orphans["loads"])
    assert (drain["side"], drain["decision"]) == ("relay", "BOUNDED")
    assert all(load["events"] >= 4 for load in drain["loads"])


def test_broken_apps_in_the_place_of_fixed_ones_are_refused(tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"
    command = [
        *VERIFY,
        "label_cardinality",
        "zombie_subscribers",
        "--self-test",
        "--no-capture",
        *TWO,
        "--junit",
        str(junit),
    ]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=800, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not verified: label_cardinality, zombie_subscribers" in done.stdout
    assert 'message="LEAK, expected BOUNDED"' in junit.read_text(encoding="utf-8")
