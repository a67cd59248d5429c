"""What a capture costs the service: estimated before, watched while it goes on, measured after."""
