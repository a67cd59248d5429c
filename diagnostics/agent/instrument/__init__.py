"""The agent in an app that asks for it: the ledger as ASGI middleware, and the monitor started beside the service."""
