"""Rules: when they fire and when not, what is wrong with a file of them, and that a live one captures what it says."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.errors import UsageError
from diagnostics.monitor.judging.capture_rules import DAY, DEFAULTS, Engine, Rule, parse
from diagnostics.monitor.judging.guard import dry_run
from diagnostics.monitor.recording.ring import Header, Recording, Ring, RingSize
from diagnostics.monitor.recording.vitals import FIELDS

RULE = Rule("near", "cgroup_share", 0.8, hold=3, cooldown=10, limit=2)
MIB = 1024**2


def fired(rule: Rule, values: dict[float, float | None]) -> list[float]:
    engine = Engine((rule,))
    return [firing.time for now, value in values.items() for firing in engine.look(now, {rule.trigger: value})]


def test_it_fires_once_the_value_has_stayed_above_for_long_enough() -> None:
    assert fired(RULE, {0: 0.9, 1: 0.9, 2: 0.9, 3: 0.9, 4: 0.9}) == [3]


@pytest.mark.parametrize("broken", [0.8, None], ids=["back at the bound", "not known"])
def test_a_break_starts_the_time_anew(broken: float | None) -> None:
    assert fired(RULE, {0: 0.9, 2: broken, 3: 0.9, 5: 0.9, 6: 0.9}) == [6]


def test_it_cools_down_and_stops_at_its_limit_until_a_day_is_over() -> None:
    steady: dict[float, float | None] = {float(second): 0.9 for second in range(60)}
    assert fired(RULE, steady) == [3, 13]
    assert fired(RULE, {**steady, DAY: 0.9, DAY + 3: 0.9, DAY + 13: 0.9}) == [3, 13, DAY + 3, DAY + 13]


def test_a_forecast_fires_below_its_bound() -> None:
    rule = Rule("soon", "seconds_to_limit", 600, hold=0)
    assert fired(rule, {0: None, 1: 700.0, 2: 599.0}) == [2]


@given(
    values=st.lists(st.one_of(st.none(), st.floats(0, 2)), max_size=200),
    hold=st.integers(0, 5),
    cooldown=st.integers(0, 20),
    limit=st.integers(1, 5),
)
def test_never_more_often_than_it_says_and_never_below_the_bound(
    values: list[float | None], hold: int, cooldown: int, limit: int
) -> None:
    rule = Rule("any", "rss_share", 0.5, hold, cooldown=cooldown, limit=limit)
    times = fired(rule, {float(second): value for second, value in enumerate(values)})
    assert len(times) <= limit
    assert all(later - earlier >= cooldown for earlier, later in itertools.pairwise(times))
    for time in times:
        stretch = values[int(time) - hold : int(time) + 1]
        assert all(value is not None and value > 0.5 for value in stretch)


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


def test_a_file_of_rules() -> None:
    assert parse(GOOD) == (Rule("buffers", "buffered_bytes", 1_000_000, 2, "retained", {}, 60, 5),)
    assert parse("") == ()


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (("buffered_bytes", "buffered"), "'buffered'"),
        (("above", "below"), "above is None"),
        (("1000000", "-1"), "above is -1"),
        (("1000000", "inf"), "above is inf"),
        (('buffered_bytes"\nabove = 1000000', 'rss_share"\nabove = 85'), "above is 85"),
        (('buffered_bytes"\nabove = 1000000', 'cgroup_share"\nabove = 1'), "above is 1"),
        (('buffered_bytes"\nabove = 1000000', 'seconds_to_limit"\nbelow = 0'), "below is 0"),
        (("for = 2", "for = true"), "for is True"),
        (("limit = 5", "limit = 0"), "limit is 0"),
        (('name = "buffers"', 'name = ""'), "name ''"),
        (("cooldown", "cooled"), "no key 'cooled'"),
        (("[[rule]]", "[rule]"), "write one"),
        (("[[rule]]", "[["), "not TOML"),
        (('"retained"', "3"), "capture is 3"),
    ],
)
def test_what_is_wrong_is_named(change: tuple[str, str], names: str) -> None:
    with pytest.raises(UsageError, match=names.replace("[", r"\[")):
        parse(GOOD.replace(*change, 1))


def test_two_rules_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="two rules are named 'buffers'"):
        parse(GOOD * 2)


def recording(**columns: list[float]) -> Recording:
    """A recording one second apart, with these columns and nothing else known."""
    nothing = float("nan")
    length = len(next(iter(columns.values())))
    records = tuple(
        tuple(
            1_000_000.0 + at if field.name == "time" else columns.get(field.name, [nothing] * length)[at]
            for field in FIELDS
        )
        for at in range(length)
    )
    ring = Ring(RingSize(1.0, 3600), records, 0, 0)
    header = Header(tuple((field.name, field.unit) for field in FIELDS), (ring.size,), {"pid": 1})
    return Recording(header, (ring,), None, False)


def test_a_dry_run_over_a_climb_fires_the_defaults_before_the_limit_is_met() -> None:
    used = [40.0 * MIB + 0.2 * MIB * second for second in range(400)]
    found = dry_run(
        recording(cgroup_working_bytes=used, cgroup_limit_bytes=[128.0 * MIB] * 400, rss_bytes=used), DEFAULTS, None
    )
    times = {firing["rule"]: firing["time"] - 1_000_000 for firing in reversed(found)}
    met = next(second for second, held in enumerate(used) if held >= 0.85 * 128 * MIB)
    assert met <= times["limit-near"] <= met + 4
    assert times["limit-in-sight"] < times["limit-near"]


def test_a_dry_run_over_a_quiet_day_fires_nothing() -> None:
    used = [40.0 * MIB + second % 7 for second in range(400)]
    quiet = recording(cgroup_working_bytes=used, cgroup_limit_bytes=[128.0 * MIB] * 400, rss_bytes=used)
    assert dry_run(quiet, DEFAULTS, 64 * 1024**3) == []


APP = """
from fastapi import FastAPI
from diagnostics import instrument

app = FastAPI()
ledger = instrument(app)
held = ledger.open("/chat")

@app.get("/hold")
async def hold(size: int):
    held.hold(size)
"""


def test_a_live_rule_captures_logs_and_counts(observed: Any, http: Any, eventually: Any, tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(GOOD.replace("retained", "tasks").replace("for = 2", "for = 0"), encoding="utf-8")
    env = {"DIAGNOSTICS_RULES": str(rules), "DIAGNOSTICS_RECORD_INTERVAL_SECONDS": "0.1"}
    service = observed(APP, env=env)
    url = f"{service.monitor}/debug/memory/rules"
    eventually(lambda: http(f"{service.url}/hold?size=2000000").status == 200)
    firing = eventually(lambda: [one for one in http(url).json()["firings"] if one["outcome"] == "done"])[0]
    assert (firing["rule"], firing["worker"]) == ("buffers", "0")
    assert http(f"{service.monitor}/debug/memory/captures/{firing['capture']}").json()["kind"] == "tasks"
    assert "rule buffers fired for worker 0: buffered_bytes above 1e+06" in service.supervisor.output
    metrics = http(f"{service.monitor}/metrics").body.decode()
    assert 'diagnostics_rule_firings_total{outcome="done",rule="buffers",worker="0"} 1.0' in metrics
    tried = http(f"{url}?dry_run=1").json()
    assert tried["dry_run"]
    assert [one["rule"] for one in tried["firings"]] == ["buffers"]
    strict = http(
        url,
        "POST",
        rules.read_text(encoding="utf-8").replace("1000000", "9000000").encode(),
        {"Content-Type": "text/plain"},
    )
    assert strict.json()["firings"] == []


FILLING = """
from fastapi import FastAPI

app = FastAPI()
kept = []

@app.get("/fill")
async def fill(size: int):
    kept.append(b"x" * size)
"""


def test_near_a_real_cgroups_limit_the_default_rule_captures_before_the_kernel_kills(
    memory_cgroup: Any, launch: Any, http: Any, eventually: Any, tmp_path: Path
) -> None:
    limit = 160 * MIB
    folder = memory_cgroup(limit)
    (tmp_path / "filling.py").write_text(FILLING, encoding="utf-8")
    into = f"echo $$ > {folder}/cgroup.procs; exec {sys.executable} -m uvicorn filling:app --port 0"
    service = launch(
        sys.executable, "-m", "diagnostics", "run", "--listen", "127.0.0.1:0", "--", "sh", "-c", into,
        cwd=tmp_path, env={"DIAGNOSTICS_DIR": str(tmp_path / "dir")},
    )  # fmt: skip
    monitor = service.wait_for("diagnostics http").split()[1].removesuffix("/debug/memory")
    served = service.wait_for("Uvicorn running", 60).split(" on ")[1].split()[0]
    eventually(lambda: http(f"{monitor}/debug/memory/timeline?seconds=60").json().get("rows"))
    # By the cgroup's own count: pages of libraries that others had mapped before are billed to them.
    names = ("memory.current", "memory.usage_in_bytes")
    (usage,) = (int((folder / name).read_text(encoding="utf-8")) for name in names if (folder / name).exists())
    assert http(f"{served}/fill?size={int(0.93 * limit) - usage}").status == 200
    ended = ("done", "failed", "refused", "cancelled")
    firing = eventually(
        lambda: [
            one
            for one in http(f"{monitor}/debug/memory/rules").json()["firings"]
            if one["rule"] == "limit-near" and one["outcome"] in ended
        ],
        patience=60,
    )[0]
    assert firing["outcome"] == "done", firing
    capture = http(f"{monitor}/debug/memory/captures/{firing['capture']}").json()
    assert (capture["kind"], capture["result"]["in_process"]) == ("tasks", True)
    assert b'diagnostics_rule_firings_total{outcome="done",rule="limit-near",worker="0"} 1.0' in (
        http(f"{monitor}/metrics").body
    )
    assert service.process.poll() is None  # it was told before it was killed
    service.end()


def test_what_is_captured_with_the_limit_in_sight_has_the_path_to_what_grows(
    memory_cgroup: Any, launch: Any, http: Any, eventually: Any, tmp_path: Path
) -> None:
    """The capture that the default rule had taken before an OOM kill said "bytes 75 MiB", and not what held them."""
    first = DEFAULTS[0]
    assert (first.trigger, first.capture, first.options["seconds"] > 0) == ("seconds_to_limit", "objects", True)
    folder = memory_cgroup(1024 * MIB)
    (tmp_path / "filling.py").write_text(FILLING, encoding="utf-8")
    rules = tmp_path / "rules.toml"
    rules.write_text(
        f'[[rule]]\nname = "{first.name}"\ntrigger = "{first.trigger}"\nbelow = {first.bound}\nfor = 0\n'
        f'capture = "{first.capture}"\noptions = {{ seconds = 2 }}\n',
        encoding="utf-8",
    )
    into = f"echo $$ > {folder}/cgroup.procs; exec {sys.executable} -m uvicorn filling:app --port 0"
    service = launch(
        sys.executable, "-m", "diagnostics", "run", "--listen", "127.0.0.1:0", "--", "sh", "-c", into, cwd=tmp_path,
        env={
            "DIAGNOSTICS_DIR": str(tmp_path / "dir"), "DIAGNOSTICS_RECORD_INTERVAL_SECONDS": "0.05",
            "DIAGNOSTICS_RULES": str(rules),
        },
    )  # fmt: skip
    monitor = service.wait_for("diagnostics http").split()[1].removesuffix("/debug/memory")
    served = service.wait_for("Uvicorn running", 60).split(" on ")[1].split()[0]

    def captured() -> Any:
        http(f"{served}/fill?size=200000")
        ended = ("done", "failed", "refused", "cancelled")
        return [one for one in http(f"{monitor}/debug/memory/rules").json()["firings"] if one["outcome"] in ended]

    firing = eventually(captured, patience=90)[0]
    assert firing["outcome"] == "done", firing
    result = http(f"{monitor}/debug/memory/captures/{firing['capture']}").json()["result"]
    assert result["top"][0]["type"] == "bytes"
    assert result["paths"]["bytes"][0]["path"].startswith("module filling -> global 'kept' -> list")
    service.end()
