"""Runs a service with several allocators and settings: which of them saves memory, and at what cost in CPU time."""
