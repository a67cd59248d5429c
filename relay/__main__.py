"""The command `relay`, also as `python -m relay`: loads the commands, or says which extra they need.

The wheel always contains the relay's code; the packages that it imports come with the extra `relay`.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> int:
    """Run one command and return its exit code; 2 where a package that the relay imports is not installed."""
    try:
        from . import cli

        return cli.main()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("relay", "diagnostics"):
            raise
        print(
            f"relay: needs the module {error.name!r}, which is not installed; pip install 'highwater-diagnostics[relay]'",
            file=sys.stderr,
        )
        return 2


if __name__ == "__main__":
    sys.exit(main())
