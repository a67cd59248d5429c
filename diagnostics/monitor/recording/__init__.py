"""What is kept of the past: readings once a second, in files that outlive a kill."""
