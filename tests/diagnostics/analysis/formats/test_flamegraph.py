"""The tree that is drawn, the page that holds it, and the page in a real browser."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from strategies import profiles, stacks

from diagnostics.analysis.algebra import difference
from diagnostics.analysis.formats import flamegraph
from diagnostics.analysis.profile import Frame, Profile, Sample, ValueType
from diagnostics.errors import UsageError

sys.path.insert(0, str(Path(__file__).parents[4]))

from tests.chromium import run_once  # found once the path is set

HOSTILE = '</script><script>document.title="owned"</script><img src=x onerror=\'document.title="owned"\'>"&'


def rows(graph: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Function -> (width, change)."""
    befores = graph["before"] or [0] * len(graph["width"])
    return {
        "all" if frame < 0 else graph["frames"][frame][0]: (width, after - before)
        for frame, width, after, before in zip(graph["frame"], graph["width"], graph["after"], befores, strict=True)
    }


def test_callers_are_as_wide_as_what_they_call() -> None:
    graph = flamegraph.tree(stacks(("a main", 3), ("b main", 5), ("main", 2)))
    assert rows(graph) == {"all": (10, 10), "main": (10, 10), "a": (3, 3), "b": (5, 5)}
    assert graph["parent"] == [-1, 0, 1, 1]
    assert not graph["differential"]


def test_two_profiles_show_what_grew_shrank_and_vanished() -> None:
    graph = flamegraph.tree(
        stacks(("grew main", 9), ("shrank main", 2)), stacks(("grew main", 4), ("shrank main", 3), ("gone", 7))
    )
    assert rows(graph) == {"all": (19, -3), "main": (12, 4), "grew": (9, 5), "shrank": (3, -1), "gone": (7, -7)}
    assert graph["differential"]
    assert graph["sides"]


def test_a_difference_is_drawn_by_what_changed() -> None:
    graph = flamegraph.tree(stacks(("grew main", 5), ("shrank main", -5)))
    assert rows(graph) == {"all": (10, 0), "main": (10, 0), "grew": (5, 5), "shrank": (5, -5)}
    assert graph["differential"]
    assert not graph["sides"]


@given(profiles())
def test_no_frame_is_narrower_than_its_children(profile: Profile) -> None:
    graph = flamegraph.tree(profile)
    sums = [0] * len(graph["parent"])
    for parent, width in list(zip(graph["parent"], graph["width"], strict=True))[1:]:
        sums[parent] += width
    assert all(below <= width for below, width in zip(sums, graph["width"], strict=True))
    assert flamegraph.render(profile) == flamegraph.render(profile)


def test_twenty_thousand_stacks_make_a_page_of_sane_size() -> None:
    samples = tuple(
        Sample(
            tuple(
                Frame(f"function_{number * 7 % (5 + depth * 40)}", f"/srv/module_{depth}.py", depth)
                for depth in range(25)
            ),
            (1 + number % 1000,),
        )
        for number in range(20_000)
    )
    profile = Profile("big", (ValueType("inuse_space", "bytes"),), samples, 0.0, 0.0)
    graph = flamegraph.tree(profile)
    assert graph["hidden"] > 0
    assert len(flamegraph.render(profile)) < 4 * 1024 * 1024


def test_a_difference_in_which_everything_grew_is_still_one() -> None:
    after, before = stacks(("a", 5)), stacks(("a", 2))
    assert flamegraph.tree(difference(after, before))["differential"]


def test_deep_recursion_is_drawn_as_far_as_anyone_scrolls() -> None:
    deep = replace(stacks(), samples=(Sample(tuple(Frame("f", "f.py", n) for n in range(50_000)), (8,)),))
    graph = flamegraph.tree(deep)
    assert len(graph["parent"]) == flamegraph.MAX_DEPTH + 1
    assert graph["width"][-1] == 8
    assert flamegraph.render(deep)


def test_hostile_names_reach_the_page_only_as_text() -> None:
    profile = replace(
        stacks(),
        kind=HOSTILE,
        samples=(Sample((Frame(HOSTILE, HOSTILE + "\udcff", 1),), (1,)),),
        not_covered=(HOSTILE,),
        sample_types=(ValueType(HOSTILE, HOSTILE),),
    )
    page = flamegraph.render(profile, title=HOSTILE).decode()
    assert page.count("<script") == 2
    assert page.count("</script") == 2
    assert "<img" not in page
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert block is not None
    assert json.loads(block[1])["frames"][0][0] == HOSTILE


def test_the_page_needs_nothing_from_elsewhere() -> None:
    page = flamegraph.render(stacks(("a", 1))).decode()
    assert "default-src 'none'" in page
    assert set(re.findall(r"https?://[^\s\"'<]+", page)) == {"http://www.w3.org/2000/svg"}  # a namespace, never fetched
    assert "inuse_space 1 B" in page


def test_different_types_are_refused() -> None:
    profile = stacks(("a", 1))
    with pytest.raises(UsageError, match="different sample types"):
        flamegraph.render(profile, before=replace(profile, sample_types=(ValueType("x", "count"),)))


# What a person would do, and what the page then shows. It runs in place of the page's policy, which would not let it.
PERSON = """
const report = [];
const all = (query) => [...document.querySelectorAll(query)];
const texts = () => all("#graph text").map((text) => text.textContent.split(" ")[0]).join(" ");
const frame = (name) => all("#graph g").find((g) => g.getAttribute("aria-label").startsWith(name));
const press = (key) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
report.push("drawn: " + texts());
frame("left").dispatchEvent(new MouseEvent("mouseover", { bubbles: true }));
report.push("hover: " + document.getElementById("details").textContent);
frame("left").dispatchEvent(new MouseEvent("click", { bubbles: true }));
report.push("zoomed: " + texts() + ", reset " + !document.getElementById("reset").disabled);
document.getElementById("reset").click();
report.push("reset: " + texts());
frame("all").focus();
for (const key of ["ArrowDown", "ArrowDown", "ArrowRight"]) press(key);
report.push("walked: " + document.activeElement.getAttribute("aria-label").split(" ")[0]);
press("Enter");
report.push("entered: " + texts());
press("Escape");
report.push("escaped: " + texts());
const search = document.getElementById("search");
search.value = "RIGHT";
search.dispatchEvent(new Event("input"));
report.push("found: " + document.getElementById("found").textContent + ", " + all("g.hit").length);
document.title = report.join("\\n");
"""


def browse(page: str, tmp_path: Path) -> str:
    """The page's title after its scripts ran in a real browser."""
    path = tmp_path / "page.html"
    path.write_text(page, encoding="utf-8")
    done = run_once(tmp_path, "--window-size=1000,600", "--dump-dom", path.as_uri())
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title is not None
    assert "<svg" in done.stdout
    return title[1]


@pytest.mark.e2e
@pytest.mark.needs("chromium", "chromium")
def test_hover_zoom_reset_keyboard_and_search_in_a_browser(tmp_path: Path) -> None:
    page = flamegraph.render(stacks(("left main", 75), ("right main", 25))).decode()
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    title = browse(page.replace("</body>", f"<script>{PERSON}</script></body>"), tmp_path)
    assert title.splitlines() == [
        "drawn: all main left right",
        "hover: left (/srv/left.py:4): 75 B, 75.0% of all",
        "zoomed: all main left, reset true",
        "reset: all main left right",
        "walked: right",
        "entered: all main right",
        "escaped: all main left right",
        "found: 1 frames, 25.0%, 1",
    ]


@pytest.mark.e2e
@pytest.mark.needs("chromium", "chromium")
def test_the_policy_lets_the_page_draw_and_hostile_names_do_nothing(tmp_path: Path) -> None:
    profile = replace(stacks(), samples=(Sample((Frame(HOSTILE, HOSTILE, 1),), (1,)),), not_covered=(HOSTILE,))
    assert browse(flamegraph.render(profile, title="mine").decode(), tmp_path) == "mine"
