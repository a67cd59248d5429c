"""The same work under several allocators and settings: which of them saves memory, and what it costs in CPU."""
