"""What may be held: the budget of a stream, buffers with a bound and an overflow policy, the memory limit of the process."""
