"""The start-up hook: gives a Python service that knows nothing of Highwater an agent, under a private name.

`diagnostics run` puts the folder `path/` first on PYTHONPATH; its sitecustomize calls `activate` in every Python process
that CMD starts. Most of them are not servers: an agent is started only once a process serves on a TCP port.
"""

from __future__ import annotations

import os

__all__ = ["HOOK_FOLDER"]

# The folder that `diagnostics run` puts first on PYTHONPATH.
HOOK_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "path")
