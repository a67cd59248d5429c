"""The option `--fleet` of the commands that run a monitor."""

from __future__ import annotations

import argparse

__all__ = ["add_fleet"]


def add_fleet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--fleet", metavar="WORD", action="append", default=[],
        help="monitors for the page /debug/memory/fleet, as `diagnostics fleet --targets` has them; repeatable",
    )  # fmt: skip
