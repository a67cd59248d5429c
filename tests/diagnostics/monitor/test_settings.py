"""The monitor's settings: what an empty environment gives, and that whatever is wrong is named with its value."""

from __future__ import annotations

from pathlib import Path

import pytest

from diagnostics.errors import UsageError
from diagnostics.monitor.captures.kept.store import Limits
from diagnostics.monitor.export.destination import DEFAULT_SECONDS
from diagnostics.monitor.recording.recorder import RecordSettings
from diagnostics.monitor.rules.rule import DEFAULTS
from diagnostics.monitor.settings import MonitorSettings

GOOD = """
[[rule]]
name = "buffers"
trigger = "buffered_bytes"
above = 1000000
for = 2
capture = "retained"
cooldown = 60
limit = 5
"""


def test_an_empty_environment_gives_the_defaults() -> None:
    assert MonitorSettings.of({}) == MonitorSettings()
    empty = dict.fromkeys(("DIAGNOSTICS_RECORD_SECONDS", "DIAGNOSTICS_KEEP_DAYS", "DIAGNOSTICS_RULES"), "")
    assert MonitorSettings.of(empty) == MonitorSettings()


def test_the_manual_has_every_setting_with_its_default() -> None:
    manual = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text(encoding="utf-8")
    usual = MonitorSettings()
    for name, default in {
        "DIAGNOSTICS_RECORD_SECONDS": usual.record.seconds,
        "DIAGNOSTICS_RECORD_INTERVAL_SECONDS": usual.record.interval,
        "DIAGNOSTICS_RECORD_MINUTES": usual.record.minutes,
        "DIAGNOSTICS_RECORD_FILES": usual.record.files,
        "DIAGNOSTICS_KEEP_CAPTURES": usual.keep.captures,
        "DIAGNOSTICS_KEEP_DAYS": usual.keep.age_seconds / 86_400,
        "DIAGNOSTICS_LOOKS_PER_HOUR": usual.looks_per_hour,
        "DIAGNOSTICS_PPROF_INTERVAL_SECONDS": usual.pprof_interval_seconds,
        "DIAGNOSTICS_PROFILES_SECONDS": DEFAULT_SECONDS,
        "DIAGNOSTICS_EGRESS_TRIES": usual.egress.tries,
        "DIAGNOSTICS_EGRESS_WAITING": usual.egress.waiting,
        "DIAGNOSTICS_EGRESS_TIMEOUT_SECONDS": usual.egress.timeout_seconds,
    }.items():
        (row,) = [line for line in manual.splitlines() if line.startswith(f"| `{name}`")]
        assert row.split("|")[2].strip().strip("`").replace(",", "") == f"{default:g}", row


def test_what_is_given_is_taken() -> None:
    settings = MonitorSettings.of(
        {
            "DIAGNOSTICS_RECORD_SECONDS": "60", "DIAGNOSTICS_KEEP_CAPTURES": "7", "DIAGNOSTICS_KEEP_BYTES": "1e6",
            "DIAGNOSTICS_KEEP_DAYS": "0.5", "DIAGNOSTICS_LOOKS_PER_HOUR": "0", "DIAGNOSTICS_PPROF_INTERVAL_SECONDS": "0",
            "DIAGNOSTICS_ALLOWED_HOSTS": " a.example, b.example ,", "DIAGNOSTICS_TOKEN": "t", "DIAGNOSTICS_READ_TOKEN": "r",
        }
    )  # fmt: skip
    assert settings.record == RecordSettings(seconds=60.0)
    assert settings.keep == Limits(captures=7, total_bytes=1_000_000, age_seconds=43_200.0)
    assert (settings.looks_per_hour, settings.pprof_interval_seconds) == (0, 0.0)
    assert settings.allowed_hosts == ("a.example", "b.example")
    assert (settings.token, settings.read_token) == ("t", "r")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DIAGNOSTICS_RECORD_SECONDS", "-1"),
        ("DIAGNOSTICS_RECORD_SECONDS", "an hour"),
        ("DIAGNOSTICS_RECORD_INTERVAL_SECONDS", "0"),
        ("DIAGNOSTICS_RECORD_MINUTES", "nan"),
        ("DIAGNOSTICS_RECORD_MINUTES", "1.5"),
        ("DIAGNOSTICS_RECORD_FILES", "0"),
        ("DIAGNOSTICS_KEEP_CAPTURES", "0"),
        ("DIAGNOSTICS_KEEP_BYTES", "inf"),
        ("DIAGNOSTICS_KEEP_DAYS", "soon"),
        ("DIAGNOSTICS_LOOKS_PER_HOUR", "-1"),
        ("DIAGNOSTICS_LOOKS_PER_HOUR", "often"),
        ("DIAGNOSTICS_LOOKS_PER_HOUR", "61"),
        ("DIAGNOSTICS_EGRESS_URL", "http://evidence"),
        ("DIAGNOSTICS_EGRESS_BYTES_A_DAY", "-1"),
        ("DIAGNOSTICS_EGRESS_TRIES", "0"),
        ("DIAGNOSTICS_EGRESS_WAITING", "1001"),
        ("DIAGNOSTICS_EGRESS_TIMEOUT_SECONDS", "0"),
        ("DIAGNOSTICS_PPROF_INTERVAL_SECONDS", "soon"),
        ("DIAGNOSTICS_PPROF_INTERVAL_SECONDS", "inf"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(name: str, value: str) -> None:
    with pytest.raises(UsageError, match=f"{name} is '{value}'"):
        MonitorSettings.of({name: value})


def test_a_recording_that_would_be_too_large_is_refused() -> None:
    with pytest.raises(UsageError, match=r"7200 s of readings 0\.05 s apart are more than 86400"):
        MonitorSettings.of({"DIAGNOSTICS_RECORD_INTERVAL_SECONDS": "0.05", "DIAGNOSTICS_RECORD_SECONDS": "7200"})


def test_where_the_rules_come_from(tmp_path: Path) -> None:
    assert MonitorSettings.of({}).rules == DEFAULTS
    assert MonitorSettings.of({"DIAGNOSTICS_RULES": "off"}).rules == ()
    file = tmp_path / "rules.toml"
    file.write_text(GOOD, encoding="utf-8")
    assert [rule.name for rule in MonitorSettings.of({"DIAGNOSTICS_RULES": str(file)}).rules] == ["buffers"]
    file.write_text(GOOD.replace("retained", "everything"), encoding="utf-8")
    with pytest.raises(UsageError, match=r"line 7: rule 'buffers': capture is 'everything'; choose one of"):
        MonitorSettings.of({"DIAGNOSTICS_RULES": str(file)})
    with pytest.raises(UsageError, match="No such file"):
        MonitorSettings.of({"DIAGNOSTICS_RULES": str(tmp_path / "none.toml")})


def test_egress_is_off_until_an_address_is_given() -> None:
    assert MonitorSettings.of({}).egress.destination is None
    given = {
        "DIAGNOSTICS_EGRESS_URL": "s3://evidence/prod",
        "DIAGNOSTICS_EGRESS_BYTES_A_DAY": "1e6",
        "OTEL_SERVICE_NAME": "o",
    }
    egress = MonitorSettings.of(given).egress
    assert egress.destination is not None
    assert (egress.destination.url, egress.bytes_a_day, egress.service) == ("s3://evidence/prod", 1_000_000, "o")
    assert MonitorSettings.of({**given, "DIAGNOSTICS_EGRESS_SERVICE": "mine"}).egress.service == "mine"
