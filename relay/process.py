"""What every process of the relay sets up for itself: its log and how many descriptors it may have."""

from __future__ import annotations

import contextlib
import logging
import resource
import sys

from .settings import Settings

__all__ = ["prepare"]


def prepare(settings: Settings) -> None:
    """Log to standard error as RELAY_LOG_LEVEL says, and take all descriptors that there are.

    Each stream has two connections, and the soft limit is often 1,024 descriptors.
    """
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    logging.getLogger("relay").setLevel(settings.log_level.upper())
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some systems name a limit that they do not grant
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
