"""The monitor's routes, one file for each group; `monitor.http` puts them together."""
