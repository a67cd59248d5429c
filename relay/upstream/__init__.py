"""The upstream's side: requests, their transport, retries, the circuit breaker, fallbacks."""
