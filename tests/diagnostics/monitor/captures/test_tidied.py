"""The private folder is tidied away, or what lies in it is broken: nothing but what is gone is missing, and it comes back."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

APP = """
from fastapi import FastAPI
app = FastAPI()
"""


def answering(http: Any, service: Any) -> Any:
    workers = http(f"{service.monitor}/debug/memory").json()["workers"]
    return workers[0] if workers and workers[0]["state"] == "answering" else None


def captured(http: Any, eventually: Any, service: Any) -> str:
    """A capture of tasks, taken to its end; its id."""
    begun = http(f"{service.monitor}/debug/memory/captures", "POST", {"kind": "tasks", "fork": False, "force": True})
    assert begun.status == 202, begun.body
    url = f"{service.monitor}{begun.headers['Location']}"
    assert eventually(lambda: (found := http(url).json())["state"] in ("done", "failed") and found)["state"] == "done"
    return str(begun.json()["id"])


def tidied_away(folder: Path) -> None:
    """Take `folder` away in one step: whoever writes into it meanwhile makes one of its own, and this one stays empty."""
    shutil.rmtree(folder.rename(folder.with_name(f"{folder.name}-tidied-away")))


def test_a_monitor_and_an_agent_whose_folder_is_tidied_away_make_it_again(
    observed: Any, http: Any, eventually: Any, tmp_path: Path
) -> None:
    service = observed(APP)
    eventually(lambda: answering(http, service))
    captured(http, eventually, service)
    tidied_away(tmp_path / "dir")
    for part in ("/debug/memory", "/metrics", "/debug/memory/captures", "/debug/memory/verdict"):
        assert http(service.monitor + part).status == 200, part
    # The monitor calls the worker answering for as long as its last reading counts, also while there is no socket.
    eventually(lambda: list((tmp_path / "dir" / "agents").glob("*.sock")))
    eventually(lambda: answering(http, service))
    again = captured(http, eventually, service)
    assert [each["id"] for each in http(f"{service.monitor}/debug/memory/captures").json()["captures"]] == [again]


def test_a_worker_whose_agent_has_gone_is_not_answering_instead_of_absent(
    observed: Any, http: Any, eventually: Any, launch: Any, tmp_path: Path
) -> None:
    service = observed(APP)
    eventually(lambda: answering(http, service))
    aside = launch(sys.executable, "-m", "diagnostics", "monitor", "--listen", "127.0.0.1:0", "--dir", tmp_path / "dir")
    sidecar = aside.wait_for("diagnostics http").split()[1].removesuffix("/debug/memory")

    def up() -> str:
        lines = http(f"{sidecar}/metrics").body.decode().splitlines()
        return next((line for line in lines if line.startswith("diagnostics_agent_up{")), "absent")

    eventually(lambda: up() == 'diagnostics_agent_up{worker="0"} 1.0')
    agents = tmp_path / "dir" / "agents"

    def is_in_the_way() -> bool:
        tidied_away(agents)
        try:
            agents.write_text("in the way: the agent cannot make its socket again", encoding="utf-8")
        except IsADirectoryError:  # the agent was quicker
            return False
        return True

    eventually(is_in_the_way)
    eventually(lambda: up() == 'diagnostics_agent_up{worker="0"} 0.0')
    assert "its agent went" in http(f"{sidecar}/debug/memory").json()["workers"][0]["reason"]
    agents.unlink()
    eventually(lambda: up() == 'diagnostics_agent_up{worker="0"} 1.0')  # under the number that it had


def test_a_broken_capture_takes_neither_page_nor_metrics_nor_list_away(
    observed: Any, http: Any, eventually: Any, tmp_path: Path
) -> None:
    service = observed(APP)
    eventually(lambda: answering(http, service))
    broken, whole = (captured(http, eventually, service) for _ in range(2))
    folder = tmp_path / "dir" / "captures"
    (folder / broken / "manifest.json").write_text('{"id":', encoding="utf-8")
    (folder / "20260101T000000-000000-memray").mkdir()
    listed = http(f"{service.monitor}/debug/memory/captures").json()["captures"]
    assert [(each["id"], each["state"]) for each in listed] == [
        (whole, "done"), (broken, "broken"), ("20260101T000000-000000-memray", "broken")
    ]  # fmt: skip
    told = http(f"{service.monitor}/debug/memory").json()["captures"]
    assert "cannot be read" in next(each for each in told if each["id"] == broken)["error"]["message"]
    assert "diagnostics_artifact_bytes{" in http(f"{service.monitor}/metrics").body.decode()
    one = f"{service.monitor}/debug/memory/captures/{broken}"
    assert http(one).json()["state"] == "broken"
    assert http(f"{one}/artifacts/tasks.txt").status == 404
    assert http(f"{one}/diff/{whole}").status == 404
    assert http(one, "DELETE").status == 204
