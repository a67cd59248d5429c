"""nginx configurations of the documentation, with the addresses of a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["addresses", "configuration", "whole_file"]

EXAMPLE = Path(__file__).parents[1] / "docs" / "deploy" / "nginx.conf"


def configuration(folder: Path, port: int, relays: Sequence[int], *, more: str = "", connections: int = 512) -> Path:
    """docs/deploy/nginx.conf for nginx on `port` in front of two relays; its access log is `access.log` in the folder.

    more   directives for the http block
    """
    here = {**addresses(port, relays), "/var/log/nginx/relay.log": f"{folder}/access.log"}
    return whole_file(folder, EXAMPLE.read_text(encoding="utf-8"), here, more=more, connections=connections)


def addresses(port: int, relays: Sequence[int]) -> dict[str, str]:
    """The addresses of nginx and two relays in the documentation, and those that they have here."""
    ports = {8000: port, 8080: relays[0], 8081: relays[1]}
    return {f"127.0.0.1:{there}": f"127.0.0.1:{here}" for there, here in ports.items()}


def whole_file(folder: Path, block: str, here: Mapping[str, str], *, more: str = "", connections: int = 512) -> Path:
    """What the documentation has of a http block as a file that nginx starts with. `here`: texts to be replaced, each once."""
    for there, instead in here.items():
        assert block.count(there) == 1, there
        block = block.replace(there, instead)
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    path = folder / "nginx.conf"
    path.write_text(
        f"daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr warn;\n"
        f"events {{ worker_connections {connections}; }}\nhttp {{ {temporary}{more}\n{block}}}\n",
        encoding="utf-8",
    )
    return path
