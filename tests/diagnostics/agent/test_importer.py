"""The importer that loads the agent into services: what it drops, and that nothing needs it."""

from __future__ import annotations

import compileall
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import diagnostics

PACKAGE = Path(diagnostics.__file__).parent
IMPORTER = PACKAGE / "agent" / "inject" / "importer.py"
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


def test_every_module_of_the_agent_loads_without_docstrings_and_annotations(tmp_path: Path) -> None:
    paths = [path.relative_to(PACKAGE).with_suffix("") for path in SOURCES]
    left_out = ("agent/native", "agent/inject/path")
    names = ["." + ".".join(path.parts) for path in paths if not path.as_posix().startswith(left_out)]
    names = [name.removesuffix(".__init__") for name in names]
    kept = os.environ | {"PYTHONPYCACHEPREFIX": str(tmp_path)}
    subprocess.run([sys.executable, "-m", "compileall", "-q", "-o", "2", str(PACKAGE)], env=kept, check=True)
    done = subprocess.run(
        [sys.executable, "-c", LOAD_ALL, str(PACKAGE), *names],
        env=kept,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["functions"] > 500
    assert told["modules"] > 70
    assert told["documented"] == []
    assert told["annotated"] == []


# Loads `package` from the folder `argv[1]` as a service does; tells what came of it, and whose source Python compiled for that.
LOAD_PACKAGE = """
import json, sys
globals_ = {"__name__": "importer"}
exec(compile(open(sys.argv[2]).read(), "importer", "exec"), globals_)
compiled = []
sys.addaudithook(lambda event, told: compiled.append(str(told[1])) if event == "compile" else None)
globals_["Importer"]("package", sys.argv[1]).import_package()
from package import module
print(json.dumps({"doc": module.documented.__doc__, "value": module.VALUE, "compiled": len(compiled)}))
"""


class Package:
    """Two modules of a service's, and Python's bytecode of them, in a folder of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bytecode = folder / "__pycache__"
        folder.mkdir()
        (folder / "__init__.py").write_text("")
        self.write(value=1)

    def write(self, value: int) -> None:
        (self.folder / "module.py").write_text(f"VALUE = {value}\ndef documented():\n    'told to people'\n")

    def compile(self, *levels: int) -> None:
        for level in levels:
            assert compileall.compile_dir(self.folder, quiet=1, optimize=level)

    def kept(self) -> dict[str, bytes]:
        return {each.name: each.read_bytes() for each in self.bytecode.glob("*")}

    def load(self, *options: str, **variables: str) -> dict[str, object]:
        command = [sys.executable, *options, "-c", LOAD_PACKAGE, str(self.folder), str(IMPORTER)]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPYCACHEPREFIX"} | variables
        done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return Package(tmp_path / "package")


def test_bytecode_without_docstrings_is_used_whatever_the_options_are(package: Package) -> None:
    package.compile(0, 2)
    before = package.kept()
    for options in ((), ("-O",), ("-OO",)):
        assert package.load(*options) == {"doc": None, "value": 1, "compiled": 0}
    assert package.kept() == before


def test_bytecode_of_a_source_that_has_changed_is_not_used(package: Package) -> None:
    package.compile(0, 2)
    package.write(value=10)  # its size is another one: bytecode knows its source by size and second
    assert package.load() == {"doc": "told to people", "value": 10, "compiled": 1}


@pytest.mark.parametrize("content", [b"", b"torn", bytes(16), b"\xff" * 40])
def test_bytecode_that_is_torn_or_of_another_python_is_not_used(package: Package, content: bytes) -> None:
    package.compile(0, 2)
    for lean in package.bytecode.glob("*.opt-2.pyc"):
        lean.write_bytes(content)
    assert package.load() == {"doc": "told to people", "value": 1, "compiled": 0}


def test_without_such_bytecode_it_is_loaded_as_python_does(package: Package) -> None:
    assert package.load(PYTHONDONTWRITEBYTECODE="1") == {"doc": "told to people", "value": 1, "compiled": 2}
    assert package.kept() == {}
    assert package.load() == {"doc": "told to people", "value": 1, "compiled": 2}
    before = package.kept()
    assert len(before) == 2
    assert package.load() == {"doc": "told to people", "value": 1, "compiled": 0}
    assert package.kept() == before


def test_run_has_compiled_the_agent_before_the_command_starts(launch: Any, tmp_path: Path) -> None:
    script = "import pathlib, sys; print('found', sorted(each.name for each in pathlib.Path(sys.argv[1]).rglob('*.opt-2.pyc')))"
    kept = tmp_path / "kept"
    command = ["diagnostics", "run", "--listen", "127.0.0.1:0", "--", sys.executable, "-c", script, str(kept)]
    launched = launch(
        sys.executable, "-m", *command, env={"PYTHONPYCACHEPREFIX": str(kept), "DIAGNOSTICS_DIR": str(tmp_path / "dir")}
    )
    found = launched.wait_for("found")
    for module in ("endpoint", "lifecycle", "lookout", "errors", "protocol"):
        assert f"'{module}.{sys.implementation.cache_tag}.opt-2.pyc'" in found
