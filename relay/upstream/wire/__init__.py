"""An HTTP/1.1 client for upstreams: one asyncio protocol a connection, in a bounded pool."""
