"""The settings that are tried: environment variables that change how a process allocates and returns memory, nothing else.

glibc          mallopt(3) and "Tunables" in its manual: the number of arenas, the size from which a block has a mapping of its
               own, the free memory kept at the top of the heap. Setting a threshold also ends its automatic growth
jemalloc       MALLOC_CONF, jemalloc(3): by default free pages are returned over ten seconds
PYTHONMALLOC   malloc in place of pymalloc

Another allocator is preloaded (ld.so(8)), from the folders in which distributions install libraries; one that is not installed
is not tried.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import UsageError

__all__ = ["AS_IT_IS", "Setting", "chosen", "libraries", "settings"]

AS_IT_IS = "as it is"

_FOLDERS = ("/usr/lib/*", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib/*")
# Allocator -> file names of its library, the preferred first.
_LIBRARIES = {
    "jemalloc": ("libjemalloc.so.2",),
    "tcmalloc": ("libtcmalloc_minimal.so.4", "libtcmalloc.so.4"),
    "mimalloc": ("libmimalloc.so.3", "libmimalloc.so.2", "libmimalloc.so"),
}
_PACKAGES = {"jemalloc": "libjemalloc2", "tcmalloc": "libtcmalloc-minimal4", "mimalloc": "libmimalloc2.0"}


@dataclass(frozen=True, slots=True)
class Setting:
    """Variables for the service's environment; `library`: the file that must be mapped then, empty where there is none."""

    name: str
    environment: Mapping[str, str]
    library: str = ""

    @property
    def words(self) -> str:
        """The environment in shell syntax, `NAME=value ...`."""
        return " ".join(f"{name}={value}" for name, value in self.environment.items())


def libraries(root: Path = Path("/")) -> dict[str, str]:
    """The installed allocators: name -> path of the library."""
    installed = {}
    for name, files in _LIBRARIES.items():
        places = (place for file in files for folder in _FOLDERS for place in sorted(root.glob(f"{folder[1:]}/{file}")))
        if (first := next(places, None)) is not None:
            installed[name] = str(first)
    return installed


def settings(installed: Mapping[str, str], *, glibc: bool = True) -> tuple[list[Setting], list[str]]:
    """The settings for the `installed` libraries, the unchanged service first; and why each other one cannot be tried."""
    tried = [Setting(AS_IT_IS, {})]
    if glibc:
        tried += [
            Setting("two arenas", {"MALLOC_ARENA_MAX": "2"}),
            Setting("trim threshold", {"MALLOC_TRIM_THRESHOLD_": "131072"}),
            Setting("mmap threshold", {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "131072"}),
        ]
    for name, library in installed.items():
        tried.append(Setting(name, {"LD_PRELOAD": library}, library))
        if name == "jemalloc":
            conf = {"MALLOC_CONF": "background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0"}
            tried.append(Setting("jemalloc, quick", {"LD_PRELOAD": library, **conf}, library))
    tried.append(Setting("python malloc", {"PYTHONMALLOC": "malloc"}))
    missing = [f"{name} is not installed (Debian: {_PACKAGES[name]})" for name in _LIBRARIES if name not in installed]
    if not glibc:
        missing.append("the C library is not glibc: its settings mean nothing here")
    return tried, missing


def chosen(known: Sequence[Setting], names: Sequence[str]) -> list[Setting]:
    """The settings in `names`, in their usual order, and always the unchanged service. Raises UsageError for unknown names."""
    by_name = {setting.name: setting for setting in known}
    for name in names:
        if name not in by_name:
            raise UsageError(f"no setting {name!r}", remedy=f"the known ones: {', '.join(by_name)}")
    return [setting for setting in known if not names or setting.name in names or setting.name == AS_IT_IS]
