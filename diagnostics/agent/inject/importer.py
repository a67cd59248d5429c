"""Imports the agent's modules into other people's services, with less memory than Python's own importer takes.

What only people read is left out, as nothing in the agent uses it. Docstrings are not in the bytecode that `diagnostics run`
keeps for its own Python, that of `python -OO`: to take them out of code that is loaded already needs new code, and gives back
next to nothing. Where there is no such bytecode, what Python itself would load is loaded, and written. Annotations of
functions and classes are dropped once a module has run. On Python 3.14 each annotated function has a second one,
`__annotate__`, with code of its own, which is a fifth of the agent's memory; on older versions annotations are a tuple for each
function.

The law of this file: it is loaded by itself, before the agent's package is, so it imports nothing of it.
"""

from __future__ import annotations

import os
import sys
from _frozen_importlib_external import MAGIC_NUMBER, SourceFileLoader, cache_from_source
from _imp import _fix_co_filename  # type: ignore[attr-defined]
from marshal import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

__all__ = ["Importer", "code_of", "drop_annotations"]

_EXTENSION = ".abi3.so"


class Importer:
    """Finds and loads the modules of package `name`, whose files are in `folder`.

    Python asks it for what is in the package's folders, and for nothing else: `sys.meta_path` stays as it was.
    code    gives the code of a source file, or None where Python's own loader is to load it, with its cache of bytecode
    before  called before each module is loaded
    """

    def __init__(
        self,
        name: str,
        folder: str,
        code: Callable[[str], Any] | None = None,
        before: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self._folder = folder
        self._code = code
        self.before = before

    def import_package(self) -> None:
        """Import the package itself; its modules are then imported by `import`. Raises ImportError where it is not there."""
        from _frozen_importlib import module_from_spec

        spec = self.find_spec(self.name)
        if spec is None:
            raise ImportError(f"no package at {self._folder}")
        module = module_from_spec(spec)
        sys.modules[self.name] = module
        self.exec_module(module)

    def find_spec(self, name: str) -> Any:
        """The spec of the module `name`, whose first part is the package's name; None where there is none."""
        from _frozen_importlib import ModuleSpec
        from _frozen_importlib_external import spec_from_file_location

        place = "/".join((self._folder, *name.split(".")[1:]))
        if os.path.exists(place + _EXTENSION):
            return spec_from_file_location(name, place + _EXTENSION)
        if self.before is not None:
            self.before()
        inside = None
        if os.path.isdir(place):
            finder: Any = _Folder(place, self)
            sys.path_importer_cache[place] = finder
            inside = [place]
            place += "/__init__"
        if not os.path.exists(place + ".py"):
            return None
        loader: Any = self
        # Not by spec_from_file_location, with which each module keeps the path of its bytecode, too.
        spec = ModuleSpec(name, loader, origin=place + ".py")
        spec.submodule_search_locations = inside
        return spec

    def create_module(self, spec: Any) -> None:
        """None: Python makes the module."""

    def exec_module(self, module: ModuleType) -> None:
        spec: Any = module.__spec__
        name, file = spec.name, spec.origin
        module.__file__ = file
        if self._code is None:
            code: Any = _kept_without_docstrings(file) or SourceFileLoader(name, file).get_code(name)
        else:
            code = self._code(file)
        exec(code, module.__dict__)  # noqa: S102  # what every loader does
        module.__doc__ = None
        drop_annotations(module)


class _Folder:
    """In `sys.path_importer_cache` the finder of one of the package's folders.

    The service may import a package of its own from the same folder, as `diagnostics` where it uses Highwater itself. For other
    names than the importer's it is what Python would have put here.
    """

    def __init__(self, path: str, importer: Importer) -> None:
        self._path = path
        self._importer = importer
        self._usual: Any = None

    def find_spec(self, name: str, target: Any = None) -> Any:
        if name.partition(".")[0] == self._importer.name:
            return self._importer.find_spec(name)
        return self._others().find_spec(name, target)

    def invalidate_caches(self) -> None:
        if self._usual is not None:
            self._usual.invalidate_caches()

    def _others(self) -> Any:
        """As `PathFinder` chooses it. Folders of files are known to the last hook, so there is one."""
        for hook in sys.path_hooks if self._usual is None else ():
            try:
                self._usual = hook(self._path)
                break
            except ImportError:
                continue
        return self._usual


def code_of(file: str) -> Any:
    """The code of a source file, from its bytecode `<file>c` where that is of this Python. No cache is read or written."""
    content = _content(file + "c")
    if content[:4] == MAGIC_NUMBER:
        return _code_in(content, file)
    with open(file, "rb") as source:
        return compile(source.read(), file, "exec", dont_inherit=True)


def _kept_without_docstrings(file: str) -> Any:
    """The code of a source file, from the bytecode of `python -OO`; None where that is not of this Python and this source."""
    content, source = _content(cache_from_source(file, optimization="2")), os.stat(file)
    # The header of PEP 552, of bytecode that knows its source by second and size.
    of_source = b"".join(
        (number & 0xFFFFFFFF).to_bytes(4, "little") for number in (int(source.st_mtime), source.st_size)
    )
    return _code_in(content, file) if content[:16] == MAGIC_NUMBER + bytes(4) + of_source else None


def _content(file: str) -> bytes:
    try:
        with open(file, "rb") as opened:
            return opened.read()
    except OSError:
        return b""


def _code_in(bytecode: bytes, file: str) -> Any:
    code = loads(memoryview(bytecode)[16:])  # noqa: S302  # after the header
    _fix_co_filename(code, file)
    return code


def drop_annotations(module: ModuleType) -> None:
    """Of the module's functions, its classes and their methods. What was made of a class's, as fields, has been made by now."""
    name, function = module.__name__, type(drop_annotations)
    left, seen = list(vars(module).values()), set[int]()
    while left:
        value = left.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, type):
            if value.__dict__.get("__module__") == name:
                left += vars(value).values()
                value.__doc__ = None
                if "__annotate_func__" in value.__dict__:  # Python 3.14
                    value.__annotate__ = None  # type: ignore[attr-defined]
        elif type(value) is function:
            if value.__module__ == name:
                value.__annotations__ = None  # type: ignore[assignment]
        elif isinstance(value, property):
            left += (value.fget, value.fset)
        else:  # a class method, a static one, a cached function, a cached property
            left += (each for at in ("__func__", "__wrapped__", "func") if (each := _own(value, at)) is not None)


def _own(value: Any, name: str) -> Any:
    """An attribute of one of Python's own wrappers; None of any other object, whose attributes may do anything."""
    return getattr(value, name, None) if type(value).__module__ in ("builtins", "functools") else None
