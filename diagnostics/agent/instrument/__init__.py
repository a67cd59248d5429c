"""The agent for an app that calls `instrument`: the ledger as ASGI middleware, and the monitor started beside the service."""
