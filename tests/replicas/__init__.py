"""Two replicas behind nginx, a shared Redis, and clients that are cut off: no stream may lose an event, or have one twice."""
