"""The services under study: started, read through their monitors, and ended."""
