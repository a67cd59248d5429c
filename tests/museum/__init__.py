"""The museum: real leaks by pinned public releases, the releases that mended them, and healthy services that look ill."""
