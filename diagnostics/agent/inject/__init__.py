"""The start-up hook: gives a Python service that knows nothing of Highwater an agent, under a private name.

`diagnostics run` puts the folder `path/` first on PYTHONPATH; its sitecustomize calls `activate` in every Python process
that CMD starts. Most of them are not servers: an agent is started only once a process listens on a TCP port.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["HOOK_FOLDER"]

# What goes first on PYTHONPATH.
HOOK_FOLDER = Path(__file__).parent / "path"
