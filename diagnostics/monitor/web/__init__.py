"""The HTTP side: routes, pages, metrics, and who may ask."""
