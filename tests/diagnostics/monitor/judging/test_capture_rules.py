"""Rules at work: over a whole recording, and live, where one captures what it says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from diagnostics.monitor.judging.watched import dry_run
from diagnostics.monitor.recording.ring import Header, Recording, Ring, RingSize
from diagnostics.monitor.recording.vitals import FIELDS
from diagnostics.monitor.rules.expression import parse_condition
from diagnostics.monitor.rules.rule import DEFAULTS, Capture, Rule

MIB = 1024**2

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


def test_a_dry_run_knows_conditions_and_what_each_stream_leaves_behind() -> None:
    """A minute of warm-up, then a megabyte a second for ten streams a second: 100 KiB for each."""
    seconds = range(600)
    climbing = recording(
        in_use_bytes=[50.0 * MIB + MIB * second for second in seconds],
        rss_bytes=[80.0 * MIB + MIB * second for second in seconds],
        open_streams=[10.0 if second < 300 else 0.0 for second in seconds],
        streams_finished_total=[10.0 * second for second in seconds],
    )
    rules = (
        Rule("left-behind", "growth_per_stream", 64 * 1024, hold=0, actions=(Capture("objects"),), cooldown=86400),
        Rule("more", "growth_per_stream", 256 * 1024, hold=0),
        Rule("a-stream", condition=parse_condition("rss_bytes / open_streams > 16 MiB for 10 s"), cooldown=86400),
    )
    found = {firing["rule"]: firing for firing in dry_run(climbing, rules, None)}
    assert set(found) == {"a-stream", "left-behind"}
    assert found["a-stream"]["time"] == 1_000_000 + 91  # 80 + 81 MiB over ten streams, ten seconds later
    assert found["left-behind"]["time"] > 1_000_000 + 30
    assert (found["left-behind"]["capture"], found["left-behind"]["actions"]) == ("objects", ["capture"])


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
    eventually(lambda: b"diagnostics_rule_actions_total" in http(f"{service.monitor}/metrics").body)
    metrics = http(f"{service.monitor}/metrics").body.decode()
    assert 'diagnostics_rule_firings_total{outcome="done",rule="buffers",worker="0"} 1.0' in metrics
    assert 'diagnostics_rule_actions_total{action="capture",outcome="done",rule="buffers",worker="0"} 1.0' in metrics
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
    assert first.capture is not None
    kind, options = first.capture.kind, first.capture.options
    assert (first.trigger, kind, options["seconds"] > 0) == ("seconds_to_limit", "objects", True)
    folder = memory_cgroup(1024 * MIB)
    (tmp_path / "filling.py").write_text(FILLING, encoding="utf-8")
    rules = tmp_path / "rules.toml"
    rules.write_text(
        f'[[rule]]\nname = "{first.name}"\ntrigger = "{first.trigger}"\nbelow = {first.bound}\nfor = 0\n'
        f'capture = "{kind}"\noptions = {{ seconds = 2 }}\n',
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
