"""The workers of the service: their discovery, the requests to their agents, and each one's memory and connections."""
