"""Readings of allocations: the allocators' own figures, and the tracers tracemalloc and memray."""
