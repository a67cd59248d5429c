"""The services under test: started, watched through their monitors, and ended."""
