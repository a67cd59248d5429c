"""The importer that loads the agent into services: what it drops, and that nothing needs it."""

from __future__ import annotations

import dis
import json
import subprocess
import sys
from pathlib import Path
from types import CodeType

import pytest

import diagnostics
from diagnostics.agent.inject.importer import _without_docstrings

PACKAGE = Path(diagnostics.__file__).parent
SOURCES = sorted((PACKAGE / "agent").rglob("*.py"))

# Loads every module of the agent as a service does, and tells what is left on its functions.
LOAD_ALL = """
import importlib, json, sys, types
folder, names = sys.argv[1], sys.argv[2:]
globals_ = {"__name__": "importer"}
exec(compile(open(folder + "/agent/inject/importer.py").read(), "importer", "exec"), globals_)
globals_["Importer"]("_private", folder).import_package()
functions = []
def look(value, module, depth=0):
    if isinstance(value, type) and value.__module__ == module and depth < 3:
        for each in list(vars(value).values()):
            look(each, module, depth + 1)
    function = getattr(value, "__func__", value)
    for each in (value.fget, value.fset) if isinstance(value, property) else (function,):
        if isinstance(each, types.FunctionType) and each.__module__ == module:
            functions.append(each)
for name in names:
    module = importlib.import_module("_private" + name)
    for value in list(vars(module).values()):
        look(value, module.__name__)
print(json.dumps({
    "functions": len(functions),
    "documented": [f.__qualname__ for f in functions if f.__doc__ and f.__code__.co_filename.startswith(folder)],
    "annotated": [f.__qualname__ for f in functions if f.__annotations__],
    "modules": sum(name.startswith("_private") for name in sys.modules),
}))
"""


def test_every_module_of_the_agent_loads_without_docstrings_and_annotations() -> None:
    paths = [path.relative_to(PACKAGE).with_suffix("") for path in SOURCES]
    left_out = ("agent/native", "agent/inject/path")
    names = ["." + ".".join(path.parts) for path in paths if not path.as_posix().startswith(left_out)]
    names = [name.removesuffix(".__init__") for name in names]
    done = subprocess.run(
        [sys.executable, "-c", LOAD_ALL, str(PACKAGE), *names], capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["functions"] > 500
    assert told["modules"] > 70
    assert told["documented"] == []
    assert told["annotated"] == []


def codes(code: CodeType) -> list[CodeType]:
    return [code, *(inner for each in code.co_consts if isinstance(each, CodeType) for inner in codes(each))]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_what_a_docstring_is_replaced_by_is_loaded_by_no_instruction(source: Path) -> None:
    """The compiler keeps equal constants once: a function that returned its own docstring would return None."""
    whole = codes(compile(source.read_bytes(), str(source), "exec", dont_inherit=True))
    lean = codes(_without_docstrings(whole[0]))
    assert len(whole) == len(lean)
    for before, after in zip(whole, lean, strict=True):
        changed = {place for place, each in enumerate(before.co_consts)
                   if not isinstance(each, CodeType) and each is not after.co_consts[place]}  # fmt: skip
        loaded = {each.arg for each in dis.get_instructions(before) if each.opname.startswith("LOAD_CONST")}
        assert changed <= {0}
        assert not changed & loaded, f"{before.co_qualname} uses a constant that equals its docstring"


def test_constants_that_are_no_docstrings_stay() -> None:
    names: dict[str, object] = {}
    source = (
        "def documented():\n    'text'\n    return 'value'\n"
        "def bare():\n    return 'value'\n"
        "short = lambda: 'value'\n"
        "many = lambda: list('value' for _ in range(2))\n"
    )
    exec(_without_docstrings(compile(source, "example", "exec")), names)  # this file's own text
    values = [names[name]() for name in ("documented", "bare", "short", "many")]  # type: ignore[operator]
    assert values == ["value", "value", "value", ["value", "value"]]
    assert [names[name].__doc__ for name in ("documented", "bare", "short", "many")] == [None] * 4
