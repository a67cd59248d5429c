"""Lines of code in a live heap: which frame a stack is told by, what each line holds, and what it has gained."""
