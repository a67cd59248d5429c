"""The wheel holds all of both packages and nothing else, and says truly what it is."""

from __future__ import annotations

import configparser
import re
import tomllib
import zipfile
from email.parser import HeaderParser
from pathlib import Path

from tests.installs.environments import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_wheel_holds_every_file_of_both_packages_and_nothing_else(checkout: Path, wheel: Path) -> None:
    ours = {
        path.relative_to(checkout).as_posix()
        for package in ("diagnostics", "relay")
        for path in (checkout / package).rglob("*")
        if path.is_file()
    }
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    # What the build compiles, and of the sources only what is compiled; an extension that a checkout has is not taken along.
    readings = "diagnostics/agent/readings"
    libraries = {
        "diagnostics/agent/heap/_live.abi3.so",
        f"{readings}/allocation/_figures.abi3.so",
        f"{readings}/walk/_walk.abi3.so",
    }
    ours -= {name for name in ours if name.startswith("diagnostics/agent/native/")} | libraries
    assert held - libraries == ours
    assert ("cp311-abi3-linux" in wheel.name) == (libraries <= held)
    assert libraries <= held or "py3-none-any" in wheel.name
    # What is not Python is read by path: pages, their styles and scripts, Lua, a schema, the folder put on a service's path.
    suffixes = {Path(name).suffix for name in held - libraries}
    assert suffixes == {".py", ".pyi", ".typed", ".html", ".css", ".js", ".json", ".lua", ".toml"}
    assert "diagnostics/agent/inject/path/sitecustomize.py" in held


def test_the_wheel_is_named_highwater_diagnostics_and_refers_to_itself_by_that_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (info,) = {name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        told = HeaderParser().parsestr(archive.read(f"{info}/METADATA").decode())
        commands = configparser.ConfigParser()
        commands.read_string(archive.read(f"{info}/entry_points.txt").decode())
    assert told["Name"] == "highwater-diagnostics"
    assert set(told.get_all("Provides-Extra", [])) == set(PROJECT["optional-dependencies"])
    required = told.get_all("Requires-Dist", [])
    assert [line for line in required if "extra ==" not in line] == [], "the base install needs something"
    named = {re.split(r"[\[<>=; ]", line)[0] for line in required}
    assert {name for name in named if "highwater" in name} <= {"highwater-diagnostics"}
    assert set(commands["console_scripts"]) == {"diagnostics", "relay"}
    assert set(commands["pytest11"]) == {"highwater-diagnostics"}


def test_no_page_tells_to_install_what_another_project_has_published() -> None:
    """`highwater` on PyPI is not this project; until ours is there, a page installs a checkout or the wheel made from it."""
    ours = re.compile(r"""pip install (--upgrade -e )?('\.\[[a-z,]+\]'|"\$\(ls dist/\*\.whl\)\[[a-z,]+\]")""")
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    told = [
        (page.name, line)
        for page in pages
        for line in page.read_text(encoding="utf-8").splitlines()
        if re.search(r"pip install .*(highwater|'\.|\.whl)", line)
    ]
    assert told
    assert [(page, line) for page, line in told if not ours.search(line)] == []
