"""One relayed stream, from its call to its end."""
