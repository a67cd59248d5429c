"""The steps that a walk over all objects takes for each of them, and what it remembers of them."""
