"""Bounds of memory: the budget of a stream and of all requests, buffers with overflow policies, the process's memory limit."""
