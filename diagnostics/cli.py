"""The command `diagnostics`: a table of commands, and the one place where an error becomes an exit code.

Exit codes: 0 done, 1 the answer is no, 2 bad usage or input, 3 the target failed, 130 interrupted. `diagnostics run` ends
with the exit code of the command that it ran.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Protocol, cast

from .errors import DiagnosticsError
from .variables import misspelled

__all__ = ["COMMANDS", "main"]

# name -> (module in diagnostics.commands, one line of help, the extra that it needs)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "run": ("run", "run any Python service, unchanged, with a monitor beside it", "monitor"),
    "attach": ("attach", "the agent into a service that runs already, and a monitor beside it", "monitor"),
    "watch": ("watch", "a service that runs already, from outside: nothing is put into it", "monitor"),
    "monitor": ("monitor", "the monitor alone, for agents in a registry folder", "monitor"),
    "status": ("status", "balance, verdict and largest streams of a running service", "monitor"),
    "fleet": ("fleet", "many monitors at once: one table, the odd one out, captures of all, one profile", "monitor"),
    "rules": ("rules", "the rules of a monitor, what they did, and what rules would have done", "monitor"),
    "capture": ("capture", "take a capture of a running service and download it", "monitor"),
    "top": ("top", "which functions hold the memory, from any capture", ""),
    "list": ("list", "which source lines hold the memory, from any capture", ""),
    "diff": ("diff", "what changed between two captures", ""),
    "flamegraph": ("flamegraph", "a capture as a flame graph, one HTML file", ""),
    "convert": ("convert", "a capture in another format: pprof, JSON, folded stacks, HTML", ""),
    "fetch": ("fetch", "captures back from an object store, verified, for all commands above", "egress"),
    "blackbox": ("blackbox", "what the flight recorder last saw of a worker, from its file", ""),
    "scenarios": ("scenarios", "list the known blow-ups", "proof"),
    "reproduce": ("reproduce", "run a known blow-up and show it", "proof"),
    "verify": ("verify", "prove that a blow-up is real and that its fix is a fix", "proof"),
    "compare": ("compare", "the same proof for anyone's service: two commands, one decision each", "proof"),
    "whatif": ("whatif", "the same work under several allocators and settings: memory saved, CPU paid", "proof"),
    "load": ("load", "a fleet of streaming clients, some misbehaved: throughput, latency, errors", "proof"),
    "probe": ("probe", "one stream, step by step: connect, first event, gaps, and what holds events back", "proof"),
    "demo": ("demo", "the whole story in a minute: relay, blow-up, proof", "proof"),
}


class Command(Protocol):
    """The interface of a module in `diagnostics.commands`."""

    def configure(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, arguments: argparse.Namespace) -> int: ...


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # characters that the locale lacks become question marks
    try:
        parser = _parser(argv[0] if argv else None)
        arguments = parser.parse_args(argv)
        for name, meant in misspelled(os.environ).items():
            print(f"diagnostics: {name} is no setting; did you mean {meant}?", file=sys.stderr)
        return cast("Command", arguments.command_module).run(arguments)
    except DiagnosticsError as error:
        print(f"diagnostics: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("diagnostics: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output has closed the pipe (`diagnostics ... | head`): no failure.
        sys.stderr.close()
        return 0


def _parser(requested: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="diagnostics",
        description="Observability and memory diagnostics for streaming services.",
        epilog="exit codes: 0 done, 1 the answer is no, 2 bad usage or input, 3 the target failed",
    )
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, (module_name, summary, extra) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name == requested:
            module = cast("Command", _load(module_name, name, extra))
            module.configure(command)
            command.set_defaults(command_module=module)
    return parser


class _Version(argparse.Action):
    """Prints the version of the distribution and ends. Read only for this option, because that reads files."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version and end")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"highwater-diagnostics {version('highwater-diagnostics')}")
        parser.exit()


def _load(module_name: str, command: str, extra: str) -> object:
    try:
        return importlib.import_module(f".commands.{module_name}", __package__)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("diagnostics"):
            raise
        raise MissingExtraError(command, error.name, extra) from error


class MissingExtraError(DiagnosticsError):
    """A command needs an extra that is not installed."""

    code = "missing_extra"
    exit_code = 2

    def __init__(self, command: str, module: str, extra: str) -> None:
        super().__init__(
            f"`diagnostics {command}` needs the module {module!r}, which is not installed",
            remedy=f"pip install 'highwater-diagnostics[{extra}]'",
        )
