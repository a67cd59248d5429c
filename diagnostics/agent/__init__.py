"""Lives inside the service: standard library only, one thread, imported in milliseconds.

It keeps the ledger, answers small questions over a unix socket, starts and stops tracers, and forks for heavy readings.
It renders nothing and stores nothing. All imports in here are relative: the package is also loaded under a private name
into services that have a `diagnostics` package of their own.
"""
