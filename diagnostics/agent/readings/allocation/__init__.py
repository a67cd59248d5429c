"""What was allocated: the allocators' own figures, and the tracers of tracemalloc and memray."""
