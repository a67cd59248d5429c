"""Pure: readings go in, answers come out. No clock, no thread, no socket, no file."""
