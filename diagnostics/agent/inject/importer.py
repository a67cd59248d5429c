"""Imports the agent's modules into other people's services, with less memory than Python's own importer takes.

What only people read is dropped, as nothing in the agent uses it: docstrings before a module runs, and afterwards annotations
of its functions and classes. On Python 3.14 each annotated function has a second one, `__annotate__`, with code of its own,
which is a fifth of the agent's memory; on older versions annotations are a tuple for each function.

The law of this file: it is loaded by itself, before the agent's package is, so it imports nothing of it.
"""

from __future__ import annotations

import os
import sys
from _operator import is_ as _is

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, ModuleType
    from typing import Any

__all__ = ["Importer", "code_of", "drop_annotations"]

_EXTENSION = ".abi3.so"
# Flags of a code object (the module `inspect` has their names, and is slow to import).
_OPTIMIZED, _HAS_DOCSTRING = 0x1, 0x4000000
_FLAGGED = sys.version_info >= (3, 14)


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
        loader: Any = self
        return (
            spec_from_file_location(name, place + ".py", loader=loader, submodule_search_locations=inside)
            if os.path.exists(place + ".py")
            else None
        )

    def create_module(self, spec: Any) -> None:
        """None: Python makes the module."""

    def exec_module(self, module: ModuleType) -> None:
        name, file = module.__name__, str(module.__file__)
        if self._code is None:
            from _frozen_importlib_external import SourceFileLoader

            code: Any = SourceFileLoader(name, file).get_code(name)
        else:
            code = self._code(file)
        exec(_without_docstrings(code), module.__dict__)  # noqa: S102  # what every loader does
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
    from _frozen_importlib_external import MAGIC_NUMBER
    from _imp import _fix_co_filename  # type: ignore[attr-defined]
    from marshal import loads

    try:
        with open(file + "c", "rb") as bytecode:
            content = bytecode.read()
    except OSError:
        content = b""
    if content[:4] != MAGIC_NUMBER:
        with open(file, "rb") as source:
            return compile(source.read(), file, "exec", dont_inherit=True)
    code = loads(memoryview(content)[16:])  # noqa: S302  # after the header of PEP 552
    _fix_co_filename(code, file)
    return code


def _without_docstrings(code: CodeType) -> CodeType:
    """The code of a module, whose functions have None in the place of their docstrings.

    A function's docstring is its first constant: since Python 3.14 where a flag says so; before, wherever that is a string, and
    a lambda or comprehension has none.
    """
    kind, constants = type(code), list(code.co_consts)
    flags, documented = code.co_flags, False
    if flags & _OPTIMIZED and constants and isinstance(constants[0], str):
        documented = bool(flags & _HAS_DOCSTRING) if _FLAGGED else not code.co_name.startswith("<")
    if documented:
        constants[0] = None
        flags &= ~_HAS_DOCSTRING if _FLAGGED else ~0
    constants = [_without_docstrings(each) if type(each) is kind else each for each in constants]
    if not documented and all(map(_is, constants, code.co_consts)):
        return code
    return code.replace(co_consts=tuple(constants), co_flags=flags)


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
