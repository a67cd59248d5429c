"""The files of the page that the monitor serves."""
