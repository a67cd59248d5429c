"""The HTTP side: routes, pages, metrics, and access control."""
