"""HTTP/1.1 towards the upstream: one asyncio protocol a connection, a bounded pool of them, bytes of bodies only."""
