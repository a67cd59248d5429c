"""Runs all settings in interleaved rounds, so that changes of the machine's load affect all of them alike."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from ...errors import TargetError
from .settings import AS_IT_IS, Setting
from .trial import Trial, Work, run_trial

__all__ = ["interleaved"]


async def interleaved(
    work: Work, tried: Sequence[Setting], rounds: int, doing: Callable[[str, int], None]
) -> tuple[dict[str, list[Trial]], dict[str, str]]:
    """`rounds` rounds with a run of each setting, in an order that is rotated by one each round.

    Returns (setting -> trials, setting -> error). A setting under which the service fails is left out of further rounds and
    of the trials. Raises TargetError where the unchanged service fails. `doing(text, done)`: called before each run.
    """
    trials: dict[str, list[Trial]] = {setting.name: [] for setting in tried}
    failed: dict[str, str] = {}
    done = 0
    with tempfile.TemporaryDirectory(prefix="whatif-") as folder:
        for number in range(rounds):
            turn = number % len(tried)
            for setting in (*tried[turn:], *tried[:turn]):
                if setting.name in failed:
                    continue
                doing(f"round {number + 1} of {rounds}, {setting.name}", done)
                done += 1
                try:
                    trials[setting.name].append(await run_trial(work, setting, Path(folder)))
                except TargetError as error:
                    if setting.name == AS_IT_IS:
                        raise
                    failed[setting.name] = error.message
                    del trials[setting.name]
    return trials, failed
