"""The command `relay`: `serve`, `check-config`, `hash-key`, `simulate`; the only place where an error becomes an exit code.

Exit codes: 0 done, 2 bad usage or settings, 3 a process that the relay needs failed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import sys
from getpass import getpass
from pathlib import Path
from typing import Any

from diagnostics import DiagnosticsError, MonitorProcess, start_monitor
from diagnostics.variables import misspelled as misspelled_for_monitor

from . import simulator
from .admission.keys import hash_of
from .errors import RelayError, SettingsError
from .serving.process import prepare
from .settings import SECRETS, Settings, environment_name, load, misspelled

__all__ = ["main"]

log = logging.getLogger("relay")

# The least length of a key that cannot be guessed; `openssl rand -hex 16` prints as many characters.
MIN_KEY_CHARACTERS = 32
# The flags of settings whose field has another name.
FLAGS = {"diagnostics_listen": "--diagnostics"}


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a character that the locale lacks becomes a question mark
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except (RelayError, DiagnosticsError) as error:
        print(f"relay: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:  # before the server handles the signal
        print("relay: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="relay",
        description="A relay for OpenAI-style streams, instrumented end to end.",
        epilog="exit codes: 0 done, 2 bad usage or settings, 3 something that the relay needs failed",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    serve = commands.add_parser(
        "serve",
        help="the relay and, beside it, its monitor",
        description="Serve the relay and start its monitor beside it; without an upstream, start the simulator too.",
        epilog="A flag overrides the environment variable that its help names; docs/configuration.md describes them.",
    )
    _add_settings(serve)
    serve.add_argument(
        "--no-diagnostics", action="store_true", help="start no monitor; the agent still keeps the ledger"
    )
    serve.set_defaults(run=_serve)
    check = commands.add_parser(
        "check-config",
        help="print the settings that `serve` would run with",
        description="Read the settings as `serve` does, print them, and start nothing. A key is shown as set or not.",
    )
    _add_settings(check)
    check.set_defaults(run=_check_config)
    hash_key = commands.add_parser(
        "hash-key",
        help="print what stands in RELAY_CLIENT_KEYS for a key",
        description="Read a key from standard input, its first line, and print its SHA-256 for RELAY_CLIENT_KEYS.",
        epilog="a key: openssl rand -hex 32",
    )
    hash_key.set_defaults(run=_hash_key)
    simulate = commands.add_parser(
        "simulate", help="the simulator alone", description="An OpenAI-compatible upstream with faults."
    )
    simulator.configure(simulate)
    simulate.set_defaults(run=simulator.run)
    return parser


def _add_settings(command: argparse.ArgumentParser) -> None:
    for name, field in Settings.model_fields.items():
        if name not in SECRETS:
            command.add_argument(
                FLAGS.get(name, "--" + name.replace("_", "-")),
                dest=name,
                metavar="HOST:PORT" if name == "diagnostics_listen" else "VALUE",
                help=f"{field.description} ({environment_name(name)}, default: {field.default})".replace("%", "%%"),
            )


def _settings(arguments: argparse.Namespace) -> Settings:
    return load(**{name: getattr(arguments, name) for name in Settings.model_fields if name not in SECRETS})


def _check_config(arguments: argparse.Namespace) -> int:
    settings = _settings(arguments)
    for name in Settings.model_fields:
        value = getattr(settings, name)
        text = "" if value is None else "(set)" if name in SECRETS else value
        print(f"{environment_name(name)}={text}")
    # The monitor's, too: of `serve` the monitor itself warns of them.
    for warning in _warnings({**misspelled(os.environ), **misspelled_for_monitor(os.environ)}):
        print(f"relay: {warning}", file=sys.stderr)
    return 0


def _warnings(slips: dict[str, str]) -> list[str]:
    return [f"{name} is no setting; did you mean {meant}?" for name, meant in slips.items()]


def _hash_key(_: argparse.Namespace) -> int:
    key = getpass("key: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
    if len(key) < MIN_KEY_CHARACTERS or not key.isascii() or not key.isprintable() or " " in key:
        raise SettingsError(
            f"a key is {MIN_KEY_CHARACTERS} or more printable ASCII characters without a space; {len(key)} were given",
            remedy="make one with `openssl rand -hex 32`",
        )
    print(hash_of(key.encode()))
    return 0


def _serve(arguments: argparse.Namespace) -> int:
    # For OTEL_* and DIAGNOSTICS_*, which OpenTelemetry, the agent and the monitor read from the environment.
    from dotenv import load_dotenv

    load_dotenv(Path(".env"))
    settings = _settings(arguments)
    prepare(settings)
    for warning in _warnings(misspelled(os.environ)):
        log.warning("%s", warning)
    return _run(settings, diagnostics=not arguments.no_diagnostics)


def _run(settings: Settings, *, diagnostics: bool) -> int:
    # Imported here, since `relay simulate` and --help need neither the web framework nor the HTTP client.
    from .serving.listener import bind, url_of
    from .serving.simulation import SimulatorProcess

    budget = settings.stream_budget
    with contextlib.ExitStack() as opened:
        listener = opened.enter_context(
            bind(
                settings.host,
                settings.port,
                budget.send_buffer_bytes,
                budget.request_buffer_bytes,
                settings.write_timeout_seconds,
            )
        )
        url = url_of(listener)
        monitor: MonitorProcess | None = None
        if diagnostics:
            directory = Path(settings.diagnostics_dir) if settings.diagnostics_dir else None
            monitor = start_monitor(settings.diagnostics_listen, directory, option="--diagnostics HOST:PORT")
            opened.callback(monitor.stop)
        child: SimulatorProcess | None = None
        upstream = settings.upstream_base_url
        if upstream is None:
            child = opened.enter_context(SimulatorProcess())
            upstream = child.url

        def announce() -> None:
            lines = [f"relay {url}"]
            if monitor is not None:
                lines.append(f"diagnostics {monitor.url}/debug/memory")
            lines.append(f"upstream {upstream}{' (simulator)' if child else ''}")
            print(*lines, sep="\n", flush=True)

        children: dict[str, Any] = {"the monitor": monitor, "the simulator": child}
        if settings.workers > 1:
            from .serving.supervisor import Supervisor

            return Supervisor(settings, listener, upstream, monitor, announce, lambda: _look_at(children)).run()
        from .serving.worker import serve

        return serve(settings, listener, upstream, monitor, announce, lambda: _look_at(children))


def _look_at(children: dict[str, Any]) -> None:
    """Log once that a child process has ended; the relay goes on without it."""
    for name, child in children.items():
        if child is not None and not child.alive():
            children[name] = None
            log.warning("%s (pid %s) has ended; the relay goes on without it", name, child.pid)
