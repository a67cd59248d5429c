"""`diagnostics demo`: a tour in a minute. Exit code as of `diagnostics verify`.

1. starts the reference relay with its monitor, and the relay's simulated upstream
2. streams one chat completion through it with OpenAI's client, and reads memory and metrics during and after
3. proves a blow-up and its fix, and prints the paths of the flame graphs
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import httpx2
from openai import AsyncOpenAI, OpenAIError
from rich.console import Console

from ..errors import TargetError
from ..proof.experiment.session import until_done
from ..proof.subjects.processes import Process, start
from . import verify

__all__ = ["configure", "run"]

_SCENARIO = "unbounded_buffer"
_START_SECONDS = 30.0
_STREAM_SECONDS = 20.0
_MODEL = "sim:events=40,size=8,pace=20,seed=7"
# The event of the stream at which memory is read.
_READ_AT_EVENT = 20
_METRICS = ("stream_open_connections", "stream_events_total", "stream_buffered_bytes_max", "memory_rss_bytes")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--report",
        type=Path,
        default=Path("report"),
        metavar="DIR",
        help="for flame graphs and numbers (default: report)",
    )


def run(arguments: argparse.Namespace) -> int:
    console = Console(highlight=False, soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        until_done(_relay(console, Path(folder)))
    _heading(console, 3, "A blow-up, its fix, and the proof of both (about 40 s)")
    parser = argparse.ArgumentParser()
    verify.configure(parser)
    return verify.run(parser.parse_args([_SCENARIO, "--report", str(arguments.report)]))


async def _relay(console: Console, folder: Path) -> None:
    _heading(console, 1, "The relay, its monitor and a simulated upstream")
    command = [sys.executable, "-m", "relay", "serve", "--port", "0", "--diagnostics", "127.0.0.1:0"]
    # A real upstream in the user's environment would bill the demo.
    environment = {"RELAY_UPSTREAM_BASE_URL": "", "DIAGNOSTICS_DIR": str(folder / "registry")}
    async with start("relay", command, output=folder / "relay.log", environment=environment) as process:
        relay = (await process.line(r"^relay (http://\S+)$", _START_SECONDS))[1]
        memory = (await process.line(r"^diagnostics (http://\S+)$", _START_SECONDS))[1]
        console.print(f"relay        {relay}\ndiagnostics  {memory}")
        _heading(console, 2, "One chat completion through the relay, watched")
        async with httpx2.AsyncClient(timeout=10, trust_env=False) as http:
            await _stream(console, relay, memory, http, process)
            await _print_memory(console, "after", memory, http)
        console.print("\nThe relay is told to end (SIGTERM).")


async def _stream(console: Console, relay: str, memory: str, http: httpx2.AsyncClient, process: Process) -> None:
    try:
        async with (
            AsyncOpenAI(base_url=f"{relay}/v1", api_key="not-needed", max_retries=0, timeout=_STREAM_SECONDS) as client,
            await client.chat.completions.create(
                model=_MODEL, messages=[{"role": "user", "content": "Tell me a story."}], stream=True
            ) as events,
        ):
            number = 0
            async for event in events:
                number += 1
                if event.choices and event.choices[0].delta.content:
                    console.print(event.choices[0].delta.content, end="", markup=False)
                if number == _READ_AT_EVENT:
                    await _print_memory(console, "during", memory, http)
    except OpenAIError as error:
        raise TargetError(f"the relay failed the stream: {error!r}; its last output:\n{process.tail()}") from error
    console.print(f"\n{number} events received")


async def _print_memory(console: Console, when: str, memory: str, http: httpx2.AsyncClient) -> None:
    try:
        state = (await http.get(memory, headers={"accept": "application/json"})).raise_for_status().json()
        metrics = (await http.get(memory.removesuffix("/debug/memory") + "/metrics")).raise_for_status().text
    except httpx2.HTTPError as error:
        raise TargetError(f"the monitor at {memory} does not answer: {error!r}") from error
    console.print(f"\n--- {when} the stream, {memory} says")
    for worker in state["workers"]:
        bytes_ = worker["memory"]
        in_use = "unknown" if bytes_["in_use_bytes"] is None else f"{bytes_['in_use_bytes'] / 2**20:.1f} MiB"
        console.print(
            f"    worker {worker['worker']}: {in_use} in use, {bytes_['rss_bytes'] / 2**20:.1f} MiB resident,"
            f" {worker['tasks']} tasks, {worker['process']['fds']} files"
        )
    console.print("--- and /metrics")
    for line in metrics.splitlines():
        if line.startswith(_METRICS):
            console.print(f"    {line}", markup=False)
    console.print("---")


def _heading(console: Console, number: int, text: str) -> None:
    console.print(f"\n[bold]{number}. {text}[/]")
