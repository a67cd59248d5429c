"""What the ledgers of a process tell, in one answer."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..ledger import StreamLedger
    from ..servers.snapshot import ServerLook

__all__ = ["add_transports", "merged"]


def merged(ledgers: list[StreamLedger], top: int) -> dict[str, Any]:
    """One answer for all ledgers of the process, of which there is one at least; one that mounts two apps may have two."""
    if len(ledgers) == 1:
        return ledgers[0].to_json(top)
    parts = [ledger.to_json(top) for ledger in ledgers]
    whole = parts[0]
    for number, part in enumerate(parts[1:], 2):
        whole["open"] += part["open"]
        whole["buffered_bytes"] += part["buffered_bytes"]
        whole["budget_bytes"] += part["budget_bytes"]
        whole["breakers"] += part["breakers"]
        whole["buffered_bytes_max"] = max(whole["buffered_bytes_max"], part["buffered_bytes_max"])
        if part["pool"]:
            whole["pool"] = {key: count + (whole["pool"] or {}).get(key, 0) for key, count in part["pool"].items()}
        if part["requests"]:
            requests = whole["requests"] or {}
            whole["requests"] = {key: count + requests.get(key, 0) for key, count in part["requests"].items()}
        if part["kept_bytes"] is not None:
            whole["kept_bytes"] = part["kept_bytes"] + (whole["kept_bytes"] or 0)
        if part["outbox"]:
            whole["outbox"] = {**(whole["outbox"] or {}), **part["outbox"]}
        whole["shared_limits"] = whole["shared_limits"] or part["shared_limits"]
        for reason, count in part["rejected"].items():
            whole["rejected"][reason] = whole["rejected"].get(reason, 0) + count
        for route, row in part["routes"].items():
            whole["routes"][route if route not in whole["routes"] else f"{route} ({number})"] = row
        whole["top"] += part["top"]
    whole["top"] = sorted(whole["top"], key=lambda row: -row["buffered_bytes"])[:top]
    return whole


def add_transports(rows: list[dict[str, Any]], look: ServerLook) -> None:
    """Add to each row of the ledger the bytes in its connection's transport, and the connection's file descriptor."""
    for row in rows:
        request = look.by_task.get(row["task"]) if row["task"] else None
        if request is not None:
            row["transport_bytes"], row["fd"] = request.transport_bytes, request.fd
