"""The HTML, script and style of the monitor's page."""
