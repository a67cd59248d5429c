"""Every scenario is a claim that can be run: apps that import, a defect that is there, decisions that are declared."""

from __future__ import annotations

import ast
import difflib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from diagnostics.analysis.decision import Decision, Measure
from diagnostics.proof.clients.mix import Fast, Mix
from diagnostics.proof.scenario import BROKEN, FIXED, Scenario, Upstream, Workload
from diagnostics.proof.scenarios import SCENARIOS, __file__

FOLDER = Path(__file__).parent
NAMES = sorted(path.parent.name for path in FOLDER.glob("*/__init__.py"))


def module_path(app: str) -> Path:
    return FOLDER.parents[2] / Path(*app.partition(":")[0].split(".")).with_suffix(".py")


def test_every_folder_is_a_scenario_in_the_table() -> None:
    assert sorted(SCENARIOS) == NAMES
    assert all(name == known.name for name, known in SCENARIOS.items())


@pytest.mark.parametrize("known", SCENARIOS.values(), ids=lambda known: known.name)
def test_a_scenario_foretells_a_blow_up_and_its_end(known: Scenario) -> None:
    assert known.expected[BROKEN] in (Decision.LEAK, Decision.UNBOUNDED)
    assert known.expected[FIXED] is Decision.BOUNDED
    # What is foretold can come out: some judged measure says so.
    assert known.expected[BROKEN] in {measure.accuses for measure in known.least}
    assert all(least > 0 for least in known.least.values())
    assert known.summary.endswith(".")
    assert ". " in known.claim, "a claim says what is wrong and what is right"


@pytest.mark.parametrize("known", SCENARIOS.values(), ids=lambda known: known.name)
def test_the_two_apps_are_one_service_with_one_difference(known: Scenario) -> None:
    sources = [module_path(known.apps[side]).read_text(encoding="utf-8") for side in (BROKEN, FIXED)]
    for side, source in zip((BROKEN, FIXED), sources, strict=True):
        assert known.source in str(module_path(known.apps[side]))
        assert ast.get_docstring(ast.parse(source))
    broken, fixed = (source.splitlines() for source in sources)
    assert sources[0] != sources[1]
    taken_out = [line for line in difflib.ndiff(broken, fixed) if line.startswith("- ") and line.strip("- ")]
    # The fix may bring a class of its own; of the broken app nearly everything is still there.
    assert len(taken_out) <= 14, "\n".join(taken_out)


@pytest.mark.parametrize("side", [BROKEN, FIXED])
def test_all_apps_import_in_a_fresh_interpreter(side: str) -> None:
    """In one process, because FastAPI takes its time to import; each app is an ASGI callable."""
    environments = {name: value for known in SCENARIOS.values() for name, value in known.environment.items()}
    apps = [known.apps[side] for known in SCENARIOS.values()]
    code = """
import sys
from uvicorn.importer import import_from_string
for app in sys.argv[1:]:
    assert callable(import_from_string(app)), app
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *apps],
        env={**os.environ, **environments, "UPSTREAM_BASE_URL": "http://127.0.0.1:1/v1"},
        capture_output=True,
        encoding="utf-8",
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("known", SCENARIOS.values(), ids=lambda known: known.name)
def test_options_of_the_server_belong_to_an_app_that_is_there(known: Scenario) -> None:
    assert set(known.options) <= {BROKEN, FIXED}


def test_the_models_name_says_what_the_upstream_does() -> None:
    assert Upstream(2048, 200, fault="endless@10").model(3) == (
        "sim:events=inf,size=2048,pace=200,first=0.05,fault=endless@10,seed=3"
    )


def workload(**more: object) -> Workload:
    return Workload(Upstream(1, 1), Mix(((Fast(), 2),)), **more)  # type: ignore[arg-type]


def made(least: dict[Measure, float], work: Workload) -> Scenario:
    return Scenario("x", "One. Two.", {}, {}, work, least, "x/")


def test_a_load_is_measured_against_a_lighter_one() -> None:
    with pytest.raises(ValueError, match="the light load has 2 streams, the load itself 2"):
        workload(light=Mix(((Fast(), 2),)))
    with pytest.raises(ValueError, match="there is none"):
        made({Measure.LOAD: 1.0}, workload())


def test_a_process_that_exits_has_no_other_measure() -> None:
    with pytest.raises(ValueError, match="no other measures"):
        made({Measure.EXIT: 1.0, Measure.REMAINS: 1.0}, workload())
    assert made({Measure.EXIT: 1.0}, workload()).judges_exit
