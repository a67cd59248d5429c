"""What runs now, and what it waits for: tasks, threads, and the streams that they serve."""
