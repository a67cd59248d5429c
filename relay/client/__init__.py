"""The client's side: its connection, the reply written to it, and the responses that are served outside of the framework."""
