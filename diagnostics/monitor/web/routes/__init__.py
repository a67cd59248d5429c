"""The monitor's routes, one file for each group; `monitor.web.app` puts them together."""
