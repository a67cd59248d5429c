"""The process beside the service: everything that needs CPU, memory, dependencies or a port."""
