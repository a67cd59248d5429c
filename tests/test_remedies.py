"""What a remedy tells a reader to type, set or install is there: commands, options, variables and extras."""

from __future__ import annotations

import ast
import contextlib
import io
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pytest

import diagnostics.cli
import relay.cli
from diagnostics.cli import COMMANDS

ROOT = Path(__file__).parents[1]
RELAY_COMMANDS = ("serve", "check-config", "hash-key", "simulate")
# What stands in quotes is another program's command line.
QUOTED = re.compile(r"'[^']* --[^']*'")
# Programs of others that remedies name.
OTHERS = ("curl", "go", "memray", "openssl")


@dataclass(frozen=True)
class Said:
    """The constant parts of one remedy, and where it stands."""

    module: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line}"


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {module_of(path): path for package in ("diagnostics", "relay") for path in (ROOT / package).rglob("*.py")}


def remedies() -> Iterator[Said]:
    for module, path in sorted(FILES.items()):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg in ("remedy", "option"):
                parts = [n.value for n in ast.walk(node.value) if isinstance(n, ast.Constant)]
                yield Said(module, node.value.lineno, "".join(part for part in parts if isinstance(part, str)))


REMEDIES = list(remedies())


@lru_cache
def imported_by(module: str) -> frozenset[str]:
    """The modules of ours that this one names in imports, wherever in its text."""
    path = FILES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            found |= {name for alias in node.names for name in (base, f"{base}.{alias.name}")}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return frozenset(found & FILES.keys())


@lru_cache
def reached_from(module: str) -> frozenset[str]:
    seen: set[str] = set()
    todo = [module]
    while todo:
        if (name := todo.pop()) not in seen:
            seen.add(name)
            todo += imported_by(name)
    return frozenset(seen)


@lru_cache
def usage(program: str, *command: str) -> str:
    """What `--help` prints; of our two programs without a process for each of their commands."""
    if main := {"diagnostics": diagnostics.cli.main, "relay": relay.cli.main}.get(program):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
            try:
                main([*command, "--help"])
            except SystemExit as left:
                return "" if left.code else printed.getvalue()
        raise AssertionError(f"{program} --help went on")
    done = subprocess.run(
        [sys.executable, "-m", program, *command, "--help"],
        check=False,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    return done.stdout if done.returncode == 0 else ""


def options_in(text: str) -> list[str]:
    return re.findall(r"(?<![\w-])--[a-z][a-z-]*", QUOTED.sub("", text))


def who_raises(module: str) -> list[tuple[str, ...]]:
    """The commands whose user may read what this module says. What the monitor says reaches all who ask it."""
    if module.startswith("relay."):
        return [("relay", command) for command in RELAY_COMMANDS]
    if module.endswith(".__main__"):
        return [(module.removesuffix(".__main__"),)]
    commands = {name: f"diagnostics.commands.{file}" for name, (file, _, _) in COMMANDS.items()}
    if module in commands.values():
        return [("diagnostics", name) for name, command in commands.items() if module == command]
    asked = module.startswith(("diagnostics.monitor.", "diagnostics.agent."))
    return [("diagnostics", name) for name, command in commands.items() if asked or module in reached_from(command)]


def test_there_is_something_to_check() -> None:
    assert len(REMEDIES) > 100
    assert len([said for said in REMEDIES if options_in(said.text)]) > 10


@pytest.mark.parametrize("said", [said for said in REMEDIES if options_in(said.text)], ids=str)
def test_an_option_that_a_remedy_names_is_one_of_a_command_that_may_say_so(said: Said) -> None:
    commands = who_raises(said.module)
    assert commands, f"{said}: no command comes to it"
    for option in options_in(said.text):
        has = re.compile(rf"{option}(?![a-z-])")
        assert any(has.search(usage(*command)) for command in commands), f"{said}: none of {commands} has {option}"


@pytest.mark.parametrize("said", [said for said in REMEDIES if "`" in said.text], ids=str)
def test_a_command_that_a_remedy_quotes_exists_with_its_options(said: Said) -> None:
    for quoted in re.findall(r"`([a-z]+ [^`]*)`", said.text):
        program, command, *rest = quoted.split()
        if program in OTHERS:
            continue
        known = usage(program, command)
        assert known, f"{said}: there is no `{program} {command}`"
        assert [
            word
            for word in rest[: rest.index("--") if "--" in rest else None]
            if word.startswith("--") and word not in known
        ] == []


@pytest.mark.parametrize(
    "said", [said for said in REMEDIES if re.search(r"\b(DIAGNOSTICS|RELAY)_[A-Z_]+", said.text)], ids=str
)
def test_a_setting_that_a_remedy_names_is_documented(said: Said) -> None:
    documented = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    for name in re.findall(r"\b(?:DIAGNOSTICS|RELAY)_[A-Z_]+", said.text):
        assert f"`{name}`" in documented, f"{said}: {name}"


def test_what_is_to_be_installed_is_our_distribution_and_one_of_its_extras() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = set(project["optional-dependencies"])
    assert {extra for _, _, extra in COMMANDS.values()} <= extras | {""}
    named = {
        (module, found[1], found[2])
        for module, path in FILES.items()
        for found in re.finditer(r"(?:pip install ')?\b([a-z-]+)\[([a-z,]+)\]'", path.read_text(encoding="utf-8"))
    }
    assert named, "no error names an extra"
    assert {name for _, name, _ in named} == {project["name"]}
    assert {extra for _, _, said in named for extra in said.split(",")} <= extras
