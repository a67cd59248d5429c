"""Tasks and threads, the stacks where they wait, and the streams that they serve."""
