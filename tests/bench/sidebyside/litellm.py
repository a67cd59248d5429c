"""LiteLLM's proxy from PyPI, in an environment of its own: it cannot share one with the relay, and has half a gigabyte."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .peers import CHAT, Peer, Serving
from .processes import RELAY_CORE, free_port, started, wait_for_port
from .traffic import Traffic

PATIENCE_SECONDS = 180.0


def install(directory: Path) -> str | None:
    """Make the environment, unless it is there. What pip said where it does not install."""
    if (directory / "bin/litellm").exists():
        return None
    subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True)
    pip = [str(directory / "bin/pip"), "install", "--quiet", "--disable-pip-version-check", "litellm[proxy]"]
    done = subprocess.run(pip, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"pip ended with {done.returncode}"])[-1]
    return None


def litellm_peer(directory: Path) -> Peer:
    """One route for all models, one worker."""

    @contextlib.contextmanager
    def serve(traffic: Traffic, folder: Path, room: int) -> Iterator[Serving]:
        port = free_port()
        with tempfile.TemporaryDirectory(dir=folder) as private:
            config = Path(private) / "config.yaml"
            upstream = {"model": "openai/*", "api_base": traffic.upstream_url, "api_key": "unused"}
            # JSON is YAML.
            config.write_text(
                json.dumps({"model_list": [{"model_name": "*", "litellm_params": upstream}]}), encoding="utf-8"
            )
            env = {
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",
                "LITELLM_LOG": "ERROR",
                "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
                "HOME": private,
            }
            command = [
                str(directory / "bin/litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port),
            ]  # fmt: skip
            with started(command, RELAY_CORE, env, cwd=Path(private)) as process:
                wait_for_port(port, process, PATIENCE_SECONDS)
                yield Serving(process, f"http://127.0.0.1:{port}{CHAT}")

    return serve
