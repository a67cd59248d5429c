"""The nginx of docs/deploy, with the addresses of a test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

__all__ = ["configuration"]

EXAMPLE = Path(__file__).parents[1] / "docs" / "deploy" / "nginx.conf"


def configuration(folder: Path, port: int, relays: Sequence[int], *, more: str = "", connections: int = 512) -> Path:
    """The example as a whole file, for nginx on `port` in front of two relays; its access log is `access.log` in the folder.

    more   directives for the http block
    """
    block = EXAMPLE.read_text(encoding="utf-8")
    ours = {
        f"127.0.0.1:{there}": f"127.0.0.1:{here}"
        for there, here in {8000: port, 8080: relays[0], 8081: relays[1]}.items()
    }
    for there, here in {**ours, "/var/log/nginx/relay.log": f"{folder}/access.log"}.items():
        assert block.count(there) == 1, there
        block = block.replace(there, here)
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
