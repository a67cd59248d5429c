"""Live heaps of a real service, pushed over real sockets: what comes, through outages, and what is said of it."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.profiles.v1development.profiles_service_pb2 import ExportProfilesServiceRequest

from diagnostics.agent.heap import extension, layout
from diagnostics.analysis.formats import pprof
from diagnostics.analysis.profile import Profile
from diagnostics.monitor.export.exporter import pause
from tests.diagnostics.monitor.export.conftest import ProfileReceiver, Reply

SECRET = "hunter2hunter2"
HEAP = {"DIAGNOSTICS_HEAP": "on", "DIAGNOSTICS_HEAP_RATE": "16384", "DIAGNOSTICS_PROFILES_SECONDS": "1"}
KEPT = 20_000 * 1040  # bytes, with the header of each object

APP = """
kept = []

class Early:
    def __call__(self):
        kept.append([b"x" * 1000 + str(number).encode() for number in range(20_000)])

Early()()

async def app(scope, receive, send):
    while scope["type"] == "lifespan":
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"served"})
"""

Started = Callable[..., Any]


@pytest.fixture
def started(observed: Any, receiver: ProfileReceiver) -> Started:
    if layout.why_not() is not None or extension() is None:
        pytest.skip(layout.why_not() or "the extension of the live heap is not built")
    return lambda **env: observed(APP, env={**HEAP, "DIAGNOSTICS_PROFILES_URL": receiver.url, **env})


def held(profile: Profile, value: int = 0) -> int:
    """What the profile says of the allocations of `Early`."""
    return sum(
        each.values[value] for each in profile.samples if any(f.function == "Early.__call__" for f in each.stack)
    )


def pushes(text: str) -> dict[str, float]:
    """The counts of /metrics, by outcome."""
    rows = [line for line in text.splitlines() if line.startswith("diagnostics_profile_pushes_total{")]
    return {row.split('outcome="')[1].split('"')[0]: float(row.rpartition(" ")[2]) for row in rows}


def test_a_live_heap_comes_again_and_again_while_the_service_is_stopped_too(
    started: Started, receiver: ProfileReceiver, http: Any, eventually: Any
) -> None:
    service = started(
        OTEL_SERVICE_NAME="shop", DIAGNOSTICS_PROFILES_HEADERS=f"Authorization=Bearer%20{SECRET},X-Scope-OrgID=team"
    )
    first = eventually(lambda: receiver.pushed[:1])[0]
    assert first.path == "/ingest"
    assert first.query["name"].startswith("shop{hostname=")
    assert first.query["name"].endswith(",worker=0}")
    assert int(first.query["until"]) - int(first.query["from"]) == 1
    assert (first.headers["authorization"], first.headers["x-scope-orgid"]) == (f"Bearer {SECRET}", "team")
    profile = pprof.decode(first.body)
    assert [kind.name for kind in profile.sample_types] == ["inuse_space", "inuse_objects"]
    assert held(profile) == pytest.approx(KEPT, rel=0.2)
    assert held(profile, 1) == pytest.approx(20_000, rel=0.2)

    pid = http(f"{service.monitor}/debug/memory").json()["workers"][0]["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        before = len(receiver.pushed)
        eventually(lambda: len(receiver.pushed) >= before + 2)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert held(pprof.decode(receiver.pushed[-1].body)) == pytest.approx(KEPT, rel=0.2)

    text = http(f"{service.monitor}/metrics").body.decode()
    assert pushes(text).keys() == {"sent"}
    assert pushes(text)["sent"] >= 2
    page = http(f"{service.monitor}/debug/memory").body.decode()
    assert SECRET not in text + page + service.supervisor.output


@pytest.mark.needs("go", "golang-go")
def test_what_is_pushed_is_what_go_tool_pprof_reads(
    started: Started, receiver: ProfileReceiver, eventually: Any, tmp_path: Path
) -> None:
    started()
    (tmp_path / "heap.pb.gz").write_bytes(eventually(lambda: receiver.pushed[:1])[0].body)
    done = subprocess.run(
        ["go", "tool", "pprof", "-raw", tmp_path / "heap.pb.gz"], check=False, capture_output=True, encoding="utf-8",
        timeout=250, env={**os.environ, "PPROF_TMPDIR": str(tmp_path), "HOME": str(tmp_path), "CGO_ENABLED": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # The type by which Pyroscope and Go know a heap: memory:inuse_space:bytes:space:bytes.
    assert "PeriodType: space bytes\nPeriod: 16384\n" in done.stdout
    assert "inuse_space/bytes[dflt] inuse_objects/count\n" in done.stdout
    assert "Early.__call__" in done.stdout


def test_otlp_profiles_come_as_the_messages_of_opentelemetry(
    started: Started, receiver: ProfileReceiver, eventually: Any
) -> None:
    started(DIAGNOSTICS_PROFILES_PROTOCOL="otlp", DIAGNOSTICS_PROFILES_NAME="checkout", OTEL_SERVICE_NAME="shop")
    pushed = eventually(lambda: receiver.pushed[:1])[0]
    assert pushed.path == "/v1development/profiles"
    assert pushed.headers["content-type"] == "application/x-protobuf"
    assert pushed.headers["content-encoding"] == "gzip"
    assert pushed.headers["otlp-profiles-development-version"] == "1"
    request = ExportProfilesServiceRequest.FromString(gzip.decompress(pushed.body))
    text = request.dictionary.string_table
    (of_source,) = request.resource_profiles
    names = {pair.key: pair.value.string_value for pair in of_source.resource.attributes}
    assert names["service.name"] == "checkout"
    space, objects = of_source.scope_profiles[0].profiles
    assert [text[each.sample_type.type_strindex] for each in (space, objects)] == ["inuse_space", "inuse_objects"]

    def is_early(stack: Any) -> bool:
        lines = [request.dictionary.location_table[index].lines[0] for index in stack.location_indices]
        functions = [request.dictionary.function_table[line.function_index] for line in lines]
        return any(text[function.name_strindex] == "Early.__call__" for function in functions)

    early = {index for index, stack in enumerate(request.dictionary.stack_table) if is_early(stack)}
    assert sum(each.values[0] for each in space.samples if each.stack_index in early) == pytest.approx(KEPT, rel=0.2)


def test_an_outage_is_told_once_and_what_waited_is_sent_when_it_ends(
    started: Started, receiver: ProfileReceiver, http: Any, eventually: Any
) -> None:
    receiver.reply = lambda pushed: Reply(503, b"not now", (("Retry-After", "0"),))
    service = started()
    eventually(lambda: len(receiver.pushed) >= 3)
    attempts = len(receiver.pushed)
    receiver.reply = lambda pushed: Reply()
    service.supervisor.wait_for("live heaps are taken again")
    eventually(lambda: pushes(http(f"{service.monitor}/metrics").body.decode()).get("sent", 0) >= 2)
    told = [line for line in service.supervisor.output.splitlines() if "it answered 503" in line]
    assert told == [f"diagnostics: no live heap is taken by {receiver.url}/ingest: it answered 503: not now"]
    counted = pushes(http(f"{service.monitor}/metrics").body.decode())
    assert counted["retried"] >= attempts - 1
    # It is the same profile that is offered until it is taken: nothing was lost, since the queue had room.
    assert len({pushed.body for pushed in receiver.pushed[:3]}) == 1
    assert "dropped" not in counted


def test_a_refused_profile_is_given_up_and_the_next_one_is_offered(
    started: Started, receiver: ProfileReceiver, http: Any, eventually: Any
) -> None:
    receiver.reply = lambda pushed: Reply(401, b"who are you?")
    service = started()
    eventually(lambda: pushes(http(f"{service.monitor}/metrics").body.decode()).get("refused", 0) >= 2)
    assert len({pushed.body for pushed in receiver.pushed}) == len(receiver.pushed)
    told = [line for line in service.supervisor.output.splitlines() if "it answered 401" in line]
    assert told == [f"diagnostics: no live heap is taken by {receiver.url}/ingest: it answered 401: who are you?"]


def test_a_service_without_a_live_heap_is_told_so_and_nothing_is_pushed(
    observed: Any, receiver: ProfileReceiver
) -> None:
    service = observed(
        APP, env={**HEAP, "DIAGNOSTICS_HEAP": "off", "DIAGNOSTICS_PROFILES_URL": receiver.url}
    )  # fmt: skip
    told = service.supervisor.wait_for("keeps no live heap, so none of it is pushed")
    assert "set DIAGNOSTICS_HEAP=on for the service" in told
    assert receiver.pushed == []


def test_a_wrong_setting_is_said_before_the_service_starts(launch: Any, tmp_path: Path) -> None:
    ended = launch(
        sys.executable, "-m", "diagnostics", "run", "--listen", "127.0.0.1:0", "--", "touch", tmp_path / "served",
        env={"DIAGNOSTICS_PROFILES_URL": "http://127.0.0.1:4040", "DIAGNOSTICS_PROFILES_PROTOCOL": "grpc"},
    )  # fmt: skip
    assert ended.process.wait(60) == 2
    assert "DIAGNOSTICS_PROFILES_PROTOCOL is 'grpc'; set pyroscope or otlp" in ended.output
    assert not (tmp_path / "served").exists()


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_pauses_grow_to_a_minute_and_no_two_monitors_keep_step(failed: int, chance: float) -> None:
    usual = min(60.0, 2.0 ** (failed - 1)) if failed < 10 else 60.0
    assert 0.75 * usual <= pause(failed, chance) <= 1.25 * usual
    if failed == 1:
        assert pause(1, 0.0) < pause(1, 1.0)
