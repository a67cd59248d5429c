"""A capture's cost for the service: estimated before, watched during the window, measured after."""
