"""What all tests share: servers from Debian are used where they are installed, named where they are not."""

from __future__ import annotations

import os
import shutil

import pytest

_MISSING = pytest.StashKey[set[tuple[str, str]]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_MISSING] = set()


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        command, package = marker.args
        if shutil.which(command) is None:
            item.config.stash[_MISSING].add((command, package))
            reason = f"{command} is not installed: apt-get install {package}"
            if os.environ.get("CI"):
                pytest.fail(f"{reason} (in CI a missing server is a failure)", pytrace=False)
            pytest.skip(reason)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for command, package in sorted(config.stash[_MISSING]):
        terminalreporter.write_line(f"not tested with {command}: it is missing; to get it: apt-get install {package}")
