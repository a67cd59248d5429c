"""Public services under `diagnostics run`, and by themselves."""
