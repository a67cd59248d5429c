"""The set-up that every process of the relay does at its start: its log, and its limit of file descriptors."""

from __future__ import annotations

import contextlib
import resource

from .. import telemetry
from ..log import configure
from ..settings import Settings

__all__ = ["prepare"]


def prepare(settings: Settings) -> None:
    """Log to standard error as RELAY_LOG_LEVEL and RELAY_LOG_FORMAT say, and raise the soft limit of descriptors.

    Each stream has two connections, and the soft limit is often 1,024 descriptors.
    """
    configure(settings.log_level, settings.log_format)
    telemetry.prepare()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some systems report a hard limit that they do not grant
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
