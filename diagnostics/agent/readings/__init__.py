"""One file for each kind of reading inside the service."""
