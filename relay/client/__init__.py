"""The client's side: its connection, the reply that is written to it, and what is served outside of the framework."""
