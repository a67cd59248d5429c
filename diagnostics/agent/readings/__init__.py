"""One file for each thing that can be read inside the service."""
