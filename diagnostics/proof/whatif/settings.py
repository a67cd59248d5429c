"""The settings that are tried: environment variables that change how a process gets and gives back memory, nothing else.

glibc          mallopt(3) and "Tunables" in its manual: the number of arenas, from which size on a block has a mapping of its
               own, how much free memory at the top of the heap is kept. Setting a threshold also ends its growing by itself
jemalloc       MALLOC_CONF, jemalloc(3): by default free pages are given back over ten seconds
PYTHONMALLOC   malloc in the place of Python's own allocator for small objects

Another allocator is preloaded (ld.so(8)). It is found where distributions put libraries; what is not installed is not tried.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import UsageError

__all__ = ["AS_IT_IS", "Setting", "chosen", "libraries", "settings"]

AS_IT_IS = "as it is"

_FOLDERS = ("/usr/lib/*", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib/*")
# By the name of the allocator, the names of its library, the best first.
_LIBRARIES = {
    "jemalloc": ("libjemalloc.so.2",),
    "tcmalloc": ("libtcmalloc_minimal.so.4", "libtcmalloc.so.4"),
    "mimalloc": ("libmimalloc.so.3", "libmimalloc.so.2", "libmimalloc.so"),
}
_PACKAGES = {"jemalloc": "libjemalloc2", "tcmalloc": "libtcmalloc-minimal4", "mimalloc": "libmimalloc2.0"}


@dataclass(frozen=True, slots=True)
class Setting:
    """What is set in the service's environment; `library` is the file that has to be mapped then, empty where there is none."""

    name: str
    environment: Mapping[str, str]
    library: str = ""

    @property
    def words(self) -> str:
        """The environment as it is written before a command."""
        return " ".join(f"{name}={value}" for name, value in self.environment.items())


def libraries(root: Path = Path("/")) -> dict[str, str]:
    """The allocators that are installed: name -> path of the library."""
    found = {}
    for name, files in _LIBRARIES.items():
        places = (place for file in files for folder in _FOLDERS for place in sorted(root.glob(f"{folder[1:]}/{file}")))
        if (first := next(places, None)) is not None:
            found[name] = str(first)
    return found


def settings(found: Mapping[str, str], *, glibc: bool = True) -> tuple[list[Setting], list[str]]:
    """All that can be tried with the libraries that were `found`, and a sentence for what cannot. The first is as it is."""
    tried = [Setting(AS_IT_IS, {})]
    if glibc:
        tried += [
            Setting("two arenas", {"MALLOC_ARENA_MAX": "2"}),
            Setting("trim threshold", {"MALLOC_TRIM_THRESHOLD_": "131072"}),
            Setting("mmap threshold", {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "131072"}),
        ]
    for name, library in found.items():
        tried.append(Setting(name, {"LD_PRELOAD": library}, library))
        if name == "jemalloc":
            conf = {"MALLOC_CONF": "background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0"}
            tried.append(Setting("jemalloc, quick", {"LD_PRELOAD": library, **conf}, library))
    tried.append(Setting("python malloc", {"PYTHONMALLOC": "malloc"}))
    missing = [f"{name} is not installed (Debian: {_PACKAGES[name]})" for name in _LIBRARIES if name not in found]
    if not glibc:
        missing.append("the C library is not glibc: its settings mean nothing here")
    return tried, missing


def chosen(known: Sequence[Setting], names: Sequence[str]) -> list[Setting]:
    """Those of `names`, in their usual order, and always the service as it is. Raises UsageError for one that is not known."""
    by_name = {setting.name: setting for setting in known}
    for name in names:
        if name not in by_name:
            raise UsageError(f"no setting {name!r}", remedy=f"the known ones: {', '.join(by_name)}")
    return [setting for setting in known if not names or setting.name in names or setting.name == AS_IT_IS]
